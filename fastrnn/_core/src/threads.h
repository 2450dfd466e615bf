/* threads.h - the one place that opens a parallel region. */
#ifndef FR_THREADS_H
#define FR_THREADS_H
#include <stdatomic.h>
#include <stddef.h>
#include "fastrnn.h"

/* Work is below this many floating-point operations: one thread does it faster than two agree on it. */
#define FR_WORTH_THREADS 3e6

/* Runs body(argument, thread, threads) once on each of `threads` threads. A forked child gets one thread: the
 * OpenMP runtime of its parent did not survive the fork. */
void fr_parallel(int threads, void (*body)(void *argument, int thread, int threads), void *argument);

/* Shared by the threads of one call: has the caller asked to stop? Thread 0 asks, the others look. Only thread 0 may ask
 * (it is the caller's own), so it must not fall asleep at a barrier while the others work: it waits in the functions
 * below, asking. */
struct fr_watch {
    const struct fr_control *control;
    double asked;
    atomic_int stop, arrived;
};
void fr_watch_start(struct fr_watch *, const struct fr_control *);
int fr_stopped(struct fr_watch *, int thread);

/* The n-th time (from 1) that the threads of a call come together: the others go on at once, thread 0 when all are
 * there. The last thing that a body does. */
void fr_gather(struct fr_watch *, int thread, int threads, int n);

/* The same, but all wait for all. */
void fr_barrier(struct fr_watch *, int thread, int threads, int n);

/* First of the items that belong to `thread` when `n` items are dealt out evenly; thread + 1 gives the end. */
static inline ptrdiff_t fr_share(ptrdiff_t n, int thread, int threads) { return n / threads * thread + n % threads * thread / threads; }
#endif

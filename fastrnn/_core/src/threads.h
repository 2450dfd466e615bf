/* threads.h - the one place that opens a parallel region, and where its threads wait for each other. */
#ifndef FR_THREADS_H
#define FR_THREADS_H
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include "fastrnn.h"

/* Work is below this many floating-point operations: one thread does it faster than two agree on it. */
#define FR_WORTH_THREADS 3e6

/* A place where `members` threads wait for each other, any number of times. One cache line: they spin on it. */
struct fr_meeting {
    _Atomic int64_t arrivals;
    char line[56];
};

/* Shared by the threads of one region: has the caller asked to stop? Thread 0, which is the caller's own, asks; the
 * others look. So thread 0 must not fall asleep while the others work: it waits in the functions below, asking. */
struct fr_watch {
    const struct fr_control *control;
    double asked;
    atomic_int stop;
    struct fr_meeting end;
};
void fr_watch_start(struct fr_watch *, const struct fr_control *);
int fr_stopped(struct fr_watch *, int thread);

/* Runs body(argument, thread, threads) once on each of `threads` threads. A forked child gets one thread: the
 * OpenMP runtime of its parent did not survive the fork. Without a watch (NULL) nobody can stop the work: for short jobs. */
void fr_parallel(struct fr_watch *, int threads, void (*body)(void *argument, int thread, int threads), void *argument);

/* Waits until the counter has reached `least`, or the call is stopped. */
void fr_wait_for(struct fr_watch *, _Atomic int64_t *counter, int thread, int64_t least);

/* The n-th meeting (from 1): waits until all members have come n times. What a member wrote before, all see after. Once
 * the call is stopped nobody waits. */
void fr_meet(struct fr_watch *, struct fr_meeting *, int thread, int members, int64_t n);

/* Rows [row0,row1) of a batch and, of their visits, those in [from,till): see visits.h. */
struct fr_piece {
    ptrdiff_t row0, row1, from, till;
};

/* Threads that share out a batch while they are at work, for no two cores are equally fast all the time: `busy` of them
 * have a piece each, those that are done wait to be given a part of another's. Zeros, but for `busy`, at first. */
struct fr_pool {
    struct fr_piece piece;
    atomic_int busy, waiting, place; /* place: is a piece being handed over? */
    char line[64 - sizeof(struct fr_piece) - 3 * sizeof(atomic_int)];
};

/* Does anyone wait for work, and is it for the caller to give it? Then it must call fr_give. */
int fr_may_give(struct fr_pool *);
void fr_give(struct fr_pool *, struct fr_piece);

/* For a thread without a piece: waits for one, at work on its core, for so many seconds. 0: none came, all are done, or the
 * call is stopped. was_busy: it has done a piece of this pool. */
int fr_receive(struct fr_watch *, struct fr_pool *, int thread, int was_busy, double patience, struct fr_piece *);

/* Is no piece in work any more? What the others wrote, all see then. The second waits for it. */
int fr_all_done(struct fr_pool *);
void fr_wait_for_all(struct fr_watch *, struct fr_pool *, int thread);

/* First of the items that belong to `thread` when `n` items are dealt out evenly; thread + 1 gives the end. */
static inline ptrdiff_t fr_share(ptrdiff_t n, int thread, int threads) { return n / threads * thread + n % threads * thread / threads; }
#endif

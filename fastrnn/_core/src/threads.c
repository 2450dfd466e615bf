#include "threads.h"
#include <time.h>
#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sched.h>
#endif

static atomic_int forked;

#if defined(__unix__) || defined(__APPLE__)
static void in_child(void) { atomic_store(&forked, 1); }
__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(NULL, NULL, in_child); }
#endif

int fr_openmp_version(void)
{
#if defined(_OPENMP)
    return _OPENMP;
#else
    return 0;
#endif
}

void fr_parallel(int threads, void (*body)(void *argument, int thread, int threads), void *argument)
{
#if defined(_OPENMP)
    if (threads > 1 && !atomic_load(&forked)) {
        #pragma omp parallel num_threads(threads)
        body(argument, omp_get_thread_num(), omp_get_num_threads());
        return;
    }
#endif
    (void)threads;
    body(argument, 0, 1);
}

static double seconds(void)
{
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void fr_watch_start(struct fr_watch *w, const struct fr_control *control)
{
    w->control = control;
    w->asked = control->interrupted ? seconds() : 0;
    atomic_init(&w->stop, 0);
    atomic_init(&w->arrived, 0);
}

int fr_stopped(struct fr_watch *w, int thread)
{
    if (thread == 0 && w->control->interrupted) {
        double now = seconds();
        if (now - w->asked > 0.05 || now < w->asked) {
            w->asked = now;
            if (w->control->interrupted(w->control->argument)) atomic_store_explicit(&w->stop, 1, memory_order_relaxed);
        }
    }
    return atomic_load_explicit(&w->stop, memory_order_relaxed);
}

/* Gives the core away between looks: at once to another thread that is ready, after a while for longer. */
static void rest(int looks)
{
#if defined(__unix__) || defined(__APPLE__)
    if (looks < 2000) sched_yield();
    else nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
#else
    (void)looks;
#endif
}

void fr_gather(struct fr_watch *w, int thread, int threads, int n)
{
    if (thread > 0) {
        atomic_fetch_add_explicit(&w->arrived, 1, memory_order_release);
        return;
    }
    for (int looks = 0; atomic_load_explicit(&w->arrived, memory_order_acquire) < n * (threads - 1); looks++) {
        fr_stopped(w, 0);
        rest(looks);
    }
}

void fr_barrier(struct fr_watch *w, int thread, int threads, int n)
{
    if (threads == 1) return;
    fr_gather(w, thread, threads, n);
#if defined(_OPENMP)
    #pragma omp barrier
#endif
}

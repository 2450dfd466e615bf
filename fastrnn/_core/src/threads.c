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
    atomic_init(&w->end.arrivals, 0);
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

/* Between two looks at a meeting: the others are mostly a fraction of a microsecond away, so first a short pause; then,
 * for they may have lost their core to another process, the core to whoever is ready; after a while sleep. */
enum { SPINS = 1000, YIELDS = 500 };
static void rest(int looks)
{
    if (looks < SPINS) {
#if defined(FASTRNN_X86)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
        return;
    }
#if defined(__unix__) || defined(__APPLE__)
    if (looks < SPINS + YIELDS) sched_yield();
    else nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
#endif
}

void fr_wait_for(struct fr_watch *w, _Atomic int64_t *counter, int thread, int64_t least)
{
    for (int looks = 0; atomic_load_explicit(counter, memory_order_acquire) < least; looks++) {
        if (looks >= SPINS && fr_stopped(w, thread)) return;
        rest(looks);
    }
}

void fr_meet(struct fr_watch *w, struct fr_meeting *meeting, int thread, int members, int64_t n)
{
    if (members == 1) return;
    atomic_fetch_add_explicit(&meeting->arrivals, 1, memory_order_acq_rel);
    fr_wait_for(w, &meeting->arrivals, thread, n * members);
}

enum { EMPTY, FILLING, FULL, EMPTYING };

/* Takes one off those that wait: it is to get a piece, or goes away. */
static int one_less(struct fr_pool *pool)
{
    int waiting = atomic_load(&pool->waiting);
    while (waiting > 0)
        if (atomic_compare_exchange_weak(&pool->waiting, &waiting, waiting - 1)) return 1;
    return 0;
}

int fr_may_give(struct fr_pool *pool)
{
    int empty = EMPTY;
    if (atomic_load_explicit(&pool->waiting, memory_order_relaxed) == 0) return 0;
    if (!atomic_compare_exchange_strong(&pool->place, &empty, FILLING)) return 0;
    if (one_less(pool)) return 1;
    atomic_store(&pool->place, EMPTY);
    return 0;
}

void fr_give(struct fr_pool *pool, struct fr_piece piece)
{
    pool->piece = piece;
    atomic_fetch_add(&pool->busy, 1); /* for the thread that will take it: the work is not done yet */
    atomic_store(&pool->place, FULL);
}

int fr_all_done(struct fr_pool *pool) { return atomic_load(&pool->busy) == 0; }

int fr_receive(struct fr_watch *w, struct fr_pool *pool, int thread, int was_busy, double patience, struct fr_piece *piece)
{
    const double start = seconds();
    atomic_fetch_add(&pool->waiting, 1);
    if (was_busy) atomic_fetch_sub(&pool->busy, 1);
    for (int looks = 0;; looks++) {
        int full = FULL;
        if (atomic_load_explicit(&pool->place, memory_order_relaxed) == FULL && atomic_compare_exchange_strong(&pool->place, &full, EMPTYING)) {
            *piece = pool->piece;
            atomic_store(&pool->place, EMPTY);
            return 1;
        }
        if (fr_all_done(pool)) return 0;
        if (looks % 64 == 63) {
            if (fr_stopped(w, thread)) return 0;
            const double waited = seconds() - start;
            if ((waited >= patience || waited < 0) && one_less(pool)) return 0;
        }
        rest(0);
    }
}

void fr_wait_for_all(struct fr_watch *w, struct fr_pool *pool, int thread)
{
    for (int looks = 0; !fr_all_done(pool); looks++) {
        if (looks >= SPINS && fr_stopped(w, thread)) return;
        rest(looks);
    }
}

void fr_parallel(struct fr_watch *w, int threads, void (*body)(void *argument, int thread, int threads), void *argument)
{
#if defined(_OPENMP)
    if (threads > 1 && !atomic_load(&forked)) {
        #pragma omp parallel num_threads(threads)
        {
            const int thread = omp_get_thread_num(), all = omp_get_num_threads();
            body(argument, thread, all);
            if (w && thread > 0) atomic_fetch_add_explicit(&w->end.arrivals, 1, memory_order_release);
            if (w && thread == 0) fr_wait_for(w, &w->end.arrivals, 0, all - 1); /* asking; the region's own end would not */
        }
        return;
    }
#endif
    (void)w, (void)threads;
    body(argument, 0, 1);
}


/* barrier.c - what it costs that threads wait for each other: OpenMP's barrier, own ones, and a whole parallel region.
 *
 *     python -m benchmarks.kernels barrier [threads [busy]]      (without taskset: threads need cores)
 *     busy: so many more threads of this process spin all the time, so that cores are taken away
 */
#include "lab.h"
#include <omp.h>
#include <pthread.h>
#include <sched.h>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(__x86_64__)
#define PAUSE __builtin_ia32_pause()
#else
#define PAUSE (void)0
#endif

/* Who comes last starts the next generation. Those who wait look at `generation`: `spins` times, then giving the core
 * away `yields` times, then asleep. Each word on its own cache line. */
struct barrier {
    _Alignas(64) atomic_int missing;
    _Alignas(64) atomic_uint generation;
    _Alignas(64) atomic_int asleep;
    int threads, spins, yields;
};
static struct barrier own;

static void wait_for_change(struct barrier *b, unsigned seen)
{
    for (int i = 0; i < b->spins; i++) {
        if (atomic_load_explicit(&b->generation, memory_order_acquire) != seen) return;
        PAUSE;
    }
    for (int i = 0; i < b->yields; i++) {
        if (atomic_load_explicit(&b->generation, memory_order_acquire) != seen) return;
        sched_yield();
    }
#if defined(__linux__)
    atomic_fetch_add(&b->asleep, 1);
    while (atomic_load(&b->generation) == seen) syscall(SYS_futex, &b->generation, FUTEX_WAIT_PRIVATE, seen, NULL,
            NULL, 0);
    atomic_fetch_sub(&b->asleep, 1);
#else
    while (atomic_load_explicit(&b->generation, memory_order_acquire) == seen) sched_yield();
#endif
}

static void own_barrier(struct barrier *b)
{
    const unsigned seen = atomic_load_explicit(&b->generation, memory_order_relaxed);
    if (atomic_fetch_sub_explicit(&b->missing, 1, memory_order_acq_rel) > 1) {
        wait_for_change(b, seen);
        return;
    }
    atomic_store_explicit(&b->missing, b->threads, memory_order_relaxed);
    atomic_store(&b->generation, seen + 1);
#if defined(__linux__)
    if (atomic_load(&b->asleep)) syscall(SYS_futex, &b->generation, FUTEX_WAKE_PRIVATE, b->threads, NULL, NULL, 0);
#endif
}

/* No counter: each thread says on a line of its own how far it is, and looks at the lines of all others. */
enum { MOST = 64, NEVER = 1 << 30, ROUNDS = 200 };
static struct { _Alignas(64) atomic_uint reached; } flags[MOST];

static void flag_barrier(int thread, int threads, int spins)
{
    const unsigned here = atomic_load_explicit(&flags[thread].reached, memory_order_relaxed) + 1;
    atomic_store_explicit(&flags[thread].reached, here, memory_order_release);
    for (int t = 0; t < threads; t++)
        for (int i = 0; (int)(atomic_load_explicit(&flags[t].reached, memory_order_acquire) - here) < 0; i++) {
            if (i < spins) PAUSE;
            else sched_yield();
        }
}

static int threads = 2;

static void prepare_own(int spins, int yields)
{
    own.missing = own.threads = threads;
    own.spins = spins;
    own.yields = yields;
}

/* A little over 1 us of work, so that the threads do not arrive at once. */
static void work(int steps)
{
    for (int i = 0; i < steps; i++) __asm__ volatile("" ::: "memory");
}

#define SCHEME(name, prepare, wait, steps)                                                \
    static void run_##name(const void *unused)                                            \
    {                                                                                     \
        (void)unused;                                                                     \
        prepare;                                                                          \
        _Pragma("omp parallel num_threads(threads)")                                      \
        {                                                                                 \
            const int thread = omp_get_thread_num();                                      \
            (void)thread;                                                                 \
            for (int i = 0; i < ROUNDS; i++) {                                            \
                work(steps);                                                              \
                wait;                                                                     \
            }                                                                             \
        }                                                                                 \
    }
#define NOTHING (void)0
enum { SOME = 4000 };
SCHEME(no_barrier, NOTHING, NOTHING, SOME)
SCHEME(openmp, NOTHING, _Pragma("omp barrier"), SOME)
SCHEME(spin, prepare_own(NEVER, 0), own_barrier(&own), SOME)
SCHEME(yield, prepare_own(2000, NEVER), own_barrier(&own), SOME)
SCHEME(futex, prepare_own(2000, 50), own_barrier(&own), SOME)
SCHEME(futex_soon, prepare_own(2000, 0), own_barrier(&own), SOME)
SCHEME(flags, NOTHING, flag_barrier(thread, threads, NEVER), SOME)
SCHEME(flags_yield, NOTHING, flag_barrier(thread, threads, 2000), SOME)

static void run_region(const void *unused)
{
    (void)unused;
    for (int i = 0; i < ROUNDS; i++) {
        #pragma omp parallel num_threads(threads)
        work(SOME);
    }
}

static void *busy(void *unused)
{
    (void)unused;
    for (;;) work(1 << 20);
    return NULL;
}

/* After every barrier all threads see that all have counted. */
static void check(void)
{
    static atomic_int wrong;
    static atomic_long sum;
    for (int kind = 0; kind < 4; kind++) {
        prepare_own(kind == 1 ? NEVER : 10, kind == 2 ? 2 : 0);
        sum = 0;
        #pragma omp parallel num_threads(threads)
        for (long i = 1; i <= 3000; i++) {
            atomic_fetch_add(&sum, 1);
            kind ? own_barrier(&own) : flag_barrier(omp_get_thread_num(), threads, 10);
            if (atomic_load(&sum) != i * threads) wrong = 1;
            kind ? own_barrier(&own) : flag_barrier(omp_get_thread_num(), threads, 10);
        }
    }
    if (!wrong) return;
    fprintf(stderr, "a barrier let somebody through\n");
    exit(1);
}

#define RUNNER(function, says) { .name = says, .run = run_##function, .work = ROUNDS }
int main(int argc, char **argv)
{
    if (argc > 1) threads = atoi(argv[1]);
    check();
    for (int i = 0; i < (argc > 2 ? atoi(argv[2]) : 0); i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, busy, NULL);
    }
    struct runner r[] = {
        RUNNER(no_barrier, "(the work alone)"),
        RUNNER(openmp, "omp barrier"),
        RUNNER(spin, "one counter, spinning for ever"),
        RUNNER(yield, "  2000 looks, then sched_yield"),
        RUNNER(futex, "  2000 looks, 50 yields, then futex"),
        RUNNER(futex_soon, "  2000 looks, then futex"),
        RUNNER(flags, "a flag a thread, spinning for ever"),
        RUNNER(flags_yield, "  2000 looks, then sched_yield"),
        RUNNER(region, "a parallel region"),
    };
    enum { RIVALS = sizeof r / sizeof *r };
    lab_race(r, RIVALS, 4);
    printf("\n%d threads, about a microsecond of work between barriers\n%-44s %10s %10s\n", threads,
            "us beyond the work", "best", "median");
    for (int i = 0; i < RIVALS; i++)
        printf("%-44s %10.3f %10.3f\n", r[i].name, 1e6 * (r[i].best - (i ? r[0].best : 0)) / ROUNDS,
                1e6 * (r[i].middle - (i ? r[0].middle : 0)) / ROUNDS);
    return 0;
}

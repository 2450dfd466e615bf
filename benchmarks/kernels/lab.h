/* lab.h - what every experiment of the lab needs: the project's own kernels for float as incumbents, memory filled with
 * numbers, a check against a plain double loop, and a race.
 *
 * A race lets its runners take turns of a few milliseconds in one process, so that a disturbance of the machine meets
 * all of them, and prints the minimum and the median of each with its share of the FMA peak, which is one of the runners. */
#ifndef LAB_H
#define LAB_H
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

/* All kernels of one instruction set, under the name of the one build that dispatch.c asks for. */
#define ISA baseline
#include "build.h"

/* build.h ends with double; the lab is about float. */
#undef REAL
#undef REAL_IS_FLOAT
#undef SUFFIX
#undef VW
#define REAL float
#define REAL_IS_FLOAT 1
#define SUFFIX _f32
#define VW (VECTOR_BYTES / 4)
typedef FN(vec) vec;

static double lab_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* n floats on a page of their own, in [-1, 1]; never freed. Large blocks ask for huge pages, as memory.c does. */
static float *lab_numbers(ptrdiff_t n)
{
    const size_t huge = (size_t)1 << 21, bytes = (size_t)n * sizeof(float), align = bytes >= 2 * huge ? huge : 4096;
    float *p = aligned_alloc(align, (bytes + align) / align * align);
    if (!p) abort();
#if defined(__linux__)
    if (align == huge) madvise(p, bytes / align * align, MADV_HUGEPAGE);
#endif
    static uint64_t state = 1;
    for (ptrdiff_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        p[i] = (float)((double)(state >> 40) / (1 << 23) - 1);
    }
    return p;
}

/* Largest difference between n results and what a double loop gave, as a share of the largest of the latter. */
static void lab_check(const char *name, const float *got, const double *wanted, ptrdiff_t n, double allowed)
{
    double worst = 0, largest = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        const double d = fabs((double)got[i] - wanted[i]);
        if (!(d <= worst)) worst = d; /* NaN too */
        if (fabs(wanted[i]) > largest) largest = fabs(wanted[i]);
    }
    if (worst <= allowed * largest) return;
    fprintf(stderr, "%s is wrong: off by %.3g of the largest value\n", name, worst / largest);
    exit(1);
}

struct runner {
    const char *name;
    void (*run)(const void *problem);
    const void *problem;
    double work; /* of one run: floating-point operations, bytes, elements */
    double best, middle;
    int repeats;
    double *turns;
};

enum { LAB_TURNS = 400 };

static int lab_rising(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Turns of about 2 ms until `seconds` are over; fills best and middle, in seconds a run. */
static void lab_race(struct runner *r, int n, double seconds)
{
    for (int i = 0; i < n; i++) {
        r[i].turns = malloc(LAB_TURNS * sizeof(double));
        for (r[i].repeats = 1;; r[i].repeats *= 2) {
            const double start = lab_now();
            for (int k = 0; k < r[i].repeats; k++) r[i].run(r[i].problem);
            const double took = lab_now() - start;
            if (took > 1e-3) {
                r[i].repeats = 1 + (int)(2e-3 / took * r[i].repeats);
                break;
            }
        }
    }
    int turn = 0;
    for (const double end = lab_now() + seconds; turn < LAB_TURNS && (turn < 5 || lab_now() < end); turn++)
        for (int i = 0; i < n; i++) {
            r[i].run(r[i].problem); /* brings its own data into the caches */
            const double start = lab_now();
            for (int k = 0; k < r[i].repeats; k++) r[i].run(r[i].problem);
            r[i].turns[turn] = (lab_now() - start) / r[i].repeats;
        }
    for (int i = 0; i < n; i++) {
        qsort(r[i].turns, (size_t)turn, sizeof(double), lab_rising);
        r[i].best = r[i].turns[0];
        r[i].middle = r[i].turns[turn / 2];
        free(r[i].turns);
    }
}

/* One line a runner: work per ns at best and in the middle, and the share of runner 0, which is the limit. */
static void lab_print(const char *title, const char *unit, const struct runner *r, int n)
{
    printf("\n%s\n%-44s %12s %10s %10s %6s\n", title, "", "best us", unit, "median", "%");
    for (int i = 0; i < n; i++)
        printf("%-44s %12.3f %10.2f %10.2f %6.1f\n", r[i].name, 1e6 * r[i].best, 1e-9 * r[i].work / r[i].best,
               1e-9 * r[i].work / r[i].middle, 100 * r[i].work / r[i].best / (r[0].work / r[0].best));
    fflush(stdout);
}

/* Multiply-adds on registers alone: 12 chains, more than latency times throughput anywhere. */
static void lab_peak(const void *unused)
{
    (void)unused;
    vec sum[12], x = FN(splat)(1e-6f), y = FN(splat)(1e-7f);
    UNROLL for (int i = 0; i < 12; i++) sum[i] = FN(splat)((float)i);
    for (int k = 0; k < 4000; k++) {
        UNROLL for (int i = 0; i < 12; i++) sum[i] = FN(fused)(x, y, sum[i]);
        UNROLL for (int i = 0; i < 12; i++) IN_REGISTER(sum[i]);
    }
}
static const struct runner lab_peak_runner = { .name = "(FMA peak)", .run = lab_peak, .work = 2.0 * VW * 12 * 4000 };

#endif

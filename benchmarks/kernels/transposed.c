/* transposed.c - d h [n, H] += dz [n, G*H] U^T of one backward step. dz lies in the gates buffer,
 * [panel][visit][G][UNITS*VW]: a row of it is cut into runs of G*UNITS*VW numbers, one for each panel of units. What do
 * the runs cost, and is it worth while to copy dz into dense rows first?
 *
 * U^T is packed as [H/(4 VW)][k][4 VW], or in halves [H/(2 VW)][k][2 VW].
 *
 *     python -m benchmarks.kernels transposed [H visits [n ...]]
 */
#include "tile.h"

#if !defined(UNITS)
#define UNITS 1 /* vectors of units of a panel */
#endif
enum { G = 4, RUN = G * UNITS * VW };

struct problem {
    ptrdiff_t n, H, K, panels; /* K = G*H = panels*RUN */
    ptrdiff_t gates_panel;     /* from panel to panel in the gates buffer */
    const float **gates;       /* rows of dz where they lie, panel 0 */
    const float **rows;        /* of `dense`, K + 16 apart */
    float *dense;
    float **c;
    const float *panel, *halves;
};

/* As pack.h packs it for these tiles. */
static const float *packed_as_now(const struct problem *p) { return FN(part_vectors) == 2 ? p->halves : p->panel; }

static void run_incumbent(const void *problem)
{
    const struct problem *p = problem;
    for (ptrdiff_t block = 0; block < p->H / WIDE; block++) {
        const ptrdiff_t ldb = FN(part_vectors) * VW;
        const struct FN(factor) f = { .b = packed_as_now(p) + block * p->K * WIDE, .ldb = ldb, .part = p->K * ldb,
                                      .segments = (int)p->panels, .length = RUN, .last = RUN,
                                      .a_step = p->gates_panel, .b_step = RUN * ldb };
        FN(multiply_rows)(4, p->n, p->gates, 0, p->c, block * WIDE, &f, NULL);
    }
}

static void copy_rows(const struct problem *p)
{
    for (ptrdiff_t q = 0; q < p->panels; q++)
        for (ptrdiff_t m = 0; m < p->n; m++)
            for (int j = 0; j < RUN; j += VW)
                FN(store)(p->dense + m * (p->K + 16) + q * RUN + j, FN(load)(p->gates[m] + q * p->gates_panel + j));
}
static void run_copy(const void *problem) { copy_rows(problem); }

static void dense_incumbent(const struct problem *p)
{
    for (ptrdiff_t block = 0; block < p->H / WIDE; block++) {
        const ptrdiff_t ldb = FN(part_vectors) * VW;
        const struct FN(factor) f = FN(dense_factor)(packed_as_now(p) + block * p->K * WIDE, ldb, p->K * ldb, p->K);
        FN(multiply_rows)(4, p->n, p->rows, 0, p->c, block * WIDE, &f, NULL);
    }
}
static void run_dense_incumbent(const void *problem) { dense_incumbent(problem); }
static void run_copied_incumbent(const void *problem) { copy_rows(problem); dense_incumbent(problem); }

/* Tiles of 6x2 over runs; without runs, segments = 1. */
typedef void (*run_tile)(const float *const *a, ptrdiff_t a0, float *const *c, ptrdiff_t c0, const float *b,
                         ptrdiff_t segments, ptrdiff_t a_step, ptrdiff_t length);
#define RUN_TILE(name, MR, each, ldb, runs)                                                                       \
    static NOINLINE void name(const float *const *a, ptrdiff_t a0, float *const *c, ptrdiff_t c0, const float *b,  \
                              ptrdiff_t segments, ptrdiff_t a_step, ptrdiff_t length)                              \
    {                                                                                                              \
        tile(MR, 2, LOADS_FOLDED, each, 0, runs, a, a0, c, c0, b, ldb, 0, segments, a_step, length, b);                \
    }
#define RUN_TILES(name, ...)                                                                                       \
    RUN_TILE(name##_1, 1, __VA_ARGS__) RUN_TILE(name##_2, 2, __VA_ARGS__) RUN_TILE(name##_3, 3, __VA_ARGS__)       \
    RUN_TILE(name##_4, 4, __VA_ARGS__) RUN_TILE(name##_5, 5, __VA_ARGS__) RUN_TILE(name##_6, 6, __VA_ARGS__)       \
    static const run_tile name[7] = { 0, name##_1, name##_2, name##_3, name##_4, name##_5, name##_6 };
RUN_TILES(half, 4, WIDE, 0)
RUN_TILES(apart, 4, HALF, 0)
RUN_TILES(apart_fetched, 4, HALF, (RUN + 15) / 16)

/* Blocks of `runs` runs (dense: of runs*RUN k). */
ALWAYS_INLINE void multiply(const struct problem *p, const run_tile *tiles, ptrdiff_t runs, int dense,
        const float *b, ptrdiff_t ldb, ptrdiff_t c0)
{
    const ptrdiff_t count = (p->n + 5) / 6, base = p->n / count, larger = p->n % count;
    if (count == 1) runs = p->panels;
    for (ptrdiff_t q = 0; q < p->panels; q += runs) {
        const ptrdiff_t now = p->panels - q < runs ? p->panels - q : runs;
        for (ptrdiff_t t = 0, m = 0; t < count; t++) {
            const ptrdiff_t height = base + (t < larger);
            if (dense) tiles[height](p->rows + m, q * RUN, p->c + m, c0, b + q * RUN * ldb, 1, 0, now * RUN);
            else tiles[height](p->gates + m, q * p->gates_panel, p->c + m, c0, b + q * RUN * ldb, now,
                    p->gates_panel, RUN);
            m += height;
        }
    }
}

#define SCHEME(scheme, tiles, k, dense, before, b_of_part, ldb)                                            \
    static void run_##scheme(const void *problem)                                                          \
    {                                                                                                      \
        const struct problem *p = problem;                                                                 \
        before;                                                                                            \
        for (ptrdiff_t block = 0; block < p->H / WIDE; block++)                                            \
            for (int h = 0; h < 2; h++)                                                                    \
                multiply(p, tiles, (k) / RUN, dense, b_of_part, ldb, block * WIDE + h * HALF);              \
    }
SCHEME(half_runs, half, KC, 0, (void)0, p->panel + block * p->K * WIDE + h * HALF, WIDE)
SCHEME(half_copied, half, KC, 1, copy_rows(p), p->panel + block * p->K * WIDE + h * HALF, WIDE)
SCHEME(apart_runs, apart, KC, 0, (void)0, p->halves + (2 * block + h) * p->K * HALF, HALF)
SCHEME(apart_runs_256, apart, 256, 0, (void)0, p->halves + (2 * block + h) * p->K * HALF, HALF)
SCHEME(apart_runs_512, apart, 512, 0, (void)0, p->halves + (2 * block + h) * p->K * HALF, HALF)
SCHEME(apart_fetched, apart_fetched, 256, 0, (void)0, p->halves + (2 * block + h) * p->K * HALF, HALF)
SCHEME(apart_copied, apart, KC, 1, copy_rows(p), p->halves + (2 * block + h) * p->K * HALF, HALF)
SCHEME(apart_copied_256, apart, 256, 1, copy_rows(p), p->halves + (2 * block + h) * p->K * HALF, HALF)
SCHEME(apart_copied_512, apart, 512, 1, copy_rows(p), p->halves + (2 * block + h) * p->K * HALF, HALF)
SCHEME(apart_copied_all, apart, p->K, 1, copy_rows(p), p->halves + (2 * block + h) * p->K * HALF, HALF)

/* The block of k outermost: the block of A stays in L1, while C comes and goes. */
static void run_k_outermost(const void *problem)
{
    const struct problem *p = problem;
    const ptrdiff_t runs = 128 / RUN;
    struct problem part = *p;
    const float *a[p->n];
    part.gates = a;
    for (ptrdiff_t q = 0; q < p->panels; q += runs) {
        part.panels = p->panels - q < runs ? p->panels - q : runs;
        for (ptrdiff_t m = 0; m < p->n; m++) a[m] = p->gates[m] + q * p->gates_panel;
        for (ptrdiff_t part_of_b = 0; part_of_b < p->H / HALF; part_of_b++)
            multiply(&part, apart, runs, 0, p->halves + (part_of_b * p->K + q * RUN) * HALF, HALF, part_of_b * HALF);
    }
}

#define RUNNER(function, says) { .name = says, .run = run_##function }
static const struct runner rivals[] = {
    RUNNER(incumbent, "incumbent, on runs"),
    RUNNER(copied_incumbent, "incumbent, dz copied"),
    RUNNER(dense_incumbent, "incumbent, dz dense already"),
    RUNNER(half_runs, "6x2 k by 4, on runs"),
    RUNNER(half_copied, "6x2 k by 4, dz copied"),
    RUNNER(apart_runs, "6x2 k by 4, halves apart, on runs"),
    RUNNER(apart_runs_256, "  k blocks of 256"),
    RUNNER(apart_runs_512, "  k blocks of 512"),
    RUNNER(apart_fetched, "  the same, next run of A fetched"),
    RUNNER(k_outermost, "  k blocks of 128, outermost"),
    RUNNER(apart_copied, "6x2 k by 4, halves apart, dz copied"),
    RUNNER(apart_copied_256, "  k blocks of 256"),
    RUNNER(apart_copied_512, "  k blocks of 512"),
    RUNNER(apart_copied_all, "  no k blocks"),
};
enum { RIVALS = sizeof rivals / sizeof *rivals };

static void check(const struct problem *p, const struct runner *r)
{
    double *wanted = calloc((size_t)(p->n * p->H), sizeof(double));
    float *got = malloc((size_t)(p->n * p->H) * sizeof(float));
    for (ptrdiff_t m = 0; m < p->n; m++) memset(p->c[m], 0, (size_t)p->H * sizeof(float));
    copy_rows(p);
    r->run(p);
    for (ptrdiff_t m = 0; m < p->n; m++)
        for (ptrdiff_t j = 0; j < p->H; j++) {
            for (ptrdiff_t k = 0; k < p->K; k++)
                wanted[m * p->H + j] += (double)p->gates[m][k / RUN * p->gates_panel + k % RUN] *
                                        p->panel[(j / WIDE * p->K + k) * WIDE + j % WIDE];
            got[m * p->H + j] = p->c[m][j];
        }
    lab_check(r->name, got, wanted, p->n * p->H, 1e-5);
    free(wanted);
    free(got);
}

/* H a multiple of WIDE; `visits` of which the first n are this step's. */
static struct problem make(ptrdiff_t n, ptrdiff_t H, ptrdiff_t visits)
{
    struct problem p = { .n = n, .H = H, .K = G * H, .panels = G * H / RUN, .gates_panel = visits * RUN + 16 };
    float *panel = lab_numbers(p.K * H), *halves = lab_numbers(p.K * H);
    for (ptrdiff_t j = 0; j < H; j++)
        for (ptrdiff_t k = 0; k < p.K; k++)
            halves[(j / HALF * p.K + k) * HALF + j % HALF] = panel[(j / WIDE * p.K + k) * WIDE + j % WIDE];
    p.panel = panel, p.halves = halves;
    p.gates = malloc((size_t)n * sizeof *p.gates);
    p.rows = malloc((size_t)n * sizeof *p.rows);
    p.c = malloc((size_t)n * sizeof *p.c);
    p.dense = lab_numbers(n * (p.K + 16));
    const float *gates = lab_numbers(p.panels * p.gates_panel);
    float *c = lab_numbers(n * (H + 16));
    for (ptrdiff_t m = 0; m < n; m++) {
        p.gates[m] = gates + m * RUN;
        p.rows[m] = p.dense + m * (p.K + 16);
        p.c[m] = c + m * (H + 16);
    }
    return p;
}

int main(int argc, char **argv)
{
    const ptrdiff_t H = argc > 1 ? atoi(argv[1]) : 256, visits = argc > 2 ? atoi(argv[2]) : 1600;
    for (int i = 0; i < RIVALS; i++) {
        const struct problem p = make(11, 3 * WIDE, 20);
        check(&p, &rivals[i]);
    }
    fr_flush_denormals_on();
    for (int i = 3; i < (argc > 3 ? argc : 4); i++) {
        const struct problem p = make(argc > 3 ? atoi(argv[i]) : 32, H, visits);
        struct runner r[RIVALS + 2] = { lab_peak_runner };
        for (int k = 0; k < RIVALS; k++) {
            r[k + 1] = rivals[k];
            r[k + 1].problem = &p;
            r[k + 1].work = 2.0 * (double)(p.n * p.K * p.H);
        }
        r[RIVALS + 1] = (struct runner)RUNNER(copy, "(the copy alone)");
        r[RIVALS + 1].problem = &p;
        lab_race(r, RIVALS + 2, 3);
        char title[100];
        snprintf(title, sizeof title, "n = %td, H = %td, G = 4, %td visits kept", p.n, H, visits);
        lab_print(title, "GFLOP/s", r, RIVALS + 2);
    }
    return 0;
}

/* row_tiles.c - C [n, columns] += A [n, K] B [K, columns] by rows of A, the product of a recurrent step and of the
 * projections: which tile, which layout of B, which loop?
 *
 * B comes in panels as wide as the project packs them: 4 vectors. A has its rows K + 16 floats apart, C lies as in the
 * gates buffer, [panel][n][4 vectors].
 *
 *     python -m benchmarks.kernels row_tiles [K panels [n ...]]
 */
#include "tile.h"

enum { NARROW = 3 * VW, ANY = 1 << 20 };

struct problem {
    ptrdiff_t n, K, panels;
    const float **a;
    float **c; /* rows in panel 0 */
    ptrdiff_t c_panel;
    const float *panel, *halves, *narrow; /* [panel][k][WIDE], [panel][half][k][HALF], [panel of NARROW][k][NARROW] */
};

/*                      NV walk         each lines ldb   part */
TILES_6(half_by_1,      2, LOADS_FOLDED, 1, 0, WIDE, 0) /* the incumbent's tile without its fetch */
TILES_6(half_by_4,      2, LOADS_FOLDED, 4, 0, WIDE, 0)
TILES_6(half_by_4f,     2, LOADS_FOLDED, 4, 1, WIDE, 0)
TILES_6(apart_by_1,     2, LOADS_FOLDED, 1, 0, HALF, 0)
TILES_6(apart_by_4,     2, LOADS_FOLDED, 4, 0, HALF, 0)
TILES_3(whole_folded,   4, LOADS_FOLDED, 1, 0, WIDE, HALF)
TILES_3(whole_b,        4, B_HELD,       1, 0, WIDE, HALF)
TILES_3(whole_a,        4, A_HELD,       1, 0, WIDE, HALF)
TILES_3(both_b,         4, B_HELD,       1, 0, HALF, part) /* both halves at once, each a stream of its own */
TILES_3(both_b_by_2,    4, B_HELD,       2, 0, HALF, part)
TILES_3(both_a,         4, A_HELD,       1, 0, HALF, part)
TILES_4(narrow_by_1,    3, LOADS_FOLDED, 1, 0, NARROW, 2 * VW)
TILES_4(narrow_b,       3, B_HELD,       1, 0, NARROW, 2 * VW)
TILES_4(narrow_b_by_4,  3, B_HELD,       4, 0, NARROW, 2 * VW)

/* Rows of C at c0 += A B, in blocks of k and tiles of nearly equal height, as in gemm.h. */
ALWAYS_INLINE void multiply(const struct problem *p, const tile_function *tiles, ptrdiff_t most, ptrdiff_t block,
                            const float *b, ptrdiff_t ldb, ptrdiff_t part, ptrdiff_t c0)
{
    const ptrdiff_t count = (p->n + most - 1) / most, base = p->n / count, larger = p->n % count;
    for (ptrdiff_t k = 0; k < p->K; k += block) {
        const ptrdiff_t depth = count == 1 || p->K - k < block ? p->K - k : block;
        for (ptrdiff_t t = 0, m = 0; t < count; t++) {
            const ptrdiff_t height = base + (t < larger);
            const float *ahead = b + (k + depth) * ldb + t * depth / 4 * 16;
            tiles[height](p->a + m, k, p->c + m, c0, b + k * ldb, part, depth, ahead);
            m += height;
        }
        if (count == 1) break;
    }
}

static void run_incumbent(const void *problem)
{
    const struct problem *p = problem;
    for (ptrdiff_t q = 0; q < p->panels; q++) {
        const float *b = (FN(part_vectors) == 2 ? p->halves : p->panel) + q * p->K * WIDE;
        const ptrdiff_t ldb = FN(part_vectors) * VW;
        const struct FN(factor) f = FN(dense_factor)(b, ldb, p->K * ldb, p->K);
        FN(multiply_rows)(4, p->n, p->a, 0, p->c, q * p->c_panel, &f, NULL);
    }
}

#define BY_HALVES(scheme, tiles, block, half_b, ldb)                                                      \
    static void run_##scheme(const void *problem)                                                         \
    {                                                                                                     \
        const struct problem *p = problem;                                                                \
        for (ptrdiff_t q = 0; q < p->panels; q++)                                                         \
            for (int h = 0; h < 2; h++)                                                                   \
                multiply(p, tiles, 6, block, half_b, ldb, 0, q * p->c_panel + h * HALF);                  \
    }
BY_HALVES(half_by_1, half_by_1, KC, p->panel + q * p->K * WIDE + h * HALF, WIDE)
BY_HALVES(half_by_4, half_by_4, KC, p->panel + q * p->K * WIDE + h * HALF, WIDE)
BY_HALVES(half_by_4f, half_by_4f, KC, p->panel + q * p->K * WIDE + h * HALF, WIDE)
BY_HALVES(half_unblocked, half_by_4, ANY, p->panel + q * p->K * WIDE + h * HALF, WIDE)
BY_HALVES(apart_by_1, apart_by_1, KC, p->halves + (2 * q + h) * p->K * HALF, HALF)
BY_HALVES(apart_by_4, apart_by_4, KC, p->halves + (2 * q + h) * p->K * HALF, HALF)
BY_HALVES(apart_256, apart_by_4, 256, p->halves + (2 * q + h) * p->K * HALF, HALF)
BY_HALVES(apart_unblocked, apart_by_4, ANY, p->halves + (2 * q + h) * p->K * HALF, HALF)

/* The halves inside the k blocks: the second half finds its block in L1, and shares the lines' neighbours. */
static void run_in_blocks(const void *problem)
{
    const struct problem *p = problem;
    struct problem part = *p;
    const float *a[p->n];
    part.a = a;
    for (ptrdiff_t q = 0; q < p->panels; q++)
        for (ptrdiff_t k = 0; k < p->K; k += KC) {
            part.K = p->K - k < KC ? p->K - k : KC;
            for (ptrdiff_t m = 0; m < p->n; m++) a[m] = p->a[m] + k;
            for (int h = 0; h < 2; h++)
                multiply(&part, half_by_4, 6, KC, p->panel + (q * p->K + k) * WIDE + h * HALF, WIDE, 0,
                        q * p->c_panel + h * HALF);
        }
}

/* Tiles of up to 3 rows and all four vectors. */
#define BY_PANELS(scheme, tiles, panel_b, ldb, part)                                                      \
    static void run_##scheme(const void *problem)                                                         \
    {                                                                                                     \
        const struct problem *p = problem;                                                                \
        for (ptrdiff_t q = 0; q < p->panels; q++)                                                         \
            multiply(p, tiles, 3, KC, panel_b + q * p->K * WIDE, ldb, part, q * p->c_panel);              \
    }
BY_PANELS(whole_folded, whole_folded, p->panel, WIDE, 0)
BY_PANELS(whole_b, whole_b, p->panel, WIDE, 0)
BY_PANELS(whole_a, whole_a, p->panel, WIDE, 0)
BY_PANELS(both_b, both_b, p->halves, HALF, p->K * HALF)
BY_PANELS(both_b_by_2, both_b_by_2, p->halves, HALF, p->K * HALF)
BY_PANELS(both_a, both_a, p->halves, HALF, p->K * HALF)

/* Panels of three vectors, of C too. */
#define BY_NARROW(scheme, tiles)                                                                          \
    static void run_##scheme(const void *problem)                                                         \
    {                                                                                                     \
        const struct problem *p = problem;                                                                \
        for (ptrdiff_t q = 0; q * NARROW < p->panels * WIDE; q++)                                         \
            multiply(p, tiles, 4, KC, p->narrow + q * p->K * NARROW, NARROW, 0, q * p->c_panel);          \
    }
BY_NARROW(narrow_by_1, narrow_by_1)
BY_NARROW(narrow_b, narrow_b)
BY_NARROW(narrow_b_by_4, narrow_b_by_4)

#define RUNNER(function, says) { .name = says, .run = run_##function }
static const struct runner rivals[] = {
    RUNNER(incumbent, "incumbent"),
    RUNNER(half_by_1, "2 halves of 6x2, constant ldb, no fetch"),
    RUNNER(half_by_4, "  k by 4"),
    RUNNER(half_by_4f, "  k by 4, one fetch each 4"),
    RUNNER(half_unblocked, "  k by 4, no k blocks"),
    RUNNER(in_blocks, "  k by 4, halves inside k blocks"),
    RUNNER(apart_by_1, "6x2, halves packed apart"),
    RUNNER(apart_by_4, "  k by 4"),
    RUNNER(apart_256, "  k by 4, k blocks of 256"),
    RUNNER(apart_unblocked, "  k by 4, no k blocks"),
    RUNNER(whole_folded, "3x4, loads folded"),
    RUNNER(whole_b, "3x4, B held"),
    RUNNER(whole_a, "3x4, A held"),
    RUNNER(both_b, "3x4, halves apart, B held"),
    RUNNER(both_b_by_2, "  k by 2"),
    RUNNER(both_a, "3x4, halves apart, A held"),
    RUNNER(narrow_by_1, "4x3 on panels of 3, loads folded"),
    RUNNER(narrow_b, "4x3 on panels of 3, B held"),
    RUNNER(narrow_b_by_4, "  k by 4"),
};
enum { RIVALS = sizeof rivals / sizeof *rivals };

static int is_narrow(const struct runner *r) { return r->run == run_narrow_by_1 || r->run == run_narrow_b || r->run == run_narrow_b_by_4; }

static void check(const struct problem *p, const struct runner *r)
{
    const ptrdiff_t columns = p->panels * WIDE, wide = is_narrow(r) ? NARROW : WIDE;
    const float *panels = is_narrow(r) ? p->narrow : p->panel;
    double *wanted = calloc((size_t)(p->n * columns), sizeof(double));
    float *got = malloc((size_t)(p->n * columns) * sizeof(float));
    for (ptrdiff_t m = 0; m < p->n; m++)
        for (ptrdiff_t q = 0; q <= p->panels * 4 / 3; q++) memset(p->c[m] + q * p->c_panel, 0, WIDE * sizeof(float));
    r->run(p);
    for (ptrdiff_t m = 0; m < p->n; m++)
        for (ptrdiff_t j = 0; j < columns; j++) {
            const float *b = panels + j / wide * p->K * wide + j % wide;
            for (ptrdiff_t k = 0; k < p->K; k++) wanted[m * columns + j] += (double)p->a[m][k] * b[k * wide];
            got[m * columns + j] = p->c[m][j / wide * p->c_panel + j % wide];
        }
    lab_check(r->name, got, wanted, p->n * columns, 1e-5);
    free(wanted);
    free(got);
}

static struct problem make(ptrdiff_t n, ptrdiff_t K, ptrdiff_t panels)
{
    struct problem p = { .n = n, .K = K, .panels = panels, .c_panel = n * WIDE + 16 };
    const ptrdiff_t size = K * panels * WIDE, lda = K + 16;
    float *panel = lab_numbers(size), *halves = lab_numbers(size), *narrow = lab_numbers(size + K * WIDE);
    for (ptrdiff_t q = 0; q < panels; q++)
        for (ptrdiff_t k = 0; k < K; k++)
            for (ptrdiff_t j = 0; j < WIDE; j++)
                halves[((2 * q + j / HALF) * K + k) * HALF + j % HALF] = panel[(q * K + k) * WIDE + j];
    p.panel = panel, p.halves = halves, p.narrow = narrow;
    p.a = malloc((size_t)n * sizeof *p.a);
    p.c = malloc((size_t)n * sizeof *p.c);
    float *a = lab_numbers(n * lda), *c = lab_numbers((panels * 4 / 3 + 2) * p.c_panel);
    for (ptrdiff_t m = 0; m < n; m++) {
        p.a[m] = a + m * lda;
        p.c[m] = c + m * WIDE;
    }
    return p;
}

int main(int argc, char **argv)
{
    const ptrdiff_t K = argc > 1 ? atoi(argv[1]) : 256, panels = argc > 2 ? atoi(argv[2]) : 8;
    for (int i = 0; i < RIVALS; i++) /* ragged everywhere */
        for (int n = 1; n < 14; n += 4) {
            const struct problem p = make(n, 133, 3);
            check(&p, &rivals[i]);
        }
    fr_flush_denormals_on();
    for (int i = 3; i < (argc > 3 ? argc : 4); i++) {
        const struct problem p = make(argc > 3 ? atoi(argv[i]) : 32, K, panels);
        struct runner r[RIVALS + 1] = { lab_peak_runner };
        for (int k = 0; k < RIVALS; k++) {
            r[k + 1] = rivals[k];
            r[k + 1].problem = &p;
            r[k + 1].work = 2.0 * (double)(p.n * p.K * p.panels * WIDE);
        }
        lab_race(r, RIVALS + 1, 2.5);
        char title[100];
        snprintf(title, sizeof title, "n = %td, K = %td, %td panels: B %td KB", p.n, K, panels,
                K * panels * WIDE * 4 / 1024);
        lab_print(title, "GFLOP/s", r, RIVALS + 1);
    }
    return 0;
}

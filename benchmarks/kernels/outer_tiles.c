/* outer_tiles.c - dU [M, panels*4*VW] = sum over visits of h^T dz, the product of the weight gradients: rows of h lie
 * M + 16 apart, dz in the gates buffer [panel][visit][4*VW], the sums are kept in tiles [panel][tile][MR][4*VW].
 *
 * The incumbent packs h in blocks of KC visits as [tile][visit][MR], as weight_gradient.h does.
 *
 *     python -m benchmarks.kernels outer_tiles [M panels visits]
 */
#include "lab.h"

enum { WIDE = 4 * VW, HALF = 2 * VW, STRIDE = KC * 8 + 16, MOST = 512 };

struct problem {
    ptrdiff_t M, panels, visits;
    const float **a;
    const float *b;
    ptrdiff_t b_panel;
    float *sums, *packed;
};

/* C [MR, NV vectors] (+)= sum over K of a[k][m] b[k]: A packed [k][MR], or, with `rows`, MR neighbours of row[k]
 * where they lie. walk 1: A stays in registers while the vectors of B pass; each: k of one round of the loop. */
ALWAYS_INLINE void tile(const int MR, const int NV, const int walk, const int each, const float *a,
                        const float *const *row, ptrdiff_t m0, const float *b, const ptrdiff_t ldb, ptrdiff_t K, float *c, const ptrdiff_t ldc, int fresh)
{
    vec acc[6][4];
    UNROLL for (int m = 0; m < MR; m++)
        UNROLL for (int v = 0; v < NV; v++) acc[m][v] = fresh ? FN(splat)(0) : FN(load)(c + m * ldc + v * VW);
#define LAB_K(i)                                                                              \
    do {                                                                                      \
        const float *ak = row ? row[k + (i)] + m0 : a + (k + (i)) * MR;                       \
        if (walk) {                                                                           \
            vec av[6];                                                                        \
            UNROLL for (int m = 0; m < MR; m++) {                                             \
                av[m] = FN(splat)(ak[m]);                                                     \
                IN_REGISTER(av[m]);                                                           \
            }                                                                                 \
            UNROLL for (int v = 0; v < NV; v++) {                                             \
                vec bv = FN(load)(b + (k + (i)) * ldb + v * VW);                              \
                IN_REGISTER(bv);                                                              \
                UNROLL for (int m = 0; m < MR; m++) acc[m][v] += av[m] * bv;                  \
            }                                                                                 \
        } else {                                                                              \
            vec bv[4];                                                                        \
            UNROLL for (int v = 0; v < NV; v++) bv[v] = FN(load)(b + (k + (i)) * ldb + v * VW); \
            UNROLL for (int m = 0; m < MR; m++) {                                             \
                const vec av = FN(splat)(ak[m]);                                              \
                UNROLL for (int v = 0; v < NV; v++) acc[m][v] += av * bv[v];                  \
            }                                                                                 \
        }                                                                                     \
    } while (0)
    ptrdiff_t k = 0;
    for (; k + each <= K; k += each)
        UNROLL for (int i = 0; i < each; i++) LAB_K(i);
    if (each > 1)
        for (; k < K; k++) LAB_K(0);
#undef LAB_K
    UNROLL for (int m = 0; m < MR; m++)
        UNROLL for (int v = 0; v < NV; v++) FN(store)(c + m * ldc + v * VW, acc[m][v]);
}

typedef void (*tile_function)(const float *a, const float *const *row, ptrdiff_t m0, const float *b, ptrdiff_t K,
        float *c, int fresh);
#define TILE(name, MR, NV, walk, each, a, row)                                                                         \
    static NOINLINE void name(const float *packed, const float *const *rows, ptrdiff_t m0, const float *b,             \
                              ptrdiff_t K, float *c, int fresh)                                                                     \
    {                                                                                                                  \
        (void)packed, (void)rows;                                                                                      \
        tile(MR, NV, walk, each, a, row, m0, b, WIDE, K, c, WIDE, fresh);                                              \
    }
TILE(packed_6_2, 6, 2, 0, 1, packed, NULL)
TILE(packed_6_2_by_4, 6, 2, 0, 4, packed, NULL)
TILE(packed_3_4, 3, 4, 1, 1, packed, NULL)
TILE(rows_6_2, 6, 2, 0, 1, NULL, rows)
TILE(rows_6_2_by_4, 6, 2, 0, 4, NULL, rows)
TILE(rows_3_4, 3, 4, 1, 1, NULL, rows)

/* order 0: both halves of a tile, then the next tile; 1: one half of all tiles, then the other. M a multiple of MR. */
ALWAYS_INLINE void gradient(const struct problem *p, const int MR, const int NV, tile_function f, int pack,
        ptrdiff_t block, int order)
{
    const ptrdiff_t tiles = p->M / MR, halves = 4 / NV;
    for (ptrdiff_t k0 = 0; k0 < p->visits; k0 += block) {
        const ptrdiff_t K = p->visits - k0 < block ? p->visits - k0 : block, stride = block * MR + 16;
        const float *const *row = p->a + k0;
        if (pack) FN(pack_columns_of)(MR, p->packed, stride, 0, tiles, row, NULL, K, p->M, 0);
        for (ptrdiff_t q = 0; q < p->panels; q++) {
            const float *b = p->b + q * p->b_panel + k0 * WIDE;
            for (ptrdiff_t i = 0; i < tiles * halves; i++) {
                const ptrdiff_t t = order ? i % tiles : i / halves, h = order ? i / tiles : i % halves;
                f(p->packed + t * stride, row, t * MR, b + h * NV * VW, K,
                        p->sums + (q * tiles + t) * MR * WIDE + h * NV * VW, k0 == 0);
            }
        }
    }
}
#define SCHEME(name, ...) static void run_##name(const void *problem) { gradient(problem, __VA_ARGS__); }
SCHEME(packed_6_2, 6, 2, packed_6_2, 1, KC, 0)
SCHEME(packed_6_2_by_4, 6, 2, packed_6_2_by_4, 1, KC, 0)
SCHEME(packed_ordered, 6, 2, packed_6_2_by_4, 1, KC, 1)
SCHEME(packed_256, 6, 2, packed_6_2_by_4, 1, 256, 1)
SCHEME(packed_3_4, 3, 4, packed_3_4, 1, KC, 0)
SCHEME(rows_6_2, 6, 2, rows_6_2, 0, KC, 0)
SCHEME(rows_6_2_by_4, 6, 2, rows_6_2_by_4, 0, KC, 0)
SCHEME(rows_ordered, 6, 2, rows_6_2_by_4, 0, KC, 1)
SCHEME(rows_64, 6, 2, rows_6_2_by_4, 0, 64, 0)
SCHEME(rows_3_4, 3, 4, rows_3_4, 0, KC, 0)

static void run_incumbent(const void *problem)
{
    const struct problem *p = problem;
    const int mr = FN(outer_tile_rows)[4];
    const ptrdiff_t tiles = p->M / mr;
    for (ptrdiff_t k0 = 0; k0 < p->visits; k0 += KC) {
        const ptrdiff_t K = p->visits - k0 < KC ? p->visits - k0 : KC;
        FN(pack_columns)(mr, p->packed, STRIDE, 0, tiles, p->a + k0, NULL, K, p->M, 0);
        for (ptrdiff_t q = 0; q < p->panels; q++)
            for (ptrdiff_t t = 0; t < tiles; t++)
                FN(multiply_outer)(mr, 4, p->packed + t * STRIDE, p->b + q * p->b_panel + k0 * WIDE, WIDE, K,
                        p->sums + (q * tiles + t) * mr * WIDE, WIDE, k0 == 0);
    }
}
static void run_packing(const void *problem)
{
    const struct problem *p = problem;
    for (ptrdiff_t k0 = 0; k0 < p->visits; k0 += KC) {
        const ptrdiff_t K = p->visits - k0 < KC ? p->visits - k0 : KC;
        FN(pack_columns)(6, p->packed, STRIDE, 0, p->M / 6, p->a + k0, NULL, K, p->M, 0);
    }
}

#define RUNNER(function, says) { .name = says, .run = run_##function }
static const struct runner rivals[] = {
    RUNNER(incumbent, "incumbent"),
    RUNNER(packed_6_2, "packed, 6x2, constant ldb and ldc"),
    RUNNER(packed_6_2_by_4, "  k by 4"),
    RUNNER(packed_ordered, "  k by 4, half by half"),
    RUNNER(packed_256, "  k by 4, half by half, blocks of 256"),
    RUNNER(packed_3_4, "packed, 3x4"),
    RUNNER(rows_6_2, "h where it lies, 6x2"),
    RUNNER(rows_6_2_by_4, "  k by 4"),
    RUNNER(rows_ordered, "  k by 4, half by half"),
    RUNNER(rows_64, "  k by 4, blocks of 64"),
    RUNNER(rows_3_4, "h where it lies, 3x4"),
};
enum { RIVALS = sizeof rivals / sizeof *rivals };

static struct problem make(ptrdiff_t M, ptrdiff_t panels, ptrdiff_t visits)
{
    struct problem p = { .M = M / 6 * 6, .panels = panels, .visits = visits, .b_panel = visits * WIDE + 16 };
    float *a = lab_numbers(visits * (p.M + 16));
    p.a = malloc((size_t)visits * sizeof *p.a);
    for (ptrdiff_t k = 0; k < visits; k++) p.a[k] = a + k * (p.M + 16);
    p.b = lab_numbers(panels * p.b_panel);
    p.sums = lab_numbers(panels * p.M * WIDE);
    p.packed = lab_numbers(p.M * STRIDE);
    return p;
}

static void check(const struct runner *r)
{
    const struct problem p = make(12, 2, 301);
    double wanted[2 * 12 * WIDE] = { 0 };
    r->run(&p);
    for (ptrdiff_t q = 0; q < p.panels; q++)
        for (ptrdiff_t m = 0; m < p.M; m++)
            for (ptrdiff_t j = 0; j < WIDE; j++)
                for (ptrdiff_t k = 0; k < p.visits; k++)
                    wanted[(q * p.M + m) * WIDE + j] += (double)p.a[k][m] * p.b[q * p.b_panel + k * WIDE + j];
    lab_check(r->name, p.sums, wanted, p.panels * p.M * WIDE, 1e-5);
}

int main(int argc, char **argv)
{
    for (int i = 0; i < RIVALS; i++) check(&rivals[i]);
    fr_flush_denormals_on();
    const struct problem p = make(argc > 1 ? atoi(argv[1]) : 128, argc > 2 ? atoi(argv[2]) : 16,
            argc > 3 ? atoi(argv[3]) : 1600);
    struct runner r[RIVALS + 2] = { lab_peak_runner };
    for (int k = 0; k < RIVALS; k++) {
        r[k + 1] = rivals[k];
        r[k + 1].work = 2.0 * (double)(p.visits * p.M * p.panels * WIDE);
    }
    r[RIVALS + 1] = (struct runner)RUNNER(packing, "(packing alone)");
    for (int k = 1; k < RIVALS + 2; k++) r[k].problem = &p;
    lab_race(r, RIVALS + 2, 5);
    char title[100];
    snprintf(title, sizeof title, "M = %td, %td panels, %td visits", p.M, p.panels, p.visits);
    lab_print(title, "GFLOP/s", r, RIVALS + 2);
    return 0;
}

/* row_tiles.c - C [n, columns] += A [n, K] B [K, columns] by rows of A, the product of a recurrent step and of the
 * projections: which tile, which layout of B, which loop?
 *
 * B comes in panels as wide as the project packs them: 4 vectors. A has its rows K + 16 floats apart, C lies as in the
 * gates buffer, [panel][n][4 vectors].
 *
 *     python -m benchmarks.kernels row_tiles [K panels [n ...]]
 */
#include "lab.h"

enum { WIDE = 4 * VW, HALF = 2 * VW, NARROW = 3 * VW };

struct problem {
    ptrdiff_t n, K, panels;
    const float **a;
    float **c; /* rows in panel 0 */
    ptrdiff_t c_panel;
    const float *panel, *halves, *narrow; /* B as [panel][k][WIDE], [panel][half][k][HALF], [panel of NARROW][k][NARROW] */
};

/* One tile with everything that may be varied as a constant. `walk`: which operand stays in registers while the other
 * is loaded, 0 the vectors of B, 1 the broadcasts of A. `each`: k of one round of the loop, with one fetch ahead in
 * every round unless `ahead` is NULL. `held`: loads of B must not be folded into the multiply-adds. */
ALWAYS_INLINE void tile(const int MR, const int NV, const int walk, const int each, const int held, const int fetch,
                        const float *const *a, ptrdiff_t a0, float *const *c, ptrdiff_t c0, const float *b,
                        const ptrdiff_t ldb, ptrdiff_t K, const float *ahead)
{
    vec acc[6][4]; /* fixed sizes: arrays of variable length would live in memory */
    const float *row[6];
    UNROLL for (int m = 0; m < MR; m++) {
        row[m] = a[m] + a0;
        UNROLL for (int v = 0; v < NV; v++) acc[m][v] = FN(load)(c[m] + c0 + v * VW);
    }
    ptrdiff_t k = 0;
#define ONE_K(i)                                                                                          \
    do {                                                                                                  \
        if (walk == 0) {                                                                                  \
            vec bv[4];                                                                                    \
            UNROLL for (int v = 0; v < NV; v++) {                                                         \
                bv[v] = FN(load)(b + (i) * ldb + v * VW);                                                 \
                if (held) IN_REGISTER(bv[v]);                                                             \
            }                                                                                             \
            UNROLL for (int m = 0; m < MR; m++) {                                                         \
                const vec av = FN(splat)(row[m][k + (i)]);                                                \
                UNROLL for (int v = 0; v < NV; v++) acc[m][v] += av * bv[v];                              \
            }                                                                                             \
        } else {                                                                                          \
            vec av[6];                                                                                    \
            UNROLL for (int m = 0; m < MR; m++) {                                                         \
                av[m] = FN(splat)(row[m][k + (i)]);                                                       \
                IN_REGISTER(av[m]);                                                                       \
            }                                                                                             \
            UNROLL for (int v = 0; v < NV; v++) {                                                         \
                vec bv = FN(load)(b + (i) * ldb + v * VW);                                                \
                if (held) IN_REGISTER(bv);                                                                \
                UNROLL for (int m = 0; m < MR; m++) acc[m][v] += av[m] * bv;                              \
            }                                                                                             \
        }                                                                                                 \
    } while (0)
    for (; k + each <= K; k += each, b += each * ldb) {
        if (fetch) {
            __builtin_prefetch(ahead, 0, 2);
            ahead += 16;
        }
        UNROLL for (int i = 0; i < each; i++) ONE_K(i);
    }
    if (each > 1)
        for (; k < K; k++, b += ldb) ONE_K(0);
#undef ONE_K
    UNROLL for (int m = 0; m < MR; m++)
        UNROLL for (int v = 0; v < NV; v++) FN(store)(c[m] + c0 + v * VW, acc[m][v]);
}

typedef void (*tile_function)(const float *const *, ptrdiff_t, float *const *, ptrdiff_t, const float *, ptrdiff_t, const float *);
#define TILE(name, MR, NV, walk, each, held, fetch, ldb)                                                            \
    static NOINLINE void name(const float *const *a, ptrdiff_t a0, float *const *c, ptrdiff_t c0, const float *b,   \
                              ptrdiff_t K, const float *ahead)                                                      \
    {                                                                                                               \
        tile(MR, NV, walk, each, held, fetch, a, a0, c, c0, b, ldb, K, ahead);                                      \
    }
#define TILES_TO_6(name, ...)                                                                                       \
    TILE(name##_1, 1, __VA_ARGS__) TILE(name##_2, 2, __VA_ARGS__) TILE(name##_3, 3, __VA_ARGS__)                    \
    TILE(name##_4, 4, __VA_ARGS__) TILE(name##_5, 5, __VA_ARGS__) TILE(name##_6, 6, __VA_ARGS__)                    \
    static const tile_function name[7] = { 0, name##_1, name##_2, name##_3, name##_4, name##_5, name##_6 };
#define TILES_TO_4(name, ...)                                                                                       \
    TILE(name##_1, 1, __VA_ARGS__) TILE(name##_2, 2, __VA_ARGS__) TILE(name##_3, 3, __VA_ARGS__)                    \
    TILE(name##_4, 4, __VA_ARGS__)                                                                                  \
    static const tile_function name[7] = { 0, name##_1, name##_2, name##_3, name##_4 };
#define TILES_TO_3(name, ...)                                                                                       \
    TILE(name##_1, 1, __VA_ARGS__) TILE(name##_2, 2, __VA_ARGS__) TILE(name##_3, 3, __VA_ARGS__)                    \
    static const tile_function name[7] = { 0, name##_1, name##_2, name##_3 };

/*                     NV walk each held fetch ldb */
TILES_TO_6(half_plain,  2, 0, 1, 0, 0, WIDE)  /* the incumbent's tile without its fetch */
TILES_TO_6(half_by_2,   2, 0, 2, 0, 0, WIDE)
TILES_TO_6(half_by_4,   2, 0, 4, 0, 0, WIDE)
TILES_TO_6(half_by_4f,  2, 0, 4, 0, 1, WIDE)
TILES_TO_6(split_plain, 2, 0, 1, 0, 0, HALF)
TILES_TO_6(split_by_2,  2, 0, 2, 0, 0, HALF)
TILES_TO_6(split_by_4,  2, 0, 4, 0, 0, HALF)
TILES_TO_6(split_by_4h, 2, 0, 4, 1, 0, HALF)
TILES_TO_3(wide_a,      4, 1, 1, 1, 0, WIDE)
TILES_TO_3(wide_a_by_2, 4, 1, 2, 1, 0, WIDE)
TILES_TO_3(wide_b_by_2, 4, 0, 2, 1, 0, WIDE)
TILES_TO_3(wide_b_held, 4, 0, 1, 1, 0, WIDE)
TILES_TO_3(wide_a_by_4, 4, 1, 4, 1, 0, WIDE)
TILES_TO_4(narrow_plain,3, 0, 1, 0, 0, NARROW)
TILES_TO_4(narrow_by_2, 3, 0, 2, 0, 0, NARROW)

struct scheme {
    const tile_function *tiles;
    int most;             /* rows of a tile */
    int parts;            /* of a panel */
    ptrdiff_t part_c, part_b; /* from part to part */
    ptrdiff_t block;      /* k */
    int fetch;
};

static void multiply(const struct scheme *s, const struct problem *p, const float *b, ptrdiff_t ldb, ptrdiff_t c0)
{
    const ptrdiff_t tiles = (p->n + s->most - 1) / s->most, base = p->n / tiles, larger = p->n % tiles;
    for (ptrdiff_t k = 0; k < p->K; k += s->block) {
        const ptrdiff_t depth = tiles == 1 || p->K - k < s->block ? p->K - k : s->block;
        for (ptrdiff_t t = 0, m = 0; t < tiles; t++) {
            const ptrdiff_t height = base + (t < larger);
            s->tiles[height](p->a + m, k, p->c + m, c0, b + k * ldb, depth, b + (k + depth) * ldb + t * depth * 4);
            m += height;
        }
        if (tiles == 1) break;
    }
}

#define SCHEME(scheme_name, tile_table, rows, part_count, b_part, block_k)                                                   \
    static void run_##scheme_name(const void *problem)                                                                       \
    {                                                                                                                 \
        const struct problem *p = problem;                                                                            \
        const struct scheme s = { .tiles = tile_table, .most = rows, .parts = part_count, .block = block_k };         \
        for (ptrdiff_t q = 0; q < p->panels; q++)                                                                     \
            for (int h = 0; h < s.parts; h++)                                                                         \
                multiply(&s, p, b_part, q * p->c_panel + h * (WIDE / part_count));                                    \
    }
#define IN_PANEL p->panel + q * p->K * WIDE + h * HALF, WIDE
#define IN_HALVES p->halves + (2 * q + h) * p->K * HALF, HALF
SCHEME(half_plain, half_plain, 6, 2, IN_PANEL, KC)
SCHEME(half_by_2, half_by_2, 6, 2, IN_PANEL, KC)
SCHEME(half_by_4, half_by_4, 6, 2, IN_PANEL, KC)
SCHEME(half_by_4f, half_by_4f, 6, 2, IN_PANEL, KC)
SCHEME(half_whole, half_by_4, 6, 2, IN_PANEL, 1 << 20)
SCHEME(split_plain, split_plain, 6, 2, IN_HALVES, KC)
SCHEME(split_by_2, split_by_2, 6, 2, IN_HALVES, KC)
SCHEME(split_by_4, split_by_4, 6, 2, IN_HALVES, KC)
SCHEME(split_by_4h, split_by_4h, 6, 2, IN_HALVES, KC)
SCHEME(split_256, split_by_4, 6, 2, IN_HALVES, 256)
SCHEME(split_whole, split_by_4, 6, 2, IN_HALVES, 1 << 20)
SCHEME(wide_a, wide_a, 3, 1, IN_PANEL, KC)
SCHEME(wide_a_by_2, wide_a_by_2, 3, 1, IN_PANEL, KC)
SCHEME(wide_b_held, wide_b_held, 3, 1, IN_PANEL, KC)
SCHEME(wide_a_by_4, wide_a_by_4, 3, 1, IN_PANEL, KC)
SCHEME(wide_b_by_2, wide_b_by_2, 3, 1, IN_PANEL, KC)

static void run_incumbent(const void *problem)
{
    const struct problem *p = problem;
    for (ptrdiff_t q = 0; q < p->panels; q++) {
        struct FN(factor) f = FN(dense_factor)(p->panel + q * p->K * WIDE, WIDE, p->K);
        if (q + 1 < p->panels) f.next = f.b + p->K * WIDE;
        FN(multiply_rows)(4, p->n, p->a, 0, p->c, q * p->c_panel, &f, NULL);
    }
}

/* Panels of three vectors, of C too. */
static void run_narrow_by_2(const void *problem)
{
    const struct problem *p = problem;
    const struct scheme s = { .tiles = narrow_by_2, .most = 4, .block = KC };
    for (ptrdiff_t q = 0; q * NARROW < p->panels * WIDE; q++)
        multiply(&s, p, p->narrow + q * p->K * NARROW, NARROW, q * p->c_panel);
}

#define RUNNER(function, says) { .name = says, .run = run_##function }
static const struct runner rivals[] = {
    RUNNER(incumbent, "incumbent"),
    RUNNER(half_plain, "2 halves of 6x2, no fetch, constant ldb"),
    RUNNER(half_by_2, "  k by 2"),
    RUNNER(half_by_4, "  k by 4"),
    RUNNER(half_by_4f, "  k by 4, one fetch each 4"),
    RUNNER(half_whole, "  k by 4, no k blocks"),
    RUNNER(split_plain, "6x2, halves packed apart"),
    RUNNER(split_by_2, "  k by 2"),
    RUNNER(split_by_4, "  k by 4"),
    RUNNER(split_by_4h, "  k by 4, B never folded"),
    RUNNER(split_256, "  k by 4, blocks of 256"),
    RUNNER(split_whole, "  k by 4, no k blocks"),
    RUNNER(wide_a, "3x4, A held"),
    RUNNER(wide_a_by_2, "  k by 2"),
    RUNNER(wide_a_by_4, "  k by 4"),
    RUNNER(wide_b_held, "3x4, B held"),
    RUNNER(wide_b_by_2, "  k by 2"),
    RUNNER(narrow_by_2, "4x3 on panels of 3, k by 2"),
};
enum { RIVALS = sizeof rivals / sizeof *rivals };

static void check(const struct problem *p, const struct runner *r)
{
    const ptrdiff_t columns = p->panels * WIDE;
    double *wanted = calloc((size_t)(p->n * columns), sizeof(double));
    float *got = malloc((size_t)(p->n * columns) * sizeof(float));
    for (ptrdiff_t m = 0; m < p->n; m++)
        for (ptrdiff_t q = 0; q <= p->panels * 4 / 3; q++) memset(p->c[m] + q * p->c_panel, 0, WIDE * sizeof(float));
    const int narrow = r->run == run_narrow_by_2;
    const ptrdiff_t wide = narrow ? NARROW : WIDE;
    const float *panels = narrow ? p->narrow : p->panel;
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
    float *panel = lab_numbers(size + WIDE * K), *halves = lab_numbers(size), *narrow = lab_numbers(size + K * WIDE);
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
    for (int i = 0; i < RIVALS; i++) { /* ragged everywhere */
        struct problem p = make(11, 133, 3);
        check(&p, &rivals[i]);
    }
    fr_flush_denormals_on();
    for (int i = 3; i < (argc > 3 ? argc : 4); i++) {
        struct problem p = make(argc > 3 ? atoi(argv[i]) : 32, K, panels);
        struct runner r[RIVALS + 1] = { lab_peak_runner };
        for (int k = 0; k < RIVALS; k++) {
            r[k + 1] = rivals[k];
            r[k + 1].problem = &p;
            r[k + 1].work = 2.0 * (double)(p.n * p.K * p.panels * WIDE);
        }
        lab_race(r, RIVALS + 1, 2.5);
        char title[100];
        snprintf(title, sizeof title, "n = %td, K = %td, %td panels: B %.0f KB", p.n, K, panels, 4e-3 / 1.024 * (double)(K * panels * WIDE));
        lab_print(title, "GFLOP/s", r, RIVALS + 1);
    }
    return 0;
}

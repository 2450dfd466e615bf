/* matrix_vector.c - one row times the panels of U, as in a one-sample sequence: a question of reading U. What do
 * fetching ahead, two panels at once and the zig-zag order of panels give, against plain reading of the same bytes?
 *
 * U comes in panels [k][4 vectors], or in halves [k][2 vectors] (the same bytes in another order).
 *
 *     python -m benchmarks.kernels matrix_vector [H ...]          H = K; H/VW panels; U has 16*H*H bytes (G = 4)
 */
#include "tile.h"

struct problem {
    ptrdiff_t K, panels;
    const float *a, *b;
    float *c; /* [panels][WIDE] */
};
static int zigzag; /* of the run to come */

/*                        NV walk         each lines ldb  part */
TILE(plain_1,         1,  4, LOADS_FOLDED, 1,  0,    WIDE, HALF)
TILE(held_1,          1,  4, B_HELD,       2,  0,    WIDE, HALF)
TILE(fetched_1,       1,  4, B_HELD,       1,  2,    WIDE, HALF)
TILE(streams_of_2_1,  1,  4, B_HELD,       2,  0,    HALF, part)
TILE(four_streams_1,  1,  8, B_HELD,       1,  0,    HALF, part)

/* Two panels of [k][4 vectors] at once: 8 chains, so that the latency of a multiply-add does not count. */
static NOINLINE void two_panels(const float *a, const float *b, const float *b2, float *c, ptrdiff_t K)
{
    vec s[8];
    UNROLL for (int v = 0; v < 8; v++) s[v] = FN(load)(c + v * VW);
    for (ptrdiff_t k = 0; k < K; k++, b += WIDE, b2 += WIDE) {
        const vec x = FN(splat)(a[k]);
        UNROLL for (int v = 0; v < 4; v++) s[v] += x * FN(load)(b + v * VW);
        UNROLL for (int v = 0; v < 4; v++) s[4 + v] += x * FN(load)(b2 + v * VW);
    }
    UNROLL for (int v = 0; v < 8; v++) FN(store)(c + v * VW, s[v]);
}

static ptrdiff_t turned(ptrdiff_t i, ptrdiff_t n) { return zigzag ? n - 1 - i : i; }

static void run_incumbent(const void *problem)
{
    const struct problem *p = problem;
    for (ptrdiff_t i = 0; i < p->panels; i++) {
        const ptrdiff_t q = turned(i, p->panels), ldb = FN(part_vectors) * VW;
        const struct FN(factor) f = FN(dense_factor)(p->b + q * p->K * WIDE, ldb, p->K * ldb, p->K);
        float *c = p->c + q * WIDE;
        FN(multiply_rows)(4, 1, &p->a, 0, &c, 0, &f, NULL);
    }
}
static void run_incumbent_zigzag(const void *problem)
{
    zigzag ^= 1;
    run_incumbent(problem);
}

/* `at_once` panels a tile; `ahead` floats from the present place of B, for tiles that fetch. */
#define SCHEME(scheme, tile, at_once, part, turn, ahead)                                                      \
    static void run_##scheme(const void *problem)                                                             \
    {                                                                                                         \
        const struct problem *p = problem;                                                                    \
        if (turn) zigzag ^= 1;                                                                                \
        const ptrdiff_t tiles = p->panels / (at_once);                                                        \
        for (ptrdiff_t i = 0; i < tiles; i++) {                                                               \
            const ptrdiff_t q = (turn ? turned(i, tiles) : i) * (at_once);                                    \
            const float *b = p->b + q * p->K * WIDE;                                                          \
            float *c = p->c + q * WIDE;                                                                       \
            tile(&p->a, 0, &c, 0, b, part, p->K, b + (ahead));                                                \
        }                                                                                                     \
    }
SCHEME(plain, plain_1, 1, 0, 0, 0)
SCHEME(held, held_1, 1, 0, 0, 0)
SCHEME(held_zigzag, held_1, 1, 0, 1, 0)
SCHEME(fetched_512, fetched_1, 1, 0, 0, 128)
SCHEME(fetched_2048, fetched_1, 1, 0, 0, 512)
SCHEME(fetched_4096, fetched_1, 1, 0, 0, 1024)
SCHEME(fetched_zigzag, fetched_1, 1, 0, 1, 512)
SCHEME(halves, streams_of_2_1, 1, p->K * HALF, 0, 0)
SCHEME(four_streams, four_streams_1, 2, p->K * HALF, 0, 0)
SCHEME(four_streams_zigzag, four_streams_1, 2, p->K * HALF, 1, 0)

static void run_two_panels(const void *problem)
{
    const struct problem *p = problem;
    for (ptrdiff_t q = 0; q < p->panels; q += 2)
        two_panels(p->a, p->b + q * p->K * WIDE, p->b + (q + 1) * p->K * WIDE, p->c + q * WIDE, p->K);
}
static void run_two_panels_zigzag(const void *problem)
{
    const struct problem *p = problem;
    zigzag ^= 1;
    for (ptrdiff_t i = 0; i < p->panels / 2; i++) {
        const ptrdiff_t q = 2 * turned(i, p->panels / 2);
        two_panels(p->a, p->b + q * p->K * WIDE, p->b + (q + 1) * p->K * WIDE, p->c + q * WIDE, p->K);
    }
}

/* The limit: all of U through the registers, 8 sums. */
static void run_reading(const void *problem)
{
    const struct problem *p = problem;
    vec s[8];
    UNROLL for (int v = 0; v < 8; v++) s[v] = FN(splat)(0);
    const float *end = p->b + p->panels * p->K * WIDE;
    for (const float *b = p->b; b < end; b += 8 * VW)
        UNROLL for (int v = 0; v < 8; v++) s[v] += FN(load)(b + v * VW);
    UNROLL for (int v = 0; v < 8; v++) IN_REGISTER(s[v]);
}

#define RUNNER(function, says) { .name = says, .run = run_##function }
static const struct runner rivals[] = {
    RUNNER(reading, "(reading)"),
    RUNNER(incumbent, "incumbent"),
    RUNNER(incumbent_zigzag, "incumbent, zig-zag"),
    RUNNER(plain, "1x4"),
    RUNNER(held, "1x4, k by 2"),
    RUNNER(held_zigzag, "  zig-zag"),
    RUNNER(fetched_512, "1x4, fetched 512 bytes ahead"),
    RUNNER(fetched_2048, "  2 KB ahead"),
    RUNNER(fetched_4096, "  4 KB ahead"),
    RUNNER(fetched_zigzag, "  2 KB ahead, zig-zag"),
    RUNNER(two_panels, "two panels at once, 8 chains"),
    RUNNER(two_panels_zigzag, "  zig-zag"),
    RUNNER(halves, "two half-panels at once, k by 2"),
    RUNNER(four_streams, "four half-panels at once"),
    RUNNER(four_streams_zigzag, "  zig-zag"),
};
enum { RIVALS = sizeof rivals / sizeof *rivals };

static struct problem make(ptrdiff_t K, ptrdiff_t panels)
{
    return (struct problem){ .K = K, .panels = panels, .a = lab_numbers(K), .b = lab_numbers(K * panels * WIDE),
            .c = lab_numbers(panels * WIDE) };
}

static void check(const struct runner *r)
{
    const struct problem p = make(77, 6);
    double *wanted = calloc((size_t)(p.panels * WIDE), sizeof(double));
    const int incumbent = r->run == run_incumbent || r->run == run_incumbent_zigzag;
    const int halves = (incumbent && FN(part_vectors) == 2) || r->run == run_halves || r->run == run_four_streams || r->run == run_four_streams_zigzag;
    memset(p.c, 0, (size_t)(p.panels * WIDE) * sizeof(float));
    r->run(&p);
    for (ptrdiff_t j = 0; j < p.panels * WIDE; j++)
        for (ptrdiff_t k = 0; k < p.K; k++)
            wanted[j] += (double)p.a[k] * (halves ? p.b[(j / HALF * p.K + k) * HALF + j % HALF]
                                                  : p.b[(j / WIDE * p.K + k) * WIDE + j % WIDE]);
    lab_check(r->name, p.c, wanted, p.panels * WIDE, 1e-5);
    free(wanted);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < RIVALS; i++) check(&rivals[i]);
    fr_flush_denormals_on();
    for (int i = 1; i < (argc > 1 ? argc : 2); i++) {
        const ptrdiff_t H = argc > 1 ? atoi(argv[i]) : 512;
        const struct problem p = make(H, H / VW);
        struct runner r[RIVALS];
        for (int k = 0; k < RIVALS; k++) {
            r[k] = rivals[k];
            r[k].problem = &p;
            r[k].work = 4.0 * (double)(p.K * p.panels * WIDE);
        }
        lab_race(r, RIVALS, 3);
        char title[100];
        snprintf(title, sizeof title, "H = %td: U %td KB", H, p.K * p.panels * WIDE * 4 / 1024);
        lab_print(title, "GB/s", r, RIVALS);
    }
    return 0;
}

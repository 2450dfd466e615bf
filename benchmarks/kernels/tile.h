/* tile.h - one tile over rows of A, with everything that may be varied as a constant: included by the experiments that
 * look for the best one.
 *
 *     C [MR, NV vectors] += A [MR, K] B [K, NV vectors]        A, C by row pointers
 *
 * B lies as parts of two vectors: vector v of k is at b + k*ldb + v/2*part + v%2*VW. A panel [k][4 vectors] has
 * ldb = 4*VW and part = 2*VW; halves packed apart, [half][k][2 vectors], have ldb = 2*VW and part = K*2*VW.
 *
 * A row of A may be cut into `segments` runs of K, `a_step` apart; B goes on without a gap. */
#ifndef TILE_H
#define TILE_H
#include "lab.h"

enum { WIDE = 4 * VW, HALF = 2 * VW };

/* What stays in registers while the loop goes over the other operand. LOADS_FOLDED leaves it to the compiler whether a
 * vector of B is loaded once or read from memory by every multiply-add; the others force one load. */
enum { LOADS_FOLDED = FOLDED }; /* the others as in gemm.h */

/* each: k of one round of the loop. lines: cache lines fetched from `ahead` on in every round. runs: cache lines of the
 * next run of every row of A that are fetched at the beginning of a run. */
ALWAYS_INLINE void tile(const int MR, const int NV, const int walk, const int each, const int lines,
                        const int runs,
                        const float *const *a, ptrdiff_t a0, float *const *c, ptrdiff_t c0, const float *b,
                        const ptrdiff_t ldb, const ptrdiff_t part, const ptrdiff_t segments, const ptrdiff_t a_step,
                        ptrdiff_t K, const float *ahead)
{
    vec acc[6][8]; /* of fixed size: an array of variable length would live in memory */
    const float *row[6];
    UNROLL for (int m = 0; m < MR; m++) {
        row[m] = a[m] + a0;
        UNROLL for (int v = 0; v < NV; v++) acc[m][v] = FN(load)(c[m] + c0 + v * VW);
    }
#define LAB_K(i)                                                                                      \
    if (walk == A_HELD) {                                                                             \
        vec av[6];                                                                                    \
        UNROLL for (int m = 0; m < MR; m++) {                                                         \
            av[m] = FN(splat)(row[m][k + (i)]);                                                       \
            IN_REGISTER(av[m]);                                                                       \
        }                                                                                             \
        UNROLL for (int v = 0; v < NV; v++) {                                                         \
            vec bv = FN(load)(b + (i) * ldb + v / 2 * part + v % 2 * VW);                             \
            IN_REGISTER(bv);                                                                          \
            UNROLL for (int m = 0; m < MR; m++) acc[m][v] += av[m] * bv;                              \
        }                                                                                             \
    } else {                                                                                          \
        vec bv[8];                                                                                    \
        UNROLL for (int v = 0; v < NV; v++) {                                                         \
            bv[v] = FN(load)(b + (i) * ldb + v / 2 * part + v % 2 * VW);                              \
            if (walk == B_HELD) IN_REGISTER(bv[v]);                                                   \
        }                                                                                             \
        UNROLL for (int m = 0; m < MR; m++) {                                                         \
            const vec av = FN(splat)(row[m][k + (i)]);                                                \
            UNROLL for (int v = 0; v < NV; v++) acc[m][v] += av * bv[v];                              \
        }                                                                                             \
    }
    for (ptrdiff_t s = 0; s < segments; s++) {
        ptrdiff_t k = 0;
        UNROLL for (int m = 0; m < MR; m++)
            UNROLL for (int i = 0; i < runs; i++) __builtin_prefetch(row[m] + a_step + 16 * i);
        for (; k + each <= K; k += each, b += each * ldb) {
            UNROLL for (int i = 0; i < lines; i++) __builtin_prefetch(ahead + i * 16, 0, 2);
            ahead += lines * 16;
            UNROLL for (int i = 0; i < each; i++) { LAB_K(i) }
        }
        if (each > 1)
            for (; k < K; k++, b += ldb) { LAB_K(0) }
        UNROLL for (int m = 0; m < MR; m++) row[m] += a_step;
    }
#undef LAB_K
    UNROLL for (int m = 0; m < MR; m++)
        UNROLL for (int v = 0; v < NV; v++) FN(store)(c[m] + c0 + v * VW, acc[m][v]);
}

typedef void (*tile_function)(const float *const *a, ptrdiff_t a0, float *const *c, ptrdiff_t c0, const float *b,
                              ptrdiff_t part, ptrdiff_t K, const float *ahead);

#define TILE(name, MR, NV, walk, each, lines, ldb, part_is)                                                        \
    static NOINLINE void name(const float *const *a, ptrdiff_t a0, float *const *c, ptrdiff_t c0, const float *b,  \
                              ptrdiff_t part, ptrdiff_t K, const float *ahead)                                     \
    {                                                                                                              \
        (void)part;                                                                                                \
        tile(MR, NV, walk, each, lines, 0, a, a0, c, c0, b, ldb, part_is, 1, 0, K, ahead);                             \
    }

/* Tiles of 1 to 3, 4 or 6 rows, as a table by rows. */
#define TILES_3(name, ...)                                                                                         \
    TILE(name##_1, 1, __VA_ARGS__) TILE(name##_2, 2, __VA_ARGS__) TILE(name##_3, 3, __VA_ARGS__)                   \
    static const tile_function name[7] __attribute__((unused)) = { 0, name##_1, name##_2, name##_3 };
#define TILES_4(name, ...)                                                                                         \
    TILE(name##_1, 1, __VA_ARGS__) TILE(name##_2, 2, __VA_ARGS__) TILE(name##_3, 3, __VA_ARGS__)                   \
    TILE(name##_4, 4, __VA_ARGS__)                                                                                 \
    static const tile_function name[7] __attribute__((unused)) = { 0, name##_1, name##_2, name##_3, name##_4 };
#define TILES_6(name, ...)                                                                                         \
    TILE(name##_1, 1, __VA_ARGS__) TILE(name##_2, 2, __VA_ARGS__) TILE(name##_3, 3, __VA_ARGS__)                   \
    TILE(name##_4, 4, __VA_ARGS__) TILE(name##_5, 5, __VA_ARGS__) TILE(name##_6, 6, __VA_ARGS__)                   \
    static const tile_function name[7] __attribute__((unused)) = { 0, name##_1, name##_2, name##_3, name##_4, \
                                                                     name##_5, name##_6 };

#endif

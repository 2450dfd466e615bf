/* nonzeros.h - products whose left factor is mostly zeros: one-hot vectors, padded features. Included once for float and
 * once for double.
 *
 * A multiply-add with zero changes no chain, so what is made of the other numbers alone, in the same order, has the bits of
 * the whole product, but for the sign of a zero, if all numbers of the other factor are finite. So whoever makes a part of a
 * product may look at its own rows and choose. */

/* One number of a left factor: its row, its place there. In the order of the rows, then of k. */
struct FN(nonzero) {
    int32_t row, k;
    REAL value;
};

/* So many numbers to one that is not zero, or more, make it worth while; and so many rows may at first have more of them. */
enum { FN(sparse_from) = 8, FN(slack_rows) = 8 };

/* Most that find_nonzeros finds in n rows. */
static inline ptrdiff_t FN(most_nonzeros)(ptrdiff_t n, ptrdiff_t width) { return (n + FN(slack_rows)) * width / FN(sparse_from); }

/* Lists what is not zero in columns [k0,k1) of n rows. Gives its number; -1: it is more than `most`, or so much that the whole
 * product is faster. In rows without zeros that is seen from one or two. */
static ptrdiff_t FN(find_nonzeros)(const REAL *const *rows, ptrdiff_t n, ptrdiff_t k0, ptrdiff_t k1, struct FN(nonzero) *found, ptrdiff_t most)
{
    ptrdiff_t count = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        const ptrdiff_t so_far = FN(most_nonzeros)(i, k1 - k0), limit = so_far < most ? so_far : most;
        for (ptrdiff_t k = k0; k < k1; k += VW) {
            const FN(vec) x = FN(load_part)(rows[i] + k, k1 - k);
            if (!FN(any)(x != FN(splat)(0))) continue;
            for (ptrdiff_t j = k; j < k1 && j < k + VW; j++) {
                if (rows[i][j] == 0) continue;
                if (count == limit) return -1;
                found[count++] = (struct FN(nonzero)){ (int32_t)i, (int32_t)j, rows[i][j] };
            }
        }
    }
    return count;
}

/* C rows [n][NV vectors] = start + the numbers found in the rows of A, times f, a dense factor. */
ALWAYS_INLINE void FN(multiply_nonzeros_of)(const int NV, ptrdiff_t n, const struct FN(nonzero) *x, const struct FN(nonzero) *end,
                                            REAL *const *c, ptrdiff_t c_offset, const struct FN(factor) *f, const REAL *start)
{
    enum { PART = FN(part_vectors) };
    for (ptrdiff_t i = 0; i < n; i++) {
        FN(vec) acc[4];
        UNROLL for (int v = 0; v < NV; v++) acc[v] = FN(load)(start + v * VW);
        for (; x < end && x->row == i; x++) {
            const REAL *b = f->b + x->k * f->ldb;
            UNROLL for (int v = 0; v < NV; v++)
                acc[v] = FN(fused)(FN(splat)(x->value), FN(load)(b + v / PART * f->part + v % PART * VW), acc[v]);
        }
        UNROLL for (int v = 0; v < NV; v++) FN(store)(c[i] + c_offset + v * VW, acc[v]);
    }
}

/* Rows of C [*][NV vectors], `ldc` apart: row k += value times row `row` of B, for all numbers found. */
ALWAYS_INLINE void FN(add_nonzeros_of)(const int NV, const struct FN(nonzero) *x, const struct FN(nonzero) *end, const REAL *b,
                                       ptrdiff_t ldb, REAL *c, ptrdiff_t ldc)
{
    for (; x < end; x++)
        UNROLL for (int v = 0; v < NV; v++) {
            REAL *to = c + x->k * ldc + v * VW;
            FN(store)(to, FN(fused)(FN(splat)(x->value), FN(load)(b + x->row * ldb + v * VW), FN(load)(to)));
        }
}

/* c [NV vectors] += the sum of K rows of B. */
ALWAYS_INLINE void FN(add_rows_of)(const int NV, const REAL *b, ptrdiff_t ldb, ptrdiff_t K, REAL *c)
{
    FN(vec) acc[4];
    UNROLL for (int v = 0; v < NV; v++) acc[v] = FN(load)(c + v * VW);
    for (ptrdiff_t k = 0; k < K; k++) UNROLL for (int v = 0; v < NV; v++) acc[v] += FN(load)(b + k * ldb + v * VW);
    UNROLL for (int v = 0; v < NV; v++) FN(store)(c + v * VW, acc[v]);
}

#define OF_VECTORS(nv, function, ...)                                                                                  \
    do {                                                                                                               \
        if (nv == 4) function(4, __VA_ARGS__);                                                                         \
        else if (nv == 3) function(3, __VA_ARGS__);                                                                    \
        else if (nv == 2) function(2, __VA_ARGS__);                                                                    \
        else function(1, __VA_ARGS__);                                                                                 \
    } while (0)
static void FN(multiply_nonzeros)(int nv, ptrdiff_t n, const struct FN(nonzero) *x, ptrdiff_t count, REAL *const *c, ptrdiff_t c_offset,
                                  const struct FN(factor) *f, const REAL *start)
{
    OF_VECTORS(nv, FN(multiply_nonzeros_of), n, x, x + count, c, c_offset, f, start);
}
static void FN(add_nonzeros)(int nv, const struct FN(nonzero) *x, ptrdiff_t count, const REAL *b, ptrdiff_t ldb, REAL *c, ptrdiff_t ldc)
{
    OF_VECTORS(nv, FN(add_nonzeros_of), x, x + count, b, ldb, c, ldc);
}
static void FN(add_rows)(int nv, const REAL *b, ptrdiff_t ldb, ptrdiff_t K, REAL *c) { OF_VECTORS(nv, FN(add_rows_of), b, ldb, K, c); }
#undef OF_VECTORS

/* gemm.h - the matrix products; included once for float and once for double.
 *
 * Everything ends in a *tile*: up to 8 rows by up to 4 vectors of C, held in registers over the whole k loop. Each
 * output is one chain of multiply-adds in the order of k, whatever tile it falls into and wherever a k block ends (a
 * chain that is stored and loaded again is the same chain). So no split of the work changes a bit.
 *
 * Two kinds of tile:
 *   rows   C[m,:] (+)= sum_k A[m][k] B[k,:]     A by row pointers, each row contiguous in k
 *   outer  C[m,:] (+)= sum_k A[k][m] B[k,:]     A packed [k][rows of the tile]: gradients of weights
 */

/* k of one block of B: KC * 4 vectors of floats are 32 KB with AVX-512, one L1. */
#define KC 128

/* The right factor. k runs over `segments` runs of `length` (the last one of `last`), each contiguous in a row of A;
 * from run to run A moves by a_step and B by b_step. A dense product is one run. */
struct FN(factor) {
    const REAL *b;
    ptrdiff_t ldb;
    int segments;
    ptrdiff_t length, last, a_step, b_step;
    const REAL *next; /* what the caller will read after b, to be fetched ahead, or NULL */
};

static inline struct FN(factor) FN(dense_factor)(const REAL *b, ptrdiff_t ldb, ptrdiff_t K)
{
    return (struct FN(factor)){ .b = b, .ldb = ldb, .segments = 1, .length = K, .last = K };
}

/* ---- tiles over rows of A ------------------------------------------------------------------------------------- */

typedef void (*FN(row_tile))(const REAL *const *a, ptrdiff_t a_offset, REAL *const *c, ptrdiff_t c_offset,
                             const struct FN(factor) *f, const REAL *start, const REAL *ahead);

/* start: what the chain begins with, [NV vectors] for every row; NULL: with C itself. ahead: one cache line from here on
 * is fetched with every k: weights that do not fit L2 then come while the tile before them is at work. */
enum { FN(line) = 64 / sizeof(REAL) };
#define ROW_TILE(MR, NV)                                                                                     \
    static NOINLINE void FN(row_tile_##MR##_##NV)(const REAL *const *a, ptrdiff_t a_offset, REAL *const *c,  \
                                                  ptrdiff_t c_offset, const struct FN(factor) *f,            \
                                                  const REAL *start, const REAL *ahead)                      \
    {                                                                                                        \
        FN(vec) acc[MR][NV];                                                                                 \
        const REAL *row[MR], *b = f->b;                                                                      \
        const ptrdiff_t ldb = f->ldb;                                                                        \
        UNROLL for (int m = 0; m < MR; m++) {                                                                \
            row[m] = a[m] + a_offset;                                                                        \
            UNROLL for (int v = 0; v < NV; v++)                                                              \
                acc[m][v] = FN(load)((start ? start : c[m] + c_offset) + v * VW);                            \
        }                                                                                                    \
        for (int s = 0; s < f->segments; s++) {                                                              \
            const ptrdiff_t length = s + 1 < f->segments ? f->length : f->last;                              \
            const REAL *bk = b;                                                                              \
            for (ptrdiff_t k = 0; k < length; k++, bk += ldb) {                                              \
                FN(vec) bv[NV];                                                                              \
                UNROLL for (int v = 0; v < NV; v++) bv[v] = FN(load)(bk + v * VW);                           \
                __builtin_prefetch(ahead, 0, 2); ahead += FN(line);                                          \
                UNROLL for (int m = 0; m < MR; m++) {                                                        \
                    FN(vec) av = FN(splat)(row[m][k]);                                                       \
                    UNROLL for (int v = 0; v < NV; v++) acc[m][v] += av * bv[v];                             \
                }                                                                                            \
            }                                                                                                \
            UNROLL for (int m = 0; m < MR; m++) row[m] += f->a_step;                                         \
            b += f->b_step;                                                                                  \
        }                                                                                                    \
        UNROLL for (int m = 0; m < MR; m++)                                                                  \
            UNROLL for (int v = 0; v < NV; v++) FN(store)(c[m] + c_offset + v * VW, acc[m][v]);              \
    }

/* ---- tiles over columns of A ---------------------------------------------------------------------------------- */

typedef void (*FN(outer_tile))(const REAL *a, const REAL *b, ptrdiff_t ldb, ptrdiff_t K, REAL *c, ptrdiff_t ldc, int fresh);

/* fresh: the chain begins with zero, not with C. */
#define OUTER_TILE(MR, NV)                                                                                   \
    static NOINLINE void FN(outer_tile_##MR##_##NV)(const REAL *a, const REAL *b, ptrdiff_t ldb,             \
                                                    ptrdiff_t K, REAL *c, ptrdiff_t ldc, int fresh)          \
    {                                                                                                        \
        FN(vec) acc[MR][NV];                                                                                 \
        UNROLL for (int m = 0; m < MR; m++)                                                                  \
            UNROLL for (int v = 0; v < NV; v++)                                                              \
                acc[m][v] = fresh ? FN(splat)(0) : FN(load)(c + m * ldc + v * VW);                           \
        for (ptrdiff_t k = 0; k < K; k++, a += MR, b += ldb) {                                               \
            FN(vec) bv[NV];                                                                                  \
            UNROLL for (int v = 0; v < NV; v++) bv[v] = FN(load)(b + v * VW);                                \
            UNROLL for (int m = 0; m < MR; m++) {                                                            \
                FN(vec) av = FN(splat)(a[m]);                                                                \
                UNROLL for (int v = 0; v < NV; v++) acc[m][v] += av * bv[v];                                 \
            }                                                                                                \
        }                                                                                                    \
        UNROLL for (int m = 0; m < MR; m++)                                                                  \
            UNROLL for (int v = 0; v < NV; v++) FN(store)(c + m * ldc + v * VW, acc[m][v]);                  \
    }

/* ---- the shapes that fit the registers ------------------------------------------------------------------------ */

#define ROW_TILES_4(NV) ROW_TILE(1, NV) ROW_TILE(2, NV) ROW_TILE(3, NV) ROW_TILE(4, NV)
#define ROW_TILES_6(NV) ROW_TILES_4(NV) ROW_TILE(5, NV) ROW_TILE(6, NV)
#define ROW_TILES_8(NV) ROW_TILES_6(NV) ROW_TILE(7, NV) ROW_TILE(8, NV)
#define ROW_NAMES_4(NV) FN(row_tile_1_##NV), FN(row_tile_2_##NV), FN(row_tile_3_##NV), FN(row_tile_4_##NV)
#define ROW_NAMES_6(NV) ROW_NAMES_4(NV), FN(row_tile_5_##NV), FN(row_tile_6_##NV)
#define ROW_NAMES_8(NV) ROW_NAMES_6(NV), FN(row_tile_7_##NV), FN(row_tile_8_##NV)

#if VECTOR_REGISTERS == 32
static const int FN(row_tile_rows)[5] = { 0, 8, 8, 8, 6 };       /* most rows of a tile, by its vectors */
static const int FN(outer_tile_rows)[5] = { 0, 8, 8, 8, 6 };
ROW_TILES_8(1) ROW_TILES_8(2) ROW_TILES_8(3) ROW_TILES_6(4)
static const FN(row_tile) FN(row_tiles)[5][9] = { { 0 }, { 0, ROW_NAMES_8(1) }, { 0, ROW_NAMES_8(2) }, { 0, ROW_NAMES_8(3) }, { 0, ROW_NAMES_6(4) } };
OUTER_TILE(6, 1) OUTER_TILE(6, 2) OUTER_TILE(6, 3) OUTER_TILE(6, 4) OUTER_TILE(8, 1) OUTER_TILE(8, 2) OUTER_TILE(8, 3)
#else
/* Sixteen registers hold 6 x 2, 4 x 3 or 2 x 4 accumulators; wider tiles are done in parts. */
static const int FN(row_tile_rows)[5] = { 0, 6, 6, 4, 2 };
static const int FN(outer_tile_rows)[5] = { 0, 6, 6, 4, 6 };
ROW_TILES_6(1) ROW_TILES_6(2) ROW_TILES_4(3) ROW_TILE(1, 4) ROW_TILE(2, 4)
static const FN(row_tile) FN(row_tiles)[5][9] = { { 0 }, { 0, ROW_NAMES_6(1) }, { 0, ROW_NAMES_6(2) }, { 0, ROW_NAMES_4(3) }, { 0, FN(row_tile_1_4), FN(row_tile_2_4) } };
OUTER_TILE(4, 1) OUTER_TILE(4, 2) OUTER_TILE(4, 3) OUTER_TILE(6, 1) OUTER_TILE(6, 2)
#endif

/* C rows [rows][nv vectors] = start (or C) + A rows times f, with no more than KC of B in use at a time. */
static void FN(multiply_rows)(int nv, ptrdiff_t rows, const REAL *const *a, ptrdiff_t a_offset, REAL *const *c,
                              ptrdiff_t c_offset, const struct FN(factor) *f, const REAL *start)
{
#if VECTOR_REGISTERS == 16
    if (nv == 4 && rows > FN(row_tile_rows)[4]) { /* two halves of more rows use the registers better */
        struct FN(factor) right = *f;
        right.b += 2 * VW;
        FN(multiply_rows)(2, rows, a, a_offset, c, c_offset, f, start);
        FN(multiply_rows)(2, rows, a, a_offset, c, c_offset + 2 * VW, &right, start ? start + 2 * VW : NULL);
        return;
    }
#endif
    const int most = FN(row_tile_rows)[nv];
    const ptrdiff_t tiles = (rows + most - 1) / most;
    if (tiles == 0) return;
    const ptrdiff_t base = rows / tiles, larger = rows % tiles; /* tiles of nearly equal height */
    const int whole = tiles == 1; /* one tile passes over B once: no reason to block */
    const ptrdiff_t per_block = f->segments == 1 ? KC : (KC + f->length - 1) / f->length;
    const ptrdiff_t units = f->segments == 1 ? f->last : f->segments;
    for (ptrdiff_t u = 0; u < units; u += per_block) {
        struct FN(factor) block = *f;
        ptrdiff_t a_block = a_offset, n = whole || units - u < per_block ? units - u : per_block;
        if (f->segments == 1) {
            block.length = block.last = n;
            block.b += u * f->ldb;
            a_block += u;
        } else {
            block.segments = (int)n;
            block.last = u + n == units ? f->last : f->length;
            block.b += u * f->b_step;
            a_block += u * f->a_step;
        }
        const ptrdiff_t depth = f->segments == 1 ? n : (n - 1) * f->length + block.last;
        const REAL *next = u + n < units ? block.b + (f->segments == 1 ? n * f->ldb : n * f->b_step) : f->next;
        for (ptrdiff_t t = 0, m = 0; t < tiles; t++) {
            ptrdiff_t height = base + (t < larger);
            const REAL *ahead = next && t < nv ? next + t * depth * FN(line) : block.b; /* nv tiles fetch all of it */
            FN(row_tiles)[nv][height](a + m, a_block, c + m, c_offset, &block, u ? NULL : start, ahead);
            m += height;
        }
        if (whole) break;
    }
}

/* C [mr, nv vectors] (+)= A^T B with A packed [K][mr]. */
static void FN(multiply_outer)(int mr, int nv, const REAL *a, const REAL *b, ptrdiff_t ldb, ptrdiff_t K, REAL *c, ptrdiff_t ldc, int fresh)
{
#if VECTOR_REGISTERS == 32
    static const FN(outer_tile) six[5] = { 0, FN(outer_tile_6_1), FN(outer_tile_6_2), FN(outer_tile_6_3), FN(outer_tile_6_4) };
    static const FN(outer_tile) eight[5] = { 0, FN(outer_tile_8_1), FN(outer_tile_8_2), FN(outer_tile_8_3), 0 };
    (mr == 6 ? six : eight)[nv](a, b, ldb, K, c, ldc, fresh);
#else
    static const FN(outer_tile) four[5] = { 0, FN(outer_tile_4_1), FN(outer_tile_4_2), FN(outer_tile_4_3), 0 };
    static const FN(outer_tile) six[5] = { 0, FN(outer_tile_6_1), FN(outer_tile_6_2), 0, 0 };
    if (mr == 6 && nv > 2) {
        six[2](a, b, ldb, K, c, ldc, fresh);
        six[nv - 2](a, b + 2 * VW, ldb, K, c + 2 * VW, ldc, fresh);
    } else {
        (mr == 6 ? six : four)[nv](a, b, ldb, K, c, ldc, fresh);
    }
#endif
}

/* Packs columns [q0*mr, q1*mr) of the K rows `row[k]` (width M, then a one if `ones`, then zeros), times the rows
 * `factor[k]` unless NULL, as tiles [q][k][mr]; tiles are `stride` apart. */
ALWAYS_INLINE void FN(pack_columns_of)(const int mr, REAL *to, ptrdiff_t stride, ptrdiff_t q0, ptrdiff_t q1,
                                              const REAL *const *row, const REAL *const *factor, ptrdiff_t K, ptrdiff_t M, int ones)
{
    for (ptrdiff_t k = 0; k < K; k++) {
        const REAL *r = row[k], *s = factor ? factor[k] : NULL;
        for (ptrdiff_t q = q0; q < q1; q++) {
            REAL *d = to + (q - q0) * stride + k * mr;
            ptrdiff_t m0 = q * mr;
            if (m0 + mr <= M) {
                for (int m = 0; m < mr; m++) d[m] = r[m0 + m];
                if (s) for (int m = 0; m < mr; m++) d[m] *= s[m0 + m];
            } else {
                for (int m = 0; m < mr; m++) d[m] = m0 + m < M ? (s ? r[m0 + m] * s[m0 + m] : r[m0 + m]) : ones && m0 + m == M;
            }
        }
    }
}

static void FN(pack_columns)(int mr, REAL *to, ptrdiff_t stride, ptrdiff_t q0, ptrdiff_t q1, const REAL *const *row,
                             const REAL *const *factor, ptrdiff_t K, ptrdiff_t M, int ones)
{
    if (mr == 4) FN(pack_columns_of)(4, to, stride, q0, q1, row, factor, K, M, ones);
    else if (mr == 6) FN(pack_columns_of)(6, to, stride, q0, q1, row, factor, K, M, ones);
    else FN(pack_columns_of)(8, to, stride, q0, q1, row, factor, K, M, ones);
}

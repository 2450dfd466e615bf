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

/* With 16 registers a tile is two vectors wide, or four if it has few rows; so panels of four vectors are packed in two
 * parts of two, each a stream of its own. With 32 registers a tile takes a whole panel, and a panel is one part. */
enum { FN(part_vectors) = VECTOR_REGISTERS == 32 ? 4 : 2 };

/* k of one block of B, so that it stays in L1 from tile to tile: 32 KB of a panel with AVX-512. The narrow tiles of AVX2
 * do so much work on what they load that L2 keeps up, unless A runs in segments. */
#define KC 128
enum { FN(block_k) = VECTOR_REGISTERS == 32 ? KC : 8 * KC, FN(block_segments_k) = VECTOR_REGISTERS == 32 ? KC : 2 * KC };

/* The right factor. k runs over `segments` runs of `length` (the last one of `last`), each contiguous in a row of A;
 * from run to run A moves by a_step and B by b_step. A dense product is one run. Vector v of row k of B is at
 *     b + k*ldb + v/part_vectors*part + v%part_vectors*VW */
struct FN(factor) {
    const REAL *b;
    ptrdiff_t ldb, part;
    int segments;
    ptrdiff_t length, last, a_step, b_step;
    const REAL *next; /* what the caller will read after b, to be fetched ahead, or NULL */
    int c_is_far;     /* is C in no cache, so that it is worth while to fetch the next tile's */
    /* Another product of `first_k` that every chain begins with, or none: its rows of A and its B, laid out as b is. */
    const REAL *const *first_a, *first_b;
    ptrdiff_t first_k, first_part;
};

static inline struct FN(factor) FN(dense_factor)(const REAL *b, ptrdiff_t ldb, ptrdiff_t part, ptrdiff_t K)
{
    return (struct FN(factor)){ .b = b, .ldb = ldb, .part = part, .segments = 1, .length = K, .last = K };
}

enum { FN(line) = 64 / sizeof(REAL) };

/* Asks for nv vectors of C that will be wanted when the present tile is done. */
ALWAYS_INLINE void FN(fetch)(const REAL *c, int nv)
{
    for (ptrdiff_t j = 0; j < nv * VW; j += FN(line)) __builtin_prefetch(c + j, 1, 3);
}

/* ---- tiles over rows of A ------------------------------------------------------------------------------------- */

/* What of one k waits in registers for the other; FOLDED: the compiler's choice. */
#define FOLDED 0
#define B_HELD 1
#define A_HELD 2

/* acc += A[.][k] times one row of B, whose first part is at b and whose second is at far. */
ALWAYS_INLINE void FN(row_tile_k)(const int MR, const int NV, const int walk, FN(vec) acc[8][4], const REAL *const *row, ptrdiff_t k,
                                  const REAL *b, const REAL *far)
{
    enum { PART = FN(part_vectors) };
    FN(vec) av[8], bv[4];
    if (walk == A_HELD)
        UNROLL for (int m = 0; m < MR; m++) {
            av[m] = FN(splat)(row[m][k]);
            IN_REGISTER(av[m]);
        }
    UNROLL for (int v = 0; v < NV; v++) {
        bv[v] = FN(load)((v < PART ? b : far) + v % PART * VW);
        if (walk != FOLDED) IN_REGISTER(bv[v]);
        if (walk == A_HELD)
            UNROLL for (int m = 0; m < MR; m++) acc[m][v] = FN(fused)(av[m], bv[v], acc[m][v]);
    }
    if (walk != A_HELD)
        UNROLL for (int m = 0; m < MR; m++) {
            av[m] = FN(splat)(row[m][k]);
            IN_REGISTER(av[m]);
            UNROLL for (int v = 0; v < NV; v++) acc[m][v] = FN(fused)(av[m], bv[v], acc[m][v]);
        }
}

/* C [MR rows][NV vectors] = start (or, if it is NULL, C itself) + A times f. `each` k make one round of the loop. ldb: that
 * of f, if it is known when this is compiled, else 0.
 * ahead: one cache line from here on is fetched with every k, unless NULL: weights that do not fit L2 then come while the
 * tile before them is at work. */
ALWAYS_INLINE void FN(row_tile_of)(const int MR, const int NV, const int walk, const int each, ptrdiff_t ldb,
                                   const REAL *const *a, ptrdiff_t a_offset, REAL *const *c, ptrdiff_t c_offset,
                                   const struct FN(factor) *f, const REAL *start, const REAL *ahead)
{
    FN(vec) acc[8][4];
    const REAL *row[8], *run = f->b;
    const ptrdiff_t part = NV > FN(part_vectors) ? f->part : 0;
    if (!ldb) ldb = f->ldb;
    UNROLL for (int m = 0; m < MR; m++) {
        row[m] = a[m] + a_offset;
        UNROLL for (int v = 0; v < NV; v++) acc[m][v] = FN(load)((start ? start : c[m] + c_offset) + v * VW);
    }
    if (f->first_k) {
        const REAL *first[8], *b = f->first_b;
        UNROLL for (int m = 0; m < MR; m++) first[m] = f->first_a[m];
        for (ptrdiff_t k = 0; k < f->first_k; k++, b += ldb)
            FN(row_tile_k)(MR, NV, walk, acc, first, k, b, b + (NV > FN(part_vectors) ? f->first_part : 0));
    }
    for (int s = 0; s < f->segments; s++) {
        const ptrdiff_t length = s + 1 < f->segments ? f->length : f->last;
        const REAL *b = run;
        ptrdiff_t k = 0;
        for (; k + each <= length; k += each, b += each * ldb) {
            if (ahead) {
                UNROLL for (int i = 0; i < each; i++) __builtin_prefetch(ahead + i * FN(line), 0, 2);
                ahead += each * FN(line);
            }
            UNROLL for (int i = 0; i < each; i++) {
                FN(row_tile_k)(MR, NV, walk, acc, row, k + i, b + i * ldb, b + i * ldb + part);
                if (each > 1) FENCE;
            }
        }
        if (each > 1)
            for (; k < length; k++, b += ldb) FN(row_tile_k)(MR, NV, walk, acc, row, k, b, b + part);
        UNROLL for (int m = 0; m < MR; m++) row[m] += f->a_step;
        run += f->b_step;
    }
    UNROLL for (int m = 0; m < MR; m++)
        UNROLL for (int v = 0; v < NV; v++) FN(store)(c[m] + c_offset + v * VW, acc[m][v]);
}

/* ldb of what pack.h packs for tiles of nv vectors: panels of three vectors, or parts. */
ALWAYS_INLINE ptrdiff_t FN(packed_ldb)(int nv) { return (nv == 3 ? 3 : (int)FN(part_vectors)) * VW; }

typedef void (*FN(row_tile))(const REAL *const *a, ptrdiff_t a_offset, REAL *const *c, ptrdiff_t c_offset,
                             const struct FN(factor) *f, const REAL *start, const REAL *ahead);

/* Two of each: for B as pack.h leaves it, and for any other. */
#define ROW_TILE(MR, NV, walk, each)                                                                         \
    static NOINLINE void FN(row_tile_##MR##_##NV)(const REAL *const *a, ptrdiff_t a_offset, REAL *const *c,  \
                                                  ptrdiff_t c_offset, const struct FN(factor) *f,            \
                                                  const REAL *start, const REAL *ahead)                      \
    {                                                                                                        \
        FN(row_tile_of)(MR, NV, walk, each, FN(packed_ldb)(NV), a, a_offset, c, c_offset, f, start, ahead);  \
    }                                                                                                        \
    static NOINLINE void FN(row_tile_any_##MR##_##NV)(const REAL *const *a, ptrdiff_t a_offset, REAL *const *c,  \
                                                      ptrdiff_t c_offset, const struct FN(factor) *f,        \
                                                      const REAL *start, const REAL *ahead)                  \
    {                                                                                                        \
        FN(row_tile_of)(MR, NV, walk, 1, 0, a, a_offset, c, c_offset, f, start, ahead);                      \
    }

/* ---- tiles over columns of A ---------------------------------------------------------------------------------- */

typedef void (*FN(outer_tile))(const REAL *a, const REAL *b, ptrdiff_t ldb, ptrdiff_t K, REAL *c, ptrdiff_t ldc, int fresh);

/* C [MR][NV vectors] (+)= A^T B. fresh: the chain begins with zero, not with C. With `hold` the MR splats of A wait in
 * registers while B goes by, which takes fewer of them where NV > MR. */
ALWAYS_INLINE void FN(outer_tile_of)(const int MR, const int NV, const int hold, const REAL *a, const REAL *b, ptrdiff_t ldb,
                                     ptrdiff_t K, REAL *c, ptrdiff_t ldc, int fresh)
{
    FN(vec) acc[8][4];
    UNROLL for (int m = 0; m < MR; m++)
        UNROLL for (int v = 0; v < NV; v++)
            acc[m][v] = fresh ? FN(splat)(0) : FN(load)(c + m * ldc + v * VW);
    for (ptrdiff_t k = 0; k < K; k++, a += MR, b += ldb) {
        FN(vec) av[8], bv[4];
        if (hold) {
            UNROLL for (int m = 0; m < MR; m++) {
                av[m] = FN(splat)(a[m]);
                IN_REGISTER(av[m]);
            }
            UNROLL for (int v = 0; v < NV; v++) {
                bv[v] = FN(load)(b + v * VW);
                IN_REGISTER(bv[v]);
                UNROLL for (int m = 0; m < MR; m++) acc[m][v] = FN(fused)(av[m], bv[v], acc[m][v]);
            }
        } else {
            UNROLL for (int v = 0; v < NV; v++) bv[v] = FN(load)(b + v * VW);
            UNROLL for (int m = 0; m < MR; m++) {
                av[m] = FN(splat)(a[m]);
                UNROLL for (int v = 0; v < NV; v++) acc[m][v] = FN(fused)(av[m], bv[v], acc[m][v]);
            }
        }
    }
    UNROLL for (int m = 0; m < MR; m++)
        UNROLL for (int v = 0; v < NV; v++) FN(store)(c + m * ldc + v * VW, acc[m][v]);
}

#define OUTER_TILE(MR, NV, hold)                                                                             \
    static NOINLINE void FN(outer_tile_##MR##_##NV)(const REAL *a, const REAL *b, ptrdiff_t ldb,             \
                                                    ptrdiff_t K, REAL *c, ptrdiff_t ldc, int fresh)          \
    {                                                                                                        \
        FN(outer_tile_of)(MR, NV, hold, a, b, ldb, K, c, ldc, fresh);                                        \
    }

/* ---- the shapes that fit the registers ------------------------------------------------------------------------ */

#define ROW_TILES_3(NV, ...) ROW_TILE(1, NV, __VA_ARGS__) ROW_TILE(2, NV, __VA_ARGS__) ROW_TILE(3, NV, __VA_ARGS__)
#define ROW_TILES_6(NV, ...) ROW_TILES_3(NV, __VA_ARGS__) ROW_TILE(4, NV, __VA_ARGS__) ROW_TILE(5, NV, __VA_ARGS__) ROW_TILE(6, NV, __VA_ARGS__)
#define ROW_TILES_8(NV, ...) ROW_TILES_6(NV, __VA_ARGS__) ROW_TILE(7, NV, __VA_ARGS__) ROW_TILE(8, NV, __VA_ARGS__)
#define ROW_NAMES_3(tile, NV) FN(tile##_1_##NV), FN(tile##_2_##NV), FN(tile##_3_##NV)
#define ROW_NAMES_6(tile, NV) ROW_NAMES_3(tile, NV), FN(tile##_4_##NV), FN(tile##_5_##NV), FN(tile##_6_##NV)
#define ROW_NAMES_8(tile, NV) ROW_NAMES_6(tile, NV), FN(tile##_7_##NV), FN(tile##_8_##NV)

/* Most rows of a tile, by its vectors; what waits in registers, and how many k make a round, was found by timing:
 * benchmarks/kernels. */
#if VECTOR_REGISTERS == 32
static const int FN(row_tile_rows)[5] = { 0, 8, 8, 8, 6 };
static const int FN(outer_tile_rows)[5] = { 0, 8, 8, 8, 6 };
ROW_TILES_8(1, FOLDED, 4) ROW_TILES_8(2, FOLDED, 2) ROW_TILES_8(3, FOLDED, 2) ROW_TILES_6(4, FOLDED, 2)
#define ROW_TABLE(tile) { { 0 }, { 0, ROW_NAMES_8(tile, 1) }, { 0, ROW_NAMES_8(tile, 2) }, { 0, ROW_NAMES_8(tile, 3) }, { 0, ROW_NAMES_6(tile, 4) } }
OUTER_TILE(6, 1, 0) OUTER_TILE(6, 2, 0) OUTER_TILE(6, 3, 0) OUTER_TILE(6, 4, 0)
OUTER_TILE(8, 1, 0) OUTER_TILE(8, 2, 0) OUTER_TILE(8, 3, 0)
#else
/* Sixteen registers hold 6 x 2, 4 x 3 or 3 x 4 accumulators and what they are made of. */
static const int FN(row_tile_rows)[5] = { 0, 6, 6, 4, 3 };
static const int FN(outer_tile_rows)[5] = { 0, 6, 6, 4, 3 };
ROW_TILES_6(1, FOLDED, 4) ROW_TILES_6(2, FOLDED, 4) ROW_TILES_3(3, B_HELD, 1) ROW_TILE(4, 3, FOLDED, 1)
ROW_TILE(1, 4, B_HELD, 1) ROW_TILE(2, 4, B_HELD, 1) ROW_TILE(3, 4, A_HELD, 1)
#define ROW_TABLE(tile) { { 0 }, { 0, ROW_NAMES_6(tile, 1) }, { 0, ROW_NAMES_6(tile, 2) }, { 0, ROW_NAMES_3(tile, 3), FN(tile##_4_3) }, { 0, ROW_NAMES_3(tile, 4) } }
OUTER_TILE(3, 1, 1) OUTER_TILE(3, 2, 1) OUTER_TILE(3, 3, 1) OUTER_TILE(3, 4, 1)
OUTER_TILE(4, 1, 0) OUTER_TILE(4, 2, 0) OUTER_TILE(4, 3, 0) OUTER_TILE(6, 1, 0) OUTER_TILE(6, 2, 0)
#endif

static const FN(row_tile) FN(row_tiles)[2][5][9] = { ROW_TABLE(row_tile_any), ROW_TABLE(row_tile) };
#undef ROW_TABLE

/* C rows [rows][nv vectors] = start (or C) + A rows times f, with no more than block_k of B in use at a time. */
static void FN(multiply_rows)(int nv, ptrdiff_t rows, const REAL *const *a, ptrdiff_t a_offset, REAL *const *c,
                              ptrdiff_t c_offset, const struct FN(factor) *f, const REAL *start)
{
    if (nv == 4 && rows > FN(row_tile_rows)[4] && FN(part_vectors) == 2) { /* two halves of more rows use the registers better */
        struct FN(factor) right = *f, left = *f;
        right.b += f->part;
        right.first_b += f->first_part;
        left.next = NULL;
        FN(multiply_rows)(2, rows, a, a_offset, c, c_offset, &left, start);
        FN(multiply_rows)(2, rows, a, a_offset, c, c_offset + 2 * VW, &right, start ? start + 2 * VW : NULL);
        return;
    }
    const int most = FN(row_tile_rows)[nv];
    const ptrdiff_t tiles = (rows + most - 1) / most;
    if (tiles == 0) return;
    const ptrdiff_t base = rows / tiles, larger = rows % tiles; /* tiles of nearly equal height */
    const int whole = tiles == 1; /* one tile passes over B once: no reason to block */
    const ptrdiff_t per_block = f->segments == 1 ? FN(block_k) : (FN(block_segments_k) + f->length - 1) / f->length;
    const ptrdiff_t units = f->segments == 1 ? f->last : f->segments;
    const FN(row_tile) *const tile = FN(row_tiles)[f->ldb == FN(packed_ldb)(nv)][nv];
    for (ptrdiff_t u = 0; u < units; u += per_block) {
        struct FN(factor) block = *f;
        if (u) block.first_k = 0;
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
        const REAL *next = !f->next ? NULL : u + n < units ? block.b + (f->segments == 1 ? n * f->ldb : n * f->b_step) : f->next;
        for (ptrdiff_t t = 0, m = 0; t < tiles; t++) {
            ptrdiff_t height = base + (t < larger);
            const REAL *ahead = next && t < nv ? next + t * depth * FN(line) : NULL; /* nv tiles fetch all of it */
            for (ptrdiff_t i = 0; i < base && f->c_is_far && t + 1 < tiles; i++) FN(fetch)(c[m + height + i] + c_offset, nv);
            tile[height](a + m, a_block, c + m, c_offset, &block, u ? NULL : start, ahead);
            if (block.first_k) block.first_a += height;
            m += height;
        }
        if (whole) break;
    }
}

/* ---- one row by several panels --------------------------------------------------------------------------------- */

/* One row of a panel is four chains at most, each of which waits for itself; so a row takes several panels at once. */
enum { FN(together) = VECTOR_REGISTERS == 32 ? 4 : 2 };

/* acc [panels][first, first+NV) += a [depth] times so many panels of B, laid out as in a factor and `panel` apart. With
 * every k a cache line for each of them is fetched from `ahead` on, unless that is NULL. */
ALWAYS_INLINE void FN(multiply_panels)(const int panels, const int NV, const int first, FN(vec) (*acc)[4], const REAL *a,
                                       ptrdiff_t depth, const REAL *b, ptrdiff_t ldb, ptrdiff_t part, ptrdiff_t panel, const REAL *ahead)
{
    enum { PART = FN(part_vectors) };
    for (ptrdiff_t k = 0; k < depth; k++, b += ldb) {
        if (ahead) {
            UNROLL for (int p = 0; p < panels; p++) __builtin_prefetch(ahead + (k * panels + p) * FN(line), 0, 2);
        }
        const FN(vec) ak = FN(splat)(a[k]);
        UNROLL for (int p = 0; p < panels; p++)
            UNROLL for (int v = 0; v < NV; v++)
                acc[p][first + v] = FN(fused)(ak, FN(load)(b + p * panel + v / PART * part + v % PART * VW), acc[p][first + v]);
    }
}

/* C [one row][`together` panels][NV vectors] = start (or C) + a times f, whose panels are b_panel apart, those that it
 * begins with first_panel, those of C c_panel, those of start start_panel. */
ALWAYS_INLINE void FN(row_panels_of)(const int NV, const REAL *a, REAL *c, ptrdiff_t c_panel, const struct FN(factor) *f,
                                     ptrdiff_t b_panel, ptrdiff_t first_panel, const REAL *start, ptrdiff_t start_panel)
{
    FN(vec) acc[FN(together)][4];
    UNROLL for (int p = 0; p < FN(together); p++)
        UNROLL for (int v = 0; v < NV; v++) acc[p][v] = FN(load)((start ? start + p * start_panel : c + p * c_panel) + v * VW);
    if (f->first_k) FN(multiply_panels)(FN(together), NV, 0, acc, *f->first_a, f->first_k, f->first_b, f->ldb, f->first_part, first_panel, NULL);
    const REAL *b = f->b, *ahead = f->next;
    for (int s = 0; s < f->segments; s++, a += f->a_step, b += f->b_step) {
        const ptrdiff_t depth = s + 1 < f->segments ? f->length : f->last;
        if (VECTOR_BYTES == 64 && ahead) { /* never wanted with narrow vectors: see is_far in sequence.h */
            FN(multiply_panels)(FN(together), NV, 0, acc, a, depth, b, f->ldb, f->part, b_panel, ahead);
            ahead += depth * FN(together) * FN(line);
        } else {
            FN(multiply_panels)(FN(together), NV, 0, acc, a, depth, b, f->ldb, f->part, b_panel, NULL);
        }
    }
    UNROLL for (int p = 0; p < FN(together); p++)
        UNROLL for (int v = 0; v < NV; v++) FN(store)(c + p * c_panel + v * VW, acc[p][v]);
}

static NOINLINE void FN(multiply_row)(int nv, const REAL *a, REAL *c, ptrdiff_t c_panel, const struct FN(factor) *f,
                                      ptrdiff_t b_panel, ptrdiff_t first_panel, const REAL *start, ptrdiff_t start_panel)
{
#define ROW_PANELS(NV) FN(row_panels_of)(NV, a, c, c_panel, f, b_panel, first_panel, start, start_panel)
    if (nv == 4) ROW_PANELS(4);
    else if (nv == 3) ROW_PANELS(3);
    else if (nv == 2) ROW_PANELS(2);
    else ROW_PANELS(1);
#undef ROW_PANELS
}

/* C [mr, nv vectors] (+)= A^T B with A packed [K][mr]. */
static void FN(multiply_outer)(int mr, int nv, const REAL *a, const REAL *b, ptrdiff_t ldb, ptrdiff_t K, REAL *c, ptrdiff_t ldc, int fresh)
{
#if VECTOR_REGISTERS == 32
    static const FN(outer_tile) six[5] = { 0, FN(outer_tile_6_1), FN(outer_tile_6_2), FN(outer_tile_6_3), FN(outer_tile_6_4) };
    static const FN(outer_tile) eight[5] = { 0, FN(outer_tile_8_1), FN(outer_tile_8_2), FN(outer_tile_8_3), 0 };
    (mr == 6 ? six : eight)[nv](a, b, ldb, K, c, ldc, fresh);
#else
    static const FN(outer_tile) three[5] = { 0, FN(outer_tile_3_1), FN(outer_tile_3_2), FN(outer_tile_3_3), FN(outer_tile_3_4) };
    static const FN(outer_tile) four[5] = { 0, FN(outer_tile_4_1), FN(outer_tile_4_2), FN(outer_tile_4_3), 0 };
    static const FN(outer_tile) six[5] = { 0, FN(outer_tile_6_1), FN(outer_tile_6_2), 0, 0 };
    (mr == 3 ? three : mr == 4 ? four : six)[nv](a, b, ldb, K, c, ldc, fresh);
#endif
}

/* Packs columns [q0*mr, q1*mr) of the K rows `row[k]` (width M, then a one if `ones`, then zeros), times the rows
 * `factor[k]` unless NULL, as tiles [q][k][mr]; they are `stride` apart, which leaves two REALs or more behind each. */
ALWAYS_INLINE void FN(pack_columns_of)(const int mr, REAL *to, ptrdiff_t stride, ptrdiff_t q0, ptrdiff_t q1,
                                              const REAL *const *row, const REAL *const *factor, ptrdiff_t K, ptrdiff_t M, int ones)
{
    const int moved = mr <= 4 ? 4 : 8;
    for (ptrdiff_t k = 0; k < K; k++) {
        const REAL *r = row[k], *s = factor ? factor[k] : NULL;
        if (k + 8 < K) /* rows may lie anywhere in memory */
            for (ptrdiff_t m = q0 * mr; m < q1 * mr && m < M; m += FN(line)) __builtin_prefetch(row[k + 8] + m, 0, 3);
        for (ptrdiff_t q = q0; q < q1; q++) {
            REAL *d = to + (q - q0) * stride + k * mr;
            ptrdiff_t m0 = q * mr;
            if (!s && m0 + moved <= M) {
                memcpy(d, r + m0, moved * sizeof(REAL)); /* what is too much is written again with the next k */
            } else if (m0 + mr <= M) {
                for (int m = 0; m < mr; m++) d[m] = s ? r[m0 + m] * s[m0 + m] : r[m0 + m];
            } else {
                for (int m = 0; m < mr; m++) d[m] = m0 + m < M ? (s ? r[m0 + m] * s[m0 + m] : r[m0 + m]) : ones && m0 + m == M;
            }
        }
    }
}

static void FN(pack_columns)(int mr, REAL *to, ptrdiff_t stride, ptrdiff_t q0, ptrdiff_t q1, const REAL *const *row,
                             const REAL *const *factor, ptrdiff_t K, ptrdiff_t M, int ones)
{
    if (mr == 3) FN(pack_columns_of)(3, to, stride, q0, q1, row, factor, K, M, ones);
    else if (mr == 4) FN(pack_columns_of)(4, to, stride, q0, q1, row, factor, K, M, ones);
    else if (mr == 6) FN(pack_columns_of)(6, to, stride, q0, q1, row, factor, K, M, ones);
    else FN(pack_columns_of)(8, to, stride, q0, q1, row, factor, K, M, ones);
}

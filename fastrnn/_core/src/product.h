/* product.h - c = op(a) op(b) for arrays that lie as the caller left them; included once for float, once for double.
 * C is cut into panels of four vectors of columns; a thread takes some panels, or some rows of all panels. Blocks of
 * b are packed just before they are used, into a scratch area of the thread that stays in its L1. */

enum { FN(panel) = 4 * VW, FN(product_rows) = 1024 }; /* columns of a panel; rows of C in work at a time */

struct FN(product_run) {
    const struct fr_product_call *q;
    struct fr_watch watch;
    REAL *scratch; /* [threads] of `scratch_size` */
    ptrdiff_t scratch_size;
    int by_panels;
};

/* b block [k0,k0+kc) x [n0,n0+n) -> to, as a factor with this ldb and part has it; zeros beyond n up to a whole vector. A
 * transposed b goes in squares of VW numbers of VW rows. */
static void FN(pack_block)(const struct fr_product_call *q, ptrdiff_t k0, ptrdiff_t kc, ptrdiff_t n0, ptrdiff_t n, REAL *to, ptrdiff_t ldb, ptrdiff_t part)
{
    const REAL *b = q->b;
    for (ptrdiff_t v = 0; v * VW < n; v++) {
        const ptrdiff_t j = n0 + v * VW, left = n - v * VW;
        REAL *d = to + v / FN(part_vectors) * part + v % FN(part_vectors) * VW;
        if (!q->transpose_b) {
            for (ptrdiff_t k = 0; k < kc; k++) FN(store)(d + k * ldb, FN(load_part)(b + (k0 + k) * q->N + j, left));
            continue;
        }
        for (ptrdiff_t k = 0; k < kc; k += VW) {
            FN(vec) r[VW];
            UNROLL for (int i = 0; i < VW; i++) r[i] = i < left ? FN(load_part)(b + (j + i) * q->K + k0 + k, kc - k) : FN(splat)(0);
            FN(transpose_square)(r);
            UNROLL for (int i = 0; i < VW; i++) if (k + i < kc) FN(store)(d + (k + i) * ldb, r[i]);
        }
    }
}

/* Rows [m0,m1) of panel n0, a row-major: m1 - m0 <= product_rows. */
static void FN(product_of_rows)(const struct fr_product_call *q, ptrdiff_t m0, ptrdiff_t m1, ptrdiff_t n0, REAL *scratch)
{
    const ptrdiff_t rows = m1 - m0, n = q->N - n0 < FN(panel) ? q->N - n0 : FN(panel);
    const int nv = (int)((n + VW - 1) / VW), ragged = n % VW != 0;
    REAL *block = scratch, *edge = block + KC * FN(panel), *start = edge + FN(product_rows) * FN(panel);
    const REAL *a[FN(product_rows)];
    REAL *c[FN(product_rows)], *out = (REAL *)q->c + m0 * q->N + n0;
    for (ptrdiff_t m = 0; m < rows; m++) {
        a[m] = (const REAL *)q->a + (m0 + m) * q->K;
        c[m] = ragged ? edge + m * FN(panel) : out + m * q->N; /* a ragged panel is made aside: nothing is written past a row */
        if (ragged && q->accumulate)
            for (int v = 0; v < nv * VW; v += VW) FN(store)(c[m] + v, FN(load_part)(out + m * q->N + v, n - v));
    }
    for (int v = 0; v < nv * VW; v += VW) FN(store)(start + v, q->bias ? FN(load_part)((const REAL *)q->bias + n0 + v, n - v) : FN(splat)(0));
    const int direct = !q->transpose_b && !ragged && rows < 8; /* packing would cost more than it gains */
    for (ptrdiff_t k0 = 0; k0 < q->K; k0 += KC) {
        const ptrdiff_t kc = q->K - k0 < KC ? q->K - k0 : KC;
        const ptrdiff_t wide = FN(part_vectors) * VW;
        struct FN(factor) f = FN(dense_factor)(block, wide, kc * wide, kc);
        if (direct) f = FN(dense_factor)((const REAL *)q->b + k0 * q->N + n0, q->N, wide, kc);
        else FN(pack_block)(q, k0, kc, n0, n, block, f.ldb, f.part);
        FN(multiply_rows)(nv, rows, a, k0, c, 0, &f, k0 || q->accumulate ? NULL : start);
    }
    if (ragged)
        for (ptrdiff_t m = 0; m < rows; m++)
            for (int v = 0; v < nv * VW; v += VW) FN(store_part)(out + m * q->N + v, FN(load)(c[m] + v), n - v);
}

/* One tile of c += a^T b that does not fill whole vectors or all rows of the tile: made aside, then copied. */
static void FN(outer_edge)(const struct fr_product_call *q, int mr, const REAL *packed, const REAL *block, ptrdiff_t kc,
                           REAL *out, ptrdiff_t rows, ptrdiff_t n, int fresh)
{
    const int nv = (int)((n + VW - 1) / VW);
    REAL tile[8 * FN(panel)];
    for (ptrdiff_t m = 0; m < mr; m++)
        for (int v = 0; v < nv * VW; v += VW)
            FN(store)(tile + m * FN(panel) + v, m < rows && !fresh ? FN(load_part)(out + m * q->N + v, n - v) : FN(splat)(0));
    FN(multiply_outer)(mr, nv, packed, block, FN(panel), kc, tile, FN(panel), 0);
    for (ptrdiff_t m = 0; m < rows; m++)
        for (int v = 0; v < nv * VW; v += VW) FN(store_part)(out + m * q->N + v, FN(load)(tile + m * FN(panel) + v), n - v);
}

/* Rows [m0,m1), panels [p0,p1) for transpose_a: c (+)= a^T b with a [K,M]; m1 - m0 <= product_rows. */
static void FN(product_of_columns)(struct FN(product_run) *run, int thread, ptrdiff_t m0, ptrdiff_t m1, ptrdiff_t p0, ptrdiff_t p1, REAL *scratch)
{
    const struct fr_product_call *q = run->q;
    const int mr = FN(outer_tile_rows)[4];
    const ptrdiff_t rows = m1 - m0, tiles = (rows + mr - 1) / mr;
    REAL *block = scratch, *packed = block + KC * FN(panel);
    for (ptrdiff_t k0 = 0; k0 < q->K && !fr_stopped(&run->watch, thread); k0 += KC) {
        const ptrdiff_t kc = q->K - k0 < KC ? q->K - k0 : KC;
        const int fresh = k0 == 0 && !q->accumulate;
        const REAL *row[KC];
        for (ptrdiff_t k = 0; k < kc; k++) row[k] = (const REAL *)q->a + (k0 + k) * q->M + m0;
        FN(pack_columns)(mr, packed, KC * mr, 0, tiles, row, NULL, kc, rows, 0);
        for (ptrdiff_t p = p0; p < p1; p++) {
            const ptrdiff_t n0 = p * FN(panel), n = q->N - n0 < FN(panel) ? q->N - n0 : FN(panel);
            FN(pack_block)(q, k0, kc, n0, n, block, FN(panel), FN(part_vectors) * VW);
            for (ptrdiff_t t = 0; t < tiles; t++) {
                const ptrdiff_t left = rows - t * mr < mr ? rows - t * mr : mr;
                REAL *out = (REAL *)q->c + (m0 + t * mr) * q->N + n0;
                if (left == mr && n % VW == 0)
                    FN(multiply_outer)(mr, (int)(n / VW), packed + t * KC * mr, block, FN(panel), kc, out, q->N, fresh);
                else
                    FN(outer_edge)(q, mr, packed + t * KC * mr, block, kc, out, left, n, fresh);
            }
        }
    }
}

static void FN(product_body)(void *argument, int thread, int threads)
{
    struct FN(product_run) *run = argument;
    const struct fr_product_call *q = run->q;
    const ptrdiff_t panels = (q->N + FN(panel) - 1) / FN(panel);
    ptrdiff_t p0 = 0, p1 = panels, r0 = 0, r1 = q->M;
    if (run->by_panels) { p0 = fr_share(panels, thread, threads); p1 = fr_share(panels, thread + 1, threads); }
    else { r0 = fr_share(q->M, thread, threads); r1 = fr_share(q->M, thread + 1, threads); }
    REAL *scratch = run->scratch + thread * run->scratch_size;
    unsigned saved = fr_flush_denormals_on();
    for (ptrdiff_t m0 = r0; m0 < r1; m0 += FN(product_rows)) {
        const ptrdiff_t m1 = r1 - m0 < FN(product_rows) ? r1 : m0 + FN(product_rows);
        if (q->transpose_a) FN(product_of_columns)(run, thread, m0, m1, p0, p1, scratch);
        else
            for (ptrdiff_t p = p0; p < p1 && !fr_stopped(&run->watch, thread); p++)
                FN(product_of_rows)(q, m0, m1, p * FN(panel), scratch);
    }
    fr_flush_denormals_restore(saved);
}

static int FN(product)(const struct fr_product_call *q)
{
    struct FN(product_run) run = { .q = q };
    const ptrdiff_t panels = (q->N + FN(panel) - 1) / FN(panel);
    double flops = 2.0 * (double)q->M * (double)q->N * (double)q->K;
    int threads = flops < FR_WORTH_THREADS ? 1 : q->control.threads;
    run.by_panels = panels >= 8 * threads || q->M < 8 * threads;
    run.scratch_size = KC * FN(panel) + (FN(product_rows) + 8) * (FN(panel) + KC) + FN(panel);
    run.scratch = fr_take((size_t)(run.scratch_size * threads) * sizeof(REAL));
    if (!run.scratch) return FR_NO_MEMORY;
    fr_watch_start(&run.watch, &q->control);
    fr_parallel(&run.watch, threads, FN(product_body), &run);
    fr_give_back(run.scratch);
    return atomic_load(&run.watch.stop) ? FR_INTERRUPTED : FR_OK;
}

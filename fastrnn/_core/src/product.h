/* product.h - c = op(a) op(b) for arrays that lie as the caller left them; included once for float, once for double.
 * C is cut into panels of four vectors of columns; a *share* is some panels, or some rows of all panels, and goes to
 * whichever thread is free. It takes k in blocks, of which its rows of a stay in L2 while panel after panel of b is packed
 * into L1 or L2. */

enum { FN(panel) = 4 * VW };                           /* columns of a panel */
enum { FN(product_k) = 512, FN(product_rows) = 384 };  /* k of a block and most rows at a time where a lies by rows */
enum { FN(outer_k) = 192, FN(outer_rows) = 768 };      /* and where it lies by columns */
enum { FN(share_panels) = 8 };                         /* least of a share, if a thread has several */

struct FN(product_run) {
    const struct fr_product_call *q;
    struct fr_watch watch;
    REAL *scratch; /* [threads] of `scratch_size` */
    ptrdiff_t scratch_size;
    int by_panels, shares;
    atomic_int begun; /* shares */
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

/* A ragged panel, whose columns are no whole vectors, is made aside in `edge` [rows][panel]: nothing is written past a row.
 * Only the last panel of C can be one, so that it stays there from the first block of k to the last. */
static void FN(begin_edge)(const struct fr_product_call *q, ptrdiff_t m0, ptrdiff_t rows, ptrdiff_t n0, REAL *edge)
{
    if (!q->accumulate) return;
    for (ptrdiff_t m = 0; m < rows; m++)
        for (ptrdiff_t n = n0; n < q->N; n += VW)
            FN(store)(edge + m * FN(panel) + n - n0, FN(load_part)((const REAL *)q->c + (m0 + m) * q->N + n, q->N - n));
}

static void FN(end_edge)(const struct fr_product_call *q, ptrdiff_t m0, ptrdiff_t rows, ptrdiff_t n0, const REAL *edge)
{
    for (ptrdiff_t m = 0; m < rows; m++)
        for (ptrdiff_t n = n0; n < q->N; n += VW)
            FN(store_part)((REAL *)q->c + (m0 + m) * q->N + n, FN(load)(edge + m * FN(panel) + n - n0), q->N - n);
}

/* Rows [m0,m1) of panels [p0,p1) for a [M,K]: m1 - m0 <= product_rows. */
static void FN(product_of_rows)(struct FN(product_run) *run, int thread, ptrdiff_t m0, ptrdiff_t m1, ptrdiff_t p0, ptrdiff_t p1, REAL *scratch)
{
    const struct fr_product_call *q = run->q;
    const ptrdiff_t rows = m1 - m0, ldb = FN(part_vectors) * VW;
    REAL *block = scratch, *edge = block + FN(product_k) * FN(panel), start[FN(panel)];
    const REAL *a[FN(product_rows)];
    REAL *c[FN(product_rows)];
    for (ptrdiff_t m = 0; m < rows; m++) a[m] = (const REAL *)q->a + (m0 + m) * q->K;
    for (ptrdiff_t k0 = 0; k0 < q->K; k0 += FN(product_k)) {
        const ptrdiff_t kc = q->K - k0 < FN(product_k) ? q->K - k0 : FN(product_k);
        const int fresh = k0 == 0 && !q->accumulate;
        for (ptrdiff_t p = p0; p < p1 && !fr_stopped(&run->watch, thread); p++) {
            const ptrdiff_t n0 = p * FN(panel), n = q->N - n0 < FN(panel) ? q->N - n0 : FN(panel);
            const int nv = (int)((n + VW - 1) / VW), ragged = n % VW != 0;
            for (ptrdiff_t m = 0; m < rows; m++) c[m] = ragged ? edge + m * FN(panel) : (REAL *)q->c + (m0 + m) * q->N + n0;
            for (int v = 0; v < nv * VW; v += VW)
                FN(store)(start + v, q->bias ? FN(load_part)((const REAL *)q->bias + n0 + v, n - v) : FN(splat)(0));
            struct FN(factor) f = FN(dense_factor)(block, ldb, kc * ldb, kc);
            if (!q->transpose_b && !ragged && rows < 8) /* packing would cost more than it gains */
                f = FN(dense_factor)((const REAL *)q->b + k0 * q->N + n0, q->N, ldb, kc);
            else
                FN(pack_block)(q, k0, kc, n0, n, block, f.ldb, f.part);
            f.c_is_far = !ragged;
            if (ragged && k0 == 0) FN(begin_edge)(q, m0, rows, n0, edge);
            FN(multiply_rows)(nv, rows, a, k0, c, 0, &f, fresh ? start : NULL);
            if (ragged && k0 + kc == q->K) FN(end_edge)(q, m0, rows, n0, edge);
        }
    }
}

/* Fewer rows of C than a tile has: made aside, [mr][panel], and copied. */
static void FN(outer_rest)(int mr, int nv, const REAL *packed, const REAL *block, ptrdiff_t kc, REAL *c, ptrdiff_t ldc, ptrdiff_t rows, int fresh)
{
    REAL tile[8 * FN(panel)] = { 0 };
    const size_t bytes = (size_t)(nv * VW) * sizeof(REAL);
    for (ptrdiff_t m = 0; m < rows && !fresh; m++) memcpy(tile + m * FN(panel), c + m * ldc, bytes);
    FN(multiply_outer)(mr, nv, packed, block, FN(panel), kc, tile, FN(panel), 0);
    for (ptrdiff_t m = 0; m < rows; m++) memcpy(c + m * ldc, tile + m * FN(panel), bytes);
}

/* Rows [m0,m1) of panels [p0,p1) for a [K,M], which is transposed: m1 - m0 <= outer_rows. */
static void FN(product_of_columns)(struct FN(product_run) *run, int thread, ptrdiff_t m0, ptrdiff_t m1, ptrdiff_t p0, ptrdiff_t p1, REAL *scratch)
{
    const struct fr_product_call *q = run->q;
    const int mr = FN(outer_tile_rows)[q->N < FN(panel) ? (q->N + VW - 1) / VW : 4];
    const ptrdiff_t rows = m1 - m0, tiles = (rows + mr - 1) / mr, stride = FN(outer_k) * mr + 16; /* no power of two */
    REAL *block = scratch, *edge = block + FN(outer_k) * FN(panel), *packed = edge + FN(outer_rows) * FN(panel);
    for (ptrdiff_t k0 = 0; k0 < q->K; k0 += FN(outer_k)) {
        const ptrdiff_t kc = q->K - k0 < FN(outer_k) ? q->K - k0 : FN(outer_k);
        const int fresh = k0 == 0 && !q->accumulate;
        const REAL *row[FN(outer_k)];
        for (ptrdiff_t k = 0; k < kc; k++) row[k] = (const REAL *)q->a + (k0 + k) * q->M + m0;
        FN(pack_columns)(mr, packed, stride, 0, tiles, row, NULL, kc, rows, 0);
        for (ptrdiff_t p = p0; p < p1 && !fr_stopped(&run->watch, thread); p++) {
            const ptrdiff_t n0 = p * FN(panel), n = q->N - n0 < FN(panel) ? q->N - n0 : FN(panel);
            const int nv = (int)((n + VW - 1) / VW), ragged = n % VW != 0;
            REAL *c = ragged ? edge : (REAL *)q->c + m0 * q->N + n0;
            const ptrdiff_t ldc = ragged ? FN(panel) : q->N;
            FN(pack_block)(q, k0, kc, n0, n, block, FN(panel), FN(part_vectors) * VW);
            if (ragged && k0 == 0) FN(begin_edge)(q, m0, rows, n0, edge);
            for (ptrdiff_t t = 0; t < tiles; t++) {
                const ptrdiff_t left = rows - t * mr;
                REAL *tile = c + t * mr * ldc;
                if (kc > 32) /* a shorter tile is done before the next one's C could come */
                    for (ptrdiff_t m = mr; m < left && m < 2 * mr; m++) FN(fetch)(tile + m * ldc, nv);
                if (left >= mr) FN(multiply_outer)(mr, nv, packed + t * stride, block, FN(panel), kc, tile, ldc, fresh);
                else FN(outer_rest)(mr, nv, packed + t * stride, block, kc, tile, ldc, left, fresh);
            }
            if (ragged && k0 + kc == q->K) FN(end_edge)(q, m0, rows, n0, edge);
        }
    }
}

static void FN(product_body)(void *argument, int thread, int threads)
{
    (void)threads;
    struct FN(product_run) *run = argument;
    const struct fr_product_call *q = run->q;
    const ptrdiff_t panels = (q->N + FN(panel) - 1) / FN(panel);
    const ptrdiff_t most = q->transpose_a ? FN(outer_rows) : FN(product_rows);
    REAL *scratch = run->scratch + thread * run->scratch_size;
    unsigned saved = fr_flush_denormals_on();
    for (int share; (share = atomic_fetch_add(&run->begun, 1)) < run->shares && !fr_stopped(&run->watch, thread);) {
        ptrdiff_t p0 = 0, p1 = panels, r0 = 0, r1 = q->M;
        if (run->by_panels) { p0 = fr_share(panels, share, run->shares); p1 = fr_share(panels, share + 1, run->shares); }
        else { r0 = fr_share(q->M, share, run->shares); r1 = fr_share(q->M, share + 1, run->shares); }
        const ptrdiff_t turns = (r1 - r0 + most - 1) / most;
        for (ptrdiff_t turn = 0; turn < turns; turn++) {
            const ptrdiff_t m0 = r0 + fr_share(r1 - r0, turn, turns), m1 = r0 + fr_share(r1 - r0, turn + 1, turns);
            (q->transpose_a ? FN(product_of_columns) : FN(product_of_rows))(run, thread, m0, m1, p0, p1, scratch);
        }
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
    /* Each thread one share, or up to four, where what a share packs for itself is still little work. */
    const ptrdiff_t rows = q->transpose_a ? FN(outer_rows) : FN(product_rows);
    const ptrdiff_t large = run.by_panels ? panels / FN(share_panels) : q->M / rows, each = large / threads;
    run.shares = threads == 1 ? 1 : threads * (int)(each < 1 ? 1 : each > 4 ? 4 : each);
    run.scratch_size = q->transpose_a ? (FN(outer_k) + FN(outer_rows)) * FN(panel) + (FN(outer_rows) + 8) * (FN(outer_k) + 16)
                                      : (FN(product_k) + FN(product_rows)) * FN(panel);
    run.scratch = fr_take((size_t)(run.scratch_size * threads) * sizeof(REAL));
    if (!run.scratch) return FR_NO_MEMORY;
    fr_watch_start(&run.watch, &q->control);
    fr_parallel(&run.watch, threads, FN(product_body), &run);
    fr_give_back(run.scratch);
    return atomic_load(&run.watch.stop) ? FR_INTERRUPTED : FR_OK;
}

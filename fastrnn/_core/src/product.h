/* product.h - c = op(a) op(b) for arrays that lie as the caller left them; included once for float, once for double.
 * C is cut into panels of four vectors of columns; a *share* is some panels, or some rows of all panels, and goes to
 * whichever thread is free. It takes k in blocks, of which its rows of a stay in L2 while panel after panel of b is packed
 * into L1 or L2. */

enum { FN(panel) = 4 * VW };                           /* columns of a panel */
enum { FN(product_k) = 512, FN(product_rows) = 384 };  /* k of a block and most rows at a time where a lies by rows */
enum { FN(outer_k) = 192, FN(outer_rows) = 768 };      /* and where it lies by columns, */
enum { FN(outer_span) = 4 * FN(outer_k) };             /* k of several blocks of which C stays in L2, */
enum { FN(outer_c) = (1 << 17) / sizeof(REAL) };       /* and how many numbers of it */
enum { FN(share_panels) = 8 };                         /* least of a share, if a thread has several */

struct FN(product_run) {
    const struct fr_product_call *q;
    struct fr_watch watch;
    REAL *scratch; /* [threads] of `scratch_size` */
    ptrdiff_t scratch_size;
    int by_panels, shares;
    atomic_int begun; /* shares */
};

/* b block [k0,k0+kc) x [n0,n0+n) -> to, as a factor with this ldb and part has it; zeros beyond n up to a whole vector. The
 * rows of b are far apart, so that each is taken at once; a transposed b goes in squares of VW numbers of VW rows. */
static void FN(pack_block)(const struct fr_product_call *q, ptrdiff_t k0, ptrdiff_t kc, ptrdiff_t n0, ptrdiff_t n, REAL *to, ptrdiff_t ldb, ptrdiff_t part)
{
    enum { PART = FN(part_vectors) };
    const REAL *b = q->b;
    if (!q->transpose_b) {
        b += k0 * q->N + n0;
        if (n == FN(panel)) {
            for (ptrdiff_t k = 0; k < kc; k++, b += q->N, to += ldb)
                UNROLL for (int v = 0; v < 4; v++) FN(store)(to + v / PART * part + v % PART * VW, FN(load)(b + v * VW));
            return;
        }
        for (ptrdiff_t k = 0; k < kc; k++, b += q->N, to += ldb)
            for (ptrdiff_t v = 0; v * VW < n; v++) FN(store)(to + v / PART * part + v % PART * VW, FN(load_part)(b + v * VW, n - v * VW));
        return;
    }
    for (ptrdiff_t v = 0; v * VW < n; v++) {
        const ptrdiff_t j = n0 + v * VW, left = n - v * VW;
        REAL *d = to + v / PART * part + v % PART * VW;
        for (ptrdiff_t k = 0; k < kc; k += VW) {
            FN(vec) r[VW];
            UNROLL for (int i = 0; i < VW; i++) r[i] = i < left ? FN(load_part)(b + (j + i) * q->K + k0 + k, kc - k) : FN(splat)(0);
            FN(transpose_square)(r);
            UNROLL for (int i = 0; i < VW; i++) if (k + i < kc) FN(store)(d + (k + i) * ldb, r[i]);
        }
    }
}

/* Asks for rows [k0,k1) of the panel of b that begins at column n0: they are too far apart for a cache to foresee them. */
ALWAYS_INLINE void FN(fetch_block)(const struct fr_product_call *q, ptrdiff_t k0, ptrdiff_t k1, ptrdiff_t n0)
{
    for (ptrdiff_t k = k0; k < k1; k++)
        for (ptrdiff_t j = n0; j < n0 + FN(panel); j += FN(line)) __builtin_prefetch((const REAL *)q->b + k * q->N + j, 0, 3);
}

/* sums [n] += those of the columns of a packed block [kc][panel] */
static void FN(add_columns)(const REAL *block, ptrdiff_t kc, REAL *sums, ptrdiff_t n)
{
    FN(vec) s[4];
    UNROLL for (int v = 0; v < 4; v++) s[v] = v * VW < n ? FN(load_part)(sums + v * VW, n - v * VW) : FN(splat)(0);
    for (ptrdiff_t k = 0; k < kc; k++)
        UNROLL for (int v = 0; v < 4; v++) if (v * VW < n) s[v] += FN(load)(block + k * FN(panel) + v * VW);
    UNROLL for (int v = 0; v < 4; v++) if (v * VW < n) FN(store_part)(sums + v * VW, s[v], n - v * VW);
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

/* k of the block that begins at k0 of a span. */
static inline ptrdiff_t FN(outer_kc)(ptrdiff_t k0, ptrdiff_t end) { return end - k0 < FN(outer_k) ? end - k0 : FN(outer_k); }

/* Fewer rows of C than a tile has: made aside, [mr][panel], and copied. */
static void FN(outer_rest)(int mr, int nv, const REAL *packed, const REAL *block, ptrdiff_t kc, REAL *c, ptrdiff_t ldc, ptrdiff_t rows, int fresh)
{
    REAL tile[8 * FN(panel)] = { 0 };
    const size_t bytes = (size_t)(nv * VW) * sizeof(REAL);
    for (ptrdiff_t m = 0; m < rows && !fresh; m++) memcpy(tile + m * FN(panel), c + m * ldc, bytes);
    FN(multiply_outer)(mr, nv, packed, block, FN(panel), kc, tile, FN(panel), 0);
    for (ptrdiff_t m = 0; m < rows; m++) memcpy(c + m * ldc, tile + m * FN(panel), bytes);
}

/* Rows of C [rows][nv vectors] (+)= packed tiles times a packed block [kc][panel]. Between them comes what the next block is
 * packed of: next_kc rows of b from next_k on, in the panel that begins at next_n. */
static void FN(outer_block)(const struct fr_product_call *q, int mr, int nv, const REAL *packed, ptrdiff_t stride, const REAL *block, ptrdiff_t kc, REAL *c,
                            ptrdiff_t ldc, ptrdiff_t rows, int fresh, ptrdiff_t next_k, ptrdiff_t next_kc, ptrdiff_t next_n)
{
    const ptrdiff_t tiles = (rows + mr - 1) / mr, each = (next_kc + tiles - 1) / tiles;
    for (ptrdiff_t t = 0; t < tiles; t++, packed += stride, c += mr * ldc) {
        const ptrdiff_t left = rows - t * mr, asked = t * each, more = next_kc - asked < each ? next_kc - asked : each;
        if (more > 0) FN(fetch_block)(q, next_k + asked, next_k + asked + more, next_n);
        if (kc > 32) /* a shorter tile is done before the next one's C could come */
            for (ptrdiff_t m = mr; m < left && m < 2 * mr; m++) FN(fetch)(c + m * ldc, nv);
        if (left >= mr) FN(multiply_outer)(mr, nv, packed, block, FN(panel), kc, c, ldc, fresh);
        else FN(outer_rest)(mr, nv, packed, block, kc, c, ldc, left, fresh);
    }
}

/* Rows [m0,m1) of panels [p0,p1) for a [K,M], which is transposed: m1 - m0 <= outer_rows. k goes in spans of several blocks,
 * and panels in groups that stay in L2 from block to block, so that memory sees C once per span. */
static void FN(product_of_columns)(struct FN(product_run) *run, int thread, ptrdiff_t m0, ptrdiff_t m1, ptrdiff_t p0, ptrdiff_t p1, REAL *scratch)
{
    const struct fr_product_call *q = run->q;
    const int mr = FN(outer_tile_rows)[q->N < FN(panel) ? (q->N + VW - 1) / VW : 4];
    const ptrdiff_t rows = m1 - m0, tiles = (rows + mr - 1) / mr, stride = FN(outer_k) * mr + 16; /* no power of two */
    const ptrdiff_t fit = FN(outer_c) / (rows * FN(panel)), group = fit < 1 ? 1 : fit;
    REAL *block = scratch, *edge = block + FN(outer_k) * FN(panel), *packed = edge + FN(outer_rows) * FN(panel);
    for (ptrdiff_t begin = 0; begin < q->K; begin += FN(outer_span)) {
        const ptrdiff_t end = q->K - begin < FN(outer_span) ? q->K : begin + FN(outer_span);
        for (ptrdiff_t k0 = begin, kc; k0 < end; k0 += kc) {
            const REAL *row[FN(outer_k)];
            kc = FN(outer_kc)(k0, end);
            for (ptrdiff_t k = 0; k < kc; k++) row[k] = (const REAL *)q->a + (k0 + k) * q->M + m0;
            FN(pack_columns)(mr, packed + (k0 - begin) / FN(outer_k) * tiles * stride, stride, 0, tiles, row, NULL, kc, rows, 0);
        }
        for (ptrdiff_t g0 = p0, g1; g0 < p1; g0 = g1) {
            g1 = p1 - g0 < group ? p1 : g0 + group;
            for (ptrdiff_t k0 = begin; k0 < end; k0 += FN(outer_k))
                for (ptrdiff_t p = g0; p < g1 && !fr_stopped(&run->watch, thread); p++) {
                    const ptrdiff_t n0 = p * FN(panel), n = q->N - n0 < FN(panel) ? q->N - n0 : FN(panel), kc = FN(outer_kc)(k0, end);
                    const int nv = (int)((n + VW - 1) / VW), ragged = n % VW != 0, fresh = k0 == 0 && !q->accumulate;
                    const int ends = p + 1 == g1, again = ends && k0 + kc < end; /* next comes the group's first panel with more k */
                    const ptrdiff_t next_k = again ? k0 + kc : ends ? begin : k0, next_p = again ? g0 : p + 1;
                    FN(pack_block)(q, k0, kc, n0, n, block, FN(panel), FN(part_vectors) * VW);
                    if (q->sums && m0 == 0) FN(add_columns)(block, kc, (REAL *)q->sums + n0, n);
                    if (ragged && k0 == 0) FN(begin_edge)(q, m0, rows, n0, edge);
                    FN(outer_block)(q, mr, nv, packed + (k0 - begin) / FN(outer_k) * tiles * stride, stride, block, kc,
                                    ragged ? edge : (REAL *)q->c + m0 * q->N + n0, ragged ? FN(panel) : q->N, rows, fresh,
                                    next_k, next_p < p1 ? FN(outer_kc)(next_k, end) : 0, next_p * FN(panel));
                    if (ragged && k0 + kc == q->K) FN(end_edge)(q, m0, rows, n0, edge);
                }
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
    if (q->transpose_a) {
        const ptrdiff_t blocks = ((q->K < FN(outer_span) ? q->K : FN(outer_span)) + FN(outer_k) - 1) / FN(outer_k);
        const ptrdiff_t most = q->M < rows ? q->M : rows;
        run.scratch_size = (FN(outer_k) + FN(outer_rows)) * FN(panel) + blocks * (most + 8) * (FN(outer_k) + 16);
    } else {
        run.scratch_size = (FN(product_k) + FN(product_rows)) * FN(panel);
    }
    run.scratch = fr_take((size_t)(run.scratch_size * threads) * sizeof(REAL));
    if (!run.scratch) return FR_NO_MEMORY;
    fr_watch_start(&run.watch, &q->control);
    fr_parallel(&run.watch, threads, FN(product_body), &run);
    fr_give_back(run.scratch);
    return atomic_load(&run.watch.stop) ? FR_INTERRUPTED : FR_OK;
}

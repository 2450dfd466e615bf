/* rows.h - rows of tables, by number: what an Embedding reads, adds to and clears; and sums over rows. Included once for
 * float, once for double. */

struct FN(rows_run) {
    REAL *table;        /* [*, width] */
    const int64_t *ids; /* [n] */
    REAL *rows;         /* [n, width] */
    ptrdiff_t width, n;
};

/* rows[i, :] = table[ids[i], :] */
static void FN(gather_body)(void *argument, int thread, int threads)
{
    const struct FN(rows_run) *q = argument;
    for (ptrdiff_t i = fr_share(q->n, thread, threads); i < fr_share(q->n, thread + 1, threads); i++) {
        const REAL *from = q->table + q->ids[i] * q->width;
        REAL *to = q->rows + i * q->width;
        ptrdiff_t j = 0;
        for (; j + VW <= q->width; j += VW) FN(store)(to + j, FN(load)(from + j));
        if (j < q->width) FN(store_part)(to + j, FN(load_part)(from + j, q->width - j), q->width - j);
    }
}

static void FN(gather_rows)(const void *table, ptrdiff_t width, const int64_t *ids, void *rows, ptrdiff_t n, int threads)
{
    struct FN(rows_run) q = { .table = (REAL *)table, .ids = ids, .rows = rows, .width = width, .n = n };
    fr_parallel(NULL, n * width < 2 * FR_WORTH_A_THREAD ? 1 : threads, FN(gather_body), &q);
}

/* Columns [j0, j1) of table[ids[i], :] += rows[i, :], in the order of i. */
static void FN(scatter_body)(void *argument, int thread, int threads)
{
    const struct FN(rows_run) *q = argument;
    const ptrdiff_t lines = (q->width + 2 * VW - 1) / (2 * VW);
    const ptrdiff_t j0 = fr_share(lines, thread, threads) * 2 * VW, end = fr_share(lines, thread + 1, threads) * 2 * VW;
    const ptrdiff_t j1 = end < q->width ? end : q->width;
    if (j0 >= j1) return;
    for (ptrdiff_t i = 0; i < q->n; i++) {
        REAL *t = q->table + q->ids[i] * q->width;
        const REAL *r = q->rows + i * q->width;
        ptrdiff_t j = j0;
        for (; j + VW <= j1; j += VW) FN(store)(t + j, FN(load)(t + j) + FN(load)(r + j));
        if (j < j1) FN(store_part)(t + j, FN(load_part)(t + j, j1 - j) + FN(load_part)(r + j, j1 - j), j1 - j);
    }
}

/* A row may come twice, so the threads share its columns and not the rows. */
static void FN(scatter_add_rows)(void *table, ptrdiff_t width, const int64_t *ids, const void *rows, ptrdiff_t n, int threads)
{
    struct FN(rows_run) q = { .table = table, .ids = ids, .rows = (REAL *)rows, .width = width, .n = n };
    const int most = (int)(width / (2 * VW) < threads ? width / (2 * VW) : threads);
    fr_parallel(NULL, n * width < 2 * FR_WORTH_A_THREAD || most < 1 ? 1 : most, FN(scatter_body), &q);
}

struct FN(sum_run) {
    const REAL *a; /* [rows, columns] */
    ptrdiff_t rows, columns;
    REAL *out;     /* [columns] */
};

/* out[j] += sum_i a[i,j], in the order of i: panels of columns, in which four rows at a time join the sums. */
static void FN(column_sum_body)(void *argument, int thread, int threads)
{
    const struct FN(sum_run) *q = argument;
    enum { WIDE = 512, AT_ONCE = 4 };
    const ptrdiff_t panel = q->columns / threads < WIDE ? (q->columns / threads + VW - 1) / VW * VW : WIDE;
    const ptrdiff_t width = panel ? panel : VW, panels = (q->columns + width - 1) / width;
    for (ptrdiff_t p = fr_share(panels, thread, threads); p < fr_share(panels, thread + 1, threads); p++) {
        const ptrdiff_t j0 = p * width, n = q->columns - j0 < width ? q->columns - j0 : width;
        REAL sum[WIDE] = { 0 };
        for (ptrdiff_t i = 0; i < q->rows; i += AT_ONCE) {
            const REAL *a = q->a + i * q->columns + j0;
            const ptrdiff_t rows = q->rows - i < AT_ONCE ? q->rows - i : AT_ONCE;
            for (ptrdiff_t j = 0; j < n; j += VW) {
                FN(vec) s = FN(load)(sum + j);
                if (rows == AT_ONCE && n - j >= VW)
                    UNROLL for (int r = 0; r < AT_ONCE; r++) s += FN(load)(a + r * q->columns + j);
                else
                    for (ptrdiff_t r = 0; r < rows; r++) s += FN(load_part)(a + r * q->columns + j, n - j);
                FN(store)(sum + j, s);
            }
        }
        for (ptrdiff_t j = 0; j < n; j++) q->out[j0 + j] += sum[j];
    }
}

static void FN(column_sum)(const void *a, ptrdiff_t rows, ptrdiff_t columns, void *out, int threads)
{
    struct FN(sum_run) q = { .a = a, .rows = rows, .columns = columns, .out = out };
    fr_parallel(NULL, rows * columns < 4 * FR_WORTH_A_THREAD ? 1 : threads, FN(column_sum_body), &q);
}

/* y = f(x), element by element; y may be x. */
struct FN(activate_run) {
    int activation;
    const REAL *x;
    REAL *y;
    ptrdiff_t n;
};

static void FN(activate_body)(void *argument, int thread, int threads)
{
    const struct FN(activate_run) *q = argument;
    const ptrdiff_t blocks = (q->n + FR_UPDATE_BLOCK - 1) / FR_UPDATE_BLOCK;
    const ptrdiff_t i1 = fr_share(blocks, thread + 1, threads) * FR_UPDATE_BLOCK, end = i1 < q->n ? i1 : q->n;
    for (ptrdiff_t i = fr_share(blocks, thread, threads) * FR_UPDATE_BLOCK; i < end; i += VW)
        FN(store_part)(q->y + i, FN(activate)(q->activation, FN(load_part)(q->x + i, end - i)), end - i);
}

static void FN(activate_array)(int activation, const void *x, void *y, ptrdiff_t n, int threads)
{
    struct FN(activate_run) q = { activation, x, y, n };
    fr_parallel(NULL, n < FR_WORTH_A_THREAD ? 1 : threads, FN(activate_body), &q);
}

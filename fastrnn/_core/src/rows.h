/* rows.h - rows of tables, by number: what an Embedding reads, adds to and clears; and functions of single numbers. Included
 * once for float, once for double. */

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

/* loss.h - softmax, and losses with their gradients: one pass over each row of predictions while it is in the cache.
 * Included once for float, once for double.
 *
 * A row is a position that has a loss of its own; C is its length. In the equations p or z are the predictions, y the
 * targets, s the factor of the row: its weight over the divisor of the call. The gradient is s times the row's slope. */
#ifndef FASTRNN_LOSS_SHARED
#define FASTRNN_LOSS_SHARED
#include <math.h>

enum fr_loss {
    /* f(y, p), averaged over the row */
    FR_SQUARED_ERROR,
    FR_ABSOLUTE_ERROR,
    FR_HUBER,
    FR_LOG_COSH,
    FR_BINARY_PROBABILITIES,
    FR_BINARY_LOGITS,
    FR_BINARY_FUSED,
    /* -sum(y log q) */
    FR_CATEGORICAL_PROBABILITIES,
    FR_CATEGORICAL_LOGITS,
    FR_CATEGORICAL_FUSED,
    /* the same with the number of the one class for which y is 1 */
    FR_SPARSE_PROBABILITIES,
    FR_SPARSE_LOGITS,
    FR_SPARSE_FUSED,
    FR_LOSSES
};

static const char *const fr_loss_names[FR_LOSSES] __attribute__((unused)) = {
    [FR_SQUARED_ERROR] = "squared_error",
    [FR_ABSOLUTE_ERROR] = "absolute_error",
    [FR_HUBER] = "huber",
    [FR_LOG_COSH] = "log_cosh",
    [FR_BINARY_PROBABILITIES] = "binary_probabilities",
    [FR_BINARY_LOGITS] = "binary_logits",
    [FR_BINARY_FUSED] = "binary_fused",
    [FR_CATEGORICAL_PROBABILITIES] = "categorical_probabilities",
    [FR_CATEGORICAL_LOGITS] = "categorical_logits",
    [FR_CATEGORICAL_FUSED] = "categorical_fused",
    [FR_SPARSE_PROBABILITIES] = "sparse_probabilities",
    [FR_SPARSE_LOGITS] = "sparse_logits",
    [FR_SPARSE_FUSED] = "sparse_fused",
};

#endif

/* ---- rows ------------------------------------------------------------------------------------------------------- */

ALWAYS_INLINE REAL FN(sum_of_lanes)(FN(vec) v)
{
    REAL sum = 0;
    for (int k = 0; k < VW; k++) sum += v[k];
    return sum;
}

/* The largest of x [n]; a NaN may count or not. */
static REAL FN(row_max)(const REAL *x, ptrdiff_t n)
{
    FN(vec) top[4];
    for (int k = 0; k < 4; k++) top[k] = FN(splat)(x[0]);
    ptrdiff_t i = 0;
    for (; i + 4 * VW <= n; i += 4 * VW)
        UNROLL for (int k = 0; k < 4; k++) top[k] = FN(vmax)(top[k], FN(load)(x + i + k * VW));
    for (; i + VW <= n; i += VW) top[0] = FN(vmax)(top[0], FN(load)(x + i));
    const FN(vec) all = FN(vmax)(FN(vmax)(top[0], top[1]), FN(vmax)(top[2], top[3]));
    REAL most = x[0];
    for (int k = 0; k < VW; k++) most = all[k] > most ? all[k] : most;
    for (; i < n; i++) most = x[i] > most ? x[i] : most;
    return most;
}

/* sum(exp(x - shift)) over x [n]; the terms go to `e` unless it is NULL. */
static REAL FN(row_exp)(const REAL *x, ptrdiff_t n, REAL shift, REAL *e)
{
    FN(vec) sum = FN(splat)(0);
    for (ptrdiff_t i = 0; i < n; i += VW) {
        FN(vec) term = FN(vexp)(FN(load_part)(x + i, n - i) - shift);
        if (e) FN(store_part)(e + i, term, n - i);
        if (n - i < VW) term = FN(select)(FN(lane_numbers)() < (FN(lane))(n - i), term, FN(splat)(0));
        sum += term;
    }
    return FN(sum_of_lanes)(sum);
}

static void FN(row_scale)(const REAL *x, ptrdiff_t n, REAL factor, REAL *y)
{
    ptrdiff_t i = 0;
    for (; i + VW <= n; i += VW) FN(store)(y + i, FN(load)(x + i) * factor);
    if (i < n) FN(store_part)(y + i, FN(load_part)(x + i, n - i) * factor, n - i);
}

static REAL FN(row_sum)(const REAL *x, ptrdiff_t n)
{
    FN(vec) sum = FN(splat)(0);
    for (ptrdiff_t i = 0; i < n; i += VW) sum += FN(load_part)(x + i, n - i);
    return FN(sum_of_lanes)(sum);
}

static void FN(row_softmax)(const REAL *x, ptrdiff_t n, REAL *y)
{
    const REAL total = FN(row_exp)(x, n, FN(row_max)(x, n), y);
    FN(row_scale)(y, n, 1 / total, y);
}

struct FN(softmax_run) {
    const REAL *x;
    REAL *y;
    ptrdiff_t rows, n;
};

static void FN(softmax_body)(void *argument, int thread, int threads)
{
    const struct FN(softmax_run) *q = argument;
    unsigned saved = fr_flush_denormals_on();
    for (ptrdiff_t i = fr_share(q->rows, thread, threads); i < fr_share(q->rows, thread + 1, threads); i++)
        FN(row_softmax)(q->x + i * q->n, q->n, q->y + i * q->n);
    fr_flush_denormals_restore(saved);
}

/* y [rows,n] = softmax of each row of x; y may be x. */
static void FN(softmax)(const void *x, void *y, ptrdiff_t rows, ptrdiff_t n, int threads)
{
    struct FN(softmax_run) q = { x, y, rows, n };
    fr_parallel(NULL, rows * n < FR_WORTH_A_THREAD ? 1 : threads, FN(softmax_body), &q);
}

/* ---- losses ----------------------------------------------------------------------------------------------------- */

/* One row of a call: `value` comes out, the gradient goes to dy unless that is NULL. */
struct FN(loss_row) {
    const REAL *p, *y;  /* y is NULL for sparse targets, which are class number `label` */
    ptrdiff_t n, label;
    REAL s, value, *dy;
    int wrong;          /* targets outside [0, 1] */
};

/* p within [epsilon, 1 - epsilon]; NaN stays */
ALWAYS_INLINE FN(vec) FN(clipped)(FN(vec) p, REAL epsilon)
{
    return FN(vmin)(FN(splat)(1 - epsilon), FN(vmax)(FN(splat)(epsilon), p));
}

/* Lanes of y outside [0, 1], NaN among them; rounding is forgiven. */
ALWAYS_INLINE FN(ivec) FN(misses)(FN(vec) y)
{
    const REAL slack = (REAL)1e-6;
    return ~(FN(above)(y, FN(splat)(-slack)) & FN(above)(FN(splat)(1 + slack), y));
}

/* The value of one element and its slope by the prediction. */
ALWAYS_INLINE FN(vec) FN(pointwise)(int loss, const struct fr_loss_call *q, FN(vec) y, FN(vec) p, FN(vec) *slope)
{
    const FN(vec) zero = FN(splat)(0), one = FN(splat)(1), d = p - y;
    switch (loss) {
    case FR_SQUARED_ERROR:
        *slope = 2 * d;
        return d * d;
    case FR_ABSOLUTE_ERROR:
        *slope = FN(select)(FN(above)(d, zero), one, FN(select)(FN(above)(zero, d), -one, d)); /* 0 and NaN stay */
        return FN(magnitude)(d);
    case FR_HUBER: {
        const FN(vec) delta = FN(splat)((REAL)q->delta), c = FN(vmax)(-delta, FN(vmin)(delta, d));
        *slope = c;
        return c * (d - (REAL)0.5 * c);
    }
    case FR_LOG_COSH: {
        const FN(vec) size = FN(magnitude)(d);
        *slope = FN(vtanh)(d);
        return size + (FN(vlog1p)(FN(vexp)(-2 * size)) - (REAL)0.6931471805599453);
    }
    case FR_BINARY_LOGITS: {
        *slope = FN(vsigmoid)(p) - y;
        return FN(vmax)(zero, p) - y * p + FN(vlog1p)(FN(vexp)(-FN(magnitude)(p)));
    }
    default: {
        const FN(vec) c = FN(clipped)(p, (REAL)q->epsilon);
        if (loss == FR_BINARY_FUSED) *slope = d;
        else *slope = FN(select)((FN(ivec))(c == p), (c - y) / (c * (1 - c)), zero);
        return -(y * FN(vlog)(c) + (1 - y) * FN(vlog)(1 - c));
    }
    }
}

/* value = mean f(y, p); targets of binary crossentropy are smoothed towards 1/2 */
ALWAYS_INLINE void FN(pointwise_row)(int loss, const struct fr_loss_call *q, struct FN(loss_row) *r)
{
    const int binary = loss >= FR_BINARY_PROBABILITIES;
    const REAL keep = (REAL)(1 - q->smoothing), even = (REAL)(q->smoothing / 2), s = r->s / (REAL)r->n;
    FN(vec) sum = FN(splat)(0);
    FN(ivec) wrong = { 0 };
    for (ptrdiff_t i = 0; i < r->n; i += VW) {
        const ptrdiff_t left = r->n - i;
        FN(vec) y = FN(load_part)(r->y + i, left), slope;
        if (binary) {
            wrong |= FN(misses)(y); /* beyond the row y is 0 */
            y = y * keep + even;
        }
        FN(vec) value = FN(pointwise)(loss, q, y, FN(load_part)(r->p + i, left), &slope);
        if (r->dy) FN(store_part)(r->dy + i, slope * s, left);
        if (left < VW) value = FN(select)(FN(lane_numbers)() < (FN(lane))left, value, FN(splat)(0));
        sum += value;
    }
    r->value = FN(sum_of_lanes)(sum) / (REAL)r->n;
    r->wrong = FN(any)(wrong);
}

/* y (1 - smoothing) + smoothing / C */
ALWAYS_INLINE FN(vec) FN(smoothed)(const struct fr_loss_call *q, FN(vec) y, ptrdiff_t n)
{
    return y * (REAL)(1 - q->smoothing) + (REAL)(q->smoothing / (double)n);
}

/* log(p) of one number */
static REAL FN(log_of)(REAL p) { return FN(vlog)(FN(splat)(p))[0]; }

static REAL FN(clip_one)(REAL p, double epsilon) { return FN(clipped)(FN(splat)(p), (REAL)epsilon)[0]; }

/* Sparse targets.
 *   fused          value = -log(clip(p_y))                 dz_k = s (p_k - [k = y])
 *   logits         value = log(sum exp(z)) - z_y           dz_k = s (softmax(z)_k - [k = y])
 *   probabilities  value = -log(clip(q_y)), q = p / sum p  dp_k = s (1 / sum p - [k = y] / p_y) inside the clip, else 0 */
static void FN(sparse_row)(int loss, const struct fr_loss_call *q, struct FN(loss_row) *r)
{
    const REAL at = r->p[r->label], s = r->s;
    if (loss == FR_SPARSE_FUSED) {
        r->value = -FN(log_of)(FN(clip_one)(at, q->epsilon));
        if (!r->dy) return;
        FN(row_scale)(r->p, r->n, s, r->dy);
        r->dy[r->label] -= s;
    } else if (loss == FR_SPARSE_LOGITS) {
        const REAL top = FN(row_max)(r->p, r->n), total = FN(row_exp)(r->p, r->n, top, r->dy);
        r->value = FN(log_of)(total) - (at - top);
        if (!r->dy) return;
        FN(row_scale)(r->dy, r->n, s / total, r->dy);
        r->dy[r->label] -= s;
    } else {
        const REAL total = FN(row_sum)(r->p, r->n), share = at / total, c = FN(clip_one)(share, q->epsilon);
        r->value = -FN(log_of)(c);
        if (!r->dy) return;
        const REAL inside = c == share ? s / total : 0;
        for (ptrdiff_t k = 0; k < r->n; k++) r->dy[k] = inside;
        r->dy[r->label] -= inside / c;
    }
}

/* Targets for every class; m = sum y.
 *   fused          value = -sum y log(clip(p))             dz = s (p m - y)
 *   logits         value = m log(sum exp(z)) - sum y z     dz = s (softmax(z) m - y)
 *   probabilities  value = -sum y log(clip(q)), q = p / sum p; with u = -y / q inside the clip, else 0:
 *                                                          dp = s (u - sum u q) / sum p */
static void FN(categorical_row)(int loss, const struct fr_loss_call *q, struct FN(loss_row) *r)
{
    const ptrdiff_t n = r->n;
    const REAL epsilon = (REAL)q->epsilon, s = r->s;
    const int logits = loss == FR_CATEGORICAL_LOGITS, fused = loss == FR_CATEGORICAL_FUSED;
    REAL top = 0, total = 1;
    if (logits) {
        top = FN(row_max)(r->p, n);
        total = FN(row_exp)(r->p, n, top, r->dy);
    } else if (!fused) {
        total = FN(row_sum)(r->p, n);
    }
    FN(vec) mass = FN(splat)(0), sum = FN(splat)(0), along = FN(splat)(0);
    FN(ivec) wrong = { 0 };
    for (ptrdiff_t i = 0; i < n; i += VW) { /* what needs the whole row: m, the value, sum u q */
        const ptrdiff_t left = n - i;
        const FN(ivec) inside = FN(lane_numbers)() < (FN(lane))(left < VW ? left : VW);
        FN(vec) y = FN(load_part)(r->y + i, left), p = FN(load_part)(r->p + i, left);
        wrong |= FN(misses)(y);
        y = FN(select)(inside, FN(smoothed)(q, y, n), FN(splat)(0));
        mass += y;
        if (logits) {
            sum += y * FN(select)(inside, p - top, FN(splat)(0));
            continue;
        }
        const FN(vec) share = fused ? p : p / total, c = FN(clipped)(share, epsilon);
        sum += y * FN(vlog)(c);
        along -= FN(select)((FN(ivec))(c == share), y, FN(splat)(0)); /* u q */
    }
    const REAL m = FN(sum_of_lanes)(mass), uq = FN(sum_of_lanes)(along);
    r->value = (logits ? FN(log_of)(total) * m : 0) - FN(sum_of_lanes)(sum);
    r->wrong = FN(any)(wrong);
    if (!r->dy) return;
    const REAL factor = logits ? s * m / total : fused ? s * m : s / total;
    for (ptrdiff_t i = 0; i < n; i += VW) {
        const ptrdiff_t left = n - i;
        const FN(vec) y = FN(smoothed)(q, FN(load_part)(r->y + i, left), n), p = FN(load_part)((logits ? r->dy : r->p) + i, left);
        FN(vec) d;
        if (logits || fused) {
            d = p * factor - y * s;
        } else {
            const FN(vec) share = p / total, c = FN(clipped)(share, epsilon);
            d = (FN(select)((FN(ivec))(c == share), -y / c, FN(splat)(0)) - uq) * factor;
        }
        FN(store_part)(r->dy + i, d, left);
    }
}

struct FN(loss_run) {
    struct fr_loss_call *q;
    atomic_intptr_t wrong; /* the first row with impossible targets, or the number of rows */
};

static void FN(loss_rows)(int loss, struct FN(loss_run) *run, ptrdiff_t i0, ptrdiff_t i1)
{
    const struct fr_loss_call *q = run->q;
    const ptrdiff_t n = q->classes;
    for (ptrdiff_t i = i0; i < i1; i++) {
        struct FN(loss_row) r = { .p = (const REAL *)q->predicted + i * n, .n = n };
        if (q->gradient) r.dy = (REAL *)q->gradient + i * n;
        if (q->kept && !q->kept[i]) {
            ((REAL *)q->values)[i] = 0;
            if (r.dy) memset(r.dy, 0, (size_t)n * sizeof(REAL));
            continue;
        }
        if (q->softmax) FN(row_softmax)(r.p, n, r.dy); /* in place */
        r.s = (REAL)((q->weights ? q->weights[i] : 1) / q->divisor);
        if (loss >= FR_SPARSE_PROBABILITIES) {
            r.label = (ptrdiff_t)((const int64_t *)q->wanted)[i];
            r.wrong = r.label < 0 || r.label >= n;
            if (!r.wrong) FN(sparse_row)(loss, q, &r);
        } else {
            r.y = (const REAL *)q->wanted + i * n;
            if (loss >= FR_CATEGORICAL_PROBABILITIES) FN(categorical_row)(loss, q, &r);
            else FN(pointwise_row)(loss, q, &r);
        }
        ((REAL *)q->values)[i] = r.value;
        intptr_t first = atomic_load_explicit(&run->wrong, memory_order_relaxed);
        while (r.wrong && i < first && !atomic_compare_exchange_weak(&run->wrong, &first, i)) {}
    }
}

static void FN(loss_body)(void *argument, int thread, int threads)
{
    struct FN(loss_run) *run = argument;
    const ptrdiff_t i0 = fr_share(run->q->rows, thread, threads), i1 = fr_share(run->q->rows, thread + 1, threads);
    unsigned saved = fr_flush_denormals_on();
    switch (run->q->loss) { /* a copy of the loop for each loss */
#define CASE(loss) case loss: FN(loss_rows)(loss, run, i0, i1); break;
    CASE(FR_SQUARED_ERROR) CASE(FR_ABSOLUTE_ERROR) CASE(FR_HUBER) CASE(FR_LOG_COSH)
    CASE(FR_BINARY_PROBABILITIES) CASE(FR_BINARY_LOGITS) CASE(FR_BINARY_FUSED)
    CASE(FR_CATEGORICAL_PROBABILITIES) CASE(FR_CATEGORICAL_LOGITS) CASE(FR_CATEGORICAL_FUSED)
    CASE(FR_SPARSE_PROBABILITIES) CASE(FR_SPARSE_LOGITS) CASE(FR_SPARSE_FUSED)
#undef CASE
    default: break;
    }
    fr_flush_denormals_restore(saved);
}

static void FN(loss)(struct fr_loss_call *q)
{
    struct FN(loss_run) run = { .q = q };
    atomic_init(&run.wrong, q->rows);
    fr_parallel(NULL, q->rows * q->classes < FR_WORTH_A_THREAD / 2 ? 1 : q->threads, FN(loss_body), &run);
    const intptr_t wrong = atomic_load(&run.wrong);
    q->wrong = wrong < q->rows ? wrong : -1;
    const REAL *values = q->values;
    q->total = 0;
    for (ptrdiff_t i = 0; i < q->rows; i++) /* in the order of the rows, whoever made them */
        if (!q->kept || q->kept[i]) q->total += (double)values[i] * ((q->weights ? q->weights[i] : 1) / q->divisor);
}

/* ---- where a row is largest ------------------------------------------------------------------------------------- */

struct FN(argmax_run) {
    const REAL *x, *other; /* [rows, n]; other: NULL for `where` */
    ptrdiff_t rows, n;
    int64_t *where;        /* [rows] */
    unsigned char *same;   /* [rows] */
};

/* One pass: each lane keeps its largest number and where it met it first; then the lanes are compared. */
static ptrdiff_t FN(row_argmax)(const REAL *x, ptrdiff_t n)
{
    FN(vec) best = FN(splat)(-(REAL)INFINITY);
    FN(ivec) where = { 0 }, here = FN(lane_numbers)(), strange = { 0 };
    ptrdiff_t i = 0;
    for (; i + VW <= n; i += VW, here += VW) {
        const FN(vec) v = FN(load)(x + i);
        const FN(ivec) above = FN(above)(v, best);
        where = (above & here) | (~above & where);
        best = FN(select)(above, v, best);
        strange |= (FN(ivec))(v != v);
    }
    ptrdiff_t place = 0;
    REAL most = -(REAL)INFINITY;
    for (int k = 0; k < VW; k++)
        if (best[k] > most || (best[k] == most && most > -(REAL)INFINITY && where[k] < place)) {
            most = best[k];
            place = where[k];
        }
    int nan = FN(any)(strange);
    for (; i < n; i++) {
        if (x[i] > most) { most = x[i]; place = i; }
        nan |= x[i] != x[i];
    }
    for (i = 0; nan && i < n; i++)
        if (x[i] != x[i]) return i;
    return place;
}

static void FN(argmax_body)(void *argument, int thread, int threads)
{
    const struct FN(argmax_run) *q = argument;
    for (ptrdiff_t i = fr_share(q->rows, thread, threads); i < fr_share(q->rows, thread + 1, threads); i++)
        if (q->other) q->same[i] = FN(row_argmax)(q->x + i * q->n, q->n) == FN(row_argmax)(q->other + i * q->n, q->n);
        else q->where[i] = FN(row_argmax)(q->x + i * q->n, q->n);
}

/* where[i]: the first place of the largest number in row i; of the first NaN, if there is one. */
static void FN(argmax_rows)(const void *x, ptrdiff_t rows, ptrdiff_t n, int64_t *where, int threads)
{
    struct FN(argmax_run) q = { .x = x, .rows = rows, .n = n, .where = where };
    fr_parallel(NULL, rows * n < 2 * FR_WORTH_A_THREAD ? 1 : threads, FN(argmax_body), &q);
}

/* same[i]: whether that place is the same one in row i of both. */
static void FN(same_argmax_rows)(const void *x, const void *other, ptrdiff_t rows, ptrdiff_t n, unsigned char *same, int threads)
{
    struct FN(argmax_run) q = { .x = x, .other = other, .rows = rows, .n = n, .same = same };
    fr_parallel(NULL, rows * n < FR_WORTH_A_THREAD ? 1 : threads, FN(argmax_body), &q);
}

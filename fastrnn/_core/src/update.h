/* update.h - one pass over flat arrays of weights: the steps of the optimizers, clipping, running averages; and what is
 * asked of gradients: are they finite, how long are they. Included once for float, once for double.
 *
 * A step is a function on one vector of weights, FN(step_<name>), and a row of FR_FOR_EACH_STEP. Everything is element by
 * element, so neither the split over threads nor the place of an element in its array changes a bit: what does not fill
 * a vector is copied aside and takes the same code. */
#ifndef FASTRNN_UPDATE_SHARED
#define FASTRNN_UPDATE_SHARED

/* X(name, slots, coefficients, w, g): w, g: 0 does not look at weights, gradients; 1 reads, 2 changes them. */
#define FR_FOR_EACH_STEP(X) \
    X(sgd, 0, 2, 2, 1) \
    X(momentum, 1, 3, 2, 1) \
    X(nesterov, 1, 3, 2, 1) \
    X(lion, 1, 4, 2, 1) \
    X(adam, 2, 5, 2, 1) \
    X(amsgrad, 3, 5, 2, 1) \
    X(adamax, 2, 5, 2, 1) \
    X(nadam, 2, 7, 2, 1) \
    X(rmsprop, 1, 5, 2, 1) \
    X(rmsprop_momentum, 2, 5, 2, 1) \
    X(rmsprop_centered, 2, 5, 2, 1) \
    X(rmsprop_momentum_centered, 3, 5, 2, 1) \
    X(adagrad, 1, 3, 2, 1) \
    X(adadelta, 2, 4, 2, 1) \
    X(clip, 0, 1, 0, 2) \
    X(scale, 0, 1, 0, 2) \
    X(accumulate, 1, 0, 0, 1) \
    X(take_mean, 1, 1, 0, 2) \
    X(average, 1, 1, 1, 0)

enum fr_step {
#define X(name, slots, coefficients, w, g) FR_STEP_##name,
    FR_FOR_EACH_STEP(X)
#undef X
    FR_STEPS
};

static const struct fr_step_shape fr_step_shapes[FR_STEPS] = {
#define X(name, slots, coefficients, w, g) { #name, slots, coefficients, w, g },
    FR_FOR_EACH_STEP(X)
#undef X
};

enum {
    FR_UPDATE_BLOCK = 1024,    /* elements that stay together when arrays are split over threads */
    FR_NORM_BLOCK = 2048,      /* elements that are summed by themselves */
    FR_WORTH_A_THREAD = 16384, /* elements below which one thread more costs more than it gains */
};

#endif

/* ---- steps: w the weights, g the gradient, s the slots, c the coefficients; c[0] multiplies w first (weight decay) ---- */

#define STEP(name) ALWAYS_INLINE void FN(step_##name)(FN(vec) *w, FN(vec) *g, FN(vec) *s, const double *c)
#define C(i) ((REAL)c[i])
#define REST(i) ((REAL)(1 - c[i])) /* 1 - c[i], taken in double */

/* c: keep, lr */
STEP(sgd)
{
    (void)s;
    *w = *w * C(0) - *g * C(1);
}

/* c: keep, lr, friction */
STEP(momentum)
{
    s[0] = s[0] * C(2) - *g * C(1);
    *w = *w * C(0) + s[0];
}

STEP(nesterov)
{
    const FN(vec) move = *g * C(1);
    s[0] = s[0] * C(2) - move;
    *w = *w * C(0) + (s[0] * C(2) - move);
}

/* c: keep, lr, beta_1, beta_2 */
STEP(lion)
{
    const FN(vec) zero = FN(splat)(0), d = s[0] * C(2) + *g * REST(2);
    const FN(vec) sign = FN(select)(FN(above)(d, zero), FN(splat)(1), FN(select)(FN(above)(zero, d), FN(splat)(-1), d));
    *w = *w * C(0) - sign * C(1);
    s[0] = s[0] * C(3) + *g * REST(3);
}

ALWAYS_INLINE void FN(track)(FN(vec) *mean, FN(vec) value, REAL share) { *mean = *mean + (value - *mean) * share; }

/* c: keep, alpha, beta_1, beta_2, epsilon; s: momentum, velocity(, largest velocity) */
STEP(adam)
{
    FN(track)(&s[0], *g, REST(2));
    FN(track)(&s[1], *g * *g, REST(3));
    *w = *w * C(0) - s[0] / (FN(vsqrt)(s[1]) + C(4)) * C(1);
}

STEP(amsgrad)
{
    FN(track)(&s[0], *g, REST(2));
    FN(track)(&s[1], *g * *g, REST(3));
    s[2] = FN(vmax)(s[2], s[1]);
    *w = *w * C(0) - s[0] / (FN(vsqrt)(s[2]) + C(4)) * C(1);
}

/* the same; s: momentum, norm */
STEP(adamax)
{
    FN(track)(&s[0], *g, REST(2));
    s[1] = FN(vmax)(s[1] * C(3), FN(magnitude)(*g));
    *w = *w * C(0) - s[0] / (s[1] + C(4)) * C(1);
}

/* c: keep, factor of the momentum, of the gradient, of the root, beta_1, beta_2, epsilon; s: momentum, velocity */
STEP(nadam)
{
    FN(track)(&s[0], *g, REST(4));
    FN(track)(&s[1], *g * *g, REST(5));
    *w = *w * C(0) - (s[0] * C(1) + *g * C(2)) / (FN(vsqrt)(s[1]) * C(3) + C(6));
}

/* c: keep, lr, rho, friction, epsilon; s: velocity(, momentum)(, average gradient) */
ALWAYS_INLINE void FN(rmsprop)(FN(vec) *w, FN(vec) g, FN(vec) *velocity, FN(vec) *momentum, FN(vec) *mean, const double *c)
{
    *velocity = *velocity * C(2) + g * g * REST(2);
    FN(vec) under = *velocity + C(4);
    if (mean) {
        *mean = *mean * C(2) + g * REST(2);
        under = under - *mean * *mean;
    }
    FN(vec) move = g * C(1) / FN(vsqrt)(under);
    if (momentum) move = *momentum = *momentum * C(3) + move;
    *w = *w * C(0) - move;
}

STEP(rmsprop) { FN(rmsprop)(w, *g, &s[0], NULL, NULL, c); }
STEP(rmsprop_momentum) { FN(rmsprop)(w, *g, &s[0], &s[1], NULL, c); }
STEP(rmsprop_centered) { FN(rmsprop)(w, *g, &s[0], NULL, &s[1], c); }
STEP(rmsprop_momentum_centered) { FN(rmsprop)(w, *g, &s[0], &s[1], &s[2], c); }

/* c: keep, lr, epsilon */
STEP(adagrad)
{
    s[0] = s[0] + *g * *g;
    *w = *w * C(0) - *g * C(1) / FN(vsqrt)(s[0] + C(2));
}

/* c: keep, lr, rho, epsilon; s: squares of gradients, squares of moves */
STEP(adadelta)
{
    s[0] = s[0] * C(2) + *g * *g * REST(2);
    const FN(vec) move = FN(vsqrt)(s[1] + C(3)) * *g / FN(vsqrt)(s[0] + C(3));
    s[1] = s[1] * C(2) + move * move * REST(2);
    *w = *w * C(0) - move * C(1);
}

/* g <- g within +-c[0]; NaN stays */
STEP(clip)
{
    (void)w, (void)s;
    *g = FN(vmax)(FN(splat)(-C(0)), FN(vmin)(FN(splat)(C(0)), *g));
}

STEP(scale)
{
    (void)w, (void)s;
    *g = *g * C(0);
}

/* s <- s + g */
STEP(accumulate)
{
    (void)w, (void)c;
    s[0] = s[0] + *g;
}

/* g <- s / c[0]; s <- 0 */
STEP(take_mean)
{
    (void)w;
    *g = s[0] / C(0);
    s[0] = FN(splat)(0);
}

/* s <- c[0] s + (1 - c[0]) w */
STEP(average)
{
    (void)g;
    s[0] = s[0] * C(0) + *w * REST(0);
}

#undef STEP
#undef C
#undef REST

/* Whole vectors of one step: w, g and slots from element i0 on, `n` elements, a multiple of VW. */
#define X(name, slots, coefficients, w_use, g_use)                                                                             \
    static void FN(run_##name)(REAL *w, REAL *g, REAL *const *s, ptrdiff_t n, const double *c)                         \
    {                                                                                                                  \
        for (ptrdiff_t i = 0; i < n; i += VW) {                                                                        \
            FN(vec) wv = { 0 }, gv = { 0 }, sv[slots + 1];                                                             \
            if (w_use) wv = FN(load)(w + i);                                                                           \
            if (g_use) gv = FN(load)(g + i);                                                                           \
            UNROLL for (int k = 0; k < slots; k++) sv[k] = FN(load)(s[k] + i);                                         \
            FN(step_##name)(&wv, &gv, sv, c);                                                                          \
            UNROLL for (int k = 0; k < slots; k++) FN(store)(s[k] + i, sv[k]);                                         \
            if (w_use == 2) FN(store)(w + i, wv);                                                                      \
            if (g_use == 2) FN(store)(g + i, gv);                                                                      \
        }                                                                                                              \
    }
FR_FOR_EACH_STEP(X)
#undef X

static void (*const FN(runs)[FR_STEPS])(REAL *w, REAL *g, REAL *const *slots, ptrdiff_t n, const double *c) = {
#define X(name, slots, coefficients, w, g) FN(run_##name),
    FR_FOR_EACH_STEP(X)
#undef X
};

/* Elements [i0, i1) of the call's arrays. */
static void FN(update_span)(const struct fr_update_call *q, ptrdiff_t i0, ptrdiff_t i1)
{
    const struct fr_step_shape *shape = &fr_step_shapes[q->step];
    const int slots = shape->slots, uses_w = shape->w, uses_g = shape->g;
    const ptrdiff_t n = i1 - i0, whole = n / VW * VW, rest = n - whole;
    REAL *w = uses_w ? (REAL *)q->w + i0 : NULL, *g = uses_g ? (REAL *)q->g + i0 : NULL, *s[FR_MAX_SLOTS];
    for (int k = 0; k < slots; k++) s[k] = (REAL *)q->slots[k] + i0;
    FN(runs)[q->step](w, g, s, whole, q->coefficients);
    if (!rest) return;
    REAL aside[2 + FR_MAX_SLOTS][VW] = { { 0 } }, *aside_s[FR_MAX_SLOTS];
    const size_t bytes = (size_t)rest * sizeof(REAL);
    if (uses_w) memcpy(aside[0], w + whole, bytes);
    if (uses_g) memcpy(aside[1], g + whole, bytes);
    for (int k = 0; k < slots; k++) memcpy(aside_s[k] = aside[2 + k], s[k] + whole, bytes);
    FN(runs)[q->step](aside[0], aside[1], aside_s, VW, q->coefficients);
    if (uses_w == 2) memcpy(w + whole, aside[0], bytes);
    if (uses_g == 2) memcpy(g + whole, aside[1], bytes);
    for (int k = 0; k < slots; k++) memcpy(s[k] + whole, aside_s[k], bytes);
}

static int FN(any_nonzero)(const REAL *x, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        if (x[i] != 0) return 1;
    return 0;
}

static void FN(update_body)(void *argument, int thread, int threads)
{
    const struct fr_update_call *q = argument;
    unsigned saved = fr_flush_denormals_on();
    if (q->width) { /* by rows: those with a gradient */
        const ptrdiff_t rows = q->rows ? q->row_count : q->n / q->width;
        for (ptrdiff_t i = fr_share(rows, thread, threads); i < fr_share(rows, thread + 1, threads); i++) {
            const ptrdiff_t start = (q->rows ? q->rows[i] : i) * q->width;
            if (FN(any_nonzero)((const REAL *)q->g + start, q->width)) FN(update_span)(q, start, start + q->width);
        }
    } else {
        const ptrdiff_t blocks = (q->n + FR_UPDATE_BLOCK - 1) / FR_UPDATE_BLOCK;
        const ptrdiff_t i0 = fr_share(blocks, thread, threads) * FR_UPDATE_BLOCK, i1 = fr_share(blocks, thread + 1, threads) * FR_UPDATE_BLOCK;
        if (i0 < i1) FN(update_span)(q, i0, i1 < q->n ? i1 : q->n);
    }
    fr_flush_denormals_restore(saved);
}

static void FN(update)(const struct fr_update_call *q)
{
    const ptrdiff_t n = q->rows ? q->row_count * q->width : q->n;
    fr_parallel(NULL, n < 2 * FR_WORTH_A_THREAD ? 1 : q->threads, FN(update_body), (void *)q);
}

/* ---- questions about gradients --------------------------------------------------------------------------------- */

struct FN(vector_question) {
    const REAL *x;
    ptrdiff_t n;
    double *sums;    /* [ceil(n / FR_NORM_BLOCK)] */
    atomic_int found;
};

/* x * 0 is NaN where x is not finite, and NaN stays in a sum. */
static int FN(finite_span)(const REAL *x, ptrdiff_t n)
{
    FN(vec) sum[4] = { { 0 } };
    ptrdiff_t i = 0;
    for (; i + 4 * VW <= n; i += 4 * VW)
        UNROLL for (int k = 0; k < 4; k++) sum[k] = FN(load)(x + i + k * VW) * 0 + sum[k];
    for (; i < n; i += VW) sum[0] = FN(load_part)(x + i, n - i) * 0 + sum[0];
    const FN(vec) all = sum[0] + sum[1] + sum[2] + sum[3];
    REAL total = 0;
    for (int k = 0; k < VW; k++) total += all[k];
    return total == 0;
}

static void FN(finite_body)(void *argument, int thread, int threads)
{
    struct FN(vector_question) *q = argument;
    const ptrdiff_t blocks = (q->n + FR_NORM_BLOCK - 1) / FR_NORM_BLOCK;
    for (ptrdiff_t b = fr_share(blocks, thread, threads); b < fr_share(blocks, thread + 1, threads); b++) {
        const ptrdiff_t start = b * FR_NORM_BLOCK, n = q->n - start < FR_NORM_BLOCK ? q->n - start : FR_NORM_BLOCK;
        if (!FN(finite_span)(q->x + start, n)) {
            atomic_store_explicit(&q->found, 1, memory_order_relaxed);
            return;
        }
    }
}

static int FN(all_finite)(const void *x, ptrdiff_t n, int threads)
{
    struct FN(vector_question) q = { .x = x, .n = n };
    fr_parallel(NULL, n < 4 * FR_WORTH_A_THREAD ? 1 : threads, FN(finite_body), &q);
    return !atomic_load(&q.found);
}

static void FN(norm_body)(void *argument, int thread, int threads)
{
    struct FN(vector_question) *q = argument;
    const ptrdiff_t blocks = (q->n + FR_NORM_BLOCK - 1) / FR_NORM_BLOCK;
    for (ptrdiff_t b = fr_share(blocks, thread, threads); b < fr_share(blocks, thread + 1, threads); b++) {
        const REAL *x = q->x + b * FR_NORM_BLOCK;
        const ptrdiff_t left = q->n - b * FR_NORM_BLOCK, n = left < FR_NORM_BLOCK ? left : FR_NORM_BLOCK;
        double sum[8] = { 0 };
        ptrdiff_t i = 0;
        for (; i + 8 <= n; i += 8)
            for (int k = 0; k < 8; k++) sum[k] += (double)x[i + k] * (double)x[i + k];
        for (; i < n; i++) sum[i % 8] += (double)x[i] * (double)x[i];
        q->sums[b] = ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
    }
}

/* The squares are summed in double: blocks of FR_NORM_BLOCK, then the blocks in their order. */
static int FN(squared_norm)(const void *x, ptrdiff_t n, int threads, double *result)
{
    const ptrdiff_t blocks = (n + FR_NORM_BLOCK - 1) / FR_NORM_BLOCK;
    struct FN(vector_question) q = { .x = x, .n = n, .sums = fr_take((size_t)(blocks + 1) * sizeof(double)) };
    if (!q.sums) return FR_NO_MEMORY;
    fr_parallel(NULL, n < 4 * FR_WORTH_A_THREAD ? 1 : threads, FN(norm_body), &q);
    *result = 0;
    for (ptrdiff_t b = 0; b < blocks; b++) *result += q.sums[b];
    fr_give_back(q.sums);
    return FR_OK;
}

/* activations.h - the activations of a cell and their slopes, on vectors of REAL.
 *
 * tanh and sigmoid are where a small cell spends the time that its products leave; the others share their exponential.
 * Largest errors in units of the last place, with and without FMA, over all results that are normal numbers:
 *
 *               tanh   sigmoid   softsign   elu   selu   softplus   exponential
 *     float     2.8    2.5       1.5        2.5   3.4    3.5        1.7     (tanh, sigmoid: every float)
 *     double    3.1    2.5       1.5        2.5   4.5    3.5        1.7     (3e7 and more samples)
 *
 * NaN gives NaN, infinities give the limits, tanh is exactly odd, and tanh and sigmoid never leave [-1, 1] and [0, 1]. All
 * that holds with denormals flushed or not, and needs no -ffast-math, which would break the rounding below.
 *
 * Included after simd.h, once for each number type. Without REAL only the shared part is seen.
 */
#ifndef FASTRNN_ACTIVATIONS_SHARED
#define FASTRNN_ACTIVATIONS_SHARED

/* The activations a cell may use: those whose slope follows from their output. */
enum fr_activation {
    FR_TANH,
    FR_SIGMOID,
    FR_RELU,
    FR_LINEAR,
    FR_HARD_SIGMOID,
    FR_SOFTSIGN,
    FR_ELU,
    FR_SELU,
    FR_SOFTPLUS,
    FR_EXPONENTIAL,
    FR_ACTIVATIONS /* how many there are */
};

/* Keras' names, in the order of the enumeration. */
static const char *const fr_activation_names[FR_ACTIVATIONS] __attribute__((unused)) = {
    [FR_TANH] = "tanh",
    [FR_SIGMOID] = "sigmoid",
    [FR_RELU] = "relu",
    [FR_LINEAR] = "linear",
    [FR_HARD_SIGMOID] = "hard_sigmoid",
    [FR_SOFTSIGN] = "softsign",
    [FR_ELU] = "elu",
    [FR_SELU] = "selu",
    [FR_SOFTPLUS] = "softplus",
    [FR_EXPONENTIAL] = "exponential",
};

#endif /* FASTRNN_ACTIVATIONS_SHARED */

#ifdef REAL

#define LOG2E 1.4426950408889634
#define SELU_SCALE 1.0507009873554805
#define SELU_ALPHA 1.6732632423543772

/* Constants of each number type; the coefficients come from benchmarks/kernels/fit_activations.py.
 *
 * ROUNDER          x + ROUNDER is x rounded to an integer, which stands in the lowest bits of the sum
 * LN2_HIGH, _LOW   ln 2 in two parts, the first with so few bits that n * LN2_HIGH is exact for every exponent n
 * EXP_ZERO, ...    from there on exp rounds to 0, exp to infinity, sigmoid to less than a normal number
 * SATURATED        from there on 1 - e^-x and 1 / (1 + e^-x) round to 1, and so does tanh from half of it on
 * coth_terms       r/2 coth(r/2) = 1 + r^2 P(r^2)
 * log_terms        log(1 + z) = g + g^3 P(g^2), g = 2 z / (2 + z) */
#if REAL_IS_FLOAT
#define MANTISSA_BITS 23
#define EXPONENT_BIAS 127
#define ROUNDER 12582912.0f /* 1.5 * 2^23 */
#define LN2_HIGH 0.693359375
#define LN2_LOW -2.1219444005469057e-4
#define EXP_ZERO -104
#define EXP_INFINITE 89
#define SIGMOID_ZERO -88.8
#define SATURATED 18.04

static const REAL FN(coth_terms)[] = {0.0833331198f, -0.00138332334f};
static const REAL FN(log_terms)[] = {0.0833330229f, 0.0125067299f, 0.00218763109f, 0.000547122327f};
#else
#define MANTISSA_BITS 52
#define EXPONENT_BIAS 1023
#define ROUNDER 6755399441055744.0 /* 1.5 * 2^52 */
#define LN2_HIGH 0.693147180559663
#define LN2_LOW 2.8235290563031577e-13
#define EXP_ZERO -746
#define EXP_INFINITE 710
#define SIGMOID_ZERO -710
#define SATURATED 38.2

static const REAL FN(coth_terms)[] = {0.083333333333332996, -0.0013888888888493654, 3.3068781573171331e-05,
                                      -8.2669478292644333e-07, 2.0689588851355273e-08};
static const REAL FN(log_terms)[] = {0.083333333333332885,   0.012500000000048521,   0.0022321428553201414, 0.0004340278116205412,
                                     8.8778048975263985e-05, 1.8782409032275631e-05, 4.0591755911869911e-06, 9.235432410667755e-07,
                                     1.5915729730328117e-07, 8.1113798144720082e-08};
#endif

/* ------------------------------------------------------------------------------------------------- exponentials ---- */

/* e^(-c x) in parts. With c x = c r - n ln 2, |c r| <= ln(2)/2, and the even function E(r) = r/2 coth(c r / 2),
 *
 *     e^(-c x) = 2^n (E - r/2) / (E + r/2)        1 - e^(-c r) = r / (E + r/2)
 *
 * Two things make this cheap. E takes two coefficients in float and five in double, where a polynomial for the exponential
 * itself takes six and eleven. And tanh and sigmoid are quotients of such terms: multiplied out, each has one division. */
typedef struct {
    FN(vec) n, power;       /* power = 2^n */
    FN(vec) r, top, bottom; /* top = E - r/2, bottom = E + r/2 */
} FN(decay);

ALWAYS_INLINE FN(vec) FN(magnitude)(FN(vec) x)
{
    const FN(lane) sign = (FN(lane))1 << (8 * sizeof(REAL) - 1);
    return (FN(vec))((FN(ivec))x & ~sign);
}

/* a >= +0 with the sign of x. */
ALWAYS_INLINE FN(vec) FN(with_sign_of)(FN(vec) x, FN(vec) a)
{
    const FN(lane) sign = (FN(lane))1 << (8 * sizeof(REAL) - 1);
    return (FN(vec))((FN(ivec))a | ((FN(ivec))x & sign));
}

/* ROUNDER + bias + n has the exponent field of 2^n in its lowest bits. */
ALWAYS_INLINE FN(vec) FN(shift_to_exponent)(FN(vec) sum)
{
    return (FN(vec))((FN(ivec))sum << MANTISSA_BITS);
}

ALWAYS_INLINE FN(vec) FN(power_of_two)(FN(vec) n)
{
    return FN(shift_to_exponent)(n + (REAL)(ROUNDER + EXPONENT_BIAS));
}

/* P(x) by Horner's rule. */
ALWAYS_INLINE FN(vec) FN(polynomial)(const REAL *terms, int count, FN(vec) x)
{
    FN(vec) p = FN(splat)(terms[count - 1]);
    UNROLL for (int k = count - 2; k >= 0; k--)
        p = p * x + terms[k];
    return p;
}

/* c: a constant power of two. It goes into the other constants, and none of them is rounded by that.
 * The caller bounds x so that n is an exponent; n may be one too large, and the power is then infinite. */
ALWAYS_INLINE FN(decay) FN(split_decay)(FN(vec) x, double c)
{
    const int count = sizeof FN(coth_terms) / sizeof(REAL);
    REAL terms[sizeof FN(coth_terms) / sizeof(REAL)]; /* of E = 1/c + r^2 P(r^2) */
    double scale = c;
    UNROLL for (int k = 0; k < count; k++, scale *= c * c)
        terms[k] = (REAL)(FN(coth_terms)[k] * scale);

    FN(decay) e;
    const REAL rounder = (REAL)(ROUNDER + EXPONENT_BIAS);
    FN(vec) sum = x * (REAL)(-c * LOG2E) + rounder;
    e.power = FN(shift_to_exponent)(sum);
    e.n = sum - rounder;
    e.r = x + e.n * (REAL)(LN2_HIGH / c) + e.n * (REAL)(LN2_LOW / c);
    FN(vec) square = e.r * e.r;
    FN(vec) even = square * FN(polynomial)(terms, count, square) + (REAL)(1 / c);
    e.top = even - (REAL)0.5 * e.r;
    e.bottom = even + (REAL)0.5 * e.r;
    return e;
}

/* (1 - e^(-c x)) bottom = (1 - 2^n) bottom + 2^n r. The first product is 0 around x = 0, where it would spoil the relative
 * accuracy of r, and the larger one elsewhere: it is the one not to round. 2^n r is exact. */
ALWAYS_INLINE FN(vec) FN(decayed)(FN(decay) e)
{
    return FN(fused)(e.bottom, 1 - e.power, e.power * e.r);
}

/* e^x. 2^n is applied as two factors, so that results near the largest and the smallest numbers need no special case. */
ALWAYS_INLINE FN(vec) FN(vexp)(FN(vec) x)
{
    x = FN(vmin)(FN(splat)(EXP_INFINITE), FN(vmax)(FN(splat)(EXP_ZERO), x));
    FN(decay) e = FN(split_decay)(-x, 1);
    FN(vec) half = ((REAL)0.5 * e.n + ROUNDER) - ROUNDER;
    return e.top / e.bottom * FN(power_of_two)(half) * FN(power_of_two)(e.n - half);
}

/* 1 - e^-x for x >= 0, relatively accurate around 0; elsewhere the value means nothing. */
ALWAYS_INLINE FN(vec) FN(one_minus_exp)(FN(vec) x)
{
    FN(decay) e = FN(split_decay)(FN(vmin)(FN(splat)((REAL)SATURATED), x), 1);
    return FN(decayed)(e) / e.bottom;
}

/* log(1 + z) for 0 <= z <= 1, by 2 atanh(z / (2 + z)). */
ALWAYS_INLINE FN(vec) FN(vlog1p)(FN(vec) z)
{
    const int count = sizeof FN(log_terms) / sizeof(REAL);
    FN(vec) g = 2 * z / (2 + z);
    FN(vec) square = g * g;
    return g * square * FN(polynomial)(FN(log_terms), count, square) + g;
}

/* log(x) for normal numbers x > 0; NaN gives NaN. With x = 2^n m, m in [1/sqrt(2), sqrt(2)): n ln 2 + log(m). */
ALWAYS_INLINE FN(vec) FN(vlog)(FN(vec) x)
{
    const int count = sizeof FN(log_terms) / sizeof(REAL);
    const FN(lane) one = (FN(lane))EXPONENT_BIAS << MANTISSA_BITS;
    const FN(lane) fraction = ((FN(lane))1 << MANTISSA_BITS) - 1;
    FN(vec) m = (FN(vec))(((FN(ivec))x & fraction) | one); /* in [1, 2) */
    FN(ivec) upper = FN(above)(m, FN(splat)((REAL)1.4142135623730951));
    m = FN(select)(upper, (REAL)0.5 * m, m);
    /* x > 0, so the exponent field stands alone; n = field - bias, + 1 where m was halved (upper is -1 there) */
    FN(ivec) n = (((FN(ivec))x >> MANTISSA_BITS) & (2 * EXPONENT_BIAS + 1)) - EXPONENT_BIAS - upper;
    FN(vec) exponent = (FN(vec))(n + (FN(ivec))FN(splat)(ROUNDER)) - ROUNDER;
    FN(vec) g = 2 * (m - 1) / (m + 1);
    FN(vec) square = g * g;
    FN(vec) log_m = g * square * FN(polynomial)(FN(log_terms), count, square) + g;
    return exponent * (REAL)LN2_HIGH + (exponent * (REAL)LN2_LOW + log_m) + (x - x);
}

/* ---------------------------------------------------------------------------------------------- tanh and sigmoid ---- */

/* tanh|x| = (1 - e^-2|x|) / (1 + e^-2|x|) */
ALWAYS_INLINE FN(vec) FN(vtanh)(FN(vec) x)
{
    FN(vec) size = FN(vmin)(FN(splat)((REAL)(SATURATED / 2)), FN(magnitude)(x));
    FN(decay) e = FN(split_decay)(size, 2);
    return FN(with_sign_of)(x, FN(decayed)(e) / (e.power * e.top + e.bottom));
}

/* 1 / (1 + e^-x). Where e^-x is too large the power is infinite and the result 0; the true one is no normal number. */
ALWAYS_INLINE FN(vec) FN(vsigmoid)(FN(vec) x)
{
    x = FN(vmin)(FN(splat)((REAL)SATURATED), FN(vmax)(FN(splat)((REAL)SIGMOID_ZERO), x));
    FN(decay) e = FN(split_decay)(x, 1);
    return e.bottom / (e.power * e.top + e.bottom);
}

/* --------------------------------------------------------------------------------------------------- activations ---- */

ALWAYS_INLINE FN(vec) FN(vhard_sigmoid)(FN(vec) x)
{
    FN(vec) six = FN(splat)(6);
    return FN(vmin)(six, FN(vmax)(FN(splat)(0), x + 3)) / six;
}

/* x / (1 + |x|). The bound changes no result but that of an infinite x. */
ALWAYS_INLINE FN(vec) FN(vsoftsign)(FN(vec) x)
{
    const REAL bound = (REAL)1e18;
    x = FN(vmin)(FN(splat)(bound), FN(vmax)(FN(splat)(-bound), x));
    return x / (1 + FN(magnitude)(x));
}

ALWAYS_INLINE FN(vec) FN(velu)(FN(vec) x)
{
    return FN(select)(FN(above)(x, FN(splat)(0)), x, 0 - FN(one_minus_exp)(-x));
}

ALWAYS_INLINE FN(vec) FN(vselu)(FN(vec) x)
{
    FN(vec) negative = 0 - (REAL)(SELU_SCALE * SELU_ALPHA) * FN(one_minus_exp)(-x);
    return FN(select)(FN(above)(x, FN(splat)(0)), (REAL)SELU_SCALE * x, negative);
}

/* log(1 + e^x) = max(x, 0) + log(1 + e^-|x|) */
ALWAYS_INLINE FN(vec) FN(vsoftplus)(FN(vec) x)
{
    return FN(vmax)(FN(splat)(0), x) + FN(vlog1p)(FN(vexp)(-FN(magnitude)(x)));
}

/* y = f(x). With a constant `kind` only that branch is left. */
ALWAYS_INLINE FN(vec) FN(activate)(int kind, FN(vec) x)
{
    switch (kind) {
    case FR_TANH:
        return FN(vtanh)(x);
    case FR_SIGMOID:
        return FN(vsigmoid)(x);
    case FR_RELU:
        return FN(vmax)(FN(splat)(0), x);
    case FR_HARD_SIGMOID:
        return FN(vhard_sigmoid)(x);
    case FR_SOFTSIGN:
        return FN(vsoftsign)(x);
    case FR_ELU:
        return FN(velu)(x);
    case FR_SELU:
        return FN(vselu)(x);
    case FR_SOFTPLUS:
        return FN(vsoftplus)(x);
    case FR_EXPONENTIAL:
        return FN(vexp)(x);
    default: /* FR_LINEAR */
        return x;
    }
}

/* dy/dx from y = f(x). At a corner, where there are two slopes, that of Keras' TensorFlow backend. */
ALWAYS_INLINE FN(vec) FN(activate_slope)(int kind, FN(vec) y)
{
    const FN(vec) zero = FN(splat)(0), one = FN(splat)(1);
    const FN(ivec) positive = FN(above)(y, zero);
    switch (kind) {
    case FR_TANH:
        return 1 - y * y;
    case FR_SIGMOID:
        return y * (1 - y);
    case FR_RELU:
        return FN(select)(positive, one, zero);
    case FR_HARD_SIGMOID:
        return FN(select)(positive & FN(above)(one, y), FN(splat)((REAL)(1.0 / 6)), zero);
    case FR_SOFTSIGN: /* 1 - |y| = 1 / (1 + |x|) */
        return (1 - FN(magnitude)(y)) * (1 - FN(magnitude)(y));
    case FR_ELU:
        return FN(select)(positive, one, y + 1);
    case FR_SELU:
        return FN(select)(positive, FN(splat)((REAL)SELU_SCALE), y + (REAL)(SELU_SCALE * SELU_ALPHA));
    case FR_SOFTPLUS: /* sigmoid(x) = 1 - e^-y */
        return FN(one_minus_exp)(y);
    case FR_EXPONENTIAL:
        return y;
    default: /* FR_LINEAR */
        return one;
    }
}

#undef MANTISSA_BITS
#undef EXPONENT_BIAS
#undef ROUNDER
#undef LOG2E
#undef LN2_HIGH
#undef LN2_LOW
#undef EXP_ZERO
#undef EXP_INFINITE
#undef SIGMOID_ZERO
#undef SATURATED
#undef SELU_SCALE
#undef SELU_ALPHA

#endif /* REAL */

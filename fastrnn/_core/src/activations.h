/* activations.h - the activations of a cell and their slopes, on vectors of REAL.
 *
 * tanh and sigmoid are most of the time a small cell takes outside its products, so that they have their own formulas; all
 * others are built from the same exponential. Accuracy, over all inputs whose result is a normal number: see each function.
 * Nothing here depends on -ffast-math: NaN gives NaN, infinities give limits, and both hold with denormals flushed or not.
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

/* Constants of each number type. The coefficients come from benchmarks/kernels/fit_activations.py.
 *
 * ln 2 = LN2_HIGH + LN2_LOW, the first with so few bits that n * LN2_HIGH is exact for every exponent n.
 * ROUNDER + x rounds x to an integer and leaves that integer in the lowest bits of the sum: BIAS makes it an exponent field. */
#undef MANTISSA_BITS
#undef EXPONENT_BIAS
#undef ROUNDER
#undef LN2_HIGH
#undef LN2_LOW
#undef EXP_LOWEST
#undef EXP_HIGHEST
#undef EXPM1_LOWEST
#undef SIGMOID_SCALE
#undef SIGMOID_SCALE_EXPONENT
#undef SIGMOID_ONE
#if REAL_IS_FLOAT
#define MANTISSA_BITS 23
#define EXPONENT_BIAS 127
#define ROUNDER 12582912.0f /* 1.5 * 2^23 */
#define LN2_HIGH 0.693359375f
#define LN2_LOW -2.12194440e-4f
#define EXP_LOWEST -104.0f /* exp is 0 from here down */
#define EXP_HIGHEST 89.0f  /* exp is infinite from here up */
#define EXPM1_LOWEST -18.0f /* expm1 is -1 from here down */
#define SIGMOID_SCALE_EXPONENT -64
#define SIGMOID_SCALE 0x1p-64f
#define SIGMOID_ONE 18.0f /* sigmoid is 1 from here up */

/* expm1(r) = r + r^2 P(r), |r| <= ln(2)/2; relative error 1.7e-8 */
static const REAL FN(expm1_terms)[] = {0.49999997f, 0.166665435f, 0.0416671969f, 0.00836652424f, 0.00138827297f};

/* log1p(z) = 2 f + f^3 P(f^2), f = z / (2 + z), 0 <= z <= 1; relative error 5e-10 */
static const REAL FN(log1p_terms)[] = {0.666666746f, 0.39998889f, 0.286166131f, 0.214305609f, 0.242902935f};
#else
#define MANTISSA_BITS 52
#define EXPONENT_BIAS 1023
#define ROUNDER 6755399441055744.0 /* 1.5 * 2^52 */
#define LN2_HIGH 0.693147180559663 /* 40 bits */
#define LN2_LOW 2.8235290563031577e-13
#define EXP_LOWEST -746.0
#define EXP_HIGHEST 710.0
#define EXPM1_LOWEST -40.0
#define SIGMOID_SCALE_EXPONENT -512
#define SIGMOID_SCALE 0x1p-512
#define SIGMOID_ONE 40.0

/* relative error 3.1e-17 */
static const REAL FN(expm1_terms)[] = {
    0.50000000000000056,    0.16666666666666591,    0.041666666666576702,   0.0083333333333892312,  0.00138888889315826,
    0.00019841269719925311, 2.4801505251924316e-05, 2.7557406515266151e-06, 2.7626046832254408e-07, 2.505416683615897e-08};

/* relative error 2.1e-18 */
static const REAL FN(log1p_terms)[] = {
    0.66666666666666674, 0.39999999999994057, 0.28571428572498314, 0.22222222126343075,  0.18181823165585775, 0.15384452920069328,
    0.13336789112449976, 0.11716131590925274, 0.1097135278251674,  0.069988438159400174, 0.164601268366346};
#endif

#undef LOG2E
#define LOG2E 1.4426950408889634

/* ------------------------------------------------------------------------------------------------- exponentials ---- */

ALWAYS_INLINE FN(vec) FN(magnitude)(FN(vec) x)
{
    const FN(lane) sign = (FN(lane))1 << (8 * sizeof(REAL) - 1);
    return (FN(vec))((FN(ivec))x & ~sign);
}

/* The magnitude of a >= 0 with the sign of x. */
ALWAYS_INLINE FN(vec) FN(with_sign_of)(FN(vec) x, FN(vec) a)
{
    const FN(lane) sign = (FN(lane))1 << (8 * sizeof(REAL) - 1);
    return (FN(vec))((FN(ivec))a | ((FN(ivec))x & sign));
}

/* P(x) by Horner's rule. */
ALWAYS_INLINE FN(vec) FN(polynomial)(const REAL *terms, int count, FN(vec) x)
{
    FN(vec) p = FN(splat)(terms[count - 1]);
    UNROLL for (int k = count - 2; k >= 0; k--)
        p = p * x + terms[k];
    return p;
}

/* Splits x = n ln 2 + r with |r| <= ln(2)/2; returns r, and *power = 2^(n + shift), which must be a normal number.
 * The sum that rounds x / ln 2 to the integer n holds n + shift + bias in its lowest bits: moved up, they are that power. */
ALWAYS_INLINE FN(vec) FN(reduce)(FN(vec) x, int shift, FN(vec) *power)
{
    const REAL rounder = ROUNDER + (REAL)(EXPONENT_BIAS + shift);
    FN(vec) sum = x * (REAL)LOG2E + rounder;
    FN(vec) n = sum - rounder;
    *power = (FN(vec))((FN(ivec))sum << MANTISSA_BITS);
    return x - n * LN2_HIGH - n * LN2_LOW;
}

/* e^r - 1 for the r of a reduction, relatively accurate around 0. */
ALWAYS_INLINE FN(vec) FN(expm1_reduced)(FN(vec) r)
{
    const int count = sizeof FN(expm1_terms) / sizeof(REAL);
    return r * r * FN(polynomial)(FN(expm1_terms), count, r) + r;
}

/* e^x. 2^n is applied as two factors, so that results near the largest and the smallest numbers need no special case. */
ALWAYS_INLINE FN(vec) FN(vexp)(FN(vec) x)
{
    x = FN(vmin)(FN(splat)(EXP_HIGHEST), FN(vmax)(FN(splat)(EXP_LOWEST), x));
    FN(vec) n = (x * (REAL)LOG2E + ROUNDER) - ROUNDER;
    FN(vec) r = x - n * LN2_HIGH - n * LN2_LOW;
    const REAL rounder = ROUNDER + (REAL)EXPONENT_BIAS;
    FN(vec) half = n * (REAL)0.5 + rounder;
    FN(vec) rest = n - (half - rounder) + rounder;
    FN(vec) first_power = (FN(vec))((FN(ivec))half << MANTISSA_BITS);
    FN(vec) second_power = (FN(vec))((FN(ivec))rest << MANTISSA_BITS);
    return (1 + FN(expm1_reduced)(r)) * first_power * second_power;
}

/* 1 - e^x = (1 - 2^n) - (e^r - 1) 2^n for x <= 0; elsewhere the value means nothing. 0 gives +0. */
ALWAYS_INLINE FN(vec) FN(one_minus_exp)(FN(vec) x)
{
    FN(vec) power;
    FN(vec) r = FN(reduce)(FN(vmax)(FN(splat)(EXPM1_LOWEST), x), 0, &power);
    return (1 - power) - FN(expm1_reduced)(r) * power;
}

/* log(1 + z) for 0 <= z <= 1, by 2 atanh(z / (2 + z)). */
ALWAYS_INLINE FN(vec) FN(vlog1p)(FN(vec) z)
{
    const int count = sizeof FN(log1p_terms) / sizeof(REAL);
    FN(vec) f = FN(quotient)(z, 2 + z);
    FN(vec) square = f * f;
    return f * square * FN(polynomial)(FN(log1p_terms), count, square) + 2 * f;
}

/* ---------------------------------------------------------------------------------------------- tanh and sigmoid ---- */

/* tanh|x| = s / (2 - s) with s = 1 - e^-2|x| in [0, 1]. */
ALWAYS_INLINE FN(vec) FN(vtanh)(FN(vec) x)
{
    FN(vec) s = FN(one_minus_exp)(-2 * FN(magnitude)(x));
    return FN(with_sign_of)(x, FN(quotient)(s, 2 - s));
}

/* 1 / (1 + e^-x) as s / (s + s e^-x) with a small power of two s: e^-x may then be larger than any number, and the result
 * underflows in the last operation only. */
ALWAYS_INLINE FN(vec) FN(vsigmoid)(FN(vec) x)
{
    FN(vec) power;
    x = FN(vmin)(FN(splat)(SIGMOID_ONE), FN(vmax)(FN(splat)(EXP_LOWEST), x));
    FN(vec) r = FN(reduce)(-x, SIGMOID_SCALE_EXPONENT, &power);
    FN(vec) scaled = (1 + FN(expm1_reduced)(r)) * power + SIGMOID_SCALE;
    return FN(reciprocal)(scaled) * SIGMOID_SCALE;
}

/* --------------------------------------------------------------------------------------------------- activations ---- */

#undef SELU_SCALE
#undef SELU_ALPHA
#define SELU_SCALE 1.0507009873554805
#define SELU_ALPHA 1.6732632423543772

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
    return FN(quotient)(x, 1 + FN(magnitude)(x));
}

ALWAYS_INLINE FN(vec) FN(velu)(FN(vec) x)
{
    return FN(select)((FN(ivec))(x >= 0), x, -FN(one_minus_exp)(x));
}

ALWAYS_INLINE FN(vec) FN(vselu)(FN(vec) x)
{
    FN(vec) negative = (REAL)(-SELU_SCALE * SELU_ALPHA) * FN(one_minus_exp)(x);
    return FN(select)((FN(ivec))(x >= 0), (REAL)SELU_SCALE * x, negative);
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
        return FN(one_minus_exp)(-y);
    case FR_EXPONENTIAL:
        return y;
    default: /* FR_LINEAR */
        return one;
    }
}

#endif /* REAL */

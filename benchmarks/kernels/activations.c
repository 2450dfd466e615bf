/* activations.c - what tanh, sigmoid and a cell's maths cost, and whether a cheaper form has the same error.
 *
 * Arrays of 1024 numbers in L1. Every rival's error, in units of the last place, is measured over every 7th float with
 * 2^-30 <= |x| < 2^7.
 *
 *     python -m benchmarks.kernels activations
 */
#include "lab.h"

enum { N = 1024, ROWS = 32 };

struct problem {
    const float *x;
    float *y;
    float *gates, *state; /* LSTM: [ROWS][4][VW]; [ROWS][VW] four times: h, c before and after; h, c gradients */
};

/* n / d by an estimate of 1 / d, one Newton step for it, one for the quotient. Not for d = inf. */
ALWAYS_INLINE vec quotient(vec n, vec d)
{
#if defined(FASTRNN_AVX512)
    vec r = (vec)_mm512_rcp14_ps((__m512)d);
#elif defined(FASTRNN_AVX2)
    vec r = (vec)_mm256_rcp_ps((__m256)d);
#else
    vec r = 1 / d;
#endif
    r += r * (1 - d * r);
    const vec q = n * r;
    return q + r * (n - d * q);
}

/* The project's forms, with the quotient for the division. */
ALWAYS_INLINE vec tanh_by_quotient(vec x)
{
    const FN(decay) e = FN(split_decay)(FN(vmin)(FN(splat)(9.02f), FN(magnitude)(x)), 2);
    return FN(with_sign_of)(x, quotient(FN(decayed)(e), e.power * e.top + e.bottom));
}
ALWAYS_INLINE vec sigmoid_by_quotient(vec x)
{
    const FN(decay) e = FN(split_decay)(FN(vmin)(FN(splat)(18.04f), FN(vmax)(FN(splat)(-87), x)), 1);
    return quotient(e.bottom, e.power * e.top + e.bottom);
}

/* One step of Newton only: the quotient is rounded twice more. */
ALWAYS_INLINE vec sigmoid_by_reciprocal(vec x)
{
    const FN(decay) e = FN(split_decay)(FN(vmin)(FN(splat)(18.04f), FN(vmax)(FN(splat)(-87), x)), 1);
    const vec d = e.power * e.top + e.bottom;
#if defined(FASTRNN_AVX512)
    vec r = (vec)_mm512_rcp14_ps((__m512)d);
#elif defined(FASTRNN_AVX2)
    vec r = (vec)_mm256_rcp_ps((__m256)d);
#else
    vec r = 1 / d;
#endif
    r += r * (1 - d * r);
    return e.bottom * r;
}

/* sigmoid(x) = 1/2 + tanh(x/2)/2: good only where the result is not small. */
ALWAYS_INLINE vec sigmoid_by_tanh(vec x) { return 0.5f + 0.5f * FN(vtanh)(0.5f * x); }

/* tanh by a rational function, odd 13th degree over even 6th, as in Eigen: x P(x^2) / Q(x^2) on [-7.9, 7.9]. */
ALWAYS_INLINE vec tanh_rational(vec x)
{
    x = FN(vmin)(FN(splat)(7.90531110763549805f), FN(vmax)(FN(splat)(-7.90531110763549805f), x));
    const vec s = x * x;
    static const float p[7] = { 4.89352455891786e-03f, 6.37261928875436e-04f, 1.48572235717979e-05f,
            5.12229709037114e-08f,
                                -8.60467152213735e-11f, 2.00018790482477e-13f, -2.76076847742355e-16f };
    static const float q[4] = { 4.89352518554385e-03f, 2.26843463243900e-03f, 1.18534705686654e-04f,
            1.19825839466702e-06f };
    return x * FN(polynomial)(p, 7, s) / FN(polynomial)(q, 4, s);
}

#define OVER_ARRAY(name, f)                                                                        \
    static void run_##name(const void *problem)                                                    \
    {                                                                                              \
        const struct problem *p = problem;                                                         \
        for (int i = 0; i < N; i += VW) FN(store)(p->y + i, f(FN(load)(p->x + i)));                 \
    }                                                                                              \
    static vec name##_of(vec x) { return f(x); }
#define ONE_DIVISION(x) (1 / (x))
#define ONE_COPY(x) (x)
OVER_ARRAY(copy, ONE_COPY)
OVER_ARRAY(division, ONE_DIVISION)
OVER_ARRAY(tanh, FN(vtanh))
OVER_ARRAY(sigmoid, FN(vsigmoid))
OVER_ARRAY(tanh_by_quotient, tanh_by_quotient)
OVER_ARRAY(sigmoid_by_quotient, sigmoid_by_quotient)
OVER_ARRAY(sigmoid_by_reciprocal, sigmoid_by_reciprocal)
OVER_ARRAY(sigmoid_by_tanh, sigmoid_by_tanh)
OVER_ARRAY(tanh_rational, tanh_rational)

static struct FN(unit) unit_at(const struct problem *p, int row)
{
    float *s = p->state + row * VW;
    return (struct FN(unit)){ .z = p->gates + row * 4 * VW, .slot = VW, .before = { s, s + ROWS * VW },
                              .after = { s + 2 * ROWS * VW, s + 3 * ROWS * VW },
                              .d = { s + 4 * ROWS * VW, s + 5 * ROWS * VW } };
}
static void run_lstm_forward(const void *problem)
{
    for (int row = 0; row < ROWS; row++) {
        const struct FN(unit) u = unit_at(problem, row);
        FN(lstm_forward)(&u, FR_TANH, FR_SIGMOID);
    }
}
static void run_lstm_backward(const void *problem)
{
    for (int row = 0; row < ROWS; row++) {
        const struct FN(unit) u = unit_at(problem, row);
        FN(lstm_backward)(&u, FR_TANH, FR_SIGMOID);
    }
}

/* All activations of a row before the sums: more independent chains beside each other? The compiler sees the same. */
static void run_lstm_in_pairs(const void *problem)
{
    for (int row = 0; row < ROWS; row += 2) {
        const struct FN(unit) u = unit_at(problem, row), w = unit_at(problem, row + 1);
        vec a[2][4];
        UNROLL for (int g = 0; g < 4; g++) {
            a[0][g] = FN(activate)(g == 2 ? FR_TANH : FR_SIGMOID, FN(slot)(&u, g));
            a[1][g] = FN(activate)(g == 2 ? FR_TANH : FR_SIGMOID, FN(slot)(&w, g));
        }
        UNROLL for (int k = 0; k < 2; k++) {
            const struct FN(unit) *t = k ? &w : &u;
            const vec c = a[k][1] * FN(load)(t->before[1]) + a[k][0] * a[k][2];
            FN(store)(t->after[1], c);
            FN(store)(t->after[0], a[k][3] * FN(vtanh)(c));
            UNROLL for (int g = 0; g < 4; g++) FN(set_slot)(t, g, a[k][g]);
        }
    }
}

#define RUNNER(function, says, count) { .name = says, .run = run_##function, .work = count }
static struct runner rivals[] = {
    RUNNER(copy, "(copy)", N),
    RUNNER(division, "(one division)", N),
    RUNNER(tanh, "tanh: incumbent", N),
    RUNNER(tanh_by_quotient, "tanh, division by estimate and 2 steps", N),
    RUNNER(tanh_rational, "tanh, 13/6 rational", N),
    RUNNER(sigmoid, "sigmoid: incumbent", N),
    RUNNER(sigmoid_by_quotient, "sigmoid, division by estimate and 2 steps", N),
    RUNNER(sigmoid_by_reciprocal, "sigmoid, division by estimate and 1 step", N),
    RUNNER(sigmoid_by_tanh, "sigmoid by tanh", N),
    RUNNER(lstm_forward, "LSTM forward, a unit: incumbent", ROWS * VW),
    RUNNER(lstm_in_pairs, "LSTM forward, two rows at once", ROWS * VW),
    RUNNER(lstm_backward, "LSTM backward, a unit: incumbent", ROWS * VW),
};
enum { RIVALS = sizeof rivals / sizeof *rivals };

/* Worst error over every 7th float with 2^-30 <= |x| < 2^7 and a result that is normal, in ulp of the result. */
static double worst_error(vec (*f)(vec), int is_tanh)
{
    double worst = 0;
    for (uint32_t bits = 97u << 23; bits < 134u << 23; bits += 7 * VW)
        for (int sign = 0; sign < 2; sign++) {
            vec x;
            for (int i = 0; i < VW; i++) {
                const uint32_t b = (bits + 7 * (uint32_t)i) | (uint32_t)sign << 31;
                float number;
                memcpy(&number, &b, sizeof number);
                x[i] = number;
            }
            const vec y = f(x);
            for (int i = 0; i < VW; i++) {
                const double wanted = is_tanh ? tanh(x[i]) : 1 / (1 + exp(-(double)x[i]));
                if (fabs(wanted) < 1.2e-38) continue;
                int exponent;
                frexp(wanted, &exponent);
                const double error = fabs(y[i] - wanted) / ldexp(1, exponent - 24);
                if (!(error <= worst)) worst = error;
            }
        }
    return worst;
}

int main(void)
{
    struct problem p = { .x = lab_numbers(N), .y = lab_numbers(N), .gates = lab_numbers(ROWS * 4 * VW),
            .state = lab_numbers(6 * ROWS * VW) };
    const struct { const char *name; vec (*f)(vec); int is_tanh; } errors[] = {
        { "tanh: incumbent", tanh_of, 1 }, { "tanh, by quotient", tanh_by_quotient_of, 1 },
        { "tanh, rational", tanh_rational_of, 1 },
        { "sigmoid: incumbent", sigmoid_of, 0 }, { "sigmoid, by quotient", sigmoid_by_quotient_of, 0 },
        { "sigmoid, by reciprocal", sigmoid_by_reciprocal_of, 0 }, { "sigmoid by tanh", sigmoid_by_tanh_of, 0 },
    };
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        printf("%-30s %12.4g ulp\n", errors[i].name, worst_error(errors[i].f, errors[i].is_tanh));
    fflush(stdout);
    fr_flush_denormals_on();
    struct runner r[RIVALS + 1];
    r[RIVALS] = lab_peak_runner;
    for (int i = 0; i < RIVALS; i++) {
        r[i] = rivals[i];
        r[i].problem = &p;
    }
    lab_race(r, RIVALS + 1, 3);
    const double cycle = r[RIVALS].best / (12 * 4000 / 2); /* two multiply-adds a cycle */
    printf("\n%-44s %10s %10s %14s\n", "a number or unit", "best ns", "median", "cycles/vector");
    for (int i = 0; i < RIVALS; i++)
        printf("%-44s %10.3f %10.3f %14.1f\n", r[i].name, 1e9 * r[i].best / r[i].work,
                1e9 * r[i].middle / r[i].work, r[i].best / r[i].work * VW / cycle);
    return 0;
}

/* simd.h - vectors of REAL, as wide as the instruction set that this file is compiled for.
 *
 * Everything that knows an instruction set stands in this file. The rest of the kernels is written with the compiler's vector
 * types (`a * b + c` on FN(vec)) and becomes SSE2, AVX2, AVX-512, NEON or whatever the target has.
 *
 * Included once for each number type. Before each inclusion the including file defines
 *     REAL            float or double
 *     REAL_IS_FLOAT   1 or 0
 *     FN(name)        name_f32 or name_f64
 * The first part is shared and compiled once; the second part is a template over REAL.
 */
#ifndef FASTRNN_SIMD_SHARED
#define FASTRNN_SIMD_SHARED

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

/* The width of a vector and how many of them the CPU can name. A kernel that holds more live vectors than that spills. */
#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define FASTRNN_AVX512 1
#define VECTOR_BYTES 64
#define VECTOR_REGISTERS 32
#elif defined(FASTRNN_EMULATED_AVX512) /* see setup.py */
#define VECTOR_BYTES 64
#define VECTOR_REGISTERS 32
#elif defined(__AVX2__) && defined(__FMA__)
#define FASTRNN_AVX2 1
#define VECTOR_BYTES 32
#define VECTOR_REGISTERS 16
#elif defined(__aarch64__)
#define VECTOR_BYTES 16
#define VECTOR_REGISTERS 32
#else
#define VECTOR_BYTES 16
#define VECTOR_REGISTERS 16
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))

/* Between steps of a loop that was unrolled by hand: no load moves up across it, into registers that are not there. */
#define FENCE __asm__ volatile("" ::: "memory")

/* IN_REGISTER(v): v is loaded once and stays, instead of being read from memory by each operation that uses it. */
#if defined(__AVX512F__)
#define IN_REGISTER(v) __asm__ volatile("" : "+v"(v))
#elif defined(__SSE2__) && !defined(FASTRNN_EMULATED_AVX512)
#define IN_REGISTER(v) __asm__ volatile("" : "+x"(v))
#elif defined(__aarch64__)
#define IN_REGISTER(v) __asm__ volatile("" : "+w"(v))
#else
#define IN_REGISTER(v) (void)(v)
#endif

/* UNROLL in front of a loop with a small constant count: the loop is to disappear, so that its vectors stay in registers. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

/* Denormal numbers make x86 up to a hundred times slower, and a decaying state passes through them. The kernels therefore
 * compute with denormals taken as zero, and put the caller's mode back: _on() returns what _restore() wants. */
#if defined(__SSE2__)

/* Aligned: some processors take 40 ns more where a line of cache ends close by. */
ALWAYS_INLINE void fr_set_control(unsigned value)
{
    __asm__ volatile(".p2align 6\n\tldmxcsr %0" : : "m"(value) : "memory");
}

ALWAYS_INLINE unsigned fr_flush_denormals_on(void)
{
    const unsigned flush_results = 0x8000, flush_inputs = 0x0040; /* FTZ, DAZ */
    unsigned saved = _mm_getcsr();
    fr_set_control(saved | flush_results | flush_inputs);
    return saved;
}

ALWAYS_INLINE void fr_flush_denormals_restore(unsigned saved)
{
    fr_set_control(saved);
}

#elif defined(__aarch64__)

ALWAYS_INLINE unsigned fr_flush_denormals_on(void)
{
    const uint64_t flush = 1u << 24; /* FZ */
    uint64_t saved;
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
    __asm__ volatile("msr fpcr, %0" : : "r"(saved | flush) : "memory");
    return (unsigned)saved;
}

ALWAYS_INLINE void fr_flush_denormals_restore(unsigned saved)
{
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)saved) : "memory");
}

#else

ALWAYS_INLINE unsigned fr_flush_denormals_on(void)
{
    return 0;
}

ALWAYS_INLINE void fr_flush_denormals_restore(unsigned saved)
{
    (void)saved;
}

#endif

/* Words of 32 bits, each in the low half of a lane; what stands in the high halves does not matter. */
typedef uint64_t fr_words __attribute__((vector_size(VECTOR_BYTES)));

/* The products of words with a constant, 64 bits each. */
ALWAYS_INLINE fr_words fr_multiply_words(fr_words a, uint32_t b)
{
#if defined(FASTRNN_AVX512)
    return (fr_words)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(b));
#elif defined(FASTRNN_AVX2)
    return (fr_words)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
#elif defined(__SSE2__) && VECTOR_BYTES == 16
    return (fr_words)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(b));
#else
    return (a & 0xffffffff) * (uint64_t)b;
#endif
}

#endif /* FASTRNN_SIMD_SHARED */

/* ------------------------------------------------------------------------------------------ template over REAL ---- */

/* VW: lanes of REAL in a vector. */
#undef VW
#if REAL_IS_FLOAT
#define VW (VECTOR_BYTES / 4)
typedef int32_t FN(lane);
#else
#define VW (VECTOR_BYTES / 8)
typedef int64_t FN(lane);
#endif

typedef REAL FN(vec) __attribute__((vector_size(VECTOR_BYTES)));
typedef FN(lane) FN(ivec) __attribute__((vector_size(VECTOR_BYTES)));

/* The same vector at any address of a REAL. */
typedef REAL FN(vec_anywhere) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));

ALWAYS_INLINE FN(vec) FN(load)(const REAL *p)
{
    return *(const FN(vec_anywhere) *)p;
}

ALWAYS_INLINE void FN(store)(REAL *p, FN(vec) v)
{
    *(FN(vec_anywhere) *)p = v;
}

ALWAYS_INLINE FN(vec) FN(splat)(REAL x)
{
    return x - (FN(vec)){0}; /* x - 0 keeps the sign of a zero x; x + 0 would not */
}

/* {0, 1, 2, ...}: which lanes are among the first n. */
ALWAYS_INLINE FN(ivec) FN(lane_numbers)(void)
{
    FN(ivec) numbers;
    for (int i = 0; i < VW; i++)
        numbers[i] = i;
    return numbers;
}

/* The first n lanes from p, 0 <= n; zeros above. Nothing past p[n - 1] is read. */
ALWAYS_INLINE FN(vec) FN(load_part)(const REAL *p, ptrdiff_t n)
{
    if (n >= VW)
        return FN(load)(p);
#if defined(FASTRNN_AVX512) && REAL_IS_FLOAT
    return (FN(vec))_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#elif defined(FASTRNN_AVX512)
    return (FN(vec))_mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p);
#elif defined(FASTRNN_AVX2) && REAL_IS_FLOAT
    return (FN(vec))_mm256_maskload_ps(p, (__m256i)(FN(lane_numbers)() < (FN(lane))n));
#elif defined(FASTRNN_AVX2)
    return (FN(vec))_mm256_maskload_pd(p, (__m256i)(FN(lane_numbers)() < (FN(lane))n));
#else
    FN(vec) v = {0};
    for (int i = 0; i < VW; i++)
        if (i < n)
            v[i] = p[i];
    return v;
#endif
}

/* The first n lanes of v to p, 0 <= n. Nothing past p[n - 1] is written. */
ALWAYS_INLINE void FN(store_part)(REAL *p, FN(vec) v, ptrdiff_t n)
{
    if (n >= VW) {
        FN(store)(p, v);
        return;
    }
#if defined(FASTRNN_AVX512) && REAL_IS_FLOAT
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#elif defined(FASTRNN_AVX512)
    _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), (__m512d)v);
#elif defined(FASTRNN_AVX2) && REAL_IS_FLOAT
    _mm256_maskstore_ps(p, (__m256i)(FN(lane_numbers)() < (FN(lane))n), (__m256)v);
#elif defined(FASTRNN_AVX2)
    _mm256_maskstore_pd(p, (__m256i)(FN(lane_numbers)() < (FN(lane))n), (__m256d)v);
#else
    for (int i = 0; i < VW; i++)
        if (i < n)
            p[i] = v[i];
#endif
}

/* Lanes of a where the mask (the result of a comparison: all ones or all zeros) is set, of b elsewhere. */
ALWAYS_INLINE FN(vec) FN(select)(FN(ivec) mask, FN(vec) a, FN(vec) b)
{
    return (FN(vec))((mask & (FN(ivec))a) | (~mask & (FN(ivec))b));
}

/* a > b, lane by lane. On plain SSE2 by intrinsic: GCC 12 fails on vector comparisons of doubles that it hoists out of a switch. */
ALWAYS_INLINE FN(ivec) FN(above)(FN(vec) a, FN(vec) b)
{
#if defined(__SSE2__) && VECTOR_BYTES == 16 && REAL_IS_FLOAT
    return (FN(ivec))_mm_cmpgt_ps((__m128)a, (__m128)b);
#elif defined(__SSE2__) && VECTOR_BYTES == 16
    return (FN(ivec))_mm_cmpgt_pd((__m128d)a, (__m128d)b);
#else
    return (FN(ivec))(a > b);
#endif
}

/* Minimum and maximum as `a < b ? a : b`, `a > b ? a : b`: where either is NaN the result is b. */
ALWAYS_INLINE FN(vec) FN(vmin)(FN(vec) a, FN(vec) b)
{
#if defined(FASTRNN_AVX512) && REAL_IS_FLOAT
    return (FN(vec))_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(FASTRNN_AVX512)
    return (FN(vec))_mm512_min_pd((__m512d)a, (__m512d)b);
#elif defined(FASTRNN_AVX2) && REAL_IS_FLOAT
    return (FN(vec))_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(FASTRNN_AVX2)
    return (FN(vec))_mm256_min_pd((__m256d)a, (__m256d)b);
#elif defined(__SSE2__) && VECTOR_BYTES == 16 && REAL_IS_FLOAT
    return (FN(vec))_mm_min_ps((__m128)a, (__m128)b);
#elif defined(__SSE2__) && VECTOR_BYTES == 16
    return (FN(vec))_mm_min_pd((__m128d)a, (__m128d)b);
#else
    return FN(select)((FN(ivec))(a < b), a, b);
#endif
}

ALWAYS_INLINE FN(vec) FN(vmax)(FN(vec) a, FN(vec) b)
{
#if defined(FASTRNN_AVX512) && REAL_IS_FLOAT
    return (FN(vec))_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(FASTRNN_AVX512)
    return (FN(vec))_mm512_max_pd((__m512d)a, (__m512d)b);
#elif defined(FASTRNN_AVX2) && REAL_IS_FLOAT
    return (FN(vec))_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(FASTRNN_AVX2)
    return (FN(vec))_mm256_max_pd((__m256d)a, (__m256d)b);
#elif defined(__SSE2__) && VECTOR_BYTES == 16 && REAL_IS_FLOAT
    return (FN(vec))_mm_max_ps((__m128)a, (__m128)b);
#elif defined(__SSE2__) && VECTOR_BYTES == 16
    return (FN(vec))_mm_max_pd((__m128d)a, (__m128d)b);
#else
    return FN(select)((FN(ivec))(a > b), a, b);
#endif
}

/* a * b + c with the product unrounded, where the CPU can. The compiler fuses plain expressions by itself; this is for a sum of
 * two products, where it matters which of them is rounded. */
ALWAYS_INLINE FN(vec) FN(fused)(FN(vec) a, FN(vec) b, FN(vec) c)
{
#if defined(FASTRNN_AVX512) && REAL_IS_FLOAT
    return (FN(vec))_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(FASTRNN_AVX512)
    return (FN(vec))_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(FASTRNN_AVX2) && REAL_IS_FLOAT
    return (FN(vec))_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(FASTRNN_AVX2)
    return (FN(vec))_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__aarch64__)
    for (int i = 0; i < VW; i++) /* one fmla; arm_neon.h, which has its own vmin_f32, would clash with ours */
        c[i] = REAL_IS_FLOAT ? __builtin_fmaf(a[i], b[i], c[i]) : __builtin_fma(a[i], b[i], c[i]);
    return c;
#else
    return a * b + c;
#endif
}

ALWAYS_INLINE FN(vec) FN(vsqrt)(FN(vec) a)
{
#if defined(FASTRNN_AVX512) && REAL_IS_FLOAT
    return (FN(vec))_mm512_sqrt_ps((__m512)a);
#elif defined(FASTRNN_AVX512)
    return (FN(vec))_mm512_sqrt_pd((__m512d)a);
#elif defined(FASTRNN_AVX2) && REAL_IS_FLOAT
    return (FN(vec))_mm256_sqrt_ps((__m256)a);
#elif defined(FASTRNN_AVX2)
    return (FN(vec))_mm256_sqrt_pd((__m256d)a);
#elif defined(__SSE2__) && VECTOR_BYTES == 16 && REAL_IS_FLOAT
    return (FN(vec))_mm_sqrt_ps((__m128)a);
#elif defined(__SSE2__) && VECTOR_BYTES == 16
    return (FN(vec))_mm_sqrt_pd((__m128d)a);
#else
    for (int i = 0; i < VW; i++)
        a[i] = REAL_IS_FLOAT ? __builtin_sqrtf((float)a[i]) : (REAL)__builtin_sqrt(a[i]);
    return a;
#endif
}

/* Whether any lane of a mask is set. */
ALWAYS_INLINE int FN(any)(FN(ivec) mask)
{
#if defined(FASTRNN_AVX512)
    return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(FASTRNN_AVX2)
    return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#elif defined(__SSE2__) && VECTOR_BYTES == 16
    return _mm_movemask_epi8((__m128i)mask) != 0;
#else
    FN(lane) found = 0;
    for (int i = 0; i < VW; i++)
        found |= mask[i];
    return found != 0;
#endif
}

/* The lanes of a and b in turns: of their lower halves, of their upper halves. */
#undef ZIP
#if defined(__clang__)
#define ZIP_PAIRS_1(a, b, from) __builtin_shufflevector(a, b, from, from + VW)
#define ZIP_PAIRS_2(a, b, from) __builtin_shufflevector(a, b, from, from + VW, from + 1, from + 1 + VW)
#define ZIP_PAIRS_4(a, b, from) \
    __builtin_shufflevector(a, b, from, from + VW, from + 1, from + 1 + VW, from + 2, from + 2 + VW, from + 3, from + 3 + VW)
#define ZIP_PAIRS_8(a, b, from)                                                                              \
    __builtin_shufflevector(a, b, from, from + VW, from + 1, from + 1 + VW, from + 2, from + 2 + VW, from + 3, from + 3 + VW, \
                            from + 4, from + 4 + VW, from + 5, from + 5 + VW, from + 6, from + 6 + VW, from + 7, from + 7 + VW)
#if VECTOR_BYTES == 64 && REAL_IS_FLOAT
#define ZIP ZIP_PAIRS_8
#elif VECTOR_BYTES == 64 || (VECTOR_BYTES == 32 && REAL_IS_FLOAT)
#define ZIP ZIP_PAIRS_4
#elif VECTOR_BYTES == 32 || REAL_IS_FLOAT
#define ZIP ZIP_PAIRS_2
#else
#define ZIP ZIP_PAIRS_1
#endif
#else
ALWAYS_INLINE FN(ivec) FN(zip_order)(int from)
{
    FN(ivec) order;
    for (int i = 0; i < VW; i++) order[i] = from + i / 2 + i % 2 * VW;
    return order;
}
#define ZIP(a, b, from) __builtin_shuffle(a, b, FN(zip_order)(from))
#endif

/* r[i][j] <-> r[j][i]: the first half of the rows is zipped with the second log2(VW) times. */
ALWAYS_INLINE void FN(transpose_square)(FN(vec) r[VW])
{
    UNROLL for (int step = 1; step < VW; step *= 2) {
        FN(vec) t[VW];
        UNROLL for (int i = 0; i < VW / 2; i++) {
            t[2 * i] = ZIP(r[i], r[i + VW / 2], 0);
            t[2 * i + 1] = ZIP(r[i], r[i + VW / 2], VW / 2);
        }
        UNROLL for (int i = 0; i < VW; i++) r[i] = t[i];
    }
}

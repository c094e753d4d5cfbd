// Vectors of one instruction set, and the functions on them that loops need: included once per path, each time followed
// by loops that are written once. In a .cpp, outside every namespace, after isa.h, pool.h and system headers:
//
//   #if RL_X86
//   #define RL_AVX512
//   #include "vectors.h"        // opens a region: every function from here on is compiled for AVX-512
//   #include "kernel_loops.h"   // namespace ridgeline::RL_PATH { ... }, no include guard, no std:: templates
//   #include "vectors_end.h"    // closes it, undefines RL_PATH and RL_BYTES
//   #define RL_AVX2
//   (the same three lines)
//   #endif
//   #define RL_PORTABLE
//   (the same three lines)
//
// and then a table of entries that has_avx512(), has_avx2() and has_portable() choose from, as in stream.cpp.
// A loop sees: RL_PATH (avx512, avx2, portable: the namespace), RL_BYTES of a vector (64, 32, 16), LANES (its float32 or
// int32), REGISTERS, and Floats, Ints: GCC vectors, so + - * / & | ^ << >> and comparisons are written as such; a
// comparison gives Ints of -1 and 0, and `mask ? a : b` selects. a * b + c becomes one fused multiply-add where the
// path has it. std:: templates instantiated in a region may be compiled for it and then be linked into other code:
// that is why loops use none.

#include <cstdint>

#include "isa.h"

#if defined(RL_AVX512)
#define RL_PATH avx512
#define RL_BYTES 64
#define RL_REGISTERS 32
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#endif
#elif defined(RL_AVX2)
#define RL_PATH avx2
#define RL_BYTES 32
#define RL_REGISTERS 16
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#elif defined(RL_PORTABLE)
#define RL_PATH portable
#define RL_BYTES 16
#if defined(__aarch64__)
#define RL_REGISTERS 32
#else
#define RL_REGISTERS 16
#endif
#else
#error "define RL_AVX512, RL_AVX2 or RL_PORTABLE before vectors.h"
#endif

#define RL_INLINE static inline __attribute__((always_inline))

namespace ridgeline::RL_PATH {

constexpr int LANES = RL_BYTES / 4;
constexpr int REGISTERS = RL_REGISTERS;

typedef float Floats __attribute__((vector_size(RL_BYTES), may_alias));
typedef int32_t Ints __attribute__((vector_size(RL_BYTES), may_alias));

// ---- memory: any alignment ----

RL_INLINE Floats load(const float* address) {
    Floats value;
    __builtin_memcpy(&value, address, sizeof value);
    return value;
}

RL_INLINE void store(float* address, Floats value) { __builtin_memcpy(address, &value, sizeof value); }

RL_INLINE Ints load_ints(const int32_t* address) {
    Ints value;
    __builtin_memcpy(&value, address, sizeof value);
    return value;
}

RL_INLINE void store_ints(int32_t* address, Ints value) { __builtin_memcpy(address, &value, sizeof value); }

RL_INLINE Floats splat(float value) { return value - Floats{}; }  // x - 0 is x for every x, -0 too
RL_INLINE Ints splat_int(int32_t value) { return value - Ints{}; }

// 0, 1, 2, ...
alignas(64) static const int32_t LANE_NUMBERS[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
RL_INLINE Ints iota() { return load_ints(LANE_NUMBERS); }

// -1 in the first `count` lanes, 0 in the others; any count.
RL_INLINE Ints first_lanes(int64_t count) {
    const int64_t most = count < 0 ? 0 : count > LANES ? LANES : count;
    return iota() < splat_int(static_cast<int32_t>(most));
}

// The first `count` floats and zeros after them; touches no others. 0 <= count <= LANES.
RL_INLINE Floats load_first(const float* address, int64_t count) {
#if defined(RL_AVX512)
    return (Floats)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1u), address);
#elif defined(RL_AVX2)
    return (Floats)_mm256_maskload_ps(address, (__m256i)first_lanes(count));
#else
    Floats value = {};
    for (int64_t i = 0; i < count; ++i) value[i] = address[i];
    return value;
#endif
}

// Stores the first `count` lanes; touches no others. 0 <= count <= LANES.
RL_INLINE void store_first(float* address, Floats value, int64_t count) {
#if defined(RL_AVX512)
    _mm512_mask_storeu_ps(address, static_cast<__mmask16>((1u << count) - 1u), (__m512)value);
#elif defined(RL_AVX2)
    _mm256_maskstore_ps(address, (__m256i)first_lanes(count), (__m256)value);
#else
    for (int64_t i = 0; i < count; ++i) address[i] = value[i];
#endif
}

// ---- arithmetic ----

// As maxps and minps: the second operand where one of them is not a number. So max(bound, x) keeps a NaN in x.
RL_INLINE Floats max(Floats a, Floats b) {
#if defined(RL_AVX512)
    return (Floats)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(RL_AVX2)
    return (Floats)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return a > b ? a : b;
#endif
}

RL_INLINE Floats min(Floats a, Floats b) {
#if defined(RL_AVX512)
    return (Floats)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(RL_AVX2)
    return (Floats)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return a < b ? a : b;
#endif
}

// The value where the mask (-1 or 0 per lane) is set, 0 elsewhere, whatever the value there.
RL_INLINE Floats keep(Ints mask, Floats value) { return (Floats)(mask & (Ints)value); }

// Sum and maximum over the lanes. A maximum over lanes of which some are not numbers may be any lane's.
#if defined(RL_AVX512)
RL_INLINE float sum_of(Floats value) { return _mm512_reduce_add_ps((__m512)value); }
RL_INLINE float max_of(Floats value) { return _mm512_reduce_max_ps((__m512)value); }
#elif defined(RL_AVX2)
RL_INLINE float sum_of(Floats value) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128((__m256)value), _mm256_extractf128_ps((__m256)value, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
RL_INLINE float max_of(Floats value) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128((__m256)value), _mm256_extractf128_ps((__m256)value, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}
#else
RL_INLINE float sum_of(Floats value) { return (value[0] + value[2]) + (value[1] + value[3]); }
RL_INLINE float max_of(Floats value) {
    const float a = value[0] > value[2] ? value[0] : value[2], b = value[1] > value[3] ? value[1] : value[3];
    return a > b ? a : b;
}
#endif

#if defined(RL_AVX512) || defined(RL_AVX2)
#if defined(RL_AVX512)
RL_INLINE Floats low_pairs(Floats a, Floats b) { return (Floats)_mm512_unpacklo_ps((__m512)a, (__m512)b); }
RL_INLINE Floats high_pairs(Floats a, Floats b) { return (Floats)_mm512_unpackhi_ps((__m512)a, (__m512)b); }
RL_INLINE Floats low_halves(Floats a, Floats b) {
    return (Floats)_mm512_unpacklo_pd((__m512d)a, (__m512d)b);
}
RL_INLINE Floats high_halves(Floats a, Floats b) {
    return (Floats)_mm512_unpackhi_pd((__m512d)a, (__m512d)b);
}
#else
RL_INLINE Floats low_pairs(Floats a, Floats b) { return (Floats)_mm256_unpacklo_ps((__m256)a, (__m256)b); }
RL_INLINE Floats high_pairs(Floats a, Floats b) { return (Floats)_mm256_unpackhi_ps((__m256)a, (__m256)b); }
RL_INLINE Floats low_halves(Floats a, Floats b) {
    return (Floats)_mm256_unpacklo_pd((__m256d)a, (__m256d)b);
}
RL_INLINE Floats high_halves(Floats a, Floats b) {
    return (Floats)_mm256_unpackhi_pd((__m256d)a, (__m256d)b);
}
#endif

// In each 128 bits: the sums there of a, b, c and d.
RL_INLINE Floats sums_of_four(Floats a, Floats b, Floats c, Floats d) {
    const Floats ab = low_pairs(a, b) + high_pairs(a, b), cd = low_pairs(c, d) + high_pairs(c, d);
    return low_halves(ab, cd) + high_halves(ab, cd);
}

// Lane n: the sum over the lanes of each[n]. Three instructions a vector, where sum_of takes eight.
RL_INLINE Floats sums_of_each(const Floats* each) {
    Floats four[LANES / 4];
#pragma GCC unroll 4
    for (int n = 0; n < LANES / 4; ++n) {
        four[n] = sums_of_four(each[4 * n], each[4 * n + 1], each[4 * n + 2], each[4 * n + 3]);
    }
#if defined(RL_AVX512)
    const __m512 a = (__m512)four[0], b = (__m512)four[1], c = (__m512)four[2], d = (__m512)four[3];
    const __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    const __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    return (Floats)_mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
#else
    const __m256 a = (__m256)four[0], b = (__m256)four[1];
    return (Floats)_mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
#endif
}
#endif

// out[n] = sum over the lanes of each[n].
template <int N>
RL_INLINE void store_sums(const Floats* each, float* out) {
    int n = 0;
#if defined(RL_AVX512) || defined(RL_AVX2)
    for (; n + LANES <= N; n += LANES) store(out + n, sums_of_each(each + n));
#endif
#pragma GCC unroll 16
    for (; n < N; ++n) out[n] = sum_of(each[n]);
}

RL_INLINE Ints to_ints(Floats value) { return __builtin_convertvector(value, Ints); }  // towards zero
RL_INLINE Floats to_floats(Ints value) { return __builtin_convertvector(value, Floats); }

// The nearest whole number, halves to even, for |x| below 2^22.
RL_INLINE Floats nearest(Floats x) {
    const float shift = 12582912.0f;  // 1.5 * 2^23: adding it leaves no bit for a fraction
    return (x + shift) - shift;
}

// The same as whole numbers, in one instruction where there is one; the smallest of all for NaN.
RL_INLINE Ints nearest_ints(Floats x) {
#if defined(RL_AVX512)
    return (Ints)_mm512_cvtps_epi32((__m512)x);
#elif defined(RL_AVX2)
    return (Ints)_mm256_cvtps_epi32((__m256)x);
#elif RL_X86
    return (Ints)_mm_cvtps_epi32((__m128)x);
#else
    return to_ints(nearest(x));
#endif
}

// 2^x for -126 <= x < 127.5, not checked; NaN for NaN; within 2 units in the last place. 2^n times a polynomial in
// f = x - n on [-0.5, 0.5], 1 at 0, fitted for the least relative error there (2e-9; degree 5: 9e-8, too much).
RL_INLINE Floats exp2_within(Floats x) {
    const Ints n = nearest_ints(x);
    const Floats f = x - to_floats(n);
    Floats p = splat(1.535336196e-4f);
    p = p * f + 1.339887502e-3f;
    p = p * f + 9.618436918e-3f;
    p = p * f + 5.550332367e-2f;
    p = p * f + 2.402264774e-1f;
    p = p * f + 6.931471825e-1f;
    p = p * f + 1.0f;
    return (Floats)((Ints)p + (n << 23));  // into the exponent's bits
}

// 2^x for every x: 0 below -126 (no subnormal results), infinity from 128 on, NaN for NaN.
RL_INLINE Floats exp2(Floats x) {
    const Floats inside = min(splat(128.0f), max(splat(-126.0f), x));
    return keep(~(x < -126.0f), exp2_within(inside));
}

// 1 / x for 2^-125 <= |x| <= 2^125, within 3 units in the last place.
RL_INLINE Floats reciprocal(Floats x) {
#if defined(RL_AVX512)
    const Floats guess = (Floats)_mm512_rcp14_ps((__m512)x);
    return guess + guess * (1.0f - x * guess);
#elif defined(RL_AVX2)
    const Floats guess = (Floats)_mm256_rcp_ps((__m256)x);
    return guess + guess * (1.0f - x * guess);
#else
    return 1.0f / x;
#endif
}

}  // namespace ridgeline::RL_PATH

// Dot products of one vector with rows of float32 or int8, for the loops over tokens. Included once per path, after
// vectors.h and int8_rows.h.

namespace ridgeline::RL_PATH {

RL_INLINE Floats load_row_first(const float* address, int64_t count) { return load_first(address, count); }
RL_INLINE Floats load_row_first(const int8_t* address, int64_t count) {
    float values[LANES] = {};
    for (int64_t i = 0; i < count; ++i) values[i] = static_cast<float>(address[i]);
    return load(values);
}

// out[n] = sum over i of q[i] rows[n][i]. Each row is read once; q stays in the first-level cache.
template <int N, typename Element>
RL_INLINE void dots(const float* q, const Element* const* rows, int64_t d, float* out) {
    Floats sum[N];
    int64_t i = 0;
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) sum[n] = Floats{};
    for (; i + LANES <= d; i += LANES) {
        const Floats part = load(q + i);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) sum[n] = sum[n] + part * load_row(rows[n] + i);
    }
    if (i < d) {
        const Floats part = load_first(q + i, d - i);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) sum[n] = sum[n] + part * load_row_first(rows[n] + i, d - i);
    }
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) out[n] = sum_of(sum[n]);
}

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

// How far ahead lines are asked for: a prefetcher ends at each page of 4 KiB, which holds 256 rows of 16 bytes. With this
// and with sums of whole groups, 32768 such rows that no cache held took 50 us on an Intel Xeon instead of 150.
constexpr int64_t BYTES_AHEAD = 2048;

// out[n] = sum over i of q[i] rows[n d + i] for LANES rows.
template <typename Element>
RL_INLINE void dots_of_group(const float* q, const Element* rows, int64_t d, float* out) {
    // Beyond the last row too: an address is computed without reading there.
    const uintptr_t ahead = reinterpret_cast<uintptr_t>(rows) + BYTES_AHEAD;
    for (uintptr_t line = 0; line < static_cast<uintptr_t>(LANES * d) * sizeof(Element); line += 64) {
        __builtin_prefetch(reinterpret_cast<const void*>(ahead + line));
    }
    Floats sum[LANES];
#pragma GCC unroll 16
    for (int n = 0; n < LANES; ++n) sum[n] = Floats{};
    int64_t i = 0;
    for (; i + LANES <= d; i += LANES) {
        const Floats part = load(q + i);
#pragma GCC unroll 16
        for (int n = 0; n < LANES; ++n) sum[n] = sum[n] + part * load_row(rows + n * d + i);
    }
    if (i < d) {
        const Floats part = load_first(q + i, d - i);
#pragma GCC unroll 16
        for (int n = 0; n < LANES; ++n) sum[n] = sum[n] + part * load_row_first(rows + n * d + i, d - i);
    }
    store(out, sums_of_each(sum));
}
#endif

}  // namespace ridgeline::RL_PATH

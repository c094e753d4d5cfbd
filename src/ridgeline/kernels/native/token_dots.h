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
    store_sums<N>(sum, out);
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
    store_sums<LANES>(sum, out);
}

}  // namespace ridgeline::RL_PATH

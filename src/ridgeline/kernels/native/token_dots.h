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

}  // namespace ridgeline::RL_PATH

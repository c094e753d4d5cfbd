// The sweeps of stream.cpp, included once per path with
//   RL_PATH (namespace), RL_TARGET (function attribute), RL_BYTES (of a vector), RL_SUMS (independent accumulators),
//   RL_OPAQUE(vector), RL_STREAM_STORE(address, vector) (past the caches), RL_STREAM_FENCE().
// GCC lowers vector types before it inlines, so the text has to be compiled once per path; a template would not do.

namespace ridgeline::RL_PATH {

typedef float Vector __attribute__((vector_size(RL_BYTES), may_alias));
typedef float Loose __attribute__((vector_size(RL_BYTES), aligned(4), may_alias));
constexpr int LANES = RL_BYTES / 4;
constexpr int SUMS = RL_SUMS;  // a multiple of 16 / LANES, so that sum k always holds the same ones of the 16 lanes

// sums[lane] = sum over i of a[16 i + lane], taken anew in every pass. The sums of earlier passes are never used, so
// the compiler must be told that they are (RL_OPAQUE), or it drops all passes but the last.
RL_TARGET static void read_chunk(const float* a, int64_t elements, int32_t passes, float* sums) {
    Vector sum[SUMS];
    float rest[16] = {};
    int32_t pass = 0;
    do {
        int64_t i = 0;
#pragma GCC unroll 16
        for (int k = 0; k < SUMS; ++k) sum[k] = Vector{};
        for (; i + SUMS * LANES <= elements; i += SUMS * LANES) {
#pragma GCC unroll 16
            for (int k = 0; k < SUMS; ++k) sum[k] += *reinterpret_cast<const Loose*>(a + i + k * LANES);
        }
#pragma GCC unroll 1
        for (; i + 16 <= elements; i += 16) {
#pragma GCC unroll 16
            for (int k = 0; k < 16 / LANES; ++k) sum[k] += *reinterpret_cast<const Loose*>(a + i + k * LANES);
        }
        for (int lane = 0; i < elements; ++i, ++lane) rest[lane] = a[i];
#pragma GCC unroll 16
        for (int k = 0; k < SUMS; ++k) RL_OPAQUE(sum[k]);
        RL_MEMORY_BARRIER();
    } while (++pass < passes);
    float values[SUMS * LANES];  // copied by vector: taking a sum's address would keep all of them in memory
#pragma GCC unroll 16
    for (int k = 0; k < SUMS; ++k) *reinterpret_cast<Loose*>(values + k * LANES) = sum[k];
    for (int lane = 0; lane < 16; ++lane) {
        sums[lane] = rest[lane];
        for (int i = lane; i < SUMS * LANES; i += 16) sums[lane] += values[i];
    }
}

// copy: c = a. triad: c = a + scalar * b. Past is for stores that go past the caches (non-temporal).
template <bool Triad, bool Past>
RL_TARGET static void write_chunk(const float* a, const float* b, float* c, float scalar, int64_t elements,
                                  int32_t passes) {
    constexpr int STEPS = 8;
    const int64_t to_line = static_cast<int64_t>((64 - reinterpret_cast<uintptr_t>(c) % 64) % 64 / 4);
    const int64_t head = to_line < elements ? to_line : elements;
    const Vector factor = scalar - Vector{};
    for (int32_t pass = 0; pass < passes; ++pass) {
        int64_t i = 0;
        for (; i < head; ++i) c[i] = Triad ? a[i] + scalar * b[i] : a[i];
        for (; i + STEPS * LANES <= elements; i += STEPS * LANES) {
            Vector value[STEPS];
#pragma GCC unroll 8
            for (int k = 0; k < STEPS; ++k) {
                value[k] = *reinterpret_cast<const Loose*>(a + i + k * LANES);
                if constexpr (Triad) value[k] += factor * *reinterpret_cast<const Loose*>(b + i + k * LANES);
            }
#pragma GCC unroll 8
            for (int k = 0; k < STEPS; ++k) {
                if constexpr (Past) {
                    RL_STREAM_STORE(c + i + k * LANES, value[k]);
                } else {
                    *reinterpret_cast<Vector*>(c + i + k * LANES) = value[k];
                }
            }
        }
        for (; i < elements; ++i) c[i] = Triad ? a[i] + scalar * b[i] : a[i];
        if constexpr (Past) RL_STREAM_FENCE();
        RL_MEMORY_BARRIER();
    }
}

static const Sweeps sweeps = {read_chunk, {write_chunk<false, false>, write_chunk<false, true>},
                              {write_chunk<true, false>, write_chunk<true, true>}};

}  // namespace ridgeline::RL_PATH

#undef RL_PATH
#undef RL_TARGET
#undef RL_BYTES
#undef RL_SUMS
#undef RL_OPAQUE
#undef RL_STREAM_STORE
#undef RL_STREAM_FENCE

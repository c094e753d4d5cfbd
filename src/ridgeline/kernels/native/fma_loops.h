// The arithmetic of fma.cpp that plain vector code expresses, included once per path with
//   RL_PATH (namespace), RL_TARGET (function attribute), RL_BYTES (of a vector), RL_CHAINS (independent accumulators),
//   RL_OPAQUE(vector).
// Enough chains to hide the latency: 4 or 5 cycles at two starts per cycle make 8 to 10.

namespace ridgeline::RL_PATH {

constexpr int CHAINS = RL_CHAINS;

typedef uint32_t Words __attribute__((vector_size(RL_BYTES), may_alias));
typedef double Doubles __attribute__((vector_size(RL_BYTES), may_alias));
typedef float Floats __attribute__((vector_size(RL_BYTES), may_alias));

template <typename V>
RL_TARGET static inline void load(V& vector, const void* address) {
    __builtin_memcpy(&vector, address, sizeof vector);
}

// accumulator = accumulator * x + y, starting at (chain + 1) * y. V: vector, T: its element.
template <typename V, typename T>
RL_TARGET static void affine(const void* x_, const void* y_, void* out_, int64_t iterations) {
    V x, y, sum[CHAINS];
    load(x, x_);
    load(y, y_);
#pragma GCC unroll 16
    for (int c = 0; c < CHAINS; ++c) {
        sum[c] = y * static_cast<T>(c + 1);
        RL_OPAQUE(sum[c]);
    }
    for (int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 16
        for (int c = 0; c < CHAINS; ++c) sum[c] = sum[c] * x + y;
    }
    char* out = static_cast<char*>(out_);
#pragma GCC unroll 16
    for (int c = 0; c < CHAINS; ++c) __builtin_memcpy(out + c * sizeof(V), &sum[c], sizeof(V));
}

constexpr auto float64 = affine<Doubles, double>;
constexpr auto float32 = affine<Floats, float>;

// bfloat16 without its own instruction: a pair is a 32-bit word; its halves are widened by a shift and a mask, once
// per step for all chains (as a register-blocked product would), and multiplied in float32. Signs: see fma.cpp.
#define RL_STEP(WORDS)                                                                                \
    do {                                                                                              \
        RL_OPAQUE(WORDS);                                                                             \
        RL_OPAQUE(y);                                                                                 \
        const Floats x0 = (Floats)((WORDS) << 16), x1 = (Floats)((WORDS) & 0xffff0000u);              \
        const Floats y0 = (Floats)(y << 16), y1 = (Floats)(y & 0xffff0000u);                          \
        _Pragma("GCC unroll 16") for (int c = 0; c < BFLOAT16_CHAINS; ++c) sum[c] += x1 * y1;         \
        _Pragma("GCC unroll 16") for (int c = 0; c < BFLOAT16_CHAINS; ++c) sum[c] += x0 * y0;         \
    } while (0)

// Fewer chains than the others where registers are few: x, -x, y and their halves need five beside the sums.
constexpr int BFLOAT16_CHAINS = CHAINS > 12 ? CHAINS : 8;

RL_TARGET static void bfloat16(const void* x_, const void* y_, void* out_, int64_t iterations) {
    Words x, y;
    Floats sum[BFLOAT16_CHAINS];
    load(x, x_);
    load(y, y_);
    Words minus_x = x ^ 0x80008000u;
    const Floats start = (Floats)(y << 16);
#pragma GCC unroll 16
    for (int c = 0; c < BFLOAT16_CHAINS; ++c) sum[c] = start * static_cast<float>(c + 1);
    RL_STEP(x);
    for (int64_t i = 0; i < (iterations - 1) / 2; ++i) {
        RL_STEP(minus_x);
        RL_STEP(x);
    }
    if (iterations % 2 == 0) RL_STEP(x);
    char* out = static_cast<char*>(out_);
#pragma GCC unroll 16
    for (int c = 0; c < BFLOAT16_CHAINS; ++c) __builtin_memcpy(out + c * sizeof(Floats), &sum[c], sizeof(Floats));
}
#undef RL_STEP

}  // namespace ridgeline::RL_PATH

#undef RL_PATH
#undef RL_TARGET
#undef RL_BYTES
#undef RL_CHAINS
#undef RL_OPAQUE

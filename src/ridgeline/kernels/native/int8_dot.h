// Exact int32 products of int8 rows, C[m][n] = sum over d of A[m][d] B[n][d], register-blocked: included in a region of
// vectors.h, once per way to multiply, followed by loops that use it and by int8_dot_end.h:
//
//   #define RL_DOT words                       // int16 pairs: vpmaddwd where there is AVX2, plain vectors where not
//   #include "int8_dot.h"
//   #include "kernel_loops.h"                  // namespace ridgeline::RL_PATH::RL_DOT { ... }
//   #include "int8_dot_end.h"
//   #define RL_DOT vnni                        // vpdpbusd
//   #define RL_VNNI                            // x86 only
//   (the same three lines)
//
// vpmaddubsw would multiply twice as many bytes an instruction, but it adds two products of u8 and s8 in 16 bits and
// saturates. Widened once, when they are packed, int16 pairs are exact for every int8, -128 included. vpdpbusd does not
// saturate; it takes one operand without sign: B is packed with 128 added, and each sum starts at -128 times the sum
// of A's row.
//
// Any int8 values; exact up to a depth of 65536. A panel is WIDTH rows of B, packed by steps of DEPTH values; sizes of
// packed memory are in int32 words: a row of A takes steps_of(depth), a panel WIDTH times as much.

#if defined(RL_VNNI)
#if defined(__clang__)
#if defined(RL_AVX512)
#pragma clang attribute push(__attribute__((target("avx512vnni"))), apply_to = function)
#else
#pragma clang attribute push(__attribute__((target("avxvnni"))), apply_to = function)
#endif
#else
#pragma GCC push_options
#if defined(RL_AVX512)
#pragma GCC target("avx512vnni")
#else
#pragma GCC target("avxvnni")
#endif
#endif
#endif

namespace ridgeline::RL_PATH::RL_DOT {

#if defined(RL_VNNI)
constexpr int DEPTH = 4;  // values of a 32-bit lane
#else
constexpr int DEPTH = 2;
#endif
constexpr int PANEL_VECTORS = 2;
constexpr int WIDTH = PANEL_VECTORS * LANES;
// Rows of A at a time: with two vectors of B and one of A beside the sums, all registers but a few.
#if defined(RL_PORTABLE)
constexpr int ROWS = 4;  // a plain product needs registers of its own
#else
constexpr int ROWS = REGISTERS == 32 ? 12 : 6;
#endif

// What is left of the rows, before single ones, which wait for each product: they have two sums to add to, not eight or more.
constexpr int FEWER_ROWS = ROWS / 3 > 1 ? ROWS / 3 : 2;

RL_INLINE int64_t steps_of(int64_t depth) { return (depth + DEPTH - 1) / DEPTH; }

// DEPTH values from `row`, those at and beyond `left` as zeros; `flip` is added to each value's bits.
RL_INLINE int32_t step_word(const int8_t* row, int64_t left, uint32_t flip) {
    uint32_t word = 0;
    for (int i = 0; i < DEPTH; ++i) {
        const int32_t value = i < left ? row[i] : 0;
#if defined(RL_VNNI)
        word |= ((static_cast<uint32_t>(value) ^ flip) & 0xffu) << (8 * i);
#else
        word |= (static_cast<uint32_t>(value) & 0xffffu) << (16 * i);
#endif
    }
#if !defined(RL_VNNI)
    (void)flip;
#endif
    return static_cast<int32_t>(word);
}

// Packs one row of A into steps_of(depth) words and returns what its sums start at.
static int32_t pack_row(const int8_t* row, int64_t depth, int32_t* packed) {
    int32_t sum = 0;
    for (int64_t d = 0; d < depth; ++d) sum += row[d];
    for (int64_t d = 0; d < depth; d += DEPTH) packed[d / DEPTH] = step_word(row + d, depth - d, 0);
    return DEPTH == 4 ? -128 * sum : 0;
}

// Packs `count` rows of B (at most WIDTH; those that lack are zeros), `stride` values apart, into a panel.
static void pack_panel(const int8_t* rows, int64_t stride, int64_t count, int64_t depth, int32_t* panel) {
    for (int64_t n = 0; n < WIDTH; ++n) {
        if (n >= count) {
            for (int64_t step = 0; step < steps_of(depth); ++step) panel[step * WIDTH + n] = 0;
            continue;
        }
        const int8_t* row = rows + n * stride;
        int64_t d = 0;
        for (; d + DEPTH <= depth; d += DEPTH) panel[d / DEPTH * WIDTH + n] = step_word(row + d, DEPTH, 0x80);
        if (d < depth) panel[d / DEPTH * WIDTH + n] = step_word(row + d, depth - d, 0x80);
    }
}

RL_INLINE Ints add_products(Ints sum, Ints a, Ints b) {
#if defined(RL_VNNI) && defined(RL_AVX512)
    return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)b, (__m512i)a);
#elif defined(RL_VNNI)
    return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)b, (__m256i)a);
#elif defined(RL_AVX512)
    return (Ints)_mm512_add_epi32((__m512i)sum, _mm512_madd_epi16((__m512i)a, (__m512i)b));
#elif defined(RL_AVX2)
    return (Ints)_mm256_add_epi32((__m256i)sum, _mm256_madd_epi16((__m256i)a, (__m256i)b));
#else
    typedef uint32_t Words __attribute__((vector_size(RL_BYTES), may_alias));
    const Ints a_low = (Ints)((Words)a << 16) >> 16, b_low = (Ints)((Words)b << 16) >> 16;
    return sum + a_low * b_low + (a >> 16) * (b >> 16);
#endif
}

// sums[r][v]: products of COUNT rows of A, packed one after another, with the WIDTH rows of a panel.
template <int COUNT>
RL_INLINE void multiply(const int32_t* a, const int32_t* starts, const int32_t* panel, int64_t steps,
                        Ints (&sums)[COUNT][PANEL_VECTORS]) {
#pragma GCC unroll 16
    for (int r = 0; r < COUNT; ++r) sums[r][0] = sums[r][1] = splat_int(starts[r]);
    for (int64_t step = 0; step < steps; ++step) {
        const Ints b0 = load_ints(panel), b1 = load_ints(panel + LANES);
        panel += WIDTH;
#pragma GCC unroll 16
        for (int r = 0; r < COUNT; ++r) {
            const Ints value = splat_int(a[r * steps + step]);
            sums[r][0] = add_products(sums[r][0], value, b0);
            sums[r][1] = add_products(sums[r][1], value, b1);
        }
    }
}

}  // namespace ridgeline::RL_PATH::RL_DOT

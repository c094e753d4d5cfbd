// Peak multiply-add rates: independent chains of accumulators in registers, operands loaded once per call.
//
// One call does threads x chains x lanes x products x iterations multiply-adds; each counts as two operations.
// Every thread writes all its accumulators, so that each result can be checked (fma.py has the closed forms):
//   float64, float32   sum = sum * x + y, from (chain + 1) * y; |x| < 1 keeps it bounded and normal
//   bfloat16           sum += x0 y0 + x1 y1 in float32, from (chain + 1) * y0. The sign of x alternates, + first and
//                      last (++ at the end where iterations is even): the net result is one or two products, so that
//                      float32 does not run out of digits however long the loop
//   int8               sum += sum of four u8 * s8 products, from chain + 1, modulo 2^32

#include <chrono>
#include <cstring>

#include "isa.h"
#include "pool.h"

#if RL_X86
#define RL_PATH avx512
#define RL_TARGET RL_TARGET_AVX512
#define RL_BYTES 64
#define RL_CHAINS 16
#define RL_OPAQUE(value) RL_OPAQUE_512(value)
#include "fma_loops.h"

#define RL_PATH avx2
#define RL_TARGET RL_TARGET_AVX2
#define RL_BYTES 32
#define RL_CHAINS 12  // of 16 registers, with x and y
#define RL_OPAQUE(value) RL_OPAQUE_SMALL(value)
#include "fma_loops.h"
#endif

#define RL_PATH portable
#define RL_TARGET
#define RL_BYTES 16
#define RL_CHAINS 12
#define RL_OPAQUE(value) RL_OPAQUE_SMALL(value)
#include "fma_loops.h"

namespace ridgeline {
namespace {

// A chain loop for an instruction that vector code cannot express. UPDATE(sum, operand) is one multiply-add.
#define RL_INT8_KERNEL(NAME, TARGET, VECTOR, CHAINS, OPAQUE, SET1, LOAD, STORE, UPDATE)                     \
    TARGET void NAME(const void* x_, const void* y_, void* out_, int64_t iterations) {                      \
        VECTOR x = LOAD(x_), y = LOAD(y_), sum[CHAINS];                                                     \
        _Pragma("GCC unroll 16") for (int c = 0; c < (CHAINS); ++c) sum[c] = SET1(c + 1);                   \
        for (int64_t i = 0; i < iterations; ++i) {                                                          \
            _Pragma("GCC unroll 16") for (int c = 0; c < (CHAINS); ++c) {                                   \
                OPAQUE(x);                                                                                  \
                sum[c] = UPDATE(sum[c], x, y);                                                              \
            }                                                                                               \
        }                                                                                                   \
        _Pragma("GCC unroll 16") for (int c = 0; c < (CHAINS); ++c) STORE(static_cast<VECTOR*>(out_) + c, sum[c]); \
    }

#if RL_X86
// vpmaddubsw saturates at 16 bits: exact for x below 128 (2 * 127 * 128 = 32512), hence the domain of x in fma.py.
#define RL_MADD_256(SUM, X, Y) \
    _mm256_add_epi32(SUM, _mm256_madd_epi16(_mm256_maddubs_epi16(X, Y), _mm256_set1_epi16(1)))
#define RL_MADD_512(SUM, X, Y) \
    _mm512_add_epi32(SUM, _mm512_madd_epi16(_mm512_maddubs_epi16(X, Y), _mm512_set1_epi16(1)))

RL_INT8_KERNEL(int8_avx512_vnni, RL_TARGET_AVX512_VNNI, __m512i, 16, RL_OPAQUE_512, _mm512_set1_epi32,
               _mm512_loadu_si512, _mm512_storeu_si512, _mm512_dpbusd_epi32)
RL_INT8_KERNEL(int8_avx512, RL_TARGET_AVX512, __m512i, 16, RL_OPAQUE_512, _mm512_set1_epi32, _mm512_loadu_si512,
               _mm512_storeu_si512, RL_MADD_512)

#define RL_LOAD_256(ADDRESS) _mm256_loadu_si256(static_cast<const __m256i*>(ADDRESS))
RL_INT8_KERNEL(int8_avx_vnni, RL_TARGET_AVX_VNNI, __m256i, 12, RL_OPAQUE_SMALL, _mm256_set1_epi32, RL_LOAD_256,
               _mm256_storeu_si256, _mm256_dpbusd_avx_epi32)
RL_INT8_KERNEL(int8_avx2, RL_TARGET_AVX2, __m256i, 12, RL_OPAQUE_SMALL, _mm256_set1_epi32, RL_LOAD_256,
               _mm256_storeu_si256, RL_MADD_256)

RL_TARGET_AVX512_BF16 void bfloat16_avx512_bf16(const void* x_, const void* y_, void* out_, int64_t iterations) {
    constexpr int CHAINS = 16;
    const __m512i x_bits = _mm512_loadu_si512(x_), y_bits = _mm512_loadu_si512(y_);
    const __m512i minus_bits = _mm512_xor_si512(x_bits, _mm512_set1_epi32(static_cast<int>(0x80008000u)));
    const __m512bh x = (__m512bh)x_bits, minus_x = (__m512bh)minus_bits, y = (__m512bh)y_bits;
    const __m512 start = _mm512_castsi512_ps(_mm512_slli_epi32(y_bits, 16));
    __m512 sum[CHAINS];
#pragma GCC unroll 16
    for (int c = 0; c < CHAINS; ++c) sum[c] = _mm512_mul_ps(start, _mm512_set1_ps(static_cast<float>(c + 1)));
#pragma GCC unroll 16
    for (int c = 0; c < CHAINS; ++c) sum[c] = _mm512_dpbf16_ps(sum[c], x, y);
    for (int64_t i = 0; i < (iterations - 1) / 2; ++i) {
#pragma GCC unroll 16
        for (int c = 0; c < CHAINS; ++c) sum[c] = _mm512_dpbf16_ps(sum[c], minus_x, y);
#pragma GCC unroll 16
        for (int c = 0; c < CHAINS; ++c) sum[c] = _mm512_dpbf16_ps(sum[c], x, y);
    }
    if (iterations % 2 == 0) {
#pragma GCC unroll 16
        for (int c = 0; c < CHAINS; ++c) sum[c] = _mm512_dpbf16_ps(sum[c], x, y);
    }
#pragma GCC unroll 16
    for (int c = 0; c < CHAINS; ++c) _mm512_storeu_ps(static_cast<float*>(out_) + 16 * c, sum[c]);
}
#endif

// Four byte pairs per 32-bit lane, widened by shifts. Unsigned: overflow wraps.
typedef uint32_t Words __attribute__((vector_size(16), may_alias));
typedef int32_t Signed __attribute__((vector_size(16), may_alias));

void int8_portable(const void* x_, const void* y_, void* out_, int64_t iterations) {
    constexpr int CHAINS = 8;
    Words x, y, sum[CHAINS];
    std::memcpy(&x, x_, sizeof x);
    std::memcpy(&y, y_, sizeof y);
#pragma GCC unroll 8
    for (int c = 0; c < CHAINS; ++c) sum[c] = Words{} + static_cast<uint32_t>(c + 1);
    for (int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 8
        for (int c = 0; c < CHAINS; ++c) {
            RL_OPAQUE_SMALL(x);
#pragma GCC unroll 4
            for (int byte = 0; byte < 4; ++byte) {
                const Words a = (x >> (8 * byte)) & 0xffu;
                const Words b = (Words)((Signed)(y << (24 - 8 * byte)) >> 24);
                sum[c] += a * b;
            }
        }
    }
    std::memcpy(out_, sum, sizeof sum);
}

struct Entry {
    const char* precision;
    const char* path;
    bool (*available)();
    void (*kernel)(const void* x, const void* y, void* out, int64_t iterations);
    int32_t chains;
    int32_t lanes;
    int32_t products;  // per lane and iteration
    int32_t lane_bytes;
};

// Best first within a precision.
constexpr Entry ENTRIES[] = {
#if RL_X86
    {"float64", "avx512", has_avx512, avx512::float64, avx512::CHAINS, 8, 1, 8},
    {"float64", "avx2", has_avx2, avx2::float64, avx2::CHAINS, 4, 1, 8},
    {"float32", "avx512", has_avx512, avx512::float32, avx512::CHAINS, 16, 1, 4},
    {"float32", "avx2", has_avx2, avx2::float32, avx2::CHAINS, 8, 1, 4},
    {"bfloat16", "avx512_bf16", has_avx512_bf16, bfloat16_avx512_bf16, 16, 16, 2, 4},
    {"bfloat16", "avx512", has_avx512, avx512::bfloat16, avx512::BFLOAT16_CHAINS, 16, 2, 4},
    {"bfloat16", "avx2", has_avx2, avx2::bfloat16, avx2::BFLOAT16_CHAINS, 8, 2, 4},
    {"int8", "avx512_vnni", has_avx512_vnni, int8_avx512_vnni, 16, 16, 4, 4},
    {"int8", "avx_vnni", has_avx_vnni, int8_avx_vnni, 12, 8, 4, 4},
    {"int8", "avx512", has_avx512, int8_avx512, 16, 16, 4, 4},
    {"int8", "avx2", has_avx2, int8_avx2, 12, 8, 4, 4},
#endif
    {"float64", "portable", has_portable, portable::float64, portable::CHAINS, 2, 1, 8},
    {"float32", "portable", has_portable, portable::float32, portable::CHAINS, 4, 1, 4},
    {"bfloat16", "portable", has_portable, portable::bfloat16, portable::BFLOAT16_CHAINS, 4, 2, 4},
    {"int8", "portable", has_portable, int8_portable, 8, 4, 4, 4},
};
constexpr int32_t ENTRY_COUNT = sizeof ENTRIES / sizeof *ENTRIES;

struct Call {
    const Entry* entry;
    const void* x;
    const void* y;
    char* out;
    int64_t iterations;
};

void work(const void* context, int thread, int) {
    const Call& call = *static_cast<const Call*>(context);
    const int64_t bytes = int64_t{1} * call.entry->chains * call.entry->lanes * call.entry->lane_bytes;
    call.entry->kernel(call.x, call.y, call.out + thread * bytes, call.iterations);
}

}  // namespace
}  // namespace ridgeline

using namespace ridgeline;

// Entry i: its precision, path name and {chains, lanes, products per lane}. Returns 1 where this CPU has it, 0 where
// it lacks it, BAD_ARGUMENT past the last entry.
extern "C" int32_t fma_entry(int32_t i, const char** precision, const char** path, int32_t* shape) {
    if (i < 0 || i >= ENTRY_COUNT) return BAD_ARGUMENT;
    const Entry& entry = ENTRIES[i];
    *precision = entry.precision;
    *path = entry.path;
    shape[0] = entry.chains;
    shape[1] = entry.lanes;
    shape[2] = entry.products;
    return entry.available() ? 1 : 0;
}

// x, y: one vector (lanes * products elements); out: threads * chains * lanes accumulators.
extern "C" int32_t fma_run(int32_t i, const void* x, const void* y, void* out, int64_t iterations, int32_t threads) {
    if (i < 0 || i >= ENTRY_COUNT || iterations < 1) return BAD_ARGUMENT;
    if (!ENTRIES[i].available()) return UNKNOWN_PATH;
    const Call call = {&ENTRIES[i], x, y, static_cast<char*>(out), iterations};
    return Pool::get().run(threads, work, &call);
}

// Nanoseconds that `adds` dependent register additions take on the calling thread: one cycle each on every core made
// so far. Register operands, because Golden Cove folds additions of small constants into renaming (zero cycles).
extern "C" double clock_add_ns(int64_t adds) {
    uint64_t value = 0, one = 1;
    const auto start = std::chrono::steady_clock::now();
#if RL_X86
#define RL_ADD "add %1, %0\n\t"
#elif defined(__aarch64__)
#define RL_ADD "add %0, %0, %1\n\t"
#endif
#ifdef RL_ADD
#define RL_ADD_8 RL_ADD RL_ADD RL_ADD RL_ADD RL_ADD RL_ADD RL_ADD RL_ADD
    int64_t i = 0;
    for (; i + 64 <= adds; i += 64) {
        asm volatile(RL_ADD_8 RL_ADD_8 RL_ADD_8 RL_ADD_8 RL_ADD_8 RL_ADD_8 RL_ADD_8 RL_ADD_8 : "+r"(value) : "r"(one));
    }
    for (; i < adds; ++i) asm volatile(RL_ADD : "+r"(value) : "r"(one));
#else
    for (int64_t i = 0; i < adds; ++i) {
        value += one;
        asm volatile("" : "+r"(value));
    }
#endif
    const std::chrono::duration<double, std::nano> elapsed = std::chrono::steady_clock::now() - start;
    return value == static_cast<uint64_t>(adds) ? elapsed.count() : -1.0;
}

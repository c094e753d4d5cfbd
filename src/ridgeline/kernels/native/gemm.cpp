// Matrix products with few rows in float32, C[m, n] = A[m, k] B[k, n], after FlashDecoding++ (Hong et al. 2023): where m
// is small the product is bound by reading B, so each reads it once for as many rows as it can.
//   gemv   B as it is; up to 4 rows of A in a pass over it
//   flat   B packed in panels beforehand; register tiles of up to 6 rows by two vectors, no row padded. B may be int8
//          with a factor for each column, which the sums are multiplied with at their end

#include "isa.h"
#include "paths.h"
#include "pool.h"

namespace ridgeline {

struct Loops {
    void (*gemv)(const float* a, const float* b, float* c, int64_t m, int64_t n, int64_t k, int64_t first,
                 int64_t last);
    void (*pack)(const float* a, float* packed, int64_t m, int64_t k, int64_t start, int64_t depth);
    void (*flat)(const float* packed_a, const float* panels, const float* scale, float* c, int64_t m, int64_t n,
                 int64_t k, int64_t first, int64_t last);
    void (*flat_int8)(const float* packed_a, const int8_t* panels, const float* scale, float* c, int64_t m, int64_t n,
                      int64_t k, int64_t first, int64_t last);
    int64_t panel;
    int64_t depth;
};

}  // namespace ridgeline

#if RL_X86
#define RL_AVX512
#include "vectors.h"
#include "int8_rows.h"
#include "gemm_loops.h"
#include "vectors_end.h"

#define RL_AVX2
#include "vectors.h"
#include "int8_rows.h"
#include "gemm_loops.h"
#include "vectors_end.h"
#endif

#define RL_PORTABLE
#include "vectors.h"
#include "int8_rows.h"
#include "gemm_loops.h"
#include "vectors_end.h"

namespace ridgeline {
namespace {

struct Path {
    const char* name;
    bool (*available)();
    const Loops* loops;
};

#define RL_ENTRY(PATH) {#PATH, has_##PATH, &PATH::loops}
constexpr Path PATHS[] = {RL_EACH_PATH(RL_ENTRY)};

struct Product {
    const Loops* loops;
    const float* a;
    const void* b;  // of flat: the panels
    const float* scale;  // of int8 panels
    float* c;
    float* packed;  // of flat: A by blocks
    int64_t m, n, k;
};

// Part `index` of `parts` of [0, count), in whole multiples of `grain`.
int64_t part(int64_t count, int64_t grain, int index, int parts) {
    if (index == parts) return count;
    return (count + grain - 1) / grain * index / parts * grain;
}

void gemv_part(const void* context, int thread, int threads) {
    const Product& p = *static_cast<const Product*>(context);
    const int64_t first = part(p.n, 64, thread, threads), last = part(p.n, 64, thread + 1, threads);
    if (first < last) p.loops->gemv(p.a, static_cast<const float*>(p.b), p.c, p.m, p.n, p.k, first, last);
}

void pack_part(const void* context, int thread, int threads) {
    const Product& p = *static_cast<const Product*>(context);
    const int64_t depth = p.loops->depth, last = part(p.k, depth, thread + 1, threads);
    for (int64_t start = part(p.k, depth, thread, threads); start < last; start += depth) {
        p.loops->pack(p.a, p.packed + start * p.m, p.m, p.k, start, last - start < depth ? last - start : depth);
    }
}

template <typename Weight>
void flat_part(const void* context, int thread, int threads) {
    const Product& p = *static_cast<const Product*>(context);
    const int64_t panels = (p.n + p.loops->panel - 1) / p.loops->panel;
    const int64_t first = part(panels, 1, thread, threads), last = part(panels, 1, thread + 1, threads);
    if (first >= last) return;
    const float* a = p.m == 1 ? p.a : p.packed;  // one row packed is the row itself
    const Weight* b = static_cast<const Weight*>(p.b);
    if constexpr (sizeof(Weight) == 1) {
        p.loops->flat_int8(a, b, p.scale, p.c, p.m, p.n, p.k, first, last);
    } else {
        p.loops->flat(a, b, nullptr, p.c, p.m, p.n, p.k, first, last);
    }
}

template <typename Weight>
int32_t run_flat(const Product& product, int32_t threads) {
    if (product.m > 1) {
        if (const int32_t status = Pool::get().run(threads, pack_part, &product); status != OK) return status;
    }
    return Pool::get().run(threads, flat_part<Weight>, &product);
}

bool good(int64_t m, int64_t n, int64_t k, int32_t path) {
    return m >= 1 && n >= 1 && k >= 1 && entry_of(PATHS, path);
}

}  // namespace
}  // namespace ridgeline

using namespace ridgeline;

// The name of path number i, best first; null past the last. An unavailable path is the empty string.
extern "C" const char* gemm_path(int32_t i) {
    return name_of(PATHS, i);
}

// Columns of a panel of B as flat takes it on that path.
extern "C" int64_t gemm_panel(int32_t path) { return entry_of(PATHS, path) ? PATHS[path].loops->panel : 0; }

// a [m, k], b [k, n], c [m, n], row-major.
extern "C" int32_t gemm_gemv(const float* a, const float* b, float* c, int64_t m, int64_t n, int64_t k,
                             int32_t threads, int32_t path) {
    if (!good(m, n, k, path)) return BAD_ARGUMENT;
    const Product product = {PATHS[path].loops, a, b, nullptr, c, nullptr, m, n, k};
    return Pool::get().run(threads, gemv_part, &product);
}

// a [m, k]; panels [ceil(n / panel), k, panel] with anything in the columns past n; c [m, n]; packed: m k floats, which
// the call overwrites.
extern "C" int32_t gemm_flat(const float* a, const float* panels, float* c, float* packed, int64_t m, int64_t n,
                             int64_t k, int32_t threads, int32_t path) {
    if (!good(m, n, k, path)) return BAD_ARGUMENT;
    return run_flat<float>({PATHS[path].loops, a, panels, nullptr, c, packed, m, n, k}, threads);
}

// The same for panels of int8 and scale [n]: c = a b, times the scale of its column.
extern "C" int32_t gemm_flat_int8(const float* a, const int8_t* panels, const float* scale, float* c, float* packed,
                                  int64_t m, int64_t n, int64_t k, int32_t threads, int32_t path) {
    if (!good(m, n, k, path)) return BAD_ARGUMENT;
    return run_flat<int8_t>({PATHS[path].loops, a, panels, scale, c, packed, m, n, k}, threads);
}

// Attention on quantised Q, K, V (SageAttention2, Zhang et al. 2024): Q K^T in integers, softmax and P V in float32.
//
// Two passes over tasks that threads take by turns: pack K (and widen V where it is not float32) once for all queries
// of its heads; then tiles of queries, each over all keys that it sees. K is packed in the form that the instruction of
// the path takes, which costs a query's worth of products for each packed key: made for prefill, not for decode.

#include <atomic>
#include <cstdint>
#include <cstring>

#include "attention_groups.h"
#include "isa.h"
#include "paths.h"
#include "pool.h"

namespace ridgeline {
namespace {

constexpr int64_t KEY_TILE = 128;   // scores of a tile: 48 KiB, with the accumulator well inside a level-2 cache
constexpr int64_t QUERY_TILE = 96;  // a multiple of the rows of every path

enum ValueType : int64_t { FLOAT32 = 0, FLOAT16 = 1, BFLOAT16 = 2, FLOAT8_E4M3FN = 3 };

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

struct Sizes {
    int64_t batch, q_heads, kv_heads, q_length, kv_length, head_dim, causal, value_type;
};

inline int64_t tiles_of(const Sizes& sizes) { return (sizes.kv_length + KEY_TILE - 1) / KEY_TILE; }

struct Layout {
    int64_t steps, key_words, scales, values, width, own, own_words;
};

struct Call {
    Sizes sizes;
    Grouping query_groups, key_groups;
    const int8_t* q;
    const int8_t* k;
    const void* v;
    const float* q_scale;
    const float* k_scale;
    const float* v_scale;     // or null
    const float* v_mean;      // or null
    const float* correction;  // or null
    float* out;
    int32_t* scratch;
};

// C[m][n] = A[m][depth] B[n][depth]^T
struct Products {
    int64_t m, n, depth;
    const int8_t* a;
    const int8_t* b;
    int32_t* out;
    int32_t* packed;   // b, in panels
    int32_t* scratch;  // rows of a, packed, of each thread
    int64_t tile;      // rows of a that are a task, at most QUERY_TILE
};

struct Path {
    int64_t (*attention_words)(const Sizes&, int threads);
    void (*prepare_tile)(const Call&, int64_t task, int thread);
    void (*attend)(const Call&, int64_t task, int thread);
    int64_t panel;
    int64_t (*packed_words)(const Products&);
    void (*pack_products)(const Products&, int64_t task, int thread);
    void (*multiply_rows)(const Products&, int64_t task, int thread);
};

inline float float_of_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// The bits of a narrow float moved to where float32 has them are its value but for the bias of the exponent, which a
// product with a power of two mends, denormals included.
inline float from_float16(uint16_t half) {
    const uint32_t magnitude = half & 0x7fffu, sign = (half & 0x8000u) << 16;
    if (magnitude >= 0x7c00u) return float_of_bits(sign | 0x7f800000u | magnitude << 13);  // infinity, NaN
    return float_of_bits(sign | magnitude << 13) * 0x1p112f;
}

inline float from_float8_e4m3fn(uint8_t byte) {
    const uint32_t magnitude = byte & 0x7fu, sign = (byte & 0x80u) << 24;
    if (magnitude == 0x7fu) return float_of_bits(sign | 0x7fc00000u);  // NaN; there is no infinity
    return float_of_bits(sign | magnitude << 20) * 0x1p120f;
}

}  // namespace
}  // namespace ridgeline

#if RL_X86
#define RL_AVX512
#include "vectors.h"
#define RL_DOT words
#include "int8_dot.h"
#include "quantised_attention_loops.h"
#include "int8_dot_end.h"
#define RL_DOT vnni
#define RL_VNNI
#include "int8_dot.h"
#include "quantised_attention_loops.h"
#include "int8_dot_end.h"
#include "vectors_end.h"

#define RL_AVX2
#include "vectors.h"
#define RL_DOT words
#include "int8_dot.h"
#include "quantised_attention_loops.h"
#include "int8_dot_end.h"
#define RL_DOT vnni
#define RL_VNNI
#include "int8_dot.h"
#include "quantised_attention_loops.h"
#include "int8_dot_end.h"
#include "vectors_end.h"
#endif

#define RL_PORTABLE
#include "vectors.h"
#define RL_DOT words
#include "int8_dot.h"
#include "quantised_attention_loops.h"
#include "int8_dot_end.h"
#include "vectors_end.h"

namespace ridgeline {
namespace {

struct Entry {
    const char* name;
    bool (*available)();
    const Path* path;
};

// Best first.
constexpr Entry ENTRIES[] = {
#if RL_X86
    {"avx512_vnni", has_avx512_vnni, &avx512::vnni::PATH},
    {"avx_vnni", has_avx_vnni, &avx2::vnni::PATH},
    {"avx512", has_avx512, &avx512::words::PATH},
    {"avx2", has_avx2, &avx2::words::PATH},
#endif
    {"portable", has_portable, &portable::words::PATH},
};

const Path* path_of(int32_t i) {
    const Entry* entry = entry_of(ENTRIES, i);
    return entry ? entry->path : nullptr;
}

// Threads take tasks by turns, so that one that is held up keeps the others from nothing. Each begins with its own: what is
// called again and again with a task a thread finds its rows of the output in the cache that it left them in.
template <typename CallType>
struct Pass {
    const CallType* call;
    void (*one)(const CallType&, int64_t task, int thread);
    int64_t tasks;
    mutable std::atomic<int64_t> begun{0};

    static void work(const void* context, int thread, int threads) {
        const Pass& pass = *static_cast<const Pass*>(context);
        for (int64_t task = thread; task < pass.tasks;) {
            pass.one(*pass.call, task, thread);
            task = threads + pass.begun.fetch_add(1, std::memory_order_relaxed);
        }
    }
    int32_t run(int threads) const { return Pool::get().run(threads, work, this); }
};

bool positive(const Sizes& s) {
    return s.batch > 0 && s.q_heads > 0 && s.kv_heads > 0 && s.q_length > 0 && s.kv_length > 0 && s.head_dim > 0 &&
           s.head_dim <= 65536 && s.q_heads % s.kv_heads == 0 && s.value_type >= FLOAT32 && s.value_type <= FLOAT8_E4M3FN;
}

}  // namespace
}  // namespace ridgeline

using namespace ridgeline;

// Name of path i, empty where this CPU lacks it, null past the last.
extern "C" const char* quantised_attention_path(int32_t i) {
    return name_of(ENTRIES, i);
}

// Words (4 bytes) of scratch memory; sizes as in Sizes. 0 for a path or sizes that are not.
extern "C" int64_t quantised_attention_words(int32_t path, const int64_t* sizes, int32_t threads) {
    Sizes s;
    std::memcpy(&s, sizes, sizeof s);
    return path_of(path) && positive(s) && threads > 0 ? path_of(path)->attention_words(s, threads) : 0;
}

// groups: {rows, classes, run} of the queries and of the keys. tensors: q, k, v, q_scale, k_scale, v_scale or null,
// v_mean or null, correction or null, out, scratch.
extern "C" int32_t quantised_attention(int32_t path, const int64_t* sizes, const int64_t* groups, void* const* tensors,
                                       int32_t threads) {
    Call call;
    std::memcpy(&call.sizes, sizes, sizeof call.sizes);
    std::memcpy(&call.query_groups, groups, 2 * sizeof call.query_groups);
    if (!positive(call.sizes)) return BAD_ARGUMENT;
    const Path* chosen = path_of(path);
    if (!chosen) return UNKNOWN_PATH;
    call.q = static_cast<const int8_t*>(tensors[0]);
    call.k = static_cast<const int8_t*>(tensors[1]);
    call.v = tensors[2];
    call.q_scale = static_cast<const float*>(tensors[3]);
    call.k_scale = static_cast<const float*>(tensors[4]);
    call.v_scale = static_cast<const float*>(tensors[5]);
    call.v_mean = static_cast<const float*>(tensors[6]);
    call.correction = static_cast<const float*>(tensors[7]);
    call.out = static_cast<float*>(tensors[8]);
    call.scratch = static_cast<int32_t*>(tensors[9]);
    const Sizes& s = call.sizes;
    const Pass<Call> packing = {&call, chosen->prepare_tile, s.batch * s.kv_heads * tiles_of(s)};
    if (const int32_t status = packing.run(threads); status != OK) return status;
    const int64_t query_tiles = (s.q_length + QUERY_TILE - 1) / QUERY_TILE;
    const Pass<Call> attending = {&call, chosen->attend, s.batch * s.q_heads * query_tiles};
    return attending.run(threads);
}

// Words of the packed form of b. sizes: m, n, depth. 0 for a path that is not.
extern "C" int64_t int8_packed_words(int32_t path, const int64_t* sizes) {
    const Products call = {sizes[0], sizes[1], sizes[2], nullptr, nullptr, nullptr, nullptr, nullptr, 0};
    return path_of(path) ? path_of(path)->packed_words(call) : 0;
}

// Words of scratch memory of int8_products: packed rows of a.
extern "C" int64_t int8_products_words(const int64_t* sizes, int32_t threads) {
    return threads > 0 ? threads * QUERY_TILE * sizes[2] : 0;  // a word holds one value at least
}

// Packs b [n][depth] for int8_products.
extern "C" int32_t int8_pack(int32_t path, const int64_t* sizes, const int8_t* b, int32_t* packed, int32_t threads) {
    const Products call = {1, sizes[1], sizes[2], nullptr, b, nullptr, packed, nullptr, 0};
    if (call.n < 1 || call.depth < 1 || call.depth > 65536) return BAD_ARGUMENT;
    const Path* chosen = path_of(path);
    if (!chosen) return UNKNOWN_PATH;
    const Pass<Products> packing = {&call, chosen->pack_products, (call.n + chosen->panel - 1) / chosen->panel};
    return packing.run(threads);
}

// out[m][n] int32 = a[m][depth] b[n][depth]^T, exact, of packed b.
extern "C" int32_t int8_products(int32_t path, const int64_t* sizes, const int8_t* a, int32_t* packed, int32_t* out,
                                 int32_t* scratch, int32_t threads) {
    const int64_t m = sizes[0], n = sizes[1], depth = sizes[2];
    if (m < 1 || n < 1 || depth < 1 || depth > 65536 || threads < 1) return BAD_ARGUMENT;
    // As many tasks a thread, of as many rows: of 128 rows in tiles of 96 one of two threads had three times the other's.
    const int64_t turns = (m + threads * QUERY_TILE - 1) / (threads * QUERY_TILE);
    const int64_t tile = (m + turns * threads - 1) / (turns * threads);
    const Products call = {m, n, depth, a, nullptr, out, packed, scratch, tile};
    const Path* chosen = path_of(path);
    if (!chosen) return UNKNOWN_PATH;
    const Pass<Products> multiplying = {&call, chosen->multiply_rows, (m + tile - 1) / tile};
    return multiplying.run(threads);
}

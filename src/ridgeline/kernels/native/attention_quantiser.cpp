// Smooths and quantises Q or K for attention on integers (SageAttention2, Zhang et al. 2024): float32 to int8 and scales.
//
// Tiles of tokens, which hold whole groups, are read once; where the mean over all tokens is subtracted, once more before.

#include <atomic>
#include <cstdint>
#include <cstring>

#include "attention_groups.h"
#include "isa.h"
#include "paths.h"
#include "pool.h"

namespace ridgeline {
namespace {

enum Smooth : int64_t { NO_MEAN = 0, TILE_MEAN = 1, HEAD_MEAN = 2 };

struct Quantise {
    int64_t heads, length, head_dim, tile, smooth;
    Grouping groups;
    float largest, floor;
    const float* x;
    int8_t* out;
    float* scales;
    float* means;    // [heads][head_dim] for HEAD_MEAN
    float* scratch;  // [threads][tile + 1][head_dim]
    void (*mean)(const Quantise&, int64_t head);
    void (*quantise)(const Quantise&, int64_t task, int thread);
};

}  // namespace
}  // namespace ridgeline

#if RL_X86
#define RL_AVX512
#include "vectors.h"
#include "attention_quantiser_loops.h"
#include "vectors_end.h"
#define RL_AVX2
#include "vectors.h"
#include "attention_quantiser_loops.h"
#include "vectors_end.h"
#endif
#define RL_PORTABLE
#include "vectors.h"
#include "attention_quantiser_loops.h"
#include "vectors_end.h"

namespace ridgeline {
namespace {

struct Entry {
    const char* name;
    bool (*available)();
    void (*mean)(const Quantise&, int64_t head);
    void (*quantise)(const Quantise&, int64_t task, int thread);
};

// Best first.
#define RL_ENTRY(PATH) {#PATH, has_##PATH, PATH::head_mean, PATH::quantise_tile}
constexpr Entry ENTRIES[] = {RL_EACH_PATH(RL_ENTRY)};

void mean_work(const void* context, int thread, int threads) {
    const Quantise& call = *static_cast<const Quantise*>(context);
    for (int64_t head = thread; head < call.heads; head += threads) call.mean(call, head);
}

void quantise_work(const void* context, int thread, int threads) {
    const Quantise& call = *static_cast<const Quantise*>(context);
    const int64_t tasks = call.heads * ((call.length + call.tile - 1) / call.tile);
    for (int64_t task = thread; task < tasks; task += threads) call.quantise(call, task, thread);
}

}  // namespace
}  // namespace ridgeline

using namespace ridgeline;

// Name of path i, empty where this CPU lacks it, null past the last.
extern "C" const char* attention_quantiser_path(int32_t i) {
    return name_of(ENTRIES, i);
}

// sizes: {heads, length, head_dim, tile, smooth, rows, classes, run}; a tile is a multiple of rows.
extern "C" int32_t attention_quantiser(int32_t path, const int64_t* sizes, float largest, float floor, const float* x,
                                       int8_t* out, float* scales, float* means, float* scratch, int32_t threads) {
    if (!entry_of(ENTRIES, path)) return UNKNOWN_PATH;
    const Entry& entry = ENTRIES[path];
    for (int i = 0; i < 4; ++i) {
        if (sizes[i] < 1) return BAD_ARGUMENT;
    }
    const Grouping groups = {sizes[5], sizes[6], sizes[7]};
    if (groups.rows < 1 || groups.classes < 1 || groups.run < 1 || sizes[3] % groups.rows) return BAD_ARGUMENT;
    const Quantise call = {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], groups,     largest,       floor,
                           x,        out,      scales,   means,    scratch,  entry.mean, entry.quantise};
    if (call.smooth == HEAD_MEAN) {
        if (const int32_t status = Pool::get().run(threads, mean_work, &call); status != OK) return status;
    }
    return Pool::get().run(threads, quantise_work, &call);
}

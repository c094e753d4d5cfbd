// Dense attention in float32: softmax (online, or with one maximum for all) or sigmoid, any mask of keys between two
// bounds, a window or a tree, grouped heads, pages, splits of the keys. See attention.h for what a call says.
//
// One loop (attention_loops.h), after FlashAttention-2 (Dao 2023, section 3.1) in its order and its one division at the
// end; transforms after FlashSigmoid (Ramapuram et al. 2024) and FlashDecoding++ (Hong et al. 2023, section 3); two
// levels of tiles and the master mask after FastAttention (Lin et al. 2024).

#include <atomic>
#include <cstring>

#include "attention.h"
#include "isa.h"
#include "paths.h"
#include "pool.h"

#if RL_X86
#define RL_AVX512
#include "vectors.h"
#include "attention_tiles.h"
#include "attention_weights.h"
#include "attention_loops.h"
#include "vectors_end.h"

#define RL_AVX2
#include "vectors.h"
#include "attention_tiles.h"
#include "attention_weights.h"
#include "attention_loops.h"
#include "vectors_end.h"
#endif

#define RL_PORTABLE
#include "vectors.h"
#include "attention_tiles.h"
#include "attention_weights.h"
#include "attention_loops.h"
#include "vectors_end.h"

namespace ridgeline {
namespace {

struct Path {
    const char* name;
    bool (*available)();
    int64_t (*thread_bytes)(const AttentionCall&);
    int64_t (*partial_floats)(const AttentionCall&);
    void (*run_item)(const AttentionCall&, int64_t, char*, char*, int32_t*, int64_t*);
    int32_t shape[3];  // rows of a strip, columns of a panel, strips of a group
};

#define RL_ENTRY(PATH)                                                                          \
    {#PATH, has_##PATH, PATH::thread_bytes, PATH::partial_floats, PATH::run_item, {PATH::MR, PATH::NR, PATH::GROUP}}

constexpr Path PATHS[] = {RL_EACH_PATH(RL_ENTRY)};

// The scratch: counts of splits that arrived, what they left, and a part for each thread.
struct Layout {
    int64_t partials, threads, thread_bytes, bytes;

    explicit Layout(const AttentionCall& call) {
        const Path& path = PATHS[call.path];
        const Cut cut(call);
        const int64_t blocks = call.batch * call.kv_heads * cut.tiles;
        partials = (blocks * static_cast<int64_t>(sizeof(int32_t)) + 63) / 64 * 64;
        const int64_t left = call.splits == 1 ? 0 : blocks * call.splits * path.partial_floats(call);
        threads = partials + left * static_cast<int64_t>(sizeof(float));
        thread_bytes = (path.thread_bytes(call) + 127) / 64 * 64;
        bytes = threads + call.threads * thread_bytes;
    }
};

struct Shared {
    const AttentionCall* call;
    Layout layout;
    int64_t items;
    std::atomic<int64_t> next{0};
    std::atomic<int64_t> recomputed{0};
};

void work(const void* context, int thread, int) {
    Shared& shared = *static_cast<Shared*>(const_cast<void*>(context));
    const AttentionCall& call = *shared.call;
    char* const base = call.scratch;
    char* const mine = base + shared.layout.threads + thread * shared.layout.thread_bytes;
    int64_t recomputed = 0;
    for (int64_t item; (item = shared.next.fetch_add(1, std::memory_order_relaxed)) < shared.items;) {
        PATHS[call.path].run_item(call, item, mine, base + shared.layout.partials, reinterpret_cast<int32_t*>(base),
                                  &recomputed);
    }
    if (recomputed) shared.recomputed.fetch_add(recomputed, std::memory_order_relaxed);
}

// What the binding cannot know of a call: sizes are its business, the numbers in tables are ours.
bool good_tables(const AttentionCall& call) {
    for (int64_t i = 0; i < call.batch; ++i) {
        const int64_t keys = keys_of(call, i);
        if (keys < 0 || keys > call.kv_length || keys < call.tree_nodes) return false;
        if (!call.block_table) continue;
        if ((keys + call.page - 1) / call.page > call.table_width) return false;
        for (int64_t j = 0; j < (keys + call.page - 1) / call.page; ++j) {
            const int64_t page = call.block_table[i * call.table_width + j];
            if (page < 0 || page >= call.pages) return false;
        }
    }
    return true;
}

bool good(const AttentionCall& call) {
    if (!entry_of(PATHS, call.path)) return false;
    const int64_t panel = PATHS[call.path].shape[1];
    return call.batch >= 1 && call.kv_heads >= 1 && call.q_heads % call.kv_heads == 0 && call.q_length >= 1 &&
           call.kv_length >= 1 && call.head_dim >= 1 && call.rows >= 1 && call.inner >= 1 && call.inner % panel == 0 &&
           call.outer % call.inner == 0 && call.outer >= call.inner && call.splits >= 1 && call.threads >= 1 &&
           call.transform >= ONLINE_SOFTMAX && call.transform <= SIGMOID &&
           (call.mask_source != MASTER || (call.master && call.master_size >= call.inner));
}

}  // namespace
}  // namespace ridgeline

using namespace ridgeline;

// The name of path number i, best first, and {rows of a strip, keys of a panel, strips of a group}; null past the last.
// An unavailable path is the empty string.
extern "C" const char* attention_path(int32_t i, int32_t* shape) {
    const char* name = name_of(PATHS, i);
    if (name) std::memcpy(shape, PATHS[i].shape, sizeof PATHS[i].shape);
    return name;
}

// Bytes of call->scratch, or BAD_ARGUMENT. Pointers are not looked at, but for null.
extern "C" int64_t attention_scratch(const AttentionCall* call) {
    return good(*call) ? Layout(*call).bytes : int64_t{BAD_ARGUMENT};
}

// mask[2 m, 2 m]: -1 where column <= row, else 0.
extern "C" void attention_master_mask(int64_t m, int32_t* mask) {
    for (int64_t row = 0; row < 2 * m; ++row) {
        for (int64_t column = 0; column < 2 * m; ++column) mask[row * 2 * m + column] = column <= row ? -1 : 0;
    }
}

extern "C" int32_t attention_run(const AttentionCall* call) {
    if (!good(*call) || !good_tables(*call)) return BAD_ARGUMENT;
    Shared shared{call, Layout(*call), Cut(*call).items};
    const int32_t status = Pool::get().run(call->threads, work, &shared);
    *call->recomputed = shared.recomputed.load();
    return status;
}

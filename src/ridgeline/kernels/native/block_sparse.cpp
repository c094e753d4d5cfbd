// Attention over listed blocks of keys and listed single keys (CSR for each head and block of queries), float32.
//
// Threads take the next block of queries from a counter, the longest first: with a causal mask those are the last.

#include <cstdlib>

#include "block_sparse.h"
#include "isa.h"
#include "paths.h"
#include "pool.h"

#if RL_X86
#define RL_AVX512
#include "vectors.h"
#include "block_sparse_loops.h"
#include "vectors_end.h"
#define RL_AVX2
#include "vectors.h"
#include "block_sparse_loops.h"
#include "vectors_end.h"
#endif
#define RL_PORTABLE
#include "vectors.h"
#include "block_sparse_loops.h"
#include "vectors_end.h"

namespace ridgeline {
namespace {

struct Path {
    const char* name;
    bool (*available)();
    bool (*attend)(const BlockSparse&, const Scratch&, int64_t head, int64_t row);
};

#define RL_ENTRY(PATH) {#PATH, has_##PATH, PATH::attend}
constexpr Path PATHS[] = {RL_EACH_PATH(RL_ENTRY)};

struct Job {
    BlockSparse call;
    const Path* path;
    std::atomic<int64_t>* next;
    std::atomic<int32_t>* status;
};

void work(const void* context, int, int) {
    const Job& job = *static_cast<const Job*>(context);
    const BlockSparse& a = job.call;
    void* memory = std::aligned_alloc(64, (Scratch::bytes(a) + 63) / 64 * 64);
    if (!memory) {
        job.status->store(NO_MEMORY);
        return;
    }
    const Scratch scratch(memory, a);
    const int64_t rows = a.rows(), items = a.heads * rows;
    for (int64_t item; (item = job.next->fetch_add(1)) < items && job.status->load() == OK;) {
        const int64_t head = item / rows, row = rows - 1 - item % rows;
        if (!job.path->attend(a, scratch, head, row)) job.status->store(BAD_ARGUMENT);
    }
    std::free(memory);
}

}  // namespace
}  // namespace ridgeline

using namespace ridgeline;

extern "C" {

// Name of path `index`: empty where this CPU lacks it, null past the last.
const char* block_sparse_path(int32_t index) {
    return name_of(PATHS, index);
}

int32_t block_sparse_attention(
    const float* q, const float* k, const float* v, const int32_t* row_starts, const int32_t* block_keys,
    const int32_t* column_starts, const int32_t* columns, float* out, const int64_t* sizes, float scale, int32_t causal,
    int32_t threads, int32_t path
) {
    if (!entry_of(PATHS, path)) return UNKNOWN_PATH;
    const BlockSparse call{
        q, k, v, row_starts, block_keys, column_starts, columns, out,
        sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], sizes[7], scale, causal,
    };
    for (int i = 0; i < 6; ++i)
        if (sizes[i] < 1) return BAD_ARGUMENT;
    if (call.heads % call.group || call.queries > call.keys || call.blocks_listed < 0 || call.columns_listed < 0)
        return BAD_ARGUMENT;
    std::atomic<int64_t> next{0};
    std::atomic<int32_t> status{OK};
    const Job job{call, &PATHS[path], &next, &status};
    const int32_t ran = Pool::get().run(threads, work, &job);
    return ran != OK ? ran : status.load();
}

}  // extern "C"

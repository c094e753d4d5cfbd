// Decode attention over lists of tokens, one list for each query head. All lists end to end are one line of work that
// is cut into equal pieces, one for each thread, whatever the lengths of the lists; a list that a cut goes through is
// put together afterwards by its log-sum-exp.

#include <memory>
#include <new>
#include <vector>

#include "isa.h"
#include "paths.h"
#include "pool.h"

namespace ridgeline {

struct Gather {
    const float* q;         // [rows, d]
    const float* k;         // [rows / group, kv_length, d]
    const float* v;
    const int32_t* starts;  // [rows + 1]
    const int32_t* tokens;  // [starts[rows]]
    float* out;             // [rows, d]
    int64_t rows, group, kv_length, d;
    float scale;            // log2(e) / sqrt(d)
};

// A piece of a list: largest score, sum of weights, sum of weighted values.
struct Partial {
    float* sums;
    float maximum, total;
    int64_t row;  // -1: none
};

struct Loops {
    bool (*attend)(const Gather& g, int64_t row, int64_t begin, int64_t end, Partial& part);
    void (*combine)(Partial& into, const Partial& part, int64_t d);
    void (*finish)(float* out, const Partial& part, int64_t d);
};

}  // namespace ridgeline

#if RL_X86
#define RL_AVX512
#include "vectors.h"
#include "int8_rows.h"
#include "token_dots.h"
#include "token_gather_loops.h"
#include "vectors_end.h"
#define RL_AVX2
#include "vectors.h"
#include "int8_rows.h"
#include "token_dots.h"
#include "token_gather_loops.h"
#include "vectors_end.h"
#endif
#define RL_PORTABLE
#include "vectors.h"
#include "int8_rows.h"
#include "token_dots.h"
#include "token_gather_loops.h"
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

struct Call {
    const Gather* gather;
    const Loops* loops;
    Partial* parts;  // [threads, 2]: of the list that a thread's piece begins in, and of the one it ends in
    std::atomic<bool>* bad;
};

// The list that place `at` of the line belongs to.
int64_t row_of(const Gather& g, int64_t at) {
    int64_t low = 0, high = g.rows;  // starts[low] <= at < starts[high]
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        (g.starts[middle] <= at ? low : high) = middle;
    }
    return low;
}

void work(const void* context, int thread, int threads) {
    const Call& call = *static_cast<const Call*>(context);
    const Gather& g = *call.gather;
    const int64_t total = g.starts[g.rows];
    const int64_t begin = total * thread / threads, end = total * (thread + 1) / threads;
    if (begin == end) return;
    Partial* cut = call.parts + 2 * thread;
    for (int64_t row = row_of(g, begin); row < g.rows && g.starts[row] < end; ++row) {
        const int64_t from = g.starts[row] > begin ? g.starts[row] : begin;
        const int64_t to = g.starts[row + 1] < end ? g.starts[row + 1] : end;
        if (from == to) continue;
        const bool whole = from == g.starts[row] && to == g.starts[row + 1];
        // A list that is whole uses the place of the one that the piece ends in, which comes after it.
        Partial& part = !whole && from == begin ? cut[0] : cut[1];
        if (!call.loops->attend(g, row, from, to, part)) {
            call.bad->store(true, std::memory_order_relaxed);
            return;
        }
        if (whole) {
            call.loops->finish(g.out + row * g.d, part, g.d);
        } else {
            part.row = row;
        }
    }
}

}  // namespace
}  // namespace ridgeline

using namespace ridgeline;

// The name of path number i, best first; null past the last. An unavailable path is the empty string.
extern "C" const char* token_gather_path(int32_t i) {
    return name_of(PATHS, i);
}

// Arguments as in Gather; `listed` is the length of tokens. Lists must be within it and in order, and every token below
// kv_length: BAD_ARGUMENT otherwise, with nothing read outside. A list of no tokens gives zeros.
extern "C" int32_t token_gather_attention(const float* q, const float* k, const float* v, const int32_t* starts,
                                          const int32_t* tokens, float* out, int64_t rows, int64_t group,
                                          int64_t kv_length, int64_t d, int64_t listed, float scale, int32_t threads,
                                          int32_t path) {
    if (rows < 1 || group < 1 || rows % group || kv_length < 1 || d < 1 || listed < 0 || threads < 1 ||
        threads > 4096 || !entry_of(PATHS, path)) {
        return BAD_ARGUMENT;
    }
    if (starts[0] != 0 || starts[rows] != listed) return BAD_ARGUMENT;
    for (int64_t row = 0; row < rows; ++row) {
        if (starts[row] > starts[row + 1]) return BAD_ARGUMENT;
    }
    const Gather gather = {q, k, v, starts, tokens, out, rows, group, kv_length, d, scale};
    const Loops& loops = *PATHS[path].loops;
    // Rows of partial sums end on different cache lines.
    const int64_t padded = (d + 15) / 16 * 16 + 16;
    static thread_local std::vector<float> sums;
    static thread_local std::vector<Partial> parts;
    try {
        sums.resize(static_cast<size_t>(2 * threads * padded));
        parts.resize(static_cast<size_t>(2 * threads));
    } catch (const std::bad_alloc&) {
        return BAD_ARGUMENT;
    }
    for (int64_t i = 0; i < 2 * threads; ++i) parts[i] = {sums.data() + i * padded, 0.0f, 0.0f, -1};
    std::atomic<bool> bad{false};
    const Call call = {&gather, &loops, parts.data(), &bad};
    if (const int32_t status = Pool::get().run(threads, work, &call); status != OK) return status;
    if (bad.load(std::memory_order_relaxed)) return BAD_ARGUMENT;
    Partial* open = nullptr;
    for (Partial& part : parts) {
        if (part.row < 0) continue;
        if (open && open->row == part.row) {
            loops.combine(*open, part, d);
            continue;
        }
        if (open) loops.finish(out + open->row * d, *open, d);
        open = &part;
    }
    if (open) loops.finish(out + open->row * d, *open, d);
    for (int64_t row = 0; row < rows; ++row) {
        if (starts[row] != starts[row + 1]) continue;
        for (int64_t i = 0; i < d; ++i) out[row * d + i] = 0.0f;
    }
    return OK;
}

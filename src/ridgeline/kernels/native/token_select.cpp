// Which tokens a decode step attends to: scores of labels, centroids or codewords, and the choice among tokens.
//
// Rows are query heads of all sequences, `group` of them for each KV head. Functions that cut work among threads do so
// over rows, or (products) over all scores end to end.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

#include "isa.h"
#include "paths.h"
#include "pool.h"

namespace ridgeline {

struct SelectLoops {
    void (*products)(const float* q, const float* rows, int64_t count, int64_t d, float* out);
    void (*products_int8)(const float* q, const int8_t* rows, int64_t count, int64_t d, float* out);
    void (*order)(const float* scores, int64_t count, int32_t* keys);
    int64_t (*list_above)(const int32_t* keys, int64_t count, int32_t least, int64_t ties, int32_t offset, int32_t* out);
    void (*denominator)(const float* logits, const int32_t* sizes, const uint8_t* counted, int64_t clusters, float scale,
                        float* maximum, float* total);
};

}  // namespace ridgeline

#if RL_X86
#define RL_AVX512
#include "vectors.h"
#include "int8_rows.h"
#include "token_dots.h"
#include "token_select_loops.h"
#include "vectors_end.h"
#define RL_AVX2
#include "vectors.h"
#include "int8_rows.h"
#include "token_dots.h"
#include "token_select_loops.h"
#include "vectors_end.h"
#endif
#define RL_PORTABLE
#include "vectors.h"
#include "int8_rows.h"
#include "token_dots.h"
#include "token_select_loops.h"
#include "vectors_end.h"

namespace ridgeline {
namespace {

struct Path {
    const char* name;
    bool (*available)();
    const SelectLoops* loops;
};

#define RL_ENTRY(PATH) {#PATH, has_##PATH, &PATH::loops}
constexpr Path PATHS[] = {RL_EACH_PATH(RL_ENTRY)};

const SelectLoops* loops_of(int32_t path) {
    const Path* entry = entry_of(PATHS, path);
    return entry ? entry->loops : nullptr;
}

bool few(int32_t threads) { return threads >= 1 && threads <= 4096; }

// ---- products ----

struct Products {
    const SelectLoops* loops;
    const float* q;           // [groups * group, q_dim]
    const int32_t* channels;  // [matrices, d]: elements of q that are used; null for all
    const float* scales;      // [matrices, d]: what each is multiplied by; null for one
    const void* rows;         // [matrices, count, d]: float32 or int8; a group uses matrix number group mod matrices
    bool int8;
    float* out;               // [groups * group, count]
    int64_t groups, group, matrices, count, d, q_dim;
};

constexpr int64_t CHUNK = 64;  // rows that all queries of a group meet while they are in the first-level cache

void products_work(const void* context, int thread, int threads) {
    const Products& p = *static_cast<const Products*>(context);
    static thread_local std::vector<float> queries;
    queries.resize(static_cast<size_t>(p.group * p.d));
    const int64_t total = p.groups * p.count;
    int64_t at = total * thread / threads;
    const int64_t end = total * (thread + 1) / threads;
    while (at < end) {
        const int64_t g = at / p.count, matrix = g % p.matrices;
        const int64_t last = std::min(end, (g + 1) * p.count) - g * p.count;
        for (int64_t h = 0; h < p.group; ++h) {
            const float* q = p.q + (g * p.group + h) * p.q_dim;
            for (int64_t i = 0; i < p.d; ++i) {
                const int64_t channel = p.channels ? p.channels[matrix * p.d + i] : i;
                queries[h * p.d + i] = q[channel] * (p.scales ? p.scales[matrix * p.d + i] : 1.0f);
            }
        }
        for (int64_t first = at - g * p.count; first < last; first += CHUNK) {
            const int64_t count = std::min(CHUNK, last - first), row = (matrix * p.count + first) * p.d;
            for (int64_t h = 0; h < p.group; ++h) {
                const float* q = queries.data() + h * p.d;
                float* out = p.out + (g * p.group + h) * p.count + first;
                if (p.int8) {
                    p.loops->products_int8(q, static_cast<const int8_t*>(p.rows) + row, count, p.d, out);
                } else {
                    p.loops->products(q, static_cast<const float*>(p.rows) + row, count, p.d, out);
                }
            }
        }
        at = g * p.count + last;
    }
}

// ---- the largest ----

// Number of the k-th largest of n keys, and how many that equal it are among the k first. A histogram over the highest
// 11 bits leaves the keys of one bin to sort out.
int32_t kth_largest(const int32_t* keys, int64_t n, int64_t k, int64_t* ties, std::vector<int32_t>& candidates) {
    constexpr int BINS = 2048;
    // Two histograms: neighbours often fall into one bin, and a store is forwarded to the next load only after cycles.
    uint32_t counts[2][BINS] = {};
    int64_t i = 0;
    for (; i + 2 <= n; i += 2) {
        ++counts[0][(keys[i] >> 21) + BINS / 2];
        ++counts[1][(keys[i + 1] >> 21) + BINS / 2];
    }
    if (i < n) ++counts[0][(keys[i] >> 21) + BINS / 2];
    int64_t above = 0;
    int bin = BINS - 1;
    for (;; --bin) {
        const int64_t here = int64_t{counts[0][bin]} + counts[1][bin];
        if (above + here >= k) break;
        above += here;
    }
    // Without a branch, which would be foreseen badly: every key is written, and stays where it is of the bin.
    candidates.resize(static_cast<size_t>(int64_t{counts[0][bin]} + counts[1][bin] + 1));
    size_t found = 0;
    for (i = 0; i < n; ++i) {
        candidates[found] = keys[i];
        found += (keys[i] >> 21) + BINS / 2 == bin;
    }
    const auto begin = candidates.begin(), end = begin + static_cast<int64_t>(found);
    const auto place = begin + (k - above - 1);
    std::nth_element(begin, place, end, [](int32_t a, int32_t b) { return a > b; });
    const int32_t least = *place;
    int64_t greater = above;
    for (auto c = begin; c != end; ++c) greater += *c > least;
    *ties = k - greater;
    return least;
}

struct TopK {
    const SelectLoops* loops;
    const float* scores;   // [rows, width]
    const int16_t* codes;  // [rows / group, n]: which score a token has; null where each token has its own (width = n)
    int32_t* out;          // [rows, sinks + k + window]
    int64_t rows, group, width, n, k, sinks, window;
    std::atomic<bool>* bad;
};

void top_k_work(const void* context, int thread, int threads) {
    const TopK& t = *static_cast<const TopK*>(context);
    static thread_local std::vector<int32_t> keys, table, candidates;
    const int64_t middle = t.n - t.sinks - t.window;
    keys.resize(static_cast<size_t>(middle));
    for (int64_t row = t.rows * thread / threads; row < t.rows * (thread + 1) / threads; ++row) {
        int32_t* out = t.out + row * (t.sinks + t.k + t.window);
        for (int64_t i = 0; i < t.sinks; ++i) *out++ = static_cast<int32_t>(i);
        if (t.codes) {
            table.resize(static_cast<size_t>(t.width));
            t.loops->order(t.scores + row * t.width, t.width, table.data());
            const int16_t* codes = t.codes + row / t.group * t.n + t.sinks;
            bool good = true;
            for (int64_t i = 0; i < middle; ++i) good &= codes[i] >= 0 && codes[i] < t.width;
            if (!good) {
                t.bad->store(true, std::memory_order_relaxed);
                return;
            }
            for (int64_t i = 0; i < middle; ++i) keys[i] = table[codes[i]];
        } else {
            t.loops->order(t.scores + row * t.width + t.sinks, middle, keys.data());
        }
        if (t.k > 0) {
            int64_t ties = 0;
            const int32_t least = kth_largest(keys.data(), middle, t.k, &ties, candidates);
            out += t.loops->list_above(keys.data(), middle, least, ties, static_cast<int32_t>(t.sinks), out);
        }
        for (int64_t i = t.n - t.window; i < t.n; ++i) *out++ = static_cast<int32_t>(i);
    }
}

// ---- clusters against a threshold ----

struct Level {
    const float* logits;     // [rows, clusters]: products of query and centroid; of fine clusters in a hierarchy: unused
    const int32_t* sizes;    // [rows / group, clusters]
    int64_t clusters;
    float threshold;         // log2 of the least score; -inf keeps every cluster
};

struct Masking {
    const SelectLoops* loops;
    Level coarse;                // clusters 0: none
    const int32_t* parent;       // [rows / group, fine clusters]: the coarse cluster of each; null without a hierarchy
    const float* q;              // [rows, d]; null without a hierarchy
    const float* centroids;      // [rows / group, fine clusters, d]; null without a hierarchy
    Level fine;
    const int32_t* assignment;   // [rows / group, n]: the fine cluster of each token
    int8_t* mask;                // [rows, n]
    int64_t* scored;             // [rows]: fine clusters whose score was computed
    int64_t rows, group, n, d;
    float scale;                 // log2(e) / sqrt(d)
    std::atomic<bool>* bad;
};

// Marks the clusters whose score is above the threshold. In logarithms, so that a score too small for a float32 is still
// above 0; a threshold of 0 keeps every cluster, whatever its score.
void mark(const Level& level, const float* logits, float scale, float maximum, float total, uint8_t* marks) {
    if (level.threshold == -std::numeric_limits<float>::infinity()) {
        std::fill_n(marks, level.clusters, uint8_t{1});
        return;
    }
    const float least = (maximum + std::log2(total) + level.threshold) / scale;
    for (int64_t c = 0; c < level.clusters; ++c) marks[c] = logits[c] > least;
}

void mask_work(const void* context, int thread, int threads) {
    const Masking& m = *static_cast<const Masking*>(context);
    static thread_local std::vector<uint8_t> passed, kept, counted;
    static thread_local std::vector<float> logits;
    for (int64_t row = m.rows * thread / threads; row < m.rows * (thread + 1) / threads; ++row) {
        const int64_t g = row / m.group, clusters = m.fine.clusters;
        const float* fine = m.fine.logits + row * clusters;
        const int32_t* sizes = m.fine.sizes + g * clusters;
        float maximum = -std::numeric_limits<float>::infinity(), total = 0.0f;
        kept.assign(static_cast<size_t>(clusters), 0);
        if (m.parent) {
            const float* coarse = m.coarse.logits + row * m.coarse.clusters;
            const int32_t *parent = m.parent + g * clusters, *coarse_sizes = m.coarse.sizes + g * m.coarse.clusters;
            m.loops->denominator(coarse, coarse_sizes, nullptr, m.coarse.clusters, m.scale, &maximum, &total);
            passed.resize(static_cast<size_t>(m.coarse.clusters));
            counted.resize(static_cast<size_t>(m.coarse.clusters));
            mark(m.coarse, coarse, m.scale, maximum, total, passed.data());
            for (int64_t c = 0; c < m.coarse.clusters; ++c) counted[c] = !passed[c];
            logits.resize(static_cast<size_t>(clusters));
            int64_t scored = 0;
            for (int64_t c = 0; c < clusters; ++c) {
                if (parent[c] < 0 || parent[c] >= m.coarse.clusters) {
                    m.bad->store(true, std::memory_order_relaxed);
                    return;
                }
                kept[c] = passed[parent[c]];
                if (!kept[c]) continue;
                ++scored;
                m.loops->products(m.q + row * m.d, m.centroids + (g * clusters + c) * m.d, 1, m.d, &logits[c]);
            }
            m.scored[row] = scored;
            fine = logits.data();
            // Clusters that were left out count as their coarse cluster does.
            maximum = -std::numeric_limits<float>::infinity();
            total = 0.0f;
            m.loops->denominator(coarse, coarse_sizes, counted.data(), m.coarse.clusters, m.scale, &maximum, &total);
            m.loops->denominator(fine, sizes, kept.data(), clusters, m.scale, &maximum, &total);
            // Of a cluster that was not scored there is no logit.
            counted.resize(static_cast<size_t>(clusters));
            mark(m.fine, fine, m.scale, maximum, total, counted.data());
            for (int64_t c = 0; c < clusters; ++c) kept[c] &= counted[c];
        } else {
            m.loops->denominator(fine, sizes, nullptr, clusters, m.scale, &maximum, &total);
            mark(m.fine, fine, m.scale, maximum, total, kept.data());
        }
        const int32_t* assignment = m.assignment + g * m.n;
        bool good = true;
        for (int64_t i = 0; i < m.n; ++i) good &= assignment[i] >= 0 && assignment[i] < clusters;
        if (!good) {
            m.bad->store(true, std::memory_order_relaxed);
            return;
        }
        int8_t* mask = m.mask + row * m.n;
        for (int64_t i = 0; i < m.n; ++i) mask[i] = static_cast<int8_t>(kept[assignment[i]]);
    }
}

// ---- a mask into lists ----

struct Compaction {
    const int8_t* mask;  // [rows, n]: 0 or 1
    int32_t* starts;     // [rows + 1]
    int32_t* tokens;     // null: only count, into starts[row + 1]
    int64_t rows, n;
};

uint64_t eight(const int8_t* address) {
    uint64_t value;
    std::memcpy(&value, address, sizeof value);
    return value;
}

void compact_work(const void* context, int thread, int threads) {
    const Compaction& c = *static_cast<const Compaction*>(context);
    for (int64_t row = c.rows * thread / threads; row < c.rows * (thread + 1) / threads; ++row) {
        const int8_t* mask = c.mask + row * c.n;
        int64_t i = 0;
        if (!c.tokens) {
            int32_t kept = 0;
            for (; i < c.n; ++i) kept += mask[i] & 1;
            c.starts[row + 1] = kept;
            continue;
        }
        int32_t* out = c.tokens + c.starts[row];
        for (; i + 8 <= c.n; i += 8) {
            for (uint64_t left = eight(mask + i) & 0x0101010101010101u; left; left &= left - 1) {
                *out++ = static_cast<int32_t>(i + __builtin_ctzll(left) / 8);
            }
        }
        for (; i < c.n; ++i) {
            if (mask[i] & 1) *out++ = static_cast<int32_t>(i);
        }
    }
}

}  // namespace
}  // namespace ridgeline

using namespace ridgeline;

// The name of path number i, best first; null past the last. An unavailable path is the empty string.
extern "C" const char* token_select_path(int32_t i) {
    return name_of(PATHS, i);
}

// out[g, h, n] = sum over i of q[g, h, channels[i]] scales[i] rows[n, i], with the channels, scales and rows of matrix
// g mod matrices. Shapes as in Products; rows is int8 where `int8` is 1.
extern "C" int32_t token_products(const float* q, const int32_t* channels, const float* scales, const void* rows,
                                  int32_t int8, float* out, int64_t groups, int64_t group, int64_t matrices,
                                  int64_t count, int64_t d, int64_t q_dim, int32_t threads, int32_t path) {
    const SelectLoops* loops = loops_of(path);
    if (!loops || !few(threads) || groups < 1 || group < 1 || matrices < 1 || groups % matrices || count < 1 || d < 1 ||
        d > q_dim || (!channels && d != q_dim)) {
        return BAD_ARGUMENT;
    }
    for (int64_t i = 0; channels && i < matrices * d; ++i) {
        if (channels[i] < 0 || channels[i] >= q_dim) return BAD_ARGUMENT;
    }
    const Products products = {loops, q, channels, scales, rows, int8 != 0, out, groups, group, matrices, count, d, q_dim};
    return Pool::get().run(threads, products_work, &products);
}

// Lists of sinks + k + window tokens in order: the first `sinks` of n, the last `window`, and of those between the k with
// the largest scores, of equal scores the earlier ones. A token's score is scores[row, code] where there are codes.
extern "C" int32_t token_top_k(const float* scores, const int16_t* codes, int32_t* out, int64_t rows, int64_t group,
                               int64_t width, int64_t n, int64_t k, int64_t sinks, int64_t window, int32_t threads,
                               int32_t path) {
    const SelectLoops* loops = loops_of(path);
    if (!loops || !few(threads) || rows < 1 || group < 1 || rows % group || n < 1 || n > INT32_MAX || k < 0 ||
        sinks < 0 || window < 0 || sinks + k + window > n || width < 1 || (!codes && width != n)) {
        return BAD_ARGUMENT;
    }
    std::atomic<bool> bad{false};
    const TopK top_k = {loops, scores, codes, out, rows, group, width, n, k, sinks, window, &bad};
    if (const int32_t status = Pool::get().run(threads, top_k_work, &top_k); status != OK) return status;
    return bad.load(std::memory_order_relaxed) ? BAD_ARGUMENT : OK;
}

// mask[row, token] = 1 where the score of the token's cluster is above the threshold. Shapes and levels as in Masking; a
// null `parent` says that there is one level, whose logits are given.
extern "C" int32_t token_mask(const float* coarse_logits, const int32_t* coarse_sizes, int64_t coarse,
                              float coarse_threshold, const int32_t* parent, const float* q, const float* centroids,
                              const float* logits, const int32_t* sizes, int64_t clusters, float threshold,
                              const int32_t* assignment, int8_t* mask, int64_t* scored, int64_t rows, int64_t group,
                              int64_t n, int64_t d, float scale, int32_t threads, int32_t path) {
    const SelectLoops* loops = loops_of(path);
    if (!loops || !few(threads) || rows < 1 || group < 1 || rows % group || n < 1 || d < 1 || clusters < 1 ||
        (parent ? coarse < 1 || !coarse_logits || !coarse_sizes || !q || !centroids || !scored : !logits)) {
        return BAD_ARGUMENT;
    }
    std::atomic<bool> bad{false};
    const Masking call = {loops,
                       {coarse_logits, coarse_sizes, coarse, coarse_threshold},
                       parent, q, centroids,
                       {logits, sizes, clusters, threshold},
                       assignment, mask, scored, rows, group, n, d, scale, &bad};
    if (const int32_t status = Pool::get().run(threads, mask_work, &call); status != OK) return status;
    return bad.load(std::memory_order_relaxed) ? BAD_ARGUMENT : OK;
}

// Lists of the tokens whose mask is 1: starts[rows + 1], and tokens, which has room for `room`. The numbers needed are
// starts[rows]; BAD_ARGUMENT, with the starts written, where there is no room for them.
extern "C" int32_t token_compact(const int8_t* mask, int32_t* starts, int32_t* tokens, int64_t rows, int64_t n,
                                 int64_t room, int32_t threads) {
    if (!few(threads) || rows < 1 || n < 1 || rows > INT32_MAX / n) return BAD_ARGUMENT;
    Compaction compaction = {mask, starts, nullptr, rows, n};
    starts[0] = 0;
    if (const int32_t status = Pool::get().run(threads, compact_work, &compaction); status != OK) return status;
    for (int64_t row = 0; row < rows; ++row) starts[row + 1] += starts[row];
    if (starts[rows] > room) return BAD_ARGUMENT;
    compaction.tokens = tokens;
    return Pool::get().run(threads, compact_work, &compaction);
}

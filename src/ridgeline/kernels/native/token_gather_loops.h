// Attention of one query over a piece of its list of tokens, included once per path after token_dots.h.

namespace ridgeline::RL_PATH {

// Tokens whose scores are computed before their values are added.
constexpr int64_t TILE = 32;
// Rows that are fetched before they are read, and the cache lines of each: rows of 4 d bytes lie at addresses that no
// prefetcher foresees, but it follows within a row once it has seen two lines. On Zen 3 with d = 128 this takes half the
// time of fetching 32 rows ahead in whole, which fills the queue of misses with lines that are not needed next.
constexpr int64_t AHEAD = 4, LINES = 2;

RL_INLINE void fetch_row(const float* rows, int64_t row, int64_t d) {
    // The token was not checked yet: an address is computed without reading there.
    const uintptr_t start = reinterpret_cast<uintptr_t>(rows) + static_cast<uintptr_t>(row * d) * sizeof(float);
    for (int64_t line = 0; line < LINES; ++line) {
        __builtin_prefetch(reinterpret_cast<const void*>(start + static_cast<uintptr_t>(64 * line)));
    }
}

// sums += weights[n] rows[n]
template <int N>
RL_INLINE void add_rows(float* sums, const float* weights, const float* const* rows, int64_t d) {
    int64_t i = 0;
    for (; i + LANES <= d; i += LANES) {
        Floats sum = load(sums + i);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) sum = sum + splat(weights[n]) * load(rows[n] + i);
        store(sums + i, sum);
    }
    if (i < d) {
        Floats sum = load_first(sums + i, d - i);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) sum = sum + splat(weights[n]) * load_first(rows[n] + i, d - i);
        store_first(sums + i, sum, d - i);
    }
}

RL_INLINE void scale_row(float* sums, float factor, int64_t d) {
    int64_t i = 0;
    for (; i + LANES <= d; i += LANES) store(sums + i, splat(factor) * load(sums + i));
    if (i < d) store_first(sums + i, splat(factor) * load_first(sums + i, d - i), d - i);
}

// Online softmax over tokens [begin, end) of the list of query `row`: the largest score (times log2 e), the sum of
// weights under it, and the sum of weighted values. False where a token is not one of the sequence's.
static bool attend(const Gather& g, int64_t row, int64_t begin, int64_t end, Partial& part) {
    const int64_t d = g.d, base = row / g.group * g.kv_length * d;
    const float *q = g.q + row * d, *keys = g.k + base, *values = g.v + base;
    float* sums = part.sums;
    for (int64_t i = 0; i < d; ++i) sums[i] = 0.0f;
    float maximum = -__builtin_inff(), total = 0.0f;
    alignas(64) float weights[TILE];
    const float *key_rows[TILE], *value_rows[TILE];
    for (int64_t i = begin; i < end && i < begin + AHEAD; ++i) fetch_row(keys, g.tokens[i], d);
    for (int64_t at = begin; at < end; at += TILE) {
        const int64_t count = end - at < TILE ? end - at : TILE;
        const int32_t* tokens = g.tokens + at;
        bool good = true;
        for (int64_t j = 0; j < count; ++j) good &= tokens[j] >= 0 && tokens[j] < g.kv_length;
        if (!good) return false;
        for (int64_t j = 0; j < count; ++j) {
            key_rows[j] = keys + tokens[j] * d;
            value_rows[j] = values + tokens[j] * d;
        }
        // What is read AHEAD rows on: keys of this tile, then its values, then the next tile's keys.
        const auto fetch = [&](int64_t row) __attribute__((always_inline)) {
            if (row < count) {
                fetch_row(keys, tokens[row], d);
            } else if (row < 2 * count) {
                fetch_row(values, tokens[row - count], d);
            } else if (at + row - count < end) {
                fetch_row(keys, tokens[row - count], d);
            }
        };
        int64_t j = 0;
        for (; j + 4 <= count; j += 4) {
            for (int64_t n = 0; n < 4; ++n) fetch(j + n + AHEAD);
            dots<4>(q, key_rows + j, d, weights + j);
        }
        for (; j < count; ++j) {
            fetch(j + AHEAD);
            dots<1>(q, key_rows + j, d, weights + j);
        }
        // Beyond the list: a score of -inf, a weight of 0.
        for (; j < TILE; ++j) weights[j] = -__builtin_inff();
        Floats most = splat(-__builtin_inff());
        for (int64_t i = 0; i < TILE; i += LANES) {
            const Floats score = splat(g.scale) * load(weights + i);
            store(weights + i, score);
            most = max(most, score);
        }
        const float tile_maximum = max_of(most);
        if (tile_maximum > maximum) {
            const float factor = exp2(splat(maximum - tile_maximum))[0];
            scale_row(sums, factor, d);
            total *= factor;
            maximum = tile_maximum;
        }
        // Scores that are all -inf have no largest; -inf - -inf would not be a number.
        const float reference = maximum == -__builtin_inff() ? 0.0f : maximum;
        Floats sum = Floats{};
        for (int64_t i = 0; i < TILE; i += LANES) {
            const Floats weight = exp2(load(weights + i) - splat(reference));
            store(weights + i, weight);
            sum = sum + weight;
        }
        total += sum_of(sum);
        j = 0;
        for (; j + 4 <= count; j += 4) {
            for (int64_t n = 0; n < 4; ++n) fetch(count + j + n + AHEAD);
            add_rows<4>(sums, weights + j, value_rows + j, d);
        }
        for (; j < count; ++j) {
            fetch(count + j + AHEAD);
            add_rows<1>(sums, weights + j, value_rows + j, d);
        }
    }
    part.maximum = maximum;
    part.total = total;
    return true;
}

// into = into and part: the log-sum-exp reduction of two pieces of one list.
static void combine(Partial& into, const Partial& part, int64_t d) {
    const float maximum = into.maximum > part.maximum ? into.maximum : part.maximum;
    const float reference = maximum == -__builtin_inff() ? 0.0f : maximum;
    const float mine = exp2(splat(into.maximum - reference))[0], its = exp2(splat(part.maximum - reference))[0];
    scale_row(into.sums, mine, d);
    const float* rows[1] = {part.sums};
    add_rows<1>(into.sums, &its, rows, d);
    into.total = mine * into.total + its * part.total;
    into.maximum = maximum;
}

// A row of the output; 0 / 0 where no score was a number above -inf, as softmax gives.
static void finish(float* out, const Partial& part, int64_t d) {
    for (int64_t i = 0; i < d; ++i) out[i] = part.sums[i] / part.total;
}

static const Loops loops = {attend, combine, finish};

}  // namespace ridgeline::RL_PATH

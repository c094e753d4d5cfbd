// The loops of quantised_attention.cpp, included once per path and way to multiply (see int8_dot.h).

namespace ridgeline::RL_PATH::RL_DOT {

constexpr int64_t TILE_PANELS = KEY_TILE / WIDTH;
static_assert(KEY_TILE % WIDTH == 0 && QUERY_TILE % ROWS == 0);

// Columns of V as the accumulator holds them: whole pairs of vectors.
RL_INLINE int64_t padded_width(int64_t d) { return (d + WIDTH - 1) / WIDTH * WIDTH; }

// V is read where it lies if its rows are whole pairs of float32 vectors; else from a copy.
RL_INLINE bool copies_values(const Sizes& sizes) {
    return sizes.value_type != FLOAT32 || padded_width(sizes.head_dim) != sizes.head_dim;
}

// Shared scratch memory, in words: packed K, a scale a key, V in float32; each KV head's keys in whole tiles.
RL_INLINE Layout layout_of(const Sizes& sizes) {
    const int64_t heads = sizes.batch * sizes.kv_heads, keys = tiles_of(sizes) * KEY_TILE;
    Layout layout;
    layout.steps = steps_of(sizes.head_dim);
    layout.key_words = keys * layout.steps;
    layout.scales = heads * layout.key_words;
    layout.values = layout.scales + heads * keys;
    layout.width = padded_width(sizes.head_dim);
    layout.own = layout.values + (copies_values(sizes) ? heads * sizes.kv_length * layout.width : 0);
    // Per thread: packed queries, scores, accumulator.
    layout.own_words = QUERY_TILE * (layout.steps + KEY_TILE + layout.width);
    return layout;
}

// ---- first pass: one tile of keys and values of one KV head ----

static void prepare_tile(const Call& call, int64_t task, int) {
    const Sizes& sizes = call.sizes;
    const Layout layout = layout_of(sizes);
    const int64_t d = sizes.head_dim, s = sizes.kv_length;
    const int64_t head = task / tiles_of(sizes), tile = task % tiles_of(sizes);
    const int64_t first = tile * KEY_TILE, count = least(KEY_TILE, s - first);
    int32_t* packed = call.scratch + head * layout.key_words + first * layout.steps;
    const int8_t* keys = call.k + (head * s + first) * d;
    for (int64_t panel = 0; panel < TILE_PANELS; ++panel) {
        const int64_t done = panel * WIDTH, left = count > done ? least(WIDTH, count - done) : 0;
        pack_panel(left ? keys + done * d : keys, d, left, d, packed + done * layout.steps);
    }
    float* scales = reinterpret_cast<float*>(call.scratch + layout.scales) + (head * tiles_of(sizes) + tile) * KEY_TILE;
    const float* groups = call.k_scale + head * call.key_groups.count(s);
    for (int64_t n = 0; n < KEY_TILE; ++n) scales[n] = n < count ? groups[call.key_groups.of(first + n)] : 0.0f;
    if (!copies_values(sizes)) return;
    float* values = reinterpret_cast<float*>(call.scratch + layout.values) + (head * s + first) * layout.width;
    for (int64_t n = 0; n < count; ++n) {
        const int64_t from = (head * s + first + n) * d;
        float* row = values + n * layout.width;
        if (sizes.value_type == FLOAT32) {
            const float* v = static_cast<const float*>(call.v) + from;
            for (int64_t i = 0; i < d; ++i) row[i] = v[i];
        } else if (sizes.value_type == FLOAT16) {
            const uint16_t* v = static_cast<const uint16_t*>(call.v) + from;
            for (int64_t i = 0; i < d; ++i) row[i] = from_float16(v[i]);
        } else if (sizes.value_type == BFLOAT16) {
            const uint16_t* v = static_cast<const uint16_t*>(call.v) + from;
            for (int64_t i = 0; i < d; ++i) row[i] = float_of_bits(static_cast<uint32_t>(v[i]) << 16);
        } else {
            const uint8_t* v = static_cast<const uint8_t*>(call.v) + from;
            for (int64_t i = 0; i < d; ++i) row[i] = from_float8_e4m3fn(v[i]);
        }
        for (int64_t i = d; i < layout.width; ++i) row[i] = 0.0f;
    }
}

// ---- second pass: one tile of queries of one head over all keys that it sees ----

struct Tile {
    const int32_t* queries;   // packed, QUERY_TILE rows
    const int32_t* starts;    // of their sums
    const float* factors;     // of their scores: scale, times log2(e) / sqrt(d)
    const float* const* corrections;  // a row each, or null
    float correction_factor;
    float* scores;            // QUERY_TILE rows of KEY_TILE
    float* sums;              // accumulator, QUERY_TILE rows of `width`
};

// Scores of COUNT queries from `r` on and one panel of keys, in units of log2.
template <int COUNT, bool CORRECTED>
static void score_panel(const Tile& tile, int64_t r, const int32_t* panel, int64_t steps, const float* scales,
                        int64_t first_key, int64_t s, int64_t column) {
    Ints sums[COUNT][PANEL_VECTORS];
    multiply<COUNT>(tile.queries + r * steps, tile.starts + r, panel, steps, sums);
    const Floats scale[PANEL_VECTORS] = {load(scales + column), load(scales + column + LANES)};
#pragma GCC unroll 16
    for (int i = 0; i < COUNT; ++i) {
#pragma GCC unroll 2
        for (int v = 0; v < PANEL_VECTORS; ++v) {
            Floats score = to_floats(sums[i][v]) * scale[v] * splat(tile.factors[r + i]);
            if constexpr (CORRECTED) {
                const int64_t key = least(s, first_key + column + v * LANES);
                const Floats correction = load_first(tile.corrections[r + i] + key, least(LANES, s - key));
                score += correction * splat(tile.correction_factor);
            }
            store(tile.scores + (r + i) * KEY_TILE + column + v * LANES, score);
        }
    }
}

template <bool CORRECTED>
static void score_tile(const Tile& tile, int64_t rows, const int32_t* packed, int64_t steps, const float* scales,
                       int64_t first_key, int64_t s, int64_t columns) {
    for (int64_t column = 0; column < columns; column += WIDTH) {
        const int32_t* panel = packed + (first_key + column) * steps;
        int64_t r = 0;
        for (; r + ROWS <= rows; r += ROWS) {
            score_panel<ROWS, CORRECTED>(tile, r, panel, steps, scales, first_key, s, column);
        }
        for (; r + FEWER_ROWS <= rows; r += FEWER_ROWS) {
            score_panel<FEWER_ROWS, CORRECTED>(tile, r, panel, steps, scales, first_key, s, column);
        }
        for (; r < rows; ++r) score_panel<1, CORRECTED>(tile, r, panel, steps, scales, first_key, s, column);
    }
}

// Adds weights times values to the accumulator of COUNT queries from `r` on.
template <int COUNT>
static void add_values(const Tile& tile, int64_t r, const float* values, int64_t width, int64_t keys) {
    for (int64_t column = 0; column < width; column += WIDTH) {
        Floats sums[COUNT][PANEL_VECTORS];
        float* out = tile.sums + r * width + column;
#pragma GCC unroll 16
        for (int i = 0; i < COUNT; ++i) {
            sums[i][0] = load(out + i * width);
            sums[i][1] = load(out + i * width + LANES);
        }
        const float* v = values + column;
        const float* weights = tile.scores + r * KEY_TILE;
        for (int64_t key = 0; key < keys; ++key) {
            const Floats v0 = load(v), v1 = load(v + LANES);
            v += width;
#pragma GCC unroll 16
            for (int i = 0; i < COUNT; ++i) {
                const Floats weight = splat(weights[i * KEY_TILE + key]);
                sums[i][0] += weight * v0;
                sums[i][1] += weight * v1;
            }
        }
#pragma GCC unroll 16
        for (int i = 0; i < COUNT; ++i) {
            store(out + i * width, sums[i][0]);
            store(out + i * width + LANES, sums[i][1]);
        }
    }
}

// Online softmax (FlashAttention-2): the row of scores becomes weights, what was summed up under an older maximum is
// scaled. `seen` leading keys of `columns` count. Not-a-number spreads to the whole row: 2^(NaN - maximum).
static void weigh(float* scores, int64_t seen, int64_t columns, float& maximum, float& total, float* sums,
                  int64_t width) {
    const float lowest = -__builtin_inff();
    for (int64_t i = seen; i < columns; ++i) scores[i] = lowest;
    Floats top = splat(lowest);
    for (int64_t i = 0; i < columns; i += LANES) top = max(top, load(scores + i));
    const float highest = max_of(top);
    const float grown = highest > maximum ? highest : maximum;
    // -inf - -inf is not a number: a row that has seen no key is weighed against 0, which makes zeros.
    const Floats base = splat(seen > 0 ? grown : 0.0f);
    Floats sum = {};
    for (int64_t i = 0; i < columns; i += LANES) {
        const Floats weight = exp2(load(scores + i) - base);
        store(scores + i, weight);
        sum += weight;
    }
    if (seen <= 0) return;
    if (grown != maximum) {
        const Floats rescale = exp2(splat(maximum) - base);
        for (int64_t i = 0; i < width; i += LANES) store(sums + i, load(sums + i) * rescale);
        total *= rescale[0];
        maximum = grown;
    }
    total += sum_of(sum);
}

static void attend(const Call& call, int64_t task, int thread) {
    const Sizes& sizes = call.sizes;
    const Layout layout = layout_of(sizes);
    const int64_t t = sizes.q_length, s = sizes.kv_length, d = sizes.head_dim, width = layout.width;
    const int64_t tiles = (t + QUERY_TILE - 1) / QUERY_TILE;
    const int64_t head = task / tiles;
    const int64_t first_query = (tiles - 1 - task % tiles) * QUERY_TILE;  // under a causal mask the last are the longest
    const int64_t rows = least(QUERY_TILE, t - first_query);
    const int64_t kv_head = head / (sizes.q_heads / sizes.kv_heads);

    int32_t* own = call.scratch + layout.own + thread * layout.own_words;
    float* scores = reinterpret_cast<float*>(own + QUERY_TILE * layout.steps);
    float* sums = scores + QUERY_TILE * KEY_TILE;
    int32_t starts[QUERY_TILE];
    float factors[QUERY_TILE], maxima[QUERY_TILE], totals[QUERY_TILE];
    const float* corrections[QUERY_TILE];
    const float log2_scale = 1.44269504f / __builtin_sqrtf(static_cast<float>(d));
    const float* groups = call.q_scale + head * call.query_groups.count(t);
    const int64_t blocks = (t + QUERY_BLOCK - 1) / QUERY_BLOCK;
    for (int64_t r = 0; r < rows; ++r) {
        const int64_t query = first_query + r;
        starts[r] = pack_row(call.q + (head * t + query) * d, d, own + r * layout.steps);
        factors[r] = groups[call.query_groups.of(query)] * log2_scale;
        corrections[r] = call.correction ? call.correction + (head * blocks + query / QUERY_BLOCK) * s : nullptr;
        maxima[r] = -__builtin_inff();
        totals[r] = 0.0f;
    }
    for (int64_t i = 0; i < rows * width; ++i) sums[i] = 0.0f;
    const Tile tile = {own, starts, factors, corrections, log2_scale, scores, sums};

    const int64_t ahead = s - t + 1;  // query q sees keys below q + ahead
    const int64_t end = sizes.causal ? least(s, first_query + rows - 1 + ahead) : s;
    const int32_t* packed = call.scratch + kv_head * layout.key_words;
    const float* scales = reinterpret_cast<const float*>(call.scratch + layout.scales) + kv_head * tiles_of(sizes) * KEY_TILE;
    const float* values = copies_values(sizes) ? reinterpret_cast<const float*>(call.scratch + layout.values)
                                               : static_cast<const float*>(call.v);
    values += kv_head * s * width;
    for (int64_t first = 0; first < end; first += KEY_TILE) {
        const int64_t keys = least(KEY_TILE, end - first);
        const int64_t columns = (keys + WIDTH - 1) / WIDTH * WIDTH;
        if (call.correction) {
            score_tile<true>(tile, rows, packed, layout.steps, scales + first, first, s, columns);
        } else {
            score_tile<false>(tile, rows, packed, layout.steps, scales + first, first, s, columns);
        }
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t below = first_query + r + ahead - first;
            const int64_t seen = sizes.causal ? (below < 0 ? 0 : least(keys, below)) : keys;
            weigh(scores + r * KEY_TILE, seen, columns, maxima[r], totals[r], sums + r * width, width);
        }
        int64_t r = 0;
        for (; r + ROWS <= rows; r += ROWS) add_values<ROWS>(tile, r, values + first * width, width, keys);
        for (; r + FEWER_ROWS <= rows; r += FEWER_ROWS) {
            add_values<FEWER_ROWS>(tile, r, values + first * width, width, keys);
        }
        for (; r < rows; ++r) add_values<1>(tile, r, values + first * width, width, keys);
    }
    const float* v_scale = call.v_scale ? call.v_scale + kv_head * d : nullptr;
    const float* v_mean = call.v_mean ? call.v_mean + kv_head * d : nullptr;
    for (int64_t r = 0; r < rows; ++r) {
        float* out = call.out + (head * t + first_query + r) * d;
        const bool seeing = !sizes.causal || first_query + r + ahead > 0;
        for (int64_t i = 0; i < d; ++i) {
            float value = 0.0f;
            if (seeing) {
                value = sums[r * width + i] / totals[r];
                if (v_scale) value *= v_scale[i];
                if (v_mean) value += v_mean[i];
            }
            out[i] = value;
        }
    }
}

// ---- integer products alone: C[m][n] of the rows [first, first + tile) of A and all of B ----

static int64_t packed_words(const Products& call) { return (call.n + WIDTH - 1) / WIDTH * WIDTH * steps_of(call.depth); }

static void pack_products(const Products& call, int64_t task, int) {
    const int64_t first = task * WIDTH;
    pack_panel(call.b + first * call.depth, call.depth, least(WIDTH, call.n - first), call.depth,
               call.packed + first * steps_of(call.depth));
}

template <int COUNT>
static void product_panel(const Products& call, int64_t row, const int32_t* a, const int32_t* starts, int64_t column) {
    Ints sums[COUNT][PANEL_VECTORS];
    const int64_t steps = steps_of(call.depth), left = call.n - column;
    multiply<COUNT>(a, starts, call.packed + column * steps, steps, sums);
    int32_t* out = call.out + row * call.n + column;
    if (left >= WIDTH) {
#pragma GCC unroll 16
        for (int i = 0; i < COUNT; ++i) {
            store_ints(out + i * call.n, sums[i][0]);
            store_ints(out + i * call.n + LANES, sums[i][1]);
        }
        return;
    }
    int32_t all[COUNT][WIDTH];
#pragma GCC unroll 16
    for (int i = 0; i < COUNT; ++i) {
        store_ints(all[i], sums[i][0]);
        store_ints(all[i] + LANES, sums[i][1]);
    }
    for (int i = 0; i < COUNT; ++i) {
        for (int64_t n = 0; n < left; ++n) out[i * call.n + n] = all[i][n];
    }
}

static void multiply_rows(const Products& call, int64_t task, int thread) {
    const int64_t steps = steps_of(call.depth);
    int32_t* packed = call.scratch + thread * QUERY_TILE * steps;
    int32_t starts[QUERY_TILE];
    const int64_t first = task * call.tile, rows = least(call.tile, call.m - first);
    for (int64_t r = 0; r < rows; ++r) {
        starts[r] = pack_row(call.a + (first + r) * call.depth, call.depth, packed + r * steps);
    }
    for (int64_t column = 0; column < call.n; column += WIDTH) {
        int64_t r = 0;
        for (; r + ROWS <= rows; r += ROWS) {
            product_panel<ROWS>(call, first + r, packed + r * steps, starts + r, column);
        }
        for (; r + FEWER_ROWS <= rows; r += FEWER_ROWS) {
            product_panel<FEWER_ROWS>(call, first + r, packed + r * steps, starts + r, column);
        }
        for (; r < rows; ++r) product_panel<1>(call, first + r, packed + r * steps, starts + r, column);
    }
}

static int64_t attention_words(const Sizes& sizes, int threads) {
    const Layout layout = layout_of(sizes);
    return layout.own + threads * layout.own_words;
}

constexpr Path PATH = {attention_words, prepare_tile, attend, WIDTH, packed_words, pack_products, multiply_rows};

}  // namespace ridgeline::RL_PATH::RL_DOT

// The tiled loop of the dense attention, included once per path after attention_weights.h: a block of rows over its keys, how a
// row ends and how splits are combined.

namespace ridgeline::RL_PATH {

// ---- one block of rows over a range of keys ----

struct Item {
    int64_t sequence, kv_head, first_row, rows, split;
    int64_t begin, end;  // keys
};

// Whether every row in [row, row + rows) sees all the keys [first, first + count), a whole number of vectors.
static bool all_see(const Scratch& scratch, int64_t row, int64_t rows, int64_t first, int64_t count) {
    bool all = count % LANES == 0;
    for (int64_t i = row; i < row + rows; ++i) {
        const Place& place = scratch.places[i];
        all = all && place.begin <= first && place.end >= first + count &&
              (!place.tree || place.tree_start >= first + count);
    }
    return all;
}

// Weights for the keys [first, first + count) of rows [row, row + rows) from their scores; `whole` as of all_see.
template <int TRANSFORM>
static void weigh_block(const AttentionCall& call, const Scratch& scratch, int64_t row, int64_t rows, int64_t first,
                        int64_t count, bool whole) {
    if (whole) {
        weigh<TRANSFORM, false>(call, scratch, row, rows, first, count, scratch.scores);
    } else {
        weigh<TRANSFORM, true>(call, scratch, row, rows, first, count, scratch.scores);
    }
}

// Whether a row in [row, row + rows) sees a key in [first, end).
static bool any_sees(const Scratch& scratch, int64_t row, int64_t rows, int64_t first, int64_t end) {
    for (int64_t i = row; i < row + rows; ++i) {
        if (scratch.places[i].begin < end && scratch.places[i].end > first) return true;
    }
    return false;
}

// Which of the keys [first, first + count) some row of a strip sees, as offsets [begin, end).
struct Reach {
    int64_t begin, end;
};

static Reach reach(const Scratch& scratch, int64_t row, int64_t rows, int64_t first, int64_t count) {
    Reach found = {count, 0};
    for (int64_t i = row; i < row + rows; ++i) {
        const int64_t begin = scratch.places[i].begin - first, end = scratch.places[i].end - first;
        if (begin < found.begin) found.begin = begin;
        if (end > found.end) found.end = end;
    }
    if (found.begin < 0) found.begin = 0;
    if (found.end > count) found.end = count;
    return found;
}

// Pointers to the keys and values [first, first + count), and to NR more that may be read: those that follow, or zeros.
static void find_entries(const AttentionCall& call, const Scratch& scratch, const Item& item, int64_t first,
                         int64_t count) {
    const int64_t there = first + count + NR < item.end ? count + NR : item.end - first;
    for (int64_t i = 0; i < there; ++i) {
        scratch.key_rows[i] = entry(call.k, call.k_strides, call, item.sequence, item.kv_head, first + i);
        scratch.value_rows[i] = entry(call.v, call.v_strides, call, item.sequence, item.kv_head, first + i);
    }
    for (int64_t i = there; i < count + NR; ++i) scratch.key_rows[i] = scratch.value_rows[i] = scratch.zeros;
}

// Many rows: keys and values are packed once per outer block and used by every group of strips.
template <int TRANSFORM>
static void attend_packed(const AttentionCall& call, const Scratch& scratch, const Item& item) {
    constexpr bool RESCALE = TRANSFORM == ONLINE_SOFTMAX;
    const int64_t depth = call.head_dim, stride = scratch.score_stride, held = round_up(call.outer, NR);
    pack_queries(scratch.places, item.rows, depth, call.scale, scratch.q);
    for (int64_t first = item.begin; first < item.end; first += call.outer) {
        const int64_t count = first + call.outer < item.end ? call.outer : item.end - first;
        if (!any_sees(scratch, 0, item.rows, first, first + count)) continue;
        find_entries(call, scratch, item, first, count);
        pack_keys(scratch.key_rows, count, depth, scratch.k);
        pack_values(scratch.value_rows, count, depth, held, scratch.v);
        for (int64_t row = 0; row < item.rows; row += GROUP * MR) {
            const int64_t left = item.rows - row < GROUP * MR ? item.rows - row : GROUP * MR;
            const int64_t rows = round_up(left, MR);
            for (int64_t offset = 0; offset < count; offset += call.inner) {
                const int64_t keys = offset + call.inner < count ? call.inner : count - offset;
                if (!any_sees(scratch, row, left, first + offset, first + offset + keys)) continue;
                const bool whole = all_see(scratch, row, left, first + offset, keys);
                const bool weighed = TRANSFORM == SIGMOID && whole && keys % NR == 0;
                const Floats from = splat(-call.bias);
                Reach seen[GROUP];
                for (int64_t i = 0; i < rows; i += MR) {
                    const int64_t real = left - i < MR ? left - i : MR;
                    seen[i / MR] = reach(scratch, row + i, real, first + offset, keys);
                }
                for (int64_t key = 0; key < keys; key += NR) {
                    for (int64_t i = 0; i < rows; i += MR) {
                        // What no row of the strip sees is masked in weigh(), whatever lies there.
                        if (key >= seen[i / MR].end || key + NR <= seen[i / MR].begin) continue;
                        const float *q = scratch.q + (row + i) * depth, *k = scratch.k + (offset + key) * depth;
                        float* scores = scratch.scores + i * stride + key;
                        if (weighed) {
                            multiply_queries<true>(q, k, depth, from, scores, stride);
                        } else {
                            multiply_queries<false>(q, k, depth, from, scores, stride);
                        }
                    }
                }
                if (!weighed) weigh_block<TRANSFORM>(call, scratch, row, left, first + offset, keys, whole);
                for (int64_t x = 0; x < scratch.padded_depth; x += NR) {
                    const float* panel = scratch.v + x * held + offset * NR;
                    for (int64_t i = 0; i < rows; i += MR) {
                        const Reach strip = seen[i / MR];
                        multiply_values<RESCALE>(scratch.scores + i * stride + strip.begin, stride,
                                                 panel + strip.begin * NR, strip.end - strip.begin,
                                                 scratch.rescale + row + i,
                                                 scratch.out + (row + i) * scratch.padded_depth + x,
                                                 scratch.padded_depth);
                    }
                }
            }
        }
    }
}

template <int TRANSFORM, int ROWS>
static void attend_rows_directly(const AttentionCall& call, const Scratch& scratch, int64_t row, int64_t left,
                                 int64_t first, int64_t count) {
    const int64_t width = scratch.padded_depth;
    multiply_queries_directly<ROWS>(scratch.q + row * width, width, scratch.key_rows, scratch.value_rows, count,
                                    call.head_dim, scratch.scores, scratch.score_stride);
    weigh_block<TRANSFORM>(call, scratch, row, left, first, count, all_see(scratch, row, left, first, count));
    multiply_values_directly<ROWS, TRANSFORM == ONLINE_SOFTMAX>(scratch.scores, scratch.score_stride, scratch.value_rows,
                                                                count, call.head_dim, scratch.rescale + row,
                                                                scratch.out + row * width, width);
}

// Few rows: every key and value is read once, from where it lies.
template <int TRANSFORM>
static void attend_directly(const AttentionCall& call, const Scratch& scratch, const Item& item) {
    for (int64_t row = 0; row < round_up(item.rows, 4); ++row) {
        float* to = scratch.q + row * scratch.padded_depth;
        const int64_t depth = row < item.rows ? call.head_dim : 0;
        for (int64_t x = 0; x < depth; ++x) to[x] = scratch.places[row].q[x] * call.scale;
        for (int64_t x = depth; x < scratch.padded_depth; ++x) to[x] = 0.0f;
    }
    for (int64_t first = item.begin; first < item.end; first += call.inner) {
        const int64_t count = first + call.inner < item.end ? call.inner : item.end - first;
        if (!any_sees(scratch, 0, item.rows, first, first + count)) continue;
        find_entries(call, scratch, item, first, count);
        for (int64_t row = 0; row < item.rows;) {
            const int64_t left = item.rows - row;
            if (left >= 3) {
                attend_rows_directly<TRANSFORM, 4>(call, scratch, row, left < 4 ? left : 4, first, count);
                row += 4;
            } else if (left == 2) {
                attend_rows_directly<TRANSFORM, 2>(call, scratch, row, 2, first, count);
                row += 2;
            } else {
                attend_rows_directly<TRANSFORM, 1>(call, scratch, row, 1, first, count);
                row += 1;
            }
        }
    }
}

// ---- ends of rows ----

// One row again, over the keys it sees and no others, with its true maximum: what is not a number stays so. Returns
// whether it sees a key.
static bool compute_row_again(const AttentionCall& call, const Place& row, int64_t sequence, int64_t kv_head,
                              float* sums) {
    const int64_t depth = call.head_dim;
    for (int64_t x = 0; x < depth; ++x) sums[x] = 0.0f;
    bool any = false;
    float most = NOTHING, total = 0.0f;
    for (int pass = 0; pass < 2; ++pass) {
        for (int64_t key = row.begin; key < row.end; ++key) {
            if (!sees(row, key)) continue;
            any = true;
            const float* k = entry(call.k, call.k_strides, call, sequence, kv_head, key);
            Floats dot = {};
            for (int64_t x = 0; x < depth; x += LANES) {
                const int64_t lanes = depth - x < LANES ? depth - x : LANES;
                dot += (load_first(row.q + x, lanes) * call.scale) * load_first(k + x, lanes);
            }
            const float score = sum_of(dot);
            if (pass == 0) {
                if (score > most) most = score;
                continue;
            }
            const float x = call.transform == SIGMOID ? -call.bias - score : score - most;
            const float power = exp2(splat(x))[0];
            const float weight = call.transform == SIGMOID ? 1.0f / (1.0f + power) : power;
            total += weight;
            const float* v = entry(call.v, call.v_strides, call, sequence, kv_head, key);
            for (int64_t i = 0; i < depth; ++i) sums[i] += weight * v[i];
        }
    }
    const float divisor = call.transform == SIGMOID || !any ? 1.0f : total;
    for (int64_t x = 0; x < depth; ++x) row.out[x] = sums[x] / divisor;
    return any;
}

// Writes out = sums / total, or the row computed again where that is out of range or not finite.
template <int TRANSFORM>
static void finish_row(const AttentionCall& call, const Place& row, const Item& item, float* sums, float total,
                       int64_t* recomputed) {
    const int64_t depth = call.head_dim;
    float factor = 1.0f;
    bool good = true;
    if (TRANSFORM == ONLINE_SOFTMAX) good = total > 0.0f && total < __builtin_inff();
    if (TRANSFORM == UNIFIED_SOFTMAX) good = total > __builtin_exp2f(call.low) && total < __builtin_exp2f(call.high);
    if (good) {
        if (TRANSFORM != SIGMOID) factor = 1.0f / total;
        Floats faults = {};  // 0 times a finite number is 0, times any other not a number
        for (int64_t x = 0; x < depth; x += LANES) {
            const int64_t lanes = depth - x < LANES ? depth - x : LANES;
            const Floats result = load(sums + x) * factor;
            faults += keep(first_lanes(lanes), result * 0.0f);
            store_first(row.out + x, result, lanes);
        }
        good = sum_of(faults) == 0.0f;
    }
    if (!good && compute_row_again(call, row, item.sequence, item.kv_head, sums)) ++*recomputed;
}

// ---- splits ----

// What a split leaves of a block of rows: sums [rows, padded_depth], maxima [rows], totals [rows].
static int64_t partial_floats(const AttentionCall& call) {
    return round_up(call.rows * (round_up(call.head_dim, NR) + 2), 16);
}

template <int TRANSFORM>
static void leave_partial(const AttentionCall& call, const Scratch& scratch, const Item& item, float* to) {
    for (int64_t row = 0; row < item.rows; ++row) {
        const float* sums = scratch.out + row * scratch.padded_depth;
        for (int64_t x = 0; x < scratch.padded_depth; x += LANES) store(to + row * scratch.padded_depth + x, load(sums + x));
    }
    float* maxima = to + call.rows * scratch.padded_depth;
    float* totals = maxima + call.rows;
    for (int64_t row = 0; row < item.rows; ++row) {
        maxima[row] = TRANSFORM == ONLINE_SOFTMAX ? scratch.maximum[row] : 0.0f;
        totals[row] = TRANSFORM == SIGMOID ? 0.0f : sum_of(load(scratch.total + row * LANES));
    }
}

// Adds up what the splits left; under online softmax each is first brought to the largest maximum.
template <int TRANSFORM>
static void combine(const AttentionCall& call, const Scratch& scratch, const Item& item, const float* partials,
                    int64_t size, int64_t* recomputed) {
    const int64_t width = scratch.padded_depth, maxima = call.rows * width, totals = maxima + call.rows;
    float* sums = scratch.out;
    for (int64_t row = 0; row < item.rows; ++row) {
        float most = NOTHING, total = 0.0f;
        for (int64_t split = 0; split < call.splits; ++split) {
            const float each = partials[split * size + maxima + row];
            if (each > most) most = each;
        }
        for (int64_t x = 0; x < width; x += LANES) store(sums + x, Floats{});
        for (int64_t split = 0; split < call.splits; ++split) {
            const float* from = partials + split * size;
            float factor = 1.0f;
            if (TRANSFORM == ONLINE_SOFTMAX) {
                factor = most == NOTHING ? 0.0f : exp2(splat(from[maxima + row] - most))[0];
            }
            total += from[totals + row] * factor;
            for (int64_t x = 0; x < width; x += LANES) {
                const Floats part = load(from + row * width + x);
                store(sums + x, load(sums + x) + (TRANSFORM == ONLINE_SOFTMAX ? part * factor : part));
            }
        }
        finish_row<TRANSFORM>(call, scratch.places[row], item, sums, total, recomputed);
    }
}

// ---- items ----

template <int TRANSFORM>
static void work_on(const AttentionCall& call, const Scratch& scratch, const Item& item, float* partials, int64_t size,
                    int32_t* arrived, int64_t* recomputed) {
    for (int64_t row = 0; row < round_up(item.rows, GROUP * MR); ++row) {
        if (row < item.rows) {
            scratch.places[row] = place(call, item.sequence, item.kv_head, item.first_row + row);
        }
        scratch.maximum[row] = NOTHING;
        scratch.rescale[row] = 1.0f;
        store(scratch.total + row * LANES, Floats{});
        float* sums = scratch.out + row * scratch.padded_depth;
        for (int64_t x = 0; x < scratch.padded_depth; x += LANES) store(sums + x, Floats{});
    }
    if (item.rows <= call.direct_rows) {
        attend_directly<TRANSFORM>(call, scratch, item);
    } else {
        attend_packed<TRANSFORM>(call, scratch, item);
    }
    if (call.splits == 1) {
        for (int64_t row = 0; row < item.rows; ++row) {
            const float total = TRANSFORM == SIGMOID ? 1.0f : sum_of(load(scratch.total + row * LANES));
            finish_row<TRANSFORM>(call, scratch.places[row], item, scratch.out + row * scratch.padded_depth, total,
                                  recomputed);
        }
        return;
    }
    leave_partial<TRANSFORM>(call, scratch, item, partials + item.split * size);
    // The last to arrive combines, in the order of the splits whoever it is, and leaves the count as it was.
    if (__atomic_add_fetch(arrived, 1, __ATOMIC_ACQ_REL) == call.splits) {
        __atomic_store_n(arrived, 0, __ATOMIC_RELAXED);
        combine<TRANSFORM>(call, scratch, item, partials, size, recomputed);
    }
}

static int64_t thread_bytes(const AttentionCall& call) { return Scratch(call, nullptr).bytes; }

// Item number `index` on this thread's part of the scratch. Within a head the last rows come first: under a causal mask
// they see most keys.
static void run_item(const AttentionCall& call, int64_t index, char* mine, char* partials, int32_t* arrived,
                     int64_t* recomputed) {
    const Scratch scratch(call, mine);
    const Cut cut(call);
    Item item;
    item.split = index % call.splits;
    const int64_t block = index / call.splits, head = block / cut.tiles;
    item.first_row = (cut.tiles - 1 - block % cut.tiles) * call.rows;
    item.rows = cut.rows - item.first_row < call.rows ? cut.rows - item.first_row : call.rows;
    item.sequence = head / call.kv_heads;
    item.kv_head = head % call.kv_heads;
    const int64_t keys = keys_of(call, item.sequence);
    const int64_t part = round_up((keys + call.splits - 1) / call.splits, call.inner);
    item.begin = item.split * part < keys ? item.split * part : keys;
    item.end = item.begin + part < keys ? item.begin + part : keys;
    const int64_t size = partial_floats(call);
    float* left = reinterpret_cast<float*>(partials) + block * call.splits * size;
    if (call.transform == ONLINE_SOFTMAX) {
        work_on<ONLINE_SOFTMAX>(call, scratch, item, left, size, arrived + block, recomputed);
    } else if (call.transform == UNIFIED_SOFTMAX) {
        work_on<UNIFIED_SOFTMAX>(call, scratch, item, left, size, arrived + block, recomputed);
    } else {
        work_on<SIGMOID>(call, scratch, item, left, size, arrived + block, recomputed);
    }
}

}  // namespace ridgeline::RL_PATH

// What a thread works with, which keys a row sees (masks), and how scores become weights (transforms). Included once per path,
// after attention_tiles.h.

namespace ridgeline::RL_PATH {

constexpr int GROUP = 4;  // strips whose weights are computed together: a panel is read once for all of them
constexpr float NOTHING = -__builtin_inff();

// What a thread works with: carved out of its scratch, or only measured where base is null.
struct Scratch {
    int64_t padded_rows, padded_depth, score_stride;
    Place* places;
    const float** key_rows;
    const float** value_rows;
    float* zeros;
    float* q;
    float* k;
    float* v;
    float* scores;
    float* out;
    float* maximum;
    float* reference;
    float* rescale;
    float* total;  // [rows, LANES]
    int64_t bytes;

    Scratch(const AttentionCall& call, char* base) : bytes(0) {
        padded_rows = round_up(call.rows, GROUP * MR) + LANES;
        padded_depth = round_up(call.head_dim, NR);
        score_stride = round_up(call.inner, NR) + 16;  // rows a power of two apart would share few lines of the cache
        const int64_t keys = round_up(call.outer, NR) + NR;
        take(places, base, padded_rows);
        take(key_rows, base, keys);
        take(value_rows, base, keys);
        take(zeros, base, padded_depth + NR);
        take(q, base, padded_rows * padded_depth);
        take(k, base, keys * call.head_dim);
        take(v, base, keys * padded_depth);
        take(scores, base, (GROUP * MR + 1) * score_stride);
        take(out, base, padded_rows * padded_depth);
        take(maximum, base, padded_rows);
        take(reference, base, padded_rows);
        take(rescale, base, padded_rows);
        take(total, base, padded_rows * LANES);
    }

private:
    template <typename T>
    void take(T*& pointer, char* base, int64_t count) {
        pointer = base ? reinterpret_cast<T*>(base + bytes) : nullptr;
        bytes += round_up(count * static_cast<int64_t>(sizeof(T)), 64);
    }
};

// ---- masks ----

// Bits of LANES tree nodes from `node` on, which may be negative: what comes before the tree is seen.
RL_INLINE uint32_t tree_bits(const uint64_t* row, int64_t node, int64_t nodes) {
    if (node <= -LANES) return ~0u;
    if (node < 0) return ~(~0u << -node) | static_cast<uint32_t>(row[0] << -node);
    if (node >= nodes) return 0;
    const int64_t word = node / 64, bit = node % 64;
    uint64_t bits = row[word] >> bit;
    if (bit && (word + 1) * 64 < nodes) bits |= row[word + 1] << (64 - bit);
    return static_cast<uint32_t>(bits);
}

// -1 for the keys key .. key + LANES - 1 that the row sees, of those before `end`.
RL_INLINE Ints seen_keys(const AttentionCall& call, const Place& row, int64_t first_key, int64_t key, int64_t end) {
    Ints seen;
    if (call.mask_source == MASTER && call.causal && !call.window) {
        // Column c of row i is seen where c <= i: the slice that begins at this row's last key.
        const int64_t last = row.end - 1 - first_key, width = 2 * call.master_size;
        const int64_t down = last < 0 ? 0 : last < width ? last : width - 1;
        const int64_t right = last >= 0 ? 0 : -last < call.master_size ? -last : call.master_size;
        seen = load_ints(call.master + down * width + right + (key - first_key)) & first_lanes(end - key);
    } else {
        const int64_t stop = row.end < end ? row.end : end;
        seen = first_lanes(stop - key) & ~first_lanes(row.begin - key);
    }
    if (row.tree) {
        const Ints bits = splat_int(static_cast<int32_t>(tree_bits(row.tree, key - row.tree_start, call.tree_nodes)));
        seen &= ((bits >> iota()) & 1) != 0;
    }
    return seen;
}

// ---- transforms: scores become weights in place ----

// Weights of `count` keys from first_key on for `rows` rows. MASKED: some row does not see all of them.
template <int TRANSFORM, bool MASKED>
static void weigh(const AttentionCall& call, const Scratch& scratch, int64_t first_row, int64_t rows, int64_t first_key,
                  int64_t count, float* scores) {
    const int64_t stride = scratch.score_stride, end = first_key + count;
    const Place* places = scratch.places + first_row;
    float* reference = scratch.reference + first_row;
    if (TRANSFORM == ONLINE_SOFTMAX) {
        float* maximum = scratch.maximum + first_row;
        float* rescale = scratch.rescale + first_row;
        for (int64_t row = 0; row < rows; ++row) {
            float* at = scores + row * stride;
            Floats most = splat(NOTHING);
            for (int64_t c = 0; c < count; c += LANES) {
                Floats score = load(at + c);
                if (MASKED) {
                    score = seen_keys(call, places[row], first_key, first_key + c, end) ? score : splat(NOTHING);
                    store(at + c, score);
                }
                most = max(most, score);
            }
            reference[row] = max_of(most);
        }
        for (int64_t row = 0; row < rows; row += LANES) {
            const Floats before = load(maximum + row), after = max(before, load(reference + row));
            // A row that has seen no key yet has the maximum -inf, and -inf - -inf is not a number.
            const Floats from = keep(after != NOTHING, after);
            const int64_t lanes = rows - row < LANES ? rows - row : LANES;
            store_first(maximum + row, after, lanes);
            store_first(reference + row, from, lanes);
            store_first(rescale + row, exp2(before - from), lanes);
        }
    }
    for (int64_t row = 0; row < rows; ++row) {
        float* at = scores + row * stride;
        float* total = scratch.total + (first_row + row) * LANES;
        const Floats from = splat(TRANSFORM == ONLINE_SOFTMAX ? reference[row]
                                  : TRANSFORM == UNIFIED_SOFTMAX ? call.phi : -call.bias);
        Floats sum = {};
        for (int64_t c = 0; c < count; c += LANES) {
            const Floats score = load(at + c);
            Floats weight;
            if (TRANSFORM == ONLINE_SOFTMAX) {
                const Floats x = score - from;
                weight = exp2_within(max(splat(-126.0f), x));
                if (MASKED) weight = keep(~(x < -126.0f), weight);
            } else {
                if (TRANSFORM == UNIFIED_SOFTMAX) {
                    // Above 2^127 the sum is out of its range and the row is computed again.
                    weight = exp2_within(min(splat(127.0f), max(splat(-126.0f), score - from)));
                } else {
                    weight = sigmoid_weight(from, score);
                }
                if (MASKED) weight = keep(seen_keys(call, places[row], first_key, first_key + c, end), weight);
            }
            if (TRANSFORM != SIGMOID) sum += weight;
            store(at + c, weight);
        }
        if (TRANSFORM == ONLINE_SOFTMAX) sum += load(total) * splat(scratch.rescale[first_row + row]);
        if (TRANSFORM == UNIFIED_SOFTMAX) sum += load(total);
        if (TRANSFORM != SIGMOID) store(total, sum);
    }
}

}  // namespace ridgeline::RL_PATH

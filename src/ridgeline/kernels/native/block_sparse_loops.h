// One block of queries of one head against its listed keys. Included once per path, after vectors.h.
//
// Scores are kept transposed, [key][query]: keys are read as they lie and broadcast against vectors of queries, so that
// neither a block of keys nor a gathered list of single keys is packed, and maximum and sum of a query need no reduction
// over lanes. The second product broadcasts weights against vectors of values, of which GROUP columns at a time are
// copied side by side: rows of 128 floats are 512 bytes apart, and 64 of them fill 8 of the 64 sets of a first-level cache.

namespace ridgeline::RL_PATH {

constexpr int VECTORS = 2;
constexpr int WIDTH = VECTORS * LANES;              // queries, or columns of values, in one strip
constexpr int STRIP = REGISTERS == 32 ? 12 : 6;     // keys, or queries, in one strip: 24 or 12 sums in registers

// scores[r][0 .. WIDTH) = queries[:, 0 .. WIDTH) . keys[r]
template <int ROWS>
RL_INLINE void score_strip(const float* const* keys, const float* queries, int64_t head_dim, float* scores, int64_t stride) {
    const float* row[ROWS];
    Floats sum[ROWS][VECTORS] = {};
    for (int r = 0; r < ROWS; ++r) row[r] = keys[r];
#pragma GCC unroll 4
    for (int64_t c = 0; c < head_dim; ++c) {
        const Floats a = load(queries + c * WIDTH), b = load(queries + c * WIDTH + LANES);
#pragma GCC unroll 12
        for (int r = 0; r < ROWS; ++r) {
            const Floats key = splat(row[r][c]);
            sum[r][0] = key * a + sum[r][0];
            sum[r][1] = key * b + sum[r][1];
        }
    }
    for (int r = 0; r < ROWS; ++r) {
        store(scores + r * stride, sum[r][0]);
        store(scores + r * stride + LANES, sum[r][1]);
    }
}

// sums[r][0 .. WIDTH) = sums[r][...] * rescale[r] + sum over keys j of weights[j][r] * slab[j][0 .. WIDTH)
template <int ROWS>
RL_INLINE void value_strip(
    const float* weights, int64_t stride, const float* slab, int64_t keys, const float* rescale, float* sums, int64_t width
) {
    Floats sum[ROWS][VECTORS];
    for (int r = 0; r < ROWS; ++r) {
        sum[r][0] = load(sums + r * width) * rescale[r];
        sum[r][1] = load(sums + r * width + LANES) * rescale[r];
    }
#pragma GCC unroll 4
    for (int64_t j = 0; j < keys; ++j) {
        const Floats a = load(slab + j * WIDTH), b = load(slab + j * WIDTH + LANES);
#pragma GCC unroll 12
        for (int r = 0; r < ROWS; ++r) {
            const Floats weight = splat(weights[j * stride + r]);
            sum[r][0] = weight * a + sum[r][0];
            sum[r][1] = weight * b + sum[r][1];
        }
    }
    for (int r = 0; r < ROWS; ++r) {
        store(sums + r * width, sum[r][0]);
        store(sums + r * width + LANES, sum[r][1]);
    }
}

// How many of the tile's keys lie at or before `last`.
RL_INLINE int64_t keys_upto(const Scratch& s, int64_t count, int64_t last) {
    int64_t low = 0, high = count;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (s.positions[middle] <= last) low = middle + 1;
        else high = middle;
    }
    return low;
}

// Runs `call` with ROWS = STRIP as long as that many rows are left, then with 4, 2 and 1.
#define RL_STRIPS(count, call)                                        \
    do {                                                              \
        int64_t row = 0;                                              \
        for (; row + STRIP <= (count); row += STRIP) call(STRIP);     \
        for (; row + 4 <= (count); row += 4) call(4);                 \
        for (; row + 2 <= (count); row += 2) call(2);                 \
        for (; row < (count); ++row) call(1);                         \
    } while (0)

// Takes in `count` keys at s.k_rows, s.v_rows and s.positions, which ascend. masked: some lie beyond the first query; what
// no query of a strip sees is then left out, which halves the work across the diagonal.
static void take_in(const BlockSparse& a, const Scratch& s, int64_t count, int64_t queries, int64_t first, bool masked) {
    const int64_t stride = Scratch::padded(a.block), width = Scratch::padded(a.head_dim);
    const int64_t strips = (queries + WIDTH - 1) / WIDTH;
    for (int64_t g = 0; g < strips; ++g) {
        const float* strip = s.queries + g * WIDTH * a.head_dim;
        const int64_t seen = masked ? keys_upto(s, count, first + (g + 1) * WIDTH - 1) : count;
#define RL_SCORES(ROWS) score_strip<ROWS>(s.k_rows + row, strip, a.head_dim, s.scores + row * stride + g * WIDTH, stride)
        RL_STRIPS(seen, RL_SCORES);
#undef RL_SCORES
    }
    const Floats lowest = splat(-__builtin_inff());
    if (masked) {
        for (int64_t j = 0; j < count; ++j) {
            const int64_t hidden = s.positions[j] - first;  // queries before the key
            for (int64_t x = 0; x < strips * WIDTH && x < hidden; x += LANES) {
                float* at = s.scores + j * stride + x;
                store(at, first_lanes(hidden - x) ? lowest : load(at));
            }
        }
    }
    for (int64_t x = 0; x < strips * WIDTH; x += LANES) {
        float* scores = s.scores + x;
        const Floats before = load(s.maximum + x);
        Floats maximum = before;
        for (int64_t j = 0; j < count; ++j) maximum = max(maximum, load(scores + j * stride));
        // A query that has seen no key yet has the maximum -infinity, and -infinity less itself is not a number.
        const Floats reference = maximum == lowest ? Floats{} : maximum;
        const Floats rescale = exp2(before - reference);
        Floats total = load(s.total + x) * rescale;
        for (int64_t j = 0; j < count; ++j) {
            const Floats power = load(scores + j * stride) - reference;
            Floats weight = exp2_within(max(splat(-126.0f), power));
            if (masked) weight = keep(~(power < -126.0f), weight);
            store(scores + j * stride, weight);
            total += weight;
        }
        store(s.maximum + x, maximum);
        store(s.rescale + x, rescale);
        store(s.total + x, total);
    }
    for (int64_t c = 0; c < a.head_dim; c += WIDTH) {
        const int64_t wide = a.head_dim - c < WIDTH ? a.head_dim - c : WIDTH;
        if (wide == WIDTH) {
            for (int64_t j = 0; j < count; ++j) {
                store(s.slab + j * WIDTH, load(s.v_rows[j] + c));
                store(s.slab + j * WIDTH + LANES, load(s.v_rows[j] + c + LANES));
            }
        } else {
            for (int64_t j = 0; j < count; ++j)
                for (int64_t i = 0; i < WIDTH; ++i) s.slab[j * WIDTH + i] = i < wide ? s.v_rows[j][c + i] : 0.0f;
        }
#define RL_VALUES(ROWS)                                                                                      \
    value_strip<ROWS>(s.scores + row, stride, s.slab, masked ? keys_upto(s, count, first + row + ROWS - 1) : count, \
                      s.rescale + row, s.sums + row * width + c, width)
        RL_STRIPS(queries, RL_VALUES);
#undef RL_VALUES
    }
}

#undef RL_STRIPS

// Block `row` of the queries of `head`. Returns false, having written nothing, where its lists point outside.
static bool attend(const BlockSparse& a, const Scratch& s, int64_t head, int64_t row) {
    const int64_t begin = row * a.block, left = a.queries - begin;
    const int64_t queries = left < a.block ? left : a.block, first = a.past() + begin;
    const int64_t padded = Scratch::padded(a.block), width = Scratch::padded(a.head_dim);
    const float* q = a.q + (head * a.queries + begin) * a.head_dim;
    const float* k = a.k + head / a.group * a.keys * a.head_dim;
    const float* v = a.v + head / a.group * a.keys * a.head_dim;

    for (int64_t x = 0; x < (queries + WIDTH - 1) / WIDTH * WIDTH; ++x) {
        float* to = s.queries + x / WIDTH * WIDTH * a.head_dim + x % WIDTH;
        for (int64_t c = 0; c < a.head_dim; ++c) to[c * WIDTH] = x < queries ? q[x * a.head_dim + c] * a.scale : 0.0f;
    }
    for (int64_t x = 0; x < padded; ++x) s.maximum[x] = -__builtin_inff(), s.total[x] = 0.0f;
    for (int64_t i = 0; i < queries * width; ++i) s.sums[i] = 0.0f;

    const int32_t* starts = a.row_starts + head * (a.rows() + 1) + row;
    if (starts[0] < 0 || starts[1] < starts[0] || starts[1] > a.blocks_listed) return false;
    for (int64_t i = starts[0]; i < starts[1]; ++i) {
        const int64_t key = a.block_keys[i];
        if (key < 0 || key >= a.keys) return false;
        const int64_t end = a.causal && first + queries < a.keys ? first + queries : a.keys;
        const int64_t count = end - key < a.block ? end - key : a.block;  // none where no query sees any
        for (int64_t j = 0; j < count; ++j) {
            s.k_rows[j] = k + (key + j) * a.head_dim;
            s.v_rows[j] = v + (key + j) * a.head_dim;
            s.positions[j] = key + j;
        }
        if (count > 0) take_in(a, s, count, queries, first, a.causal && key + count - 1 > first);
    }
    if (a.column_starts) {
        starts = a.column_starts + head * (a.rows() + 1) + row;
        if (starts[0] < 0 || starts[1] < starts[0] || starts[1] > a.columns_listed) return false;
        for (int64_t i = starts[0]; i < starts[1]; i += a.block) {
            const int64_t count = starts[1] - i < a.block ? starts[1] - i : a.block;
            bool masked = false;
            for (int64_t j = 0; j < count; ++j) {
                const int64_t key = a.columns[i + j];
                if (key < 0 || key >= a.keys) return false;
                s.k_rows[j] = k + key * a.head_dim;
                s.v_rows[j] = v + key * a.head_dim;
                s.positions[j] = key;
                masked = masked || (a.causal && key > first);
            }
            take_in(a, s, count, queries, first, masked);
        }
    }
    float* out = a.out + (head * a.queries + begin) * a.head_dim;
    for (int64_t x = 0; x < queries; ++x) {
        const float share = s.total[x] == 0.0f ? 0.0f : 1.0f / s.total[x];  // no key seen: zeros
        for (int64_t c = 0; c < a.head_dim; ++c) out[x * a.head_dim + c] = s.sums[x * width + c] * share;
    }
    return true;
}

}  // namespace ridgeline::RL_PATH

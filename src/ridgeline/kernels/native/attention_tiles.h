// Packing and the register-blocked products of the dense attention, included once per path.
//
// A strip is MR rows; a panel is NR columns (keys of K, elements of a head of V). A product keeps MR x NR sums in
// registers, 2 MR vectors, and reads two vectors and MR scalars for each step of its depth (Goto, van de Geijn 2008).

namespace ridgeline::RL_PATH {

constexpr int MR = REGISTERS == 32 ? 12 : 6;  // 2 MR sums, two vectors of the panel, and one scalar spread out
constexpr int NR = 2 * LANES;

RL_INLINE int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// packed[strip][x][MR] = scale * q of `count` rows, zeros up to a whole strip.
static void pack_queries(const Place* rows, int64_t count, int64_t depth, float scale, float* packed) {
    for (int64_t strip = 0; strip * MR < count; ++strip) {
        float* to = packed + strip * MR * depth;
        for (int64_t i = 0; i < MR; ++i) {
            const int64_t row = strip * MR + i;
            if (row < count) {
                for (int64_t x = 0; x < depth; ++x) to[x * MR + i] = rows[row].q[x] * scale;
            } else {
                for (int64_t x = 0; x < depth; ++x) to[x * MR + i] = 0.0f;
            }
        }
    }
}

#if defined(RL_AVX512) || defined(RL_AVX2)
// to[x * NR + i] = from[i][x] for 8 rows and 8 columns.
RL_INLINE void transpose_eight(const float* const* from, int64_t offset, float* to) {
    const __m256 a0 = _mm256_loadu_ps(from[0] + offset), a1 = _mm256_loadu_ps(from[1] + offset);
    const __m256 a2 = _mm256_loadu_ps(from[2] + offset), a3 = _mm256_loadu_ps(from[3] + offset);
    const __m256 a4 = _mm256_loadu_ps(from[4] + offset), a5 = _mm256_loadu_ps(from[5] + offset);
    const __m256 a6 = _mm256_loadu_ps(from[6] + offset), a7 = _mm256_loadu_ps(from[7] + offset);
    const __m256 b0 = _mm256_unpacklo_ps(a0, a1), b1 = _mm256_unpackhi_ps(a0, a1);
    const __m256 b2 = _mm256_unpacklo_ps(a2, a3), b3 = _mm256_unpackhi_ps(a2, a3);
    const __m256 b4 = _mm256_unpacklo_ps(a4, a5), b5 = _mm256_unpackhi_ps(a4, a5);
    const __m256 b6 = _mm256_unpacklo_ps(a6, a7), b7 = _mm256_unpackhi_ps(a6, a7);
    const __m256 c0 = _mm256_shuffle_ps(b0, b2, 0x44), c1 = _mm256_shuffle_ps(b0, b2, 0xee);
    const __m256 c2 = _mm256_shuffle_ps(b1, b3, 0x44), c3 = _mm256_shuffle_ps(b1, b3, 0xee);
    const __m256 c4 = _mm256_shuffle_ps(b4, b6, 0x44), c5 = _mm256_shuffle_ps(b4, b6, 0xee);
    const __m256 c6 = _mm256_shuffle_ps(b5, b7, 0x44), c7 = _mm256_shuffle_ps(b5, b7, 0xee);
    _mm256_storeu_ps(to, _mm256_permute2f128_ps(c0, c4, 0x20));
    _mm256_storeu_ps(to + NR, _mm256_permute2f128_ps(c1, c5, 0x20));
    _mm256_storeu_ps(to + 2 * NR, _mm256_permute2f128_ps(c2, c6, 0x20));
    _mm256_storeu_ps(to + 3 * NR, _mm256_permute2f128_ps(c3, c7, 0x20));
    _mm256_storeu_ps(to + 4 * NR, _mm256_permute2f128_ps(c0, c4, 0x31));
    _mm256_storeu_ps(to + 5 * NR, _mm256_permute2f128_ps(c1, c5, 0x31));
    _mm256_storeu_ps(to + 6 * NR, _mm256_permute2f128_ps(c2, c6, 0x31));
    _mm256_storeu_ps(to + 7 * NR, _mm256_permute2f128_ps(c3, c7, 0x31));
}
#endif

// packed[panel][x][NR] = K transposed, of `count` keys up to whole panels: NR - 1 more may be read.
static void pack_keys(const float* const* keys, int64_t count, int64_t depth, float* packed) {
    for (int64_t first = 0; first < count; first += NR) {
        float* panel = packed + first * depth;
        int64_t x = 0;
#if defined(RL_AVX512) || defined(RL_AVX2)
        for (; x + 8 <= depth; x += 8) {
            for (int64_t i = 0; i < NR; i += 8) transpose_eight(keys + first + i, x, panel + x * NR + i);
        }
#endif
        for (; x < depth; ++x) {
            for (int64_t i = 0; i < NR; ++i) panel[x * NR + i] = keys[first + i][x];
        }
    }
}

// packed[panel][key][NR] = V, columns beyond its depth zero. A panel holds `stride` keys.
static void pack_values(const float* const* values, int64_t count, int64_t depth, int64_t stride, float* packed) {
    for (int64_t key = 0; key < count; ++key) {
        const float* from = values[key];
        float* to = packed + key * NR;
        int64_t x = 0;
        for (; x + NR <= depth; x += NR, to += stride * NR) {
            store(to, load(from + x));
            store(to + LANES, load(from + x + LANES));
        }
        if (x < depth) {
            const int64_t low = depth - x < LANES ? depth - x : LANES;
            store(to, load_first(from + x, low));
            store(to + LANES, load_first(from + x + low, depth - x - low));
        }
    }
}

// Weight of sigmoid attention, 1 / (1 + 2^(from - score)).
RL_INLINE Floats sigmoid_weight(Floats from, Floats score) {
    return reciprocal(1.0f + exp2_within(min(splat(124.0f), max(splat(-126.0f), from - score))));
}

// scores[i, 0 .. NR) = strip row i times the panel's keys. SIGMOID_WEIGHTS: their weights, while they lie in registers; a
// softmax has to know the maximum of a row first.
template <bool SIGMOID_WEIGHTS>
RL_INLINE void multiply_queries(const float* q, const float* k, int64_t depth, Floats from, float* scores,
                                int64_t stride) {
    Floats sum[MR][2] = {};
#pragma GCC unroll 4
    for (int64_t x = 0; x < depth; ++x) {
        const Floats k0 = load(k), k1 = load(k + LANES);
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i) {
            const Floats each = splat(q[i]);
            sum[i][0] += each * k0;
            sum[i][1] += each * k1;
        }
        q += MR;
        k += NR;
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
        store(scores + i * stride, SIGMOID_WEIGHTS ? sigmoid_weight(from, sum[i][0]) : sum[i][0]);
        store(scores + i * stride + LANES, SIGMOID_WEIGHTS ? sigmoid_weight(from, sum[i][1]) : sum[i][1]);
    }
}

// out[i, 0 .. NR) = rescale[i] * out[i] + weights[i, 0 .. keys) times the panel; without RESCALE, plain addition.
template <bool RESCALE>
RL_INLINE void multiply_values(const float* weights, int64_t stride, const float* v, int64_t keys,
                               const float* rescale, float* out, int64_t out_stride) {
    Floats sum[MR][2];
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
        sum[i][0] = load(out + i * out_stride);
        sum[i][1] = load(out + i * out_stride + LANES);
        if (RESCALE) {
            const Floats factor = splat(rescale[i]);
            sum[i][0] *= factor;
            sum[i][1] *= factor;
        }
    }
#pragma GCC unroll 4
    for (int64_t key = 0; key < keys; ++key) {
        const Floats v0 = load(v), v1 = load(v + LANES);
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i) {
            const Floats each = splat(weights[i * stride + key]);
            sum[i][0] += each * v0;
            sum[i][1] += each * v1;
        }
        v += NR;
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
        store(out + i * out_stride, sum[i][0]);
        store(out + i * out_stride + LANES, sum[i][1]);
    }
}

// ---- few rows: keys and values where they lie ----

// scores[row, key] for ROWS rows of scaled queries (padded with zeros to whole vectors) and all keys, in whole groups:
// NR more keys and values may be read. The keys of the next group and the values, which are used next, are asked for
// meanwhile: without, decode from 32768 keys took half as long again on Zen 3.
template <int ROWS>
static void multiply_queries_directly(const float* q, int64_t q_stride, const float* const* keys,
                                      const float* const* values, int64_t count, int64_t depth, float* scores,
                                      int64_t stride) {
    constexpr int KEYS = 8 / ROWS;
    for (int64_t first = 0; first < count; first += KEYS) {
        Floats sum[ROWS][KEYS] = {}, k[KEYS];
        int64_t x = 0;
        for (; x + LANES <= depth; x += LANES) {
#pragma GCC unroll 8
            for (int j = 0; j < KEYS; ++j) k[j] = load(keys[first + j] + x);
#pragma GCC unroll 8
            for (int i = 0; i < ROWS; ++i) {
                const Floats each = load(q + i * q_stride + x);
#pragma GCC unroll 8
                for (int j = 0; j < KEYS; ++j) sum[i][j] += each * k[j];
            }
        }
        if (x < depth) {
#pragma GCC unroll 8
            for (int j = 0; j < KEYS; ++j) k[j] = load_first(keys[first + j] + x, depth - x);
#pragma GCC unroll 8
            for (int i = 0; i < ROWS; ++i) {
                const Floats each = load(q + i * q_stride + x);
#pragma GCC unroll 8
                for (int j = 0; j < KEYS; ++j) sum[i][j] += each * k[j];
            }
        }
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 8
            for (int j = 0; j < KEYS; ++j) scores[i * stride + first + j] = sum_of(sum[i][j]);
        }
        for (int j = 0; j < KEYS; ++j) {
            for (int64_t line = 0; line < depth; line += 16) __builtin_prefetch(values[first + j] + line);
            for (int64_t line = 0; line < depth; line += 16) __builtin_prefetch(keys[first + j + 8] + line);
        }
    }
}

// out[row, x .. x + VECTORS * LANES) = rescale[row] * out + weights[row, 0 .. count) V.
template <int ROWS, int VECTORS, bool RESCALE, bool PART>
RL_INLINE void multiply_columns(const float* weights, int64_t stride, const float* const* values, int64_t count,
                                int64_t x, int64_t lanes, const float* rescale, float* out, int64_t out_stride) {
    Floats sum[ROWS][VECTORS];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 8
        for (int c = 0; c < VECTORS; ++c) {
            sum[i][c] = load(out + i * out_stride + x + c * LANES);
            if (RESCALE) sum[i][c] *= splat(rescale[i]);
        }
    }
    for (int64_t key = 0; key < count; ++key) {
        const float* from = values[key] + x;
        Floats v[VECTORS];
#pragma GCC unroll 8
        for (int c = 0; c < VECTORS; ++c) v[c] = PART ? load_first(from, lanes) : load(from + c * LANES);
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; ++i) {
            const Floats each = splat(weights[i * stride + key]);
#pragma GCC unroll 8
            for (int c = 0; c < VECTORS; ++c) sum[i][c] += each * v[c];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 8
        for (int c = 0; c < VECTORS; ++c) store(out + i * out_stride + x + c * LANES, sum[i][c]);
    }
}

// out[row] = rescale[row] * out[row] + weights[row, 0 .. count) V, for ROWS rows of whole vectors.
template <int ROWS, bool RESCALE>
static void multiply_values_directly(const float* weights, int64_t stride, const float* const* values, int64_t count,
                                     int64_t depth, const float* rescale, float* out, int64_t out_stride) {
    constexpr int VECTORS = ROWS == 1 ? 4 : 8 / ROWS;
    int64_t x = 0;
    for (; x + VECTORS * LANES <= depth; x += VECTORS * LANES) {
        multiply_columns<ROWS, VECTORS, RESCALE, false>(weights, stride, values, count, x, LANES, rescale, out,
                                                        out_stride);
    }
    for (; x + LANES <= depth; x += LANES) {
        multiply_columns<ROWS, 1, RESCALE, false>(weights, stride, values, count, x, LANES, rescale, out, out_stride);
    }
    if (x < depth) {
        multiply_columns<ROWS, 1, RESCALE, true>(weights, stride, values, count, x, depth - x, rescale, out,
                                                 out_stride);
    }
}

}  // namespace ridgeline::RL_PATH

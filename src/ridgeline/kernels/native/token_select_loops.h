// The loops of token_select.cpp, included once per path after token_dots.h.

namespace ridgeline::RL_PATH {

// One bit for each lane of a mask of -1 and 0.
RL_INLINE uint32_t bits_of(Ints mask) {
#if defined(RL_AVX512)
    return _mm512_movepi32_mask((__m512i)mask);
#elif defined(RL_AVX2)
    return static_cast<uint32_t>(_mm256_movemask_ps((__m256)mask));
#else
    uint32_t bits = 0;
    for (int lane = 0; lane < LANES; ++lane) bits |= static_cast<uint32_t>(mask[lane] & 1) << lane;
    return bits;
#endif
}

// out[n] = q . rows[n] for `count` rows of d elements.
template <typename Element>
RL_INLINE void products_of(const float* q, const Element* rows, int64_t count, int64_t d, float* out) {
    const Element* four[4];
    int64_t n = 0;
    for (; n + LANES <= count; n += LANES) dots_of_group(q, rows + n * d, d, out + n);
    for (; n + 4 <= count; n += 4) {
        for (int64_t i = 0; i < 4; ++i) four[i] = rows + (n + i) * d;
        dots<4>(q, four, d, out + n);
    }
    for (; n < count; ++n) {
        four[0] = rows + n * d;
        dots<1>(q, four, d, out + n);
    }
}

static void products(const float* q, const float* rows, int64_t count, int64_t d, float* out) {
    products_of(q, rows, count, d, out);
}
static void products_int8(const float* q, const int8_t* rows, int64_t count, int64_t d, float* out) {
    products_of(q, rows, count, d, out);
}

// Whole numbers in the order of the scores: -0 is 0, and what is not a number is above all, as in torch.topk.
RL_INLINE Ints order_of(Floats score) {
    const Ints bits = (Ints)(score + 0.0f);
    const Ints number = score == score;
    const Ints ordered = bits ^ ((bits >> 31) & 0x7fffffff);
    return (ordered & number) | (~number & 0x7fffffff);
}

static void order(const float* scores, int64_t count, int32_t* keys) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) store_ints(keys + i, order_of(load(scores + i)));
    for (; i < count; ++i) keys[i] = order_of(splat(scores[i]))[0];
}

// Numbers of the keys above `least`, and of the first `ties` that equal it, each plus `offset`, in order.
static int64_t list_above(const int32_t* keys, int64_t count, int32_t least, int64_t ties, int32_t offset,
                          int32_t* out) {
    int64_t found = 0, i = 0;
    for (; i < count; i += LANES) {
        uint32_t above, equal;
        if (i + LANES <= count) {
            const Ints key = load_ints(keys + i);
            above = bits_of(key > splat_int(least));
            equal = bits_of(key == splat_int(least));
        } else {
            above = equal = 0;
            for (int64_t j = i; j < count; ++j) {
                above |= static_cast<uint32_t>(keys[j] > least) << (j - i);
                equal |= static_cast<uint32_t>(keys[j] == least) << (j - i);
            }
        }
        for (uint32_t left = above | equal; left; left &= left - 1) {
            const int lane = __builtin_ctz(left);
            if (!(above >> lane & 1)) {
                if (ties == 0) continue;
                --ties;
            }
            out[found++] = offset + static_cast<int32_t>(i) + lane;
        }
    }
    return found;
}

// The denominator of clusters' scores: largest exponent and sum of sizes times 2^(exponent - largest). `logits` are
// products of query and centroid; `scale` makes them powers of two. Only clusters whose `counted` byte is set, if any.
static void denominator(const float* logits, const int32_t* sizes, const uint8_t* counted, int64_t clusters, float scale,
                        float* maximum, float* total) {
    float most = *maximum;
    for (int64_t c = 0; c < clusters; ++c) {
        if (counted && !counted[c]) continue;
        const float exponent = scale * logits[c];
        // Written so that what is not a number is kept.
        if (!(exponent <= most)) most = exponent;
    }
    const float reference = most == -__builtin_inff() ? 0.0f : most;
    float sum = *total * exp2(splat(*maximum - reference))[0];
    if (*total == 0.0f) sum = 0.0f;
    int64_t c = 0;
    if (!counted) {
        Floats sums = Floats{};
        for (; c + LANES <= clusters; c += LANES) {
            const Floats size = to_floats(load_ints(sizes + c));
            sums = sums + size * exp2(splat(scale) * load(logits + c) - splat(reference));
        }
        sum += sum_of(sums);
    }
    for (; c < clusters; ++c) {
        if (counted && !counted[c]) continue;
        sum += static_cast<float>(sizes[c]) * exp2(splat(scale * logits[c] - reference))[0];
    }
    *maximum = most;
    *total = sum;
}

static const SelectLoops loops = {products, products_int8, order, list_above, denominator};

}  // namespace ridgeline::RL_PATH

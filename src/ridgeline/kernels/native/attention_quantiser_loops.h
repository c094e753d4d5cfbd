// The loops of attention_quantiser.cpp, included once per path.

namespace ridgeline::RL_PATH {

// Mean of a head's tokens; partial sums of 64 tokens keep the rounding of long heads small.
static void head_mean(const Quantise& call, int64_t head) {
    const int64_t d = call.head_dim, length = call.length;
    float* mean = call.means + head * d;
    const float* x = call.x + head * length * d;
    const float share = 1.0f / static_cast<float>(length);
    for (int64_t i = 0; i < d; i += LANES) {
        const int64_t lanes = d - i < LANES ? d - i : LANES;
        Floats total = {};
        for (int64_t first = 0; first < length; first += 64) {
            Floats sum = {};
            const int64_t end = first + 64 < length ? first + 64 : length;
            for (int64_t token = first; token < end; ++token) sum += load_first(x + token * d + i, lanes);
            total += sum;
        }
        store_first(mean + i, total * splat(share), lanes);
    }
}

// One tile: subtract the mean, find each group's largest magnitude, divide, round halves away from zero.
static void quantise_tile(const Quantise& call, int64_t task, int thread) {
    const int64_t d = call.head_dim, length = call.length;
    const int64_t tiles = (length + call.tile - 1) / call.tile;
    const int64_t head = task / tiles, first = task % tiles * call.tile;
    const int64_t count = length - first < call.tile ? length - first : call.tile;
    const float* x = call.x + (head * length + first) * d;
    float* rows = call.scratch + thread * (call.tile + 1) * d;  // the tile, smoothed, and its mean
    float* mean = rows + call.tile * d;
    if (call.smooth == HEAD_MEAN) mean = call.means + head * d;
    if (call.smooth == TILE_MEAN) {
        const float share = 1.0f / static_cast<float>(count);
        for (int64_t i = 0; i < d; i += LANES) {
            const int64_t lanes = d - i < LANES ? d - i : LANES;
            Floats sum = {};
            for (int64_t token = 0; token < count; ++token) sum += load_first(x + token * d + i, lanes);
            store_first(mean + i, sum * splat(share), lanes);
        }
    }
    const int64_t group0 = call.groups.of(first);
    const int64_t left = call.groups.count(length) - group0, most = call.groups.count(call.tile);
    float* scales = call.scales + head * call.groups.count(length) + group0;
    for (int64_t g = 0; g < most && g < left; ++g) scales[g] = 0.0f;
    for (int64_t token = 0; token < count; ++token) {
        const float* from = x + token * d;
        float* row = rows + token * d;
        Floats top = {};
        Ints unordered = {};
        for (int64_t i = 0; i < d; i += LANES) {
            const int64_t lanes = d - i < LANES ? d - i : LANES;
            Floats value = load_first(from + i, lanes);
            if (call.smooth != NO_MEAN) value -= load_first(mean + i, lanes);
            store_first(row + i, value, lanes);
            top = max(top, (Floats)((Ints)value & 0x7fffffff));
            unordered |= value != value;
        }
        float largest = max_of(top);
        if (sum_of((Floats)(unordered & 0x3f800000)) > 0.0f) largest = __builtin_nanf("");
        float& scale = scales[call.groups.of(first + token) - group0];
        if (scale == scale && !(largest <= scale)) scale = largest;  // a NaN stays
    }
    for (int64_t g = 0; g < most && g < left; ++g) scales[g] = scales[g] / call.largest + call.floor;
    for (int64_t token = 0; token < count; ++token) {
        const float* row = rows + token * d;
        const Floats scale = splat(scales[call.groups.of(first + token) - group0]);
        int8_t* out = call.out + (head * length + first + token) * d;
        for (int64_t i = 0; i < d; i += LANES) {
            const int64_t lanes = d - i < LANES ? d - i : LANES;
            const Floats scaled = load_first(row + i, lanes) / scale;
            const Ints half = ((Ints)scaled & static_cast<int32_t>(0x80000000)) | 0x3f000000;  // 0.5 with its sign
            int32_t whole[LANES];
            store_ints(whole, to_ints(scaled + (Floats)half));
            for (int64_t lane = 0; lane < lanes; ++lane) out[i + lane] = static_cast<int8_t>(whole[lane]);
        }
    }
}

}  // namespace ridgeline::RL_PATH

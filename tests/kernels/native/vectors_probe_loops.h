namespace ridgeline::RL_PATH {

static int32_t map(int32_t function, const float* x, float* y, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) {
        const Floats value = load(x + i);
        Floats result = value;
        if (function == 0) result = exp2(value);
        if (function == 1) result = reciprocal(value);
        if (function == 2) result = nearest(value);
        if (function == 3) result = splat(sum_of(value));
        if (function == 4) result = splat(max_of(value));
        store(y + i, result);
    }
    return LANES;
}

static int32_t copy(const float* x, float* y, int64_t count) {
    if (count <= LANES) store_first(y, load_first(x, count), count);
    return LANES;
}

}  // namespace ridgeline::RL_PATH

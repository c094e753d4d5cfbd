// The loops of gemm.cpp, included once per path between vectors.h and vectors_end.h.

namespace ridgeline::RL_PATH {

// ---- GEMV: B as it is, [k][n]; a few rows of A at a time, each pass over B feeds all of them ----

constexpr int GEMV_ROWS = 4;
constexpr int64_t GEMV_COLUMNS = 4096;  // at a time: C of one row is 16 KiB, half of L1. Shorter runs along a row of B
                                        // stop the prefetchers: 25 GB/s a core, 19 with 1024 (Zen 3)

// c[ROWS][first..last) = a[ROWS][k] b[k][first..last). STEPS rows of B are added to C at a time: as many streams, and
// one load and store of C for STEPS loads of B.
template <int ROWS, int STEPS>
static void gemv_columns(const float* a, const float* b, float* c, int64_t n, int64_t k, int64_t first, int64_t last) {
    int64_t depth = 0;
    for (; depth + STEPS <= k; depth += STEPS) {
        Floats x[ROWS][STEPS];
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 8
            for (int s = 0; s < STEPS; ++s) x[r][s] = splat(a[r * k + depth + s]);
        const float* row = b + depth * n;
        int64_t j = first;
        for (; j + LANES <= last; j += LANES) {
            Floats sum[ROWS];
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; ++r) sum[r] = depth ? load(c + r * n + j) : Floats{};
#pragma GCC unroll 8
            for (int s = 0; s < STEPS; ++s) {
                const Floats value = load(row + s * n + j);
#pragma GCC unroll 8
                for (int r = 0; r < ROWS; ++r) sum[r] += x[r][s] * value;
            }
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; ++r) store(c + r * n + j, sum[r]);
        }
        for (; j < last; ++j) {
            for (int r = 0; r < ROWS; ++r) {
                float sum = depth ? c[r * n + j] : 0.0f;
                for (int s = 0; s < STEPS; ++s) sum += a[r * k + depth + s] * row[s * n + j];
                c[r * n + j] = sum;
            }
        }
    }
    for (; depth < k; ++depth) {
        for (int r = 0; r < ROWS; ++r) {
            for (int64_t j = first; j < last; ++j) {
                c[r * n + j] = (depth ? c[r * n + j] : 0.0f) + a[r * k + depth] * b[depth * n + j];
            }
        }
    }
}

static void gemv(const float* a, const float* b, float* c, int64_t m, int64_t n, int64_t k, int64_t first,
                 int64_t last) {
    for (int64_t row = 0; row < m;) {
        const int64_t rows = m - row < GEMV_ROWS ? m - row : GEMV_ROWS;
        for (int64_t start = first; start < last; start += GEMV_COLUMNS) {
            const int64_t stop = last - start < GEMV_COLUMNS ? last : start + GEMV_COLUMNS;
            const float* x = a + row * k;
            float* y = c + row * n;
            switch (rows) {
                case 1: gemv_columns<1, 8>(x, b, y, n, k, start, stop); break;
                case 2: gemv_columns<2, 4>(x, b, y, n, k, start, stop); break;
                case 3: gemv_columns<3, 4>(x, b, y, n, k, start, stop); break;
                default: gemv_columns<4, 4>(x, b, y, n, k, start, stop); break;
            }
        }
        row += rows;
    }
}

// ---- Flat GEMM: B packed in panels of two vectors, [n / PANEL][k][PANEL]; A packed by blocks of k and of rows. int8
// weights become float32 on their way from the cache to the registers, which hides behind the sums of 6 rows ----

constexpr int PANEL = 2 * LANES;
constexpr int FLAT_ROWS = 6;         // of a register tile: 12 sums, two vectors of B and one of A in 15 registers
constexpr int64_t FLAT_DEPTH = 512;  // of a block of k; 256 was a tenth slower at 64 rows, all of k at 1 to 16

// Rows are shared out evenly among as few tiles as hold them: no row is padded.
static int64_t flat_tiles(int64_t m) { return (m + FLAT_ROWS - 1) / FLAT_ROWS; }
static int64_t flat_first_row(int64_t m, int64_t tile) { return m * tile / flat_tiles(m); }

// A block of A, rows [0, m), columns [start, start + depth): [tile][depth][rows of the tile].
static void flat_pack(const float* a, float* packed, int64_t m, int64_t k, int64_t start, int64_t depth) {
    for (int64_t tile = 0; tile < flat_tiles(m); ++tile) {
        const int64_t row = flat_first_row(m, tile), rows = flat_first_row(m, tile + 1) - row;
        for (int64_t i = 0; i < depth; ++i) {
            for (int64_t r = 0; r < rows; ++r) *packed++ = a[(row + r) * k + start + i];
        }
    }
}

// c[ROWS][columns] (+)= a[depth][ROWS] b[depth][columns] for PANELS panels `next_panel` weights apart, and in the last
// block times the columns' `scale`, where there is one. Meanwhile lines of 64 bytes are fetched: `lines` of them from
// `next` on.
template <int ROWS, int PANELS, typename Weight>
static void flat_tile(const float* a, const Weight* b, int64_t next_panel, float* c, int64_t n, int64_t depth, bool add,
                      const float* scale, int64_t columns, const Weight* next, int64_t lines) {
    constexpr int VECTORS = 2 * PANELS;
    Floats sum[ROWS][VECTORS];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) sum[r][v] = Floats{};
    const auto step = [&]() __attribute__((always_inline)) {
        Floats each[VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) each[v] = load_row(b + v / 2 * next_panel + v % 2 * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
            const Floats x = splat(a[r]);
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; ++v) sum[r][v] += x * each[v];
        }
        a += ROWS;
        b += PANEL;
    };
    int64_t i = 0;
    for (; i < depth && i < lines; ++i) {
        __builtin_prefetch(reinterpret_cast<const char*>(next) + 64 * i, 0, 2);
        step();
    }
    for (; i < depth; ++i) step();
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; ++v) {
        const int64_t count = columns - v * LANES < LANES ? columns - v * LANES : LANES;
        if (count <= 0) break;
        const Floats factor = scale ? load_first(scale + v * LANES, count) : splat(1.0f);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
            float* to = c + r * n + v * LANES;
            Floats value = sum[r][v];
            if (add) value += count == LANES ? load(to) : load_first(to, count);
            if (scale) value *= factor;
            if (count == LANES) {
                store(to, value);
            } else {
                store_first(to, value, count);
            }
        }
    }
}

// C[ROWS, n] in the columns of panels [first, last), PANELS at a time; the first panel that is left over. One to three
// rows alone have too few sums to hide the latency of adding to one (4 cycles on Zen 3). Every sum is still made in the
// order of k, whatever the number of rows.
template <int ROWS, int PANELS, typename Weight>
static int64_t flat_panels(const float* a, const Weight* panels, const float* scale, float* c, int64_t n, int64_t k,
                           int64_t first, int64_t last) {
    int64_t panel = first;
    for (; panel + PANELS <= last; panel += PANELS) {
        const int64_t left = n - panel * PANEL, columns = left < PANELS * PANEL ? left : PANELS * PANEL;
        for (int64_t start = 0; start < k; start += FLAT_DEPTH) {
            const int64_t depth = k - start < FLAT_DEPTH ? k - start : FLAT_DEPTH;
            const float* factors = scale && start + depth == k ? scale + panel * PANEL : nullptr;
            const Weight* b = panels + (panel * k + start) * PANEL;
            flat_tile<ROWS, PANELS>(a + start * ROWS, b, k * PANEL, c + panel * PANEL, n, depth, start > 0, factors,
                                    columns, b, 0);
        }
    }
    return panel;
}

// All of C in the columns of panels [first, last): B from front to back, A again for each panel. `scale` of every column
// of C, or null.
template <typename Weight>
static void flat(const float* packed_a, const Weight* panels, const float* scale, float* c, int64_t m, int64_t n,
                 int64_t k, int64_t first, int64_t last) {
    constexpr int64_t LINE = 64 / sizeof(Weight);
    if (m == 1) first = flat_panels<1, 4>(packed_a, panels, scale, c, n, k, first, last);
    if (m == 2) first = flat_panels<2, 2>(packed_a, panels, scale, c, n, k, first, last);
    if (m == 3) first = flat_panels<3, 2>(packed_a, panels, scale, c, n, k, first, last);
    const int64_t tiles = flat_tiles(m);
    for (int64_t panel = first; panel < last; ++panel) {
        const int64_t columns = n - panel * PANEL < PANEL ? n - panel * PANEL : PANEL;
        for (int64_t start = 0; start < k; start += FLAT_DEPTH) {
            const int64_t depth = k - start < FLAT_DEPTH ? k - start : FLAT_DEPTH;
            const Weight* b = panels + (panel * k + start) * PANEL;
            // The block that comes after this one, a share of it in every tile; none after the last.
            const bool more = panel + 1 < last || start + depth < k;
            const int64_t lines = more ? (depth * PANEL / LINE + tiles - 1) / tiles : 0;
            const float* factors = scale && start + depth == k ? scale + panel * PANEL : nullptr;
            const float* a = packed_a + start * m;
            for (int64_t tile = 0; tile < tiles; ++tile) {
                const int64_t row = flat_first_row(m, tile), rows = flat_first_row(m, tile + 1) - row;
                float* to = c + row * n + panel * PANEL;
                const Weight* ahead = b + depth * PANEL + LINE * lines * tile;
                const bool add = start > 0;
                switch (rows) {
                    case 1: flat_tile<1, 1>(a, b, 0, to, n, depth, add, factors, columns, ahead, lines); break;
                    case 2: flat_tile<2, 1>(a, b, 0, to, n, depth, add, factors, columns, ahead, lines); break;
                    case 3: flat_tile<3, 1>(a, b, 0, to, n, depth, add, factors, columns, ahead, lines); break;
                    case 4: flat_tile<4, 1>(a, b, 0, to, n, depth, add, factors, columns, ahead, lines); break;
                    case 5: flat_tile<5, 1>(a, b, 0, to, n, depth, add, factors, columns, ahead, lines); break;
                    default: flat_tile<6, 1>(a, b, 0, to, n, depth, add, factors, columns, ahead, lines); break;
                }
                a += rows * depth;
            }
        }
    }
}

static const Loops loops = {gemv, flat_pack, flat<float>, flat<int8_t>, PANEL, FLAT_DEPTH};

}  // namespace ridgeline::RL_PATH

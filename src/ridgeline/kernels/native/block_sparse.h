// What the block-sparse attention entry and its loops share.
#pragma once

#include <atomic>
#include <cstdint>

namespace ridgeline {

// Shapes: q, out [heads, queries, head_dim]; k, v [heads / group, keys, head_dim]; starts [heads, rows + 1].
struct BlockSparse {
    const float *q, *k, *v;
    const int32_t *row_starts, *block_keys;     // first key of each block of each block of queries
    const int32_t *column_starts, *columns;     // single keys; both null where there are none
    float* out;
    int64_t heads, group, queries, keys, head_dim, block;
    int64_t blocks_listed, columns_listed;      // entries of block_keys and columns
    float scale;                                // of the scores, in units of log2
    int32_t causal;                             // query t sees keys up to keys - queries + t

    int64_t rows() const { return (queries + block - 1) / block; }
    int64_t past() const { return keys - queries; }
};

// Memory of one thread, in floats; `padded` lengths are multiples of the widest group of lanes.
struct Scratch {
    static constexpr int64_t GROUP = 32;  // two vectors of AVX-512
    static constexpr int64_t padded(int64_t count) { return (count + GROUP - 1) / GROUP * GROUP; }

    float* queries;       // [groups of lanes][head_dim][lanes]: a block of queries, transposed and scaled
    float* scores;        // [block keys][padded block]: scores, then weights
    float* sums;          // [padded block][padded head_dim]: the weighted sum of values
    float* slab;          // [block keys][GROUP]: some columns of the values of a block
    float *maximum, *total, *rescale;  // [padded block]
    const float **k_rows, **v_rows;    // [block]: the keys of a tile, wherever they lie
    int64_t* positions;                // [block]

    static int64_t bytes(const BlockSparse& a) {
        const int64_t rows = padded(a.block), width = padded(a.head_dim);
        return 4 * (rows * a.head_dim + a.block * rows + rows * width + a.block * GROUP + 3 * rows) + 3 * 8 * a.block + 64;
    }

    Scratch(void* memory, const BlockSparse& a) {
        const int64_t rows = padded(a.block), width = padded(a.head_dim);
        k_rows = static_cast<const float**>(memory);
        v_rows = k_rows + a.block;
        positions = reinterpret_cast<int64_t*>(v_rows + a.block);
        queries = reinterpret_cast<float*>(positions + a.block);
        scores = queries + rows * a.head_dim;
        sums = scores + a.block * rows;
        slab = sums + rows * width;
        maximum = slab + a.block * GROUP;
        total = maximum + rows;
        rescale = total + rows;
    }
};

}  // namespace ridgeline

// What a call of the dense attention is, for every path. attention.py mirrors AttentionCall field by field.
#pragma once

#include <cstdint>

namespace ridgeline {

enum Transform : int32_t {
    ONLINE_SOFTMAX = 0,   // running maximum and sum; what was accumulated is rescaled where the maximum grew
    UNIFIED_SOFTMAX = 1,  // 2^(score - phi) with one phi for all: plain sums, no maximum, no rescaling
    SIGMOID = 2,          // no maximum, no sum, no rescaling
};

enum MaskSource : int32_t {
    COMPARE = 0,  // key numbers are compared with the first and last key that a row sees
    MASTER = 1,   // every block's causal mask is a slice of one (2 m) x (2 m) mask
};

// The query heads of one KV head are `group * q_length` rows: row r is query r % q_length of head r / q_length.
struct AttentionCall {
    const float* q;
    const float* k;
    const float* v;
    float* out;
    // In elements. q and out: of a sequence, a head, a query. k and v: of a sequence (a page, where there is a block
    // table), a KV head, a key. The elements of a head are adjacent.
    int64_t q_strides[3];
    int64_t out_strides[3];
    int64_t k_strides[3];
    int64_t v_strides[3];
    int64_t batch;
    int64_t q_heads;
    int64_t kv_heads;
    int64_t q_length;
    int64_t kv_length;  // keys of a sequence; the most that any has, where kv_lengths is given
    int64_t head_dim;

    const int32_t* kv_lengths;   // [batch] keys of each sequence, or null
    const int32_t* block_table;  // [batch, table_width] pages of each sequence, or null: keys lie one after the other
    int64_t table_width;
    int64_t page;           // keys in a page
    int64_t pages;          // that there are
    const uint64_t* tree;   // [q_length, ceil(tree_nodes / 64)], or null. The last tree_nodes keys are nodes of a tree:
    int64_t tree_nodes;     // query t sees node j where bit j % 64 of word j / 64 of row t is set
    int64_t window;         // keys a query sees at most on either side, its own included; 0 for all
    const int32_t* master;  // [2 m, 2 m], -1 where column <= row, else 0; for MASTER
    int64_t master_size;    // m >= inner

    int64_t rows;    // of a work item; a thread packs keys and values once for all of them
    int64_t outer;   // keys packed at a time: sized for the second-level cache
    int64_t inner;   // keys whose scores are computed at a time: sized for the first-level cache
    int64_t splits;  // parts of the keys that are worked on apart and then combined
    int64_t direct_rows;  // with so few rows of a KV head, keys and values are used where they lie

    float scale;       // of q k, in units of log2
    float bias;        // added to scaled scores, in units of log2; for SIGMOID
    float phi;         // in units of log2; for UNIFIED_SOFTMAX
    float low, high;   // a row whose sum is not between 2^low and 2^high is computed again with its true maximum
    int32_t causal;
    int32_t transform;
    int32_t mask_source;
    int32_t path;
    int32_t threads;

    char* scratch;           // attention_scratch() bytes, zeros at first, left as zeros where it counts
    int64_t* recomputed;     // set to how many rows were computed again
};

// Rows of the problem's KV heads, and how they are cut.
struct Cut {
    int64_t group;  // query heads of a KV head
    int64_t rows;   // group * q_length
    int64_t tiles;  // of call.rows
    int64_t items;  // batch * kv_heads * tiles * splits

    explicit Cut(const AttentionCall& call)
        : group(call.q_heads / call.kv_heads),
          rows(group * call.q_length),
          tiles((rows + call.rows - 1) / call.rows),
          items(call.batch * call.kv_heads * tiles * call.splits) {}
};

// One row's place: its memory, and the keys [begin, end) that it may see.
struct Place {
    const float* q;
    float* out;
    int64_t begin;
    int64_t end;
    const uint64_t* tree;  // its row of the tree mask, or null
    int64_t tree_start;    // first key of the tree
};

inline int64_t keys_of(const AttentionCall& call, int64_t sequence) {
    return call.kv_lengths ? call.kv_lengths[sequence] : call.kv_length;
}

inline Place place(const AttentionCall& call, int64_t sequence, int64_t kv_head, int64_t row) {
    const int64_t group = call.q_heads / call.kv_heads;
    const int64_t head = kv_head * group + row / call.q_length, query = row % call.q_length;
    const int64_t keys = keys_of(call, sequence), position = query + keys - call.q_length;
    Place found = {};
    found.q = call.q + sequence * call.q_strides[0] + head * call.q_strides[1] + query * call.q_strides[2];
    found.out = call.out + sequence * call.out_strides[0] + head * call.out_strides[1] + query * call.out_strides[2];
    found.end = keys;
    if (call.causal && position + 1 < found.end) found.end = position + 1;
    if (call.window) {
        if (position + call.window < found.end) found.end = position + call.window;
        if (position - call.window + 1 > 0) found.begin = position - call.window + 1;
    }
    if (found.end < found.begin) found.end = found.begin;  // sees none; begin >= 0 holds always
    if (call.tree) {
        found.tree = call.tree + query * ((call.tree_nodes + 63) / 64);
        found.tree_start = keys - call.tree_nodes;
    }
    return found;
}

// Address of a key or value.
inline const float* entry(const float* base, const int64_t* strides, const AttentionCall& call, int64_t sequence,
                          int64_t kv_head, int64_t key) {
    if (!call.block_table) return base + sequence * strides[0] + kv_head * strides[1] + key * strides[2];
    const int64_t page = call.block_table[sequence * call.table_width + key / call.page];
    return base + page * strides[0] + kv_head * strides[1] + key % call.page * strides[2];
}

inline bool sees(const Place& row, int64_t key) {
    if (key < row.begin || key >= row.end) return false;
    const int64_t node = key - row.tree_start;
    return !row.tree || node < 0 || (row.tree[node / 64] >> (node % 64) & 1);
}

}  // namespace ridgeline

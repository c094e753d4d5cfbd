// Which tokens share a scale: Grouping of analytical/operators/quantised_attention.py.
#pragma once

#include <cstdint>

namespace ridgeline {

struct Grouping {
    int64_t rows, classes, run;
    int64_t of(int64_t token) const { return token / rows * classes + token / run % classes; }
    int64_t count(int64_t length) const { return (length + rows - 1) / rows * classes; }
};

constexpr int64_t QUERY_BLOCK = 128;  // queries whose mean is subtracted

}  // namespace ridgeline

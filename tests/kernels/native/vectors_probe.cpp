// Lets a test call functions of vectors.h: values in, values out, in whole vectors.
#include "isa.h"

#if RL_X86
#define RL_AVX512
#include "vectors.h"
#include "vectors_probe_loops.h"
#include "vectors_end.h"
#define RL_AVX2
#include "vectors.h"
#include "vectors_probe_loops.h"
#include "vectors_end.h"
#endif
#define RL_PORTABLE
#include "vectors.h"
#include "vectors_probe_loops.h"
#include "vectors_end.h"

using namespace ridgeline;

// Which of avx512 (0), avx2 (1) and portable (2) this CPU has.
extern "C" int32_t probe_has(int32_t path) {
#if RL_X86
    if (path == 0) return has_avx512();
    if (path == 1) return has_avx2();
#endif
    return path == 2;
}

// function: 0 exp2, 1 reciprocal, 2 nearest, 3 sum of the lanes, 4 maximum of the lanes (3 and 4: in every lane).
extern "C" int32_t probe_map(int32_t path, int32_t function, const float* x, float* y, int64_t count) {
#if RL_X86
    if (path == 0) return avx512::map(function, x, y, count);
    if (path == 1) return avx2::map(function, x, y, count);
#endif
    return portable::map(function, x, y, count);
}

// Copies the first `count` (at most the lanes) with load_first and store_first; returns the lanes.
extern "C" int32_t probe_copy(int32_t path, const float* x, float* y, int64_t count) {
#if RL_X86
    if (path == 0) return avx512::copy(x, y, count);
    if (path == 1) return avx2::copy(x, y, count);
#endif
    return portable::copy(x, y, count);
}

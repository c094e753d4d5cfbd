// Memory bandwidth over float32 arrays: read, copy (c = a), triad (c = a + scalar * b), after STREAM (McCalpin) and
// likwid-bench. Each thread sweeps its own contiguous chunk `passes` times in one call, because one pass over a first
// level cache takes less time than a call.

#include <cstring>

#include "isa.h"
#include "paths.h"
#include "pool.h"

namespace ridgeline {

struct Sweeps {
    void (*read)(const float* a, int64_t elements, int32_t passes, float* sums);
    // [0] ordinary stores, [1] stores past the caches
    void (*copy[2])(const float* a, const float* b, float* c, float scalar, int64_t elements, int32_t passes);
    void (*triad[2])(const float* a, const float* b, float* c, float scalar, int64_t elements, int32_t passes);
};

}  // namespace ridgeline

#if RL_X86
// 16 sums of 16 lanes: adds have latency 4 and two start per cycle (Skylake-X), so 8 are the least; 16 fit 32 registers.
#define RL_PATH avx512
#define RL_TARGET RL_TARGET_AVX512
#define RL_BYTES 64
#define RL_SUMS 16
#define RL_OPAQUE(value) RL_OPAQUE_512(value)
#define RL_STREAM_STORE(address, value) _mm512_stream_ps(address, (__m512)(value))
#define RL_STREAM_FENCE() _mm_sfence()
#include "stream_loops.h"

#define RL_PATH avx2
#define RL_TARGET RL_TARGET_AVX2
#define RL_BYTES 32
#define RL_SUMS 8
#define RL_OPAQUE(value) RL_OPAQUE_SMALL(value)
#define RL_STREAM_STORE(address, value) _mm256_stream_ps(address, (__m256)(value))
#define RL_STREAM_FENCE() _mm_sfence()
#include "stream_loops.h"
#endif

#define RL_PATH portable
#define RL_TARGET
#define RL_BYTES 16
#define RL_SUMS 8
#define RL_OPAQUE(value) RL_OPAQUE_SMALL(value)
#if RL_X86
#define RL_STREAM_STORE(address, value) _mm_stream_ps(address, (__m128)(value))
#define RL_STREAM_FENCE() _mm_sfence()
#else  // no portable way past the caches: stream_past_caches() says so, and Python refuses
#define RL_STREAM_STORE(address, value) (*reinterpret_cast<Vector*>(address) = (value))
#define RL_STREAM_FENCE() (void)0
#endif
#include "stream_loops.h"

namespace ridgeline {
namespace {

struct Path {
    const char* name;
    bool (*available)();
    const Sweeps* sweeps;
};

#define RL_ENTRY(PATH) {#PATH, has_##PATH, &PATH::sweeps}
constexpr Path PATHS[] = {RL_EACH_PATH(RL_ENTRY)};

struct Sweep {
    const Sweeps* sweeps;
    int operation;  // 0 read, 1 copy, 2 triad
    int past;       // 1: stores past the caches
    const float* a;
    const float* b;
    float* c;  // for read: 16 sums per thread
    float scalar;
    int64_t elements;
    int32_t passes;
};

// Chunks end on multiples of 16 elements, whole cache lines where the array starts on one; the last takes the tail.
int64_t chunk_start(int64_t elements, int thread, int threads) {
    if (thread == threads) return elements;
    return elements / 16 * thread / threads * 16;
}

void sweep_chunk(const void* context, int thread, int threads) {
    const Sweep& sweep = *static_cast<const Sweep*>(context);
    const int64_t start = chunk_start(sweep.elements, thread, threads);
    const int64_t count = chunk_start(sweep.elements, thread + 1, threads) - start;
    if (sweep.operation == 0) {
        sweep.sweeps->read(sweep.a + start, count, sweep.passes, sweep.c + 16 * thread);
    } else if (sweep.operation == 1) {
        sweep.sweeps->copy[sweep.past](sweep.a + start, nullptr, sweep.c + start, 0.0f, count, sweep.passes);
    } else {
        sweep.sweeps->triad[sweep.past](sweep.a + start, sweep.b + start, sweep.c + start, sweep.scalar, count,
                                        sweep.passes);
    }
}

int32_t run(const Sweep& sweep, int32_t threads) {
    return Pool::get().run(threads, sweep_chunk, &sweep);
}

bool good(int64_t elements, int32_t passes, int32_t variant, int32_t path) {
    return elements >= 1 && passes >= 1 && (variant == 0 || variant == 1) && entry_of(PATHS, path);
}

}  // namespace
}  // namespace ridgeline

using namespace ridgeline;

// The name of path number i, best first; null past the last. An unavailable path is the empty string.
extern "C" const char* stream_path(int32_t i) {
    return name_of(PATHS, i);
}

// 1 where stores past the caches exist.
extern "C" int32_t stream_past_caches() { return RL_X86; }

// out[lane] = sum over i of a[16 i + lane], lane 0 to 15, of the last pass.
extern "C" int32_t stream_read(const float* a, float* out, int64_t elements, int32_t passes, int32_t threads,
                               int32_t path) {
    if (!good(elements, passes, 0, path) || threads < 1 || threads > 4096) return BAD_ARGUMENT;
    std::vector<float> many;
    float few[64 * 16];
    float* sums = few;
    if (threads > 64) {
        many.resize(16 * static_cast<size_t>(threads));
        sums = many.data();
    }
    const int32_t status = run({PATHS[path].sweeps, 0, 0, a, nullptr, sums, 0.0f, elements, passes}, threads);
    if (status != OK) return status;
    for (int lane = 0; lane < 16; ++lane) {
        float total = 0.0f;
        for (int thread = 0; thread < threads; ++thread) total += sums[16 * thread + lane];
        out[lane] = total;
    }
    return OK;
}

// c = a. variant 1: stores past the caches.
extern "C" int32_t stream_copy(const float* a, float* c, int64_t elements, int32_t passes, int32_t threads,
                               int32_t variant, int32_t path) {
    if (!good(elements, passes, variant, path)) return BAD_ARGUMENT;
    return run({PATHS[path].sweeps, 1, variant, a, nullptr, c, 0.0f, elements, passes}, threads);
}

// c = a + scalar * b. variant 1: stores past the caches.
extern "C" int32_t stream_triad(const float* a, const float* b, float* c, float scalar, int64_t elements,
                                int32_t passes, int32_t threads, int32_t variant, int32_t path) {
    if (!good(elements, passes, variant, path)) return BAD_ARGUMENT;
    return run({PATHS[path].sweeps, 2, variant, a, b, c, scalar, elements, passes}, threads);
}

// Which machine instructions a path uses. Every path is compiled without -march and chosen at run time, so that one
// cached library never meets an instruction its CPU lacks.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#define RL_X86 1
#else
#define RL_X86 0
#endif

// Tells the compiler that a vector register changed, at no instruction: keeps it from hoisting, merging or dropping
// work on it. "v" is any of zmm0-31 and valid in AVX-512 functions, "x" is xmm/ymm0-15.
#if RL_X86
#define RL_OPAQUE_512(value) asm volatile("" : "+v"(value))
#define RL_OPAQUE_SMALL(value) asm volatile("" : "+x"(value))
#elif defined(__aarch64__)
#define RL_OPAQUE_SMALL(value) asm volatile("" : "+w"(value))
#else
#define RL_OPAQUE_SMALL(value) asm volatile("" : "+m"(value))
#endif

// Memory may have changed: everything after reads again, everything before has been written.
#define RL_MEMORY_BARRIER() asm volatile("" ::: "memory")

#define RL_TARGET_AVX2 __attribute__((target("avx2,fma")))
#define RL_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))
#define RL_TARGET_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")))
#define RL_TARGET_AVX512_VNNI __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")))
#define RL_TARGET_AVX_VNNI __attribute__((target("avx2,fma,avxvnni")))

namespace ridgeline {

inline bool has_portable() { return true; }
#if RL_X86
// __builtin_cpu_supports also asks whether the operating system saves the registers (XGETBV).
inline bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
inline bool has_avx_vnni() { return has_avx2() && __builtin_cpu_supports("avxvnni"); }
inline bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && has_avx2();
}
inline bool has_avx512_bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }
inline bool has_avx512_vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }
#endif

// What exported functions return; build.py (STATUS) turns each into one line.
enum Status : int32_t {
    OK = 0,
    TOO_MANY_THREADS = -1,  // more threads than CPUs this process may use: the number would mean nothing
    NO_THREAD = -2,         // the system refused a thread
    UNKNOWN_PATH = -3,      // this CPU has no such path
    BAD_ARGUMENT = -4,
    NO_MEMORY = -5,         // the system refused memory for a thread's scratch
};

}  // namespace ridgeline

// Closes the region that vectors.h opened.
#if defined(RL_PORTABLE)
#undef RL_PORTABLE
#else
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef RL_AVX512
#undef RL_AVX2
#endif
#undef RL_PATH
#undef RL_BYTES
#undef RL_REGISTERS
#undef RL_INLINE

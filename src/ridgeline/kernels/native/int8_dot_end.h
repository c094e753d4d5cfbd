// Closes what int8_dot.h opened.
#if defined(RL_VNNI)
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef RL_VNNI
#endif
#undef RL_DOT

// A vector of float32 from float32 or int8 in memory. Included once per path, after vectors.h.

namespace ridgeline::RL_PATH {

typedef int8_t Bytes __attribute__((vector_size(LANES), may_alias));

RL_INLINE Floats load_row(const float* address) { return load(address); }
RL_INLINE Floats load_row(const int8_t* address) {
#if defined(RL_AVX512)
    return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(address))));
#elif defined(RL_AVX2)
    return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(address))));
#else
    Bytes value;
    __builtin_memcpy(&value, address, sizeof value);
    return __builtin_convertvector(value, Floats);
#endif
}

}  // namespace ridgeline::RL_PATH

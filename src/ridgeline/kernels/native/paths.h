// Tables of paths, best first. An entry has a `name`, and `available` says whether this CPU has its instructions.
#pragma once

#include "isa.h"

// A table over the regions of vectors.h: ENTRY(PATH) makes an entry of functions in namespace ridgeline::PATH.
#if RL_X86
#define RL_EACH_PATH(ENTRY) ENTRY(avx512), ENTRY(avx2), ENTRY(portable)
#else
#define RL_EACH_PATH(ENTRY) ENTRY(portable)
#endif

namespace ridgeline {

// The entry of path i; null where there is none on this CPU.
template <typename Entry, int32_t COUNT>
const Entry* entry_of(const Entry (&table)[COUNT], int32_t i) {
    return i >= 0 && i < COUNT && table[i].available() ? &table[i] : nullptr;
}

// Name of path i, as paths.py asks for it: empty where this CPU lacks it, null past the last.
template <typename Entry, int32_t COUNT>
const char* name_of(const Entry (&table)[COUNT], int32_t i) {
    if (i < 0 || i >= COUNT) return nullptr;
    return table[i].available() ? table[i].name : "";
}

}  // namespace ridgeline

// Shared by the two halves of the emulator, simt.cpp (threads) and runtime.cpp (memory and errors).
#pragma once

#include "simt.hpp"

namespace simt {

extern cudaError_t last_error;

// Memory that is 0xFF throughout: NaN as a float, -1 as an integer.
void* poisoned(size_t bytes);

}  // namespace simt

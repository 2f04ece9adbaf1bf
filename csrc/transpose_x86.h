// Rows to columns, for the levels of x86.
#pragma once

#include <immintrin.h>
#include <stdint.h>

namespace fastrec {
namespace FASTREC_LEVEL {

// block[j * 16 + lane] = from[lane][d + j], j < 16
static inline void transpose(const float* const* from, int64_t d, float* block) {
  for (int lane = 0; lane < 16; lane += 4) {
#pragma GCC unroll 4
    for (int j = 0; j < 16; j += 4) {
      __m128 a = _mm_loadu_ps(from[lane] + d + j), b = _mm_loadu_ps(from[lane + 1] + d + j);
      __m128 c = _mm_loadu_ps(from[lane + 2] + d + j), e = _mm_loadu_ps(from[lane + 3] + d + j);
      _MM_TRANSPOSE4_PS(a, b, c, e);
      _mm_store_ps(block + 16 * j + lane, a);
      _mm_store_ps(block + 16 * j + 16 + lane, b);
      _mm_store_ps(block + 16 * j + 32 + lane, c);
      _mm_store_ps(block + 16 * j + 48 + lane, e);
    }
  }
}

}  // namespace FASTREC_LEVEL
}  // namespace fastrec

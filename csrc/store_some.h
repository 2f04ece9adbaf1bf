// Lanes of a mask to the front, for levels that have no instruction for it. Included after the Vec of a level.
#pragma once

#include "simd.h"

namespace fastrec {
namespace FASTREC_LEVEL {

static inline void store_some(const Vec& v, uint32_t mask, float* p) {
  float lanes[kLanes];
  v.store(lanes);
  for (; mask != 0; mask &= mask - 1) *p++ = lanes[__builtin_ctz(mask)];
}

// Rows of the lanes, from this row on; returns how many.
static inline int32_t store_rows(uint32_t mask, int32_t row, int32_t* p) {
  const int32_t count = __builtin_popcount(mask);
  for (; mask != 0; mask &= mask - 1) *p++ = row + __builtin_ctz(mask);
  return count;
}

static inline int32_t store_some_rows(const int32_t* from, uint32_t mask, int32_t* to) {
  const int32_t count = __builtin_popcount(mask);
  for (; mask != 0; mask &= mask - 1) *to++ = from[__builtin_ctz(mask)];
  return count;
}

}  // namespace FASTREC_LEVEL
}  // namespace fastrec

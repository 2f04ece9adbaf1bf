// The exact scores of listed items, written once over the Vec64 and the transpose of a level.
#pragma once

#include "simd.h"

namespace fastrec {
namespace FASTREC_LEVEL {

// 16 items at a time: a lane each, so that every sum is in order of d and yet none has to wait. Rows lie anywhere in
// memory: those of the next 16 are asked for meanwhile.
static void exact(const float* items, int64_t dims, const int32_t* rows, int64_t n, const float* query, double* out) {
  alignas(64) float block[16 * kLanes];
  double lanes[kLanes];
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = n - i < kLanes ? n - i : kLanes, ahead = n - i - count < kLanes ? n - i - count : kLanes;
    const float* from[kLanes];  // the last item fills the lanes that are left
    for (int64_t lane = 0; lane < kLanes; ++lane)
      from[lane] = items + rows[i + (lane < count ? lane : count - 1)] * dims;
    Vec64 sums = Vec64::zero();
    for (int64_t d = 0; d < dims; d += 16) {
      const int64_t part = dims - d < 16 ? dims - d : 16;
      for (int64_t lane = 0; lane < ahead; ++lane) __builtin_prefetch(items + rows[i + count + lane] * dims + d);
      if (part == 16) {
        transpose(from, d, block);
      } else {
        for (int64_t lane = 0; lane < kLanes; ++lane)
          for (int64_t j = 0; j < part; ++j) block[j * kLanes + lane] = from[lane][d + j];
      }
      for (int64_t j = 0; j < part; ++j) sums.add_product(query[d + j], block + j * kLanes);
    }
    sums.store(lanes);
    for (int64_t lane = 0; lane < count; ++lane) out[i + lane] = lanes[lane];
  }
}

}  // namespace FASTREC_LEVEL
}  // namespace fastrec

// A candidate as one 64-bit key that orders as answers do: score descending, then the smaller row. 0 is nobody.
#pragma once

#include "cuda_utils.cuh"

namespace fastrec::cuda {

using Key = unsigned long long;

// score is no NaN; row < 2^31.
__device__ __forceinline__ Key key_of(float score, int64_t row) {
  const unsigned bits = __float_as_uint(score);
  const unsigned ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<Key>(ordered) << 32 | (0xFFFFFFFFu - static_cast<unsigned>(row));
}
__device__ __forceinline__ float score_of(Key key) {
  const unsigned ordered = static_cast<unsigned>(key >> 32);
  return __uint_as_float((ordered & 0x80000000u) != 0 ? ordered ^ 0x80000000u : ~ordered);
}
__device__ __forceinline__ int64_t row_of(Key key) { return 0xFFFFFFFFu - static_cast<unsigned>(key & 0xFFFFFFFFu); }

// Sorts keys[0 .. count) in descending order by one warp; memory behind them, up to the next power of two, becomes 0.
// All 32 lanes call it, after a __syncwarp that orders the writes of the keys.
__device__ __forceinline__ void sort_keys(Key* keys, int count, int lane) {
  int size = 2;
  while (size < count) size *= 2;
  for (int i = count + lane; i < size; i += kWarpSize) keys[i] = 0;
  for (int width = 2; width <= size; width *= 2) {
    for (int step = width / 2; step > 0; step /= 2) {
      __syncwarp();
      for (int pair = lane; pair < size / 2; pair += kWarpSize) {
        const int low = pair / step * step * 2 + pair % step;
        const Key a = keys[low], b = keys[low + step];
        const bool falling = (low & width) == 0;
        if (falling ? a < b : a > b) {
          keys[low] = b;
          keys[low + step] = a;
        }
      }
    }
  }
  __syncwarp();
}

}  // namespace fastrec::cuda

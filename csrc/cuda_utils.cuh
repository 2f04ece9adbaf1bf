// What lets one kernel source be compiled by nvcc and, for the tests, by g++ (tests/gpu/simt has the emulator).
//
//   SHARED(float, tile, 128);               instead of  __shared__ float tile[128];
//   DYNAMIC_SHARED(double, row);            instead of  extern __shared__ double row[];
//   LAUNCH(kernel, grid, block, bytes, stream, args...)   instead of  kernel<<<...>>>(args...)
//   LAUNCH((kernel<float, 4>), ...)         parentheses around a name that contains a comma
//
// Kernels stand in a named namespace: in an unnamed one nvcc names them anew in every build, and budgets drift.
#pragma once

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define SHARED(T, name, n) __shared__ T name[n]
#define DYNAMIC_SHARED(T, name)                                 \
  extern __shared__ __align__(16) unsigned char dynamic_bytes[]; \
  T* name = reinterpret_cast<T*>(dynamic_bytes)
#define LAUNCH(kernel, grid, block, bytes, stream, ...) kernel<<<(grid), (block), (bytes), (stream)>>>(__VA_ARGS__)
#elif defined(FASTREC_SIMT)
#include "simt.hpp"
#else
#include <cuda_runtime_api.h>
#endif

#if defined(__CUDACC__) || defined(FASTREC_SIMT)
#include <cstdint>

namespace fastrec::cuda {

constexpr unsigned kAllLanes = 0xFFFFFFFFu;
constexpr int kWarpSize = 32;

__device__ __forceinline__ float to_float(float v) { return v; }
__device__ __forceinline__ float to_float(__half v) { return __half2float(v); }
__device__ __forceinline__ float to_float(__nv_bfloat16 v) { return __bfloat162float(v); }

template <class T>
__device__ __forceinline__ T warp_sum(T value) {
  for (int step = kWarpSize / 2; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

// The sum over a block of kWarps warps, the same bits in every thread. `parts` is a SHARED array of kWarps values.
template <int kWarps, class T>
__device__ __forceinline__ T block_sum(T value, T* parts) {
  const int thread = static_cast<int>(threadIdx.x);
  value = warp_sum(value);
  __syncthreads();  // those who still read an earlier sum
  if (thread % kWarpSize == 0) parts[thread / kWarpSize] = value;
  __syncthreads();
  T total = parts[0];
  for (int warp = 1; warp < kWarps; ++warp) total += parts[warp];
  return total;
}

}  // namespace fastrec::cuda
#endif

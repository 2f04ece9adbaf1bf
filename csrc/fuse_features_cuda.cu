// fuse_features: one block a row. Gather, scale, put side by side, normalise and cast in one pass over memory: the row
// stands in shared memory in float64 between the two.
#include "ops_cuda.h"

namespace fastrec::cuda {

constexpr int kFuseWarps = 4;
constexpr int kFuseThreads = kFuseWarps * kWarpSize;

__device__ __forceinline__ void put(float& out, float v) { out = v; }
__device__ __forceinline__ void put(__half& out, float v) { out = __float2half(v); }

template <class Out>
__global__ void __launch_bounds__(kFuseThreads) fuse_features_rows(FuseParts parts, bool normalize, int64_t dims, Out* out) {
  DYNAMIC_SHARED(double, fused);  // (dims,)
  SHARED(double, sums, kFuseWarps);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t b = blockIdx.x;
  double square = 0.0;
  int column = 0;
  for (int part = 0; part < parts.n; ++part) {
    const int64_t row = parts.rows[part] == nullptr ? b : parts.rows[part][b];
    const double scale = parts.scales[part] == nullptr ? 1.0 : parts.scales[part][b];
    const float* values = parts.values[part] + row * parts.dims[part];
    for (int d = thread; d < parts.dims[part]; d += kFuseThreads) {
      const double v = scale * static_cast<double>(values[d]);
      fused[column + d] = v;
      square += v * v;
    }
    column += parts.dims[part];
  }
  double divisor = 1.0;
  if (normalize) {
    const double norm = sqrt(block_sum<kFuseWarps>(square, sums));
    if (!(norm <= 0.0)) divisor = norm;  // NaN goes on to the result, where it is found
  } else {
    __syncthreads();
  }
  for (int64_t d = thread; d < dims; d += kFuseThreads)
    put(out[b * dims + d], static_cast<float>(fused[d] / divisor) + 0.0f);
}

cudaError_t fuse_features(const FuseParts& parts, int64_t B, bool normalize, bool half, void* out, cudaStream_t stream) {
  int64_t dims = 0;
  if (parts.n < 1 || parts.n > kMostParts || B < 0 || B > INT32_MAX) return cudaErrorInvalidValue;
  for (int part = 0; part < parts.n; ++part) dims += parts.dims[part];
  if (dims > kMostDims) return cudaErrorInvalidValue;
  if (B == 0 || dims == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>(B));
  const size_t bytes = static_cast<size_t>(dims) * sizeof(double);
  if (half)
    LAUNCH(fuse_features_rows<__half>, grid, dim3(kFuseThreads), bytes, stream, parts, normalize, dims,
           static_cast<__half*>(out));
  else
    LAUNCH(fuse_features_rows<float>, grid, dim3(kFuseThreads), bytes, stream, parts, normalize, dims,
           static_cast<float*>(out));
  return cudaGetLastError();
}

}  // namespace fastrec::cuda

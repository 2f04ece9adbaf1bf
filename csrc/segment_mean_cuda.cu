// segment_mean: one block a segment. A thread takes the dimensions t, t + 128, ...: neighbours read neighbouring memory,
// and every sum runs in the order of the entries, in float64, where the products of two floats are exact.
#include "ops_cuda.h"

namespace fastrec::cuda {

constexpr int kMeanWarps = 4;
constexpr int kMeanThreads = kMeanWarps * kWarpSize;

__global__ void __launch_bounds__(kMeanThreads)
    segment_mean_rows(const float* __restrict__ values, int64_t D, Lists segments, bool normalize,
                      float* __restrict__ out) {
  DYNAMIC_SHARED(double, totals);  // (D,); a thread reads what it wrote itself
  SHARED(double, sums, kMeanWarps);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t b = blockIdx.x;
  const int64_t begin = segments.indptr[b], end = segments.indptr[b + 1];
  double square = 0.0;
  for (int64_t d = thread; d < D; d += kMeanThreads) {
    double total = 0.0;
    for (int64_t e = begin; e < end; ++e) {
      const int64_t row = segments.rows[e];
      total += static_cast<double>(segments.values[e]) * static_cast<double>(values[row * D + d]);
    }
    totals[d] = total;
    square += total * total;
  }
  double divisor = 0.0;
  if (normalize) {
    divisor = sqrt(block_sum<kMeanWarps>(square, sums));
  } else {
    for (int64_t e = begin; e < end; ++e) divisor += static_cast<double>(segments.values[e]);
  }
  for (int64_t d = thread; d < D; d += kMeanThreads)
    out[b * D + d] = divisor == 0.0 ? 0.0f : static_cast<float>(totals[d] / divisor) + 0.0f;
}

cudaError_t segment_mean(const float* values, int64_t D, const Lists& segments, int64_t B, bool normalize, float* out,
                         cudaStream_t stream) {
  if (D < 0 || D > kMostDims || B < 0 || B > INT32_MAX) return cudaErrorInvalidValue;
  if (B == 0 || D == 0) return cudaSuccess;
  LAUNCH(segment_mean_rows, dim3(static_cast<unsigned>(B)), dim3(kMeanThreads), static_cast<size_t>(D) * sizeof(double),
         stream, values, D, segments, normalize, out);
  return cudaGetLastError();
}

}  // namespace fastrec::cuda

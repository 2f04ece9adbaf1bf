// mmr: one block a user, one round a pick. The whole block finds the best place of the pool, then every warp compares
// items with the one that was picked. float64, so that picks are those of the reference but for ties within rounding.
#include "ops_cuda.h"

namespace fastrec::cuda {

constexpr int kMmrWarps = 4;
constexpr int kMmrThreads = kMmrWarps * kWarpSize;

struct Pick {
  double value;
  int place;
};

// The larger value, then the smaller place.
__device__ __forceinline__ Pick better(Pick a, Pick b) {
  return b.value > a.value || (b.value == a.value && b.place < a.place) ? b : a;
}

__device__ __forceinline__ Pick warp_best(Pick pick) {
  for (int step = kWarpSize / 2; step > 0; step /= 2) {
    const Pick other = {__shfl_xor_sync(kAllLanes, pick.value, step), __shfl_xor_sync(kAllLanes, pick.place, step)};
    pick = better(pick, other);
  }
  return pick;
}

__device__ __forceinline__ double dot(const float* a, const float* b, int64_t D, int lane) {
  double sum = 0.0;
  for (int64_t d = lane; d < D; d += kWarpSize) sum += static_cast<double>(a[d]) * static_cast<double>(b[d]);
  return warp_sum(sum);
}

__global__ void __launch_bounds__(kMmrThreads)
    mmr_users(const float* __restrict__ vectors, int64_t D, const int64_t* __restrict__ pool,
              const double* __restrict__ relevance, int P, int k, double diversity, int32_t* __restrict__ picks) {
  SHARED(double, lengths, kMostPool);  // L2 norm of every item of the pool
  SHARED(double, similar, kMostPool);  // largest cosine to what is picked
  SHARED(int, taken, kMostPool);
  SHARED(double, values, kMmrWarps);
  SHARED(int, places, kMmrWarps);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarpSize;
  const int warp = thread / kWarpSize;
  const int64_t b = blockIdx.x;
  const int64_t* rows = pool + b * P;
  const double* relevant = relevance + b * P;

  for (int i = warp; i < P; i += kMmrWarps) {
    const int64_t row = rows[i];
    const float* vector = vectors + (row < 0 ? 0 : row) * D;
    const double square = row < 0 ? 0.0 : dot(vector, vector, D, lane);  // the same for the whole warp
    if (lane == 0) {
      lengths[i] = fmax(sqrt(square), 1e-12);
      similar[i] = 0.0;
      taken[i] = row < 0;
    }
  }
  __syncthreads();
  for (int round = 0; round < k; ++round) {
    Pick best = {-INFINITY, P};
    for (int i = thread; i < P; i += kMmrThreads) {
      if (taken[i]) continue;
      best = better(best, {(1.0 - diversity) * relevant[i] - diversity * similar[i], i});
    }
    best = warp_best(best);
    if (lane == 0) {
      values[warp] = best.value;
      places[warp] = best.place;
    }
    __syncthreads();
    best = {values[0], places[0]};
    for (int other = 1; other < kMmrWarps; ++other) best = better(best, {values[other], places[other]});
    const int place = best.place;
    if (thread == 0) picks[b * k + round] = place < P ? place : -1;
    __syncthreads();
    if (place == P) continue;  // the same for the whole block: the pool is exhausted
    const float* chosen = vectors + rows[place] * D;
    for (int i = warp; i < P; i += kMmrWarps) {
      if (rows[i] < 0) continue;
      const double cosine = dot(vectors + rows[i] * D, chosen, D, lane) / (lengths[i] * lengths[place]);
      if (lane == 0) {
        similar[i] = fmax(similar[i], cosine);
        if (i == place) taken[i] = 1;
      }
    }
    __syncthreads();
  }
}

cudaError_t mmr(const float* vectors, int64_t D, const int64_t* pool, const double* relevance, int64_t B, int P, int k,
                double diversity, int32_t* picks, cudaStream_t stream) {
  if (D < 0 || B < 0 || B > INT32_MAX || P < 0 || P > kMostPool || k < 1) return cudaErrorInvalidValue;
  if (B == 0) return cudaSuccess;
  LAUNCH(mmr_users, dim3(static_cast<unsigned>(B)), dim3(kMmrThreads), 0, stream, vectors, D, pool, relevance, P, k,
         diversity, picks);
  return cudaGetLastError();
}

}  // namespace fastrec::cuda

// The CUDA operators: device pointers, sizes and a stream. The table of contents of fastrec._C_cuda.
//
// Every function launches on the caller's stream and returns at once: nothing is allocated, nothing is waited for, and
// errors of a launch come back as a cudaError_t. Python has checked every input and owns all memory. Matrices are
// row-major. Offsets are computed in 64 bits. Lists of rows per user ascend and hold no row twice.
//
// B users, N items, D dimensions, k results.
#pragma once

#include <cstdint>

#include "cuda_utils.cuh"

namespace fastrec::cuda {

// rows[indptr[r] .. indptr[r + 1]) belong to row r; indptr is null where the list was left out.
struct Lists {
  const int64_t* indptr = nullptr;
  const int32_t* rows = nullptr;
  const float* values = nullptr;
};

// float32: products in float32. tf32, half, bfloat16: products of tensor cores, summed in float32.
enum class TopkScreen { kFloat32, kTf32, kHalf, kBfloat16 };

struct TopkProblem {
  const float* queries;  // [B, D]
  const void* items;     // [N, D], rows item_stride elements apart; float but for kHalf and kBfloat16
  int64_t item_stride;
  int64_t B, N, D;
  int k;                // 1 .. kMostTopk
  const float* bias;    // [N] or null; -inf: never returned
  Lists history;        // [B, M] with values, or null
  Lists similarity;     // [M, N] with values, columns ascending
  Lists seen, deny, allow;
  const float* pad;     // [B]: at least |screened score - score| for every item
  int splits;           // parts of the catalogue that are walked side by side
  uint64_t* keys;       // [splits, B, topk_capacity(k)], scratch
  int32_t* counts;      // [splits, B], scratch
  float* scores;        // [B, k], -inf where fewer items remain
  int64_t* rows;        // [B, k], -1 there
};

constexpr int kMostTopk = 1024;
constexpr int kUserTile = 16;   // users of a block
constexpr int kItemTile = 128;  // items that a block looks at together
// Keys that a user's list holds: twice the next power of two, so that half of it is free after every sort.
int topk_capacity(int k);
// score(u, i) = float32(<queries[u], items[i]> + sum_j history[u, j] * similarity[j, i] + bias[i]), summed in float64 in
// this order: screened in lower precision, and computed by the definition for what passes. Score descending, then row.
cudaError_t score_topk(const TopkProblem& problem, TopkScreen screen, cudaStream_t stream);

constexpr int kMostParts = 16;
// What a row of fuse_features or segment_mean may have: its sums in float64 stand in shared memory.
constexpr int kMostDims = 6000;

struct FuseParts {
  int n = 0;
  const float* values[kMostParts];   // [N_p, dims_p]
  const int64_t* rows[kMostParts];   // [B] into values, or null for all in order
  const double* scales[kMostParts];  // [B] or null for 1
  int dims[kMostParts];
};
// out [B, sum of dims]: scales * values[rows] of every part beside one another, divided by the L2 norm of the row where
// asked (a zero row stays zero); float, or half where `half`.
cudaError_t fuse_features(const FuseParts& parts, int64_t B, bool normalize, bool half, void* out, cudaStream_t stream);

// out [B, D]: the sum of weight * values[row] over the entries of a segment, divided by its L2 norm, or else by the sum
// of the weights; 0 where that is 0. An embedding bag, or the decayed mean of a history: the weights hold the decay.
cudaError_t segment_mean(const float* values, int64_t D, const Lists& segments, int64_t B, bool normalize, float* out,
                         cudaStream_t stream);

constexpr int kMostPool = 1024;
// Maximal marginal relevance, greedy: picks [B, k] are places in the pool, -1 where it is exhausted.
// pool [B, P]: rows of vectors [N, D], best first, -1 behind the last. relevance [B, P] in [0, 1].
cudaError_t mmr(const float* vectors, int64_t D, const int64_t* pool, const double* relevance, int64_t B, int P, int k,
                double diversity, int32_t* picks, cudaStream_t stream);

}  // namespace fastrec::cuda

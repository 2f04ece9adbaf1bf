// score_topk: a block walks a part of the catalogue for 16 users, 128 items at a time.
//
//   screen   the scores of the tile, by a product of small matrices (mma_tile.cuh), sparse terms and bias, in float32
//   test     an item whose screened score reaches the user's threshold less the pad becomes a candidate
//   exact    bias, allow, seen and deny are looked at, and the score is computed by the definition in float64
//   keep     keys go to the user's list; a full list is sorted by one warp and cut to k, which lifts the threshold
//
// As the pad bounds what the screen may be wrong by, the lists hold the exact answer whatever the screen computes in.
// The second kernel merges the lists of the parts. Each user belongs to one warp, so that no list has two writers.
#include "mma_tile.cuh"
#include "ops_cuda.h"
#include "topk_keys.cuh"

namespace fastrec::cuda {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarpSize;
constexpr int kWarpItems = kItemTile / kWarps;
constexpr int kTileStride = kItemTile + 4;

// The first place in rows[begin .. end), which ascend, that holds `row` or more.
__device__ __forceinline__ int64_t lower_bound(const int32_t* rows, int64_t begin, int64_t end, int64_t row) {
  while (begin < end) {
    const int64_t middle = begin + (end - begin) / 2;
    if (rows[middle] < row)
      begin = middle + 1;
    else
      end = middle;
  }
  return begin;
}

__device__ __forceinline__ bool contains(const Lists& lists, int64_t user, int64_t row) {
  const int64_t end = lists.indptr[user + 1];
  const int64_t at = lower_bound(lists.rows, lists.indptr[user], end, row);
  return at < end && lists.rows[at] == row;
}

// The sum of history[user, j] * similarity[j, row] in the order of the history; products of floats are exact in double.
__device__ __forceinline__ double sparse_score(const TopkProblem& p, int64_t user, int64_t row) {
  double sum = 0.0;
  for (int64_t h = p.history.indptr[user]; h < p.history.indptr[user + 1]; ++h) {
    const int64_t j = p.history.rows[h];
    const int64_t end = p.similarity.indptr[j + 1];
    int64_t at = lower_bound(p.similarity.rows, p.similarity.indptr[j], end, row);
    for (; at < end && p.similarity.rows[at] == row; ++at)
      sum += static_cast<double>(p.history.values[h]) * static_cast<double>(p.similarity.values[at]);
  }
  return sum;
}

// The candidate by the definition, or 0 where the user must not get the item.
template <class Item>
__device__ __forceinline__ Key exact_key(const TopkProblem& p, int64_t user, int64_t row) {
  const float bias = p.bias == nullptr ? 0.0f : p.bias[row];
  if (bias == -INFINITY) return 0;
  if (p.allow.indptr != nullptr && !contains(p.allow, user, row)) return 0;
  if (p.seen.indptr != nullptr && contains(p.seen, user, row)) return 0;
  if (p.deny.indptr != nullptr && contains(p.deny, user, row)) return 0;
  const float* query = p.queries + user * p.D;
  const Item* item = static_cast<const Item*>(p.items) + row * p.item_stride;
  double total = 0.0;
  for (int64_t d = 0; d < p.D; ++d)
    total += static_cast<double>(query[d]) * static_cast<double>(to_float(item[d]));
  if (p.history.indptr != nullptr) total += sparse_score(p, user, row);
  total += static_cast<double>(bias);
  return key_of(static_cast<float>(total) + 0.0f, row);
}

// The dense scores of 16 users and 128 items, [user, item] in `scores`. All threads of the block call it.
template <class Type>
__device__ __forceinline__ void screen_tile(const TopkProblem& p, int64_t first_user, int64_t first_item,
                                            typename Type::Staged* users, typename Type::Staged* items, float* scores) {
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarpSize;
  const int warp = thread / kWarpSize;
  float sums[kWarpItems / 8][4] = {};
  int64_t first_dim = 0;
  do {
    __syncthreads();  // the tile before is read by now
    for (int i = thread; i < kUserTile * kDepth; i += kThreads) {
      const int64_t user = first_user + i / kDepth, d = first_dim + i % kDepth;
      const bool inside = user < p.B && d < p.D;
      users[i / kDepth * Type::kStride + i % kDepth] = Type::stage(inside ? p.queries[user * p.D + d] : 0.0f);
    }
    for (int i = thread; i < kItemTile * kDepth; i += kThreads) {
      const int64_t row = first_item + i / kDepth, d = first_dim + i % kDepth;
      typename Type::Staged value = Type::stage(0.0f);
      if (row < p.N && d < p.D)
        value = Type::stage(static_cast<const typename Type::Item*>(p.items)[row * p.item_stride + d]);
      items[i / kDepth * Type::kStride + i % kDepth] = value;
    }
    __syncthreads();
#pragma unroll
    for (int part = 0; part < kWarpItems / 8; ++part)
      multiply_tile<Type>(users, items + (warp * kWarpItems + part * 8) * Type::kStride, sums[part], lane);
    first_dim += kDepth;
  } while (first_dim < p.D);
#pragma unroll
  for (int part = 0; part < kWarpItems / 8; ++part) {
    float* low = scores + lane / 4 * kTileStride + warp * kWarpItems + part * 8 + lane % 4 * 2;
    float* high = low + 8 * kTileStride;
    low[0] = sums[part][0];
    low[1] = sums[part][1];
    high[0] = sums[part][2];
    high[1] = sums[part][3];
  }
  __syncthreads();
}

// Adds the sparse terms of one user to its row of the tile. One warp calls it.
__device__ __forceinline__ void add_sparse(const TopkProblem& p, int64_t user, int64_t first_item, float* scores,
                                           int lane) {
  for (int64_t h = p.history.indptr[user] + lane; h < p.history.indptr[user + 1]; h += kWarpSize) {
    const int64_t j = p.history.rows[h];
    const int64_t end = p.similarity.indptr[j + 1];
    int64_t at = lower_bound(p.similarity.rows, p.similarity.indptr[j], end, first_item);
    for (; at < end && p.similarity.rows[at] < first_item + kItemTile; ++at)
      atomicAdd(&scores[p.similarity.rows[at] - first_item], p.history.values[h] * p.similarity.values[at]);
  }
  __syncwarp();
}

// Sorts a list and keeps its best k; returns how many there are.
__device__ __forceinline__ int cut(Key* keys, int count, int k, int lane) {
  sort_keys(keys, count, lane);
  return min(count, k);
}

// Offers the candidates of a warp, one a lane (0: none), to a list of `count` keys; returns the new count.
__device__ __forceinline__ int offer(Key candidate, Key* keys, int count, Key& threshold, int capacity, int k,
                                     int lane) {
  unsigned hits = __ballot_sync(kAllLanes, candidate > threshold);
  if (hits == 0) return count;
  if (count + __popc(hits) > capacity) {
    count = cut(keys, count, k, lane);
    if (count == k) threshold = keys[k - 1];
    hits = __ballot_sync(kAllLanes, candidate > threshold);
  }
  const int place = count + __popc(hits & ((1u << lane) - 1u));
  if (candidate > threshold) keys[place] = candidate;
  __syncwarp();
  return count + __popc(hits);
}

template <class Type>
__global__ void __launch_bounds__(kThreads, 4) score_topk_walk(TopkProblem p, int capacity, int64_t span) {
  SHARED(typename Type::Staged, users, kUserTile* Type::kStride);
  SHARED(typename Type::Staged, items, kItemTile* Type::kStride);
  SHARED(float, scores, kUserTile* kTileStride);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarpSize;
  const int warp = thread / kWarpSize;
  const int64_t first_user = static_cast<int64_t>(blockIdx.x) * kUserTile;
  const int64_t split = blockIdx.y;
  const int64_t begin = split * span;
  const int64_t end = min(begin + span, p.N);

  // Of the users warp, warp + 4, warp + 8 and warp + 12 of the block.
  int counts[kUserTile / kWarps] = {};
  Key thresholds[kUserTile / kWarps] = {};
  for (int64_t first = begin; first < end; first += kItemTile) {
    screen_tile<Type>(p, first_user, first, users, items, scores);
#pragma unroll
    for (int own = 0; own < kUserTile / kWarps; ++own) {
      const int64_t user = first_user + own * kWarps + warp;
      if (user >= p.B) continue;
      float* mine = scores + (own * kWarps + warp) * kTileStride;
      if (p.history.indptr != nullptr) add_sparse(p, user, first, mine, lane);
      Key* keys = reinterpret_cast<Key*>(p.keys) + (split * p.B + user) * capacity;
      for (int at = lane; at < kItemTile; at += kWarpSize) {
        const float least = thresholds[own] == 0 ? -INFINITY : score_of(thresholds[own]) - p.pad[user];
        const int64_t row = first + at;
        Key candidate = 0;
        // A screen that overflowed to NaN decides nothing.
        if (row < end && !(mine[at] + (p.bias == nullptr ? 0.0f : p.bias[row]) < least))
          candidate = exact_key<typename Type::Item>(p, user, row);
        counts[own] = offer(candidate, keys, counts[own], thresholds[own], capacity, p.k, lane);
      }
    }
  }
  for (int own = 0; own < kUserTile / kWarps; ++own) {
    const int64_t user = first_user + own * kWarps + warp;
    if (user >= p.B) continue;
    const int count = cut(reinterpret_cast<Key*>(p.keys) + (split * p.B + user) * capacity, counts[own], p.k, lane);
    if (lane == 0) p.counts[split * p.B + user] = count;
  }
}

// One warp a user: the lists of all parts into the first, and out.
__global__ void __launch_bounds__(kThreads, 4) score_topk_merge(TopkProblem p, int capacity) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t user = static_cast<int64_t>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / kWarpSize;
  if (user >= p.B) return;  // a whole warp, and no barrier of the block follows
  Key* keys = reinterpret_cast<Key*>(p.keys) + user * capacity;
  int count = p.counts[user];
  Key threshold = 0;
  for (int64_t split = 1; split < p.splits; ++split) {
    const Key* others = reinterpret_cast<const Key*>(p.keys) + (split * p.B + user) * capacity;
    const int n = p.counts[split * p.B + user];
    for (int first = 0; first < n; first += kWarpSize) {
      const Key candidate = first + lane < n ? others[first + lane] : 0;
      count = offer(candidate, keys, count, threshold, capacity, p.k, lane);
    }
  }
  count = cut(keys, count, p.k, lane);
  for (int place = lane; place < p.k; place += kWarpSize) {
    p.scores[user * p.k + place] = place < count ? score_of(keys[place]) : -INFINITY;
    p.rows[user * p.k + place] = place < count ? row_of(keys[place]) : -1;
  }
}

int topk_capacity(int k) {
  int capacity = 64;
  while (capacity < 2 * k) capacity *= 2;
  return capacity;
}

cudaError_t score_topk(const TopkProblem& p, TopkScreen screen, cudaStream_t stream) {
  const int64_t user_tiles = (p.B + kUserTile - 1) / kUserTile;
  if (p.B < 0 || p.N < 0 || p.N > INT32_MAX || p.D < 0 || p.item_stride < p.D || p.k < 1 || p.k > kMostTopk ||
      p.splits < 1 || p.splits > 65535 || user_tiles > INT32_MAX)
    return cudaErrorInvalidValue;
  if (p.B == 0) return cudaSuccess;
  const int capacity = topk_capacity(p.k);
  const int64_t tiles = (p.N + kItemTile - 1) / kItemTile;
  const int64_t span = (tiles + p.splits - 1) / p.splits * kItemTile;
  const dim3 grid(static_cast<unsigned>(user_tiles), static_cast<unsigned>(p.splits));
  switch (screen) {
    case TopkScreen::kFloat32: LAUNCH(score_topk_walk<Float32>, grid, dim3(kThreads), 0, stream, p, capacity, span); break;
    case TopkScreen::kTf32: LAUNCH(score_topk_walk<Tf32>, grid, dim3(kThreads), 0, stream, p, capacity, span); break;
    case TopkScreen::kHalf: LAUNCH(score_topk_walk<Half>, grid, dim3(kThreads), 0, stream, p, capacity, span); break;
    case TopkScreen::kBfloat16: LAUNCH(score_topk_walk<Bfloat16>, grid, dim3(kThreads), 0, stream, p, capacity, span); break;
  }
  const cudaError_t walked = cudaGetLastError();
  if (walked != cudaSuccess) return walked;
  const dim3 users(static_cast<unsigned>((p.B + kWarps - 1) / kWarps));
  LAUNCH(score_topk_merge, users, dim3(kThreads), 0, stream, p, capacity);
  return cudaGetLastError();
}

}  // namespace fastrec::cuda

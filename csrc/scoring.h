// Exact scores of listed items, by the definition. Shared by score_topk and score_pairs.
#pragma once

#include <cstdint>
#include <vector>

#include "ops.h"

namespace fastrec {

// A user, not an index into some list of users, and an item.
struct Pair {
  int64_t u;
  int32_t row;
};

class ExactScorer {
 public:
  ExactScorer(const Scoring& scoring, const Kernel& level) : s_(scoring), level_(level) {}

  // out[n]: the scores of these rows for user u, float32(dense + sparse + bias) with every sum in float64 and in
  // order. Rows must ascend where there is a history; repeats are fine.
  void operator()(int64_t u, const int32_t* rows, int64_t n, float* out);

  // The same in two steps, the first for many users at once: out[pairs], the dense parts in any order of pairs.
  void dense(const std::vector<Pair>& pairs, double* out);
  void total(int64_t u, const int32_t* rows, int64_t n, const double* dense, float* out);

 private:
  static constexpr int64_t kBatch = 64;  // panels

  void add_dense(int64_t u, const int32_t* rows, int64_t n);
  const float* item(int64_t row) const { return s_.panels + row / kLanes * s_.D * kLanes + row % kLanes; }
  void add_scattered(const int32_t* rows, int64_t n);
  void add_sparse(int64_t u, const int32_t* rows, int64_t n);

  const Scoring& s_;
  const Kernel& level_;
  std::vector<double> query_, lanes_, dense_, sparse_;
  std::vector<int32_t> panels_;
  std::vector<float> gathered_;  // [D, 16] items; dense: and as many queries
  std::vector<uint64_t> order_;
};

}  // namespace fastrec

// Exact scores of listed items, by the definition. Shared by score_topk and score_pairs.
#pragma once

#include <cstdint>
#include <vector>

#include "topk_sparse.h"

namespace fastrec {

// The score of its three sums. A negative zero would print and sort oddly.
inline float score_of_sums(double dense, double sparse, const float* bias, int64_t row) {
  double total = dense + sparse;
  if (bias != nullptr) total += static_cast<double>(bias[row]);
  return static_cast<float>(total) + 0.0f;
}

class ExactScorer {
 public:
  // terms: those of the users, sorted, or null.
  ExactScorer(const Scoring& scoring, const Kernel& level, const SparseTerms* terms = nullptr)
      : s_(scoring), level_(level), terms_(terms) {}

  // out[n]: the scores of these rows for user u, float32(dense + sparse + bias) with every sum in float64 and in
  // order. Rows must ascend where there is a history; repeats are fine.
  void operator()(int64_t u, const int32_t* rows, int64_t n, float* out);

 private:
  void add_sparse(int64_t u, const int32_t* rows, int64_t n);

  const Scoring& s_;
  const Kernel& level_;
  const SparseTerms* const terms_;
  std::vector<double> dense_, sparse_;
};

}  // namespace fastrec

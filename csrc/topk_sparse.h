// The sparse term of a block of items: sum_j history[u, j] * similarity[j, i], in float64 and in order of j.
//
// The terms of a user are sorted by block beforehand, each block's in order of j. A user with so many terms that
// their copies would fill the cache keeps a place in every row of the similarity instead: rows are long then.
#pragma once

#include <cstdint>
#include <vector>

#include "ops.h"

namespace fastrec {

class SparseBlocks {
 public:
  static constexpr int64_t kBlockItems = 2048;  // 64 users * 2048 items * 4 bytes = 512 KB of starts
  static constexpr int64_t kMostTerms = 1 << 15;

  explicit SparseBlocks(const Scoring& scoring) : s_(scoring) {}

  // A walk over items [first, last), with these users.
  void start(std::vector<int64_t> users, int64_t first, int64_t last);

  // init[c] = float32(sparse + bias[c]) for item first + kBlockItems * block + c and the i-th user, c < n; the
  // blocks come in order. bias may be init itself.
  void fill(int64_t i, int64_t block, int64_t n, const float* bias, float* init);

 private:
  struct Term {
    double value;
    uint32_t column;  // from the first item of the walk on
  };

  template <typename Body>
  void for_terms(int64_t u, const Body& body) const;
  void sort_terms(int64_t i);
  void walk_rows(int64_t i, int64_t block, int64_t n);

  const Scoring& s_;
  int64_t first_ = 0, last_ = 0, n_blocks_ = 0;
  std::vector<int64_t> users_;
  // Of sorted users: [user][block + 1], where the terms of the block begin; of the others -1.
  std::vector<int64_t> starts_;
  std::vector<Term> terms_, found_;
  // Of the others: the next entry of every row of their history.
  std::vector<int64_t> places_, place_of_;
  std::vector<int64_t> counts_;
  std::vector<double> sums_;
  std::vector<int32_t> touched_;
};

}  // namespace fastrec

// The best items of users without dense terms.
#pragma once

#include <vector>

#include "topk_candidates.h"
#include "topk_sparse.h"

namespace fastrec {

class SparseSearch {
 public:
  explicit SparseSearch(const TopkArgs& args);

  // Keys of the best k items of user u, the best first.
  void run(int64_t u, std::vector<uint64_t>& found);

 private:
  void add(int64_t u, int32_t row, double sparse);
  void add_untouched(int64_t u);
  bool touched(int32_t row) const { return is_touched_[row / 64] >> row % 64 & 1; }

  const TopkArgs& a_;
  SparseBlocks blocks_;
  const size_t k_;
  float most_untouched_;             // score that an item without terms can have
  std::vector<double> sums_;         // of a block; all 0 between two
  std::vector<uint32_t> columns_;    // of the block, where there were terms
  std::vector<int32_t> rows_;        // with a sum that is not 0
  std::vector<uint64_t> is_touched_, pool_;
  uint64_t cut_ = 0;                 // a key has to be larger
};

}  // namespace fastrec

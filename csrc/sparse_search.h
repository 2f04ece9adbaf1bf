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
  template <typename Body>
  void for_sums(int64_t u, const Body& body);
  void add(int64_t u, int32_t row, float score);
  void add_untouched(int64_t u);

  const TopkArgs& a_;
  const size_t k_;
  float most_untouched_;           // score that an item without terms can have
  std::vector<double> sums_;       // of a block; all 0 between two
  std::vector<uint32_t> columns_;  // of the block, where there were terms
  std::vector<uint64_t> is_touched_, pool_;
  float cut_ = -kInf;              // a score has to be as large
};

}  // namespace fastrec

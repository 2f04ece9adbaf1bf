#include "sparse_search.h"

#include <functional>

#include "scoring.h"

namespace fastrec {

SparseSearch::SparseSearch(const TopkArgs& args)
    : a_(args), blocks_(args.s), k_(static_cast<size_t>(std::min(args.k, args.s.N))),
      most_untouched_(args.s.bias == nullptr ? 0.0f : *std::max_element(args.s.bias, args.s.bias + args.s.N)),
      sums_(SparseBlocks::kBlockItems), is_touched_(args.s.N / 64 + 1) {}

void SparseSearch::run(int64_t u, std::vector<uint64_t>& found) {
  pool_.clear(), rows_.clear();
  cut_ = 0;
  blocks_.start({u}, 0, a_.s.N);
  for (int64_t b = 0; b < blocks_.n_blocks(); ++b) {
    columns_.clear();
    blocks_.for_block(0, b, [&](uint32_t column, double term) {
      sums_[column] += term;
      columns_.push_back(column);
    });
    for (const uint32_t column : columns_) {
      const double sum = sums_[column];
      if (sum == 0.0) continue;  // touched twice, or as good as untouched
      sums_[column] = 0.0;
      const int32_t row = static_cast<int32_t>(b * SparseBlocks::kBlockItems + column);
      rows_.push_back(row);
      add(u, row, sum);
    }
  }
  if (pool_.size() < k_ || score_of(*std::min_element(pool_.begin(), pool_.end())) <= most_untouched_) add_untouched(u);
  std::sort(pool_.begin(), pool_.end(), std::greater<uint64_t>());
  if (pool_.size() > k_) pool_.resize(k_);
  found = pool_;
}

void SparseSearch::add(int64_t u, int32_t row, double sparse) {
  if (a_.s.bias != nullptr && a_.s.bias[row] == -kInf) return;
  const uint64_t key = to_key(score_of_sums(0.0, sparse, a_.s.bias, row), row);
  if (key <= cut_ || !may_get(a_, u, row)) return;
  pool_.push_back(key);
  if (pool_.size() < 2 * k_ + 64) return;
  std::nth_element(pool_.begin(), pool_.begin() + (k_ - 1), pool_.end(), std::greater<uint64_t>());
  pool_.resize(k_);
  cut_ = pool_[k_ - 1];
}

// An item without terms has its bias for a score.
void SparseSearch::add_untouched(int64_t u) {
  for (const int32_t row : rows_) is_touched_[row / 64] |= uint64_t{1} << row % 64;
  if (a_.allow) {
    for (int64_t e = a_.allow.indptr[u]; e < a_.allow.indptr[u + 1]; ++e)
      if (!touched(a_.allow.rows[e])) add(u, a_.allow.rows[e], 0.0);
  } else {
    // Without a bias all of them are equal: the first that the user may get are the best.
    const size_t wanted = a_.s.bias == nullptr ? pool_.size() + k_ : static_cast<size_t>(-1);
    size_t added = pool_.size();
    for (int32_t row = 0; row < a_.s.N && added < wanted; ++row) {
      if (touched(row)) continue;
      if (a_.s.bias == nullptr && !may_get(a_, u, row)) continue;
      add(u, row, 0.0);
      ++added;
    }
  }
  for (const int32_t row : rows_) is_touched_[row / 64] = 0;
}

}  // namespace fastrec

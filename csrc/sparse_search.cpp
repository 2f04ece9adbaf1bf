#include "sparse_search.h"

#include <functional>

#include "scoring.h"

namespace fastrec {

SparseSearch::SparseSearch(const TopkArgs& args)
    : a_(args), k_(static_cast<size_t>(std::min(args.k, args.s.N))),
      most_untouched_(args.s.bias == nullptr ? 0.0f : *std::max_element(args.s.bias, args.s.bias + args.s.N)),
      sums_(SparseTerms::kBlockItems) {}

void SparseSearch::run(int64_t u, std::vector<uint64_t>& found) {
  pool_.clear();
  cut_ = -kInf;
  for_sums(u, [this, u](int32_t row, double sum) {
    const float score = score_of_sums(0.0, sum, a_.s.bias, row);
    if (score >= cut_) add(u, row, score);
  });
  if (pool_.size() < k_ || score_of(*std::min_element(pool_.begin(), pool_.end())) <= most_untouched_) add_untouched(u);
  std::sort(pool_.begin(), pool_.end(), std::greater<uint64_t>());
  if (pool_.size() > k_) pool_.resize(k_);
  found = pool_;
}

// Calls body(row, sum) for every item whose terms have a sum other than 0; the others are as good as untouched.
template <typename Body>
void SparseSearch::for_sums(int64_t u, const Body& body) {
  SparseTerms terms(a_.s, u, 1);
  terms.sort_all(1);
  SparseWalk walk(a_.s, terms);
  walk.start({u}, 0);
  double* const sums = sums_.data();
  for (int64_t b = 0; b < terms.n_blocks(); ++b) {
    columns_.clear();
    walk.for_block(0, b, [this, sums](uint32_t column, float history, float similarity) {
      sums[column] += static_cast<double>(history) * static_cast<double>(similarity);
      columns_.push_back(column);
    });
    const int32_t first = static_cast<int32_t>(b * SparseTerms::kBlockItems);
    for (const uint32_t column : columns_) {
      const double sum = sums[column];
      if (sum == 0.0) continue;  // or its second term
      sums[column] = 0.0;
      body(first + static_cast<int32_t>(column), sum);
    }
  }
}

void SparseSearch::add(int64_t u, int32_t row, float score) {
  if (score == -kInf || !may_get(a_, u, row)) return;
  pool_.push_back(to_key(score, row));
  if (pool_.size() < 2 * k_ + 64) return;
  std::nth_element(pool_.begin(), pool_.begin() + (k_ - 1), pool_.end(), std::greater<uint64_t>());
  pool_.resize(k_);
  cut_ = score_of(pool_[k_ - 1]);
}

// An item without terms has its bias for a score.
void SparseSearch::add_untouched(int64_t u) {
  is_touched_.assign(a_.s.N / 64 + 1, 0);
  for_sums(u, [this](int32_t row, double) { is_touched_[row / 64] |= uint64_t{1} << row % 64; });
  const float* const bias = a_.s.bias;
  const auto add_one = [&](int32_t row) {
    const float score = bias == nullptr ? 0.0f : bias[row] + 0.0f;
    if (score >= cut_ && !(is_touched_[row / 64] >> row % 64 & 1)) add(u, row, score);
  };
  if (a_.allow) {
    for (int64_t e = a_.allow.indptr[u]; e < a_.allow.indptr[u + 1]; ++e) add_one(a_.allow.rows[e]);
    return;
  }
  // Without a bias all of them are equal: the first k that the user may get are enough.
  const size_t enough = bias == nullptr ? pool_.size() + k_ : static_cast<size_t>(-1);
  for (int32_t row = 0; row < a_.s.N && pool_.size() < enough; ++row) add_one(row);
}

}  // namespace fastrec

#include "topk_sparse.h"

namespace fastrec {

void SparseBlocks::start(std::vector<int64_t> users, int64_t first, int64_t last) {
  users_ = std::move(users);
  first_ = first, last_ = last;
  n_blocks_ = (last - first + kBlockItems - 1) / kBlockItems;
  starts_.assign(users_.size() * (n_blocks_ + 1), -1);
  terms_.clear(), places_.clear(), place_of_.clear();
  for (size_t i = 0; i < users_.size(); ++i) {
    const int64_t u = users_[i];
    int64_t n_terms = 0;
    for (int64_t h = s_.history.indptr[u]; h < s_.history.indptr[u + 1]; ++h)
      n_terms += s_.similarity.size(s_.history.rows[h]);
    place_of_.push_back(static_cast<int64_t>(places_.size()));
    if (n_terms <= kMostTerms) {
      if (i + 1 < users_.size()) fetch(users_[i + 1]);
      sort_terms(static_cast<int64_t>(i));
      continue;
    }
    const int32_t* columns = s_.similarity.rows;
    for (int64_t h = s_.history.indptr[u]; h < s_.history.indptr[u + 1]; ++h) {
      const int64_t j = s_.history.rows[h];
      const int32_t* end = columns + s_.similarity.indptr[j + 1];
      places_.push_back(std::lower_bound(columns + s_.similarity.indptr[j], end, first) - columns);
    }
  }
}

// Calls body(weight, first, last) for the entries of every row of the history in the items of the walk.
template <typename Body>
void SparseBlocks::for_rows(int64_t u, const Body& body) const {
  const int32_t* columns = s_.similarity.rows;
  for (int64_t h = s_.history.indptr[u]; h < s_.history.indptr[u + 1]; ++h) {
    const int64_t j = s_.history.rows[h];
    const int32_t *begin = columns + s_.similarity.indptr[j], *end = columns + s_.similarity.indptr[j + 1];
    if (first_ > 0) begin = std::lower_bound(begin, end, first_);
    if (begin < end && end[-1] >= last_) end = std::lower_bound(begin, end, last_);
    body(static_cast<double>(s_.history.values[h]), begin - columns, end - columns);
  }
}

// Rows lie anywhere in memory: all of them are asked for before the first is needed.
void SparseBlocks::fetch(int64_t u) const {
  constexpr int64_t kLine = 64 / sizeof(int32_t), kMostLines = 8;
  const int64_t end = s_.history.indptr[u + 1];
  for (int64_t h = s_.history.indptr[u]; h < end; ++h) {
    const int64_t j = s_.history.rows[h], first = s_.similarity.indptr[j];
    const int64_t last = std::min(s_.similarity.indptr[j + 1], first + kMostLines * kLine);
    for (int64_t e = first; e < last; e += kLine) {
      __builtin_prefetch(s_.similarity.rows + e);
      __builtin_prefetch(s_.similarity.values + e);
    }
  }
}

// A counting sort by block.
void SparseBlocks::sort_terms(int64_t i) {
  const int64_t u = users_[i];
  const uint32_t first = static_cast<uint32_t>(first_);
  int64_t* starts = starts_.data() + i * (n_blocks_ + 1);
  counts_.assign(n_blocks_ + 1, 0);
  int64_t* const counts = counts_.data();
  const int32_t* const columns = s_.similarity.rows;
  const float* const values = s_.similarity.values;
  for_rows(u, [=](double, int64_t e, int64_t last) {
    for (; e < last; ++e) ++counts[(static_cast<uint32_t>(columns[e]) - first) / kBlockItems];
  });
  int64_t total = static_cast<int64_t>(terms_.size());
  for (int64_t b = 0; b <= n_blocks_; ++b) {
    starts[b] = total;
    total += counts[b];
    counts[b] = starts[b];
  }
  terms_.resize(total);
  Term* const terms = terms_.data();
  for_rows(u, [=](double weight, int64_t e, int64_t last) {
    for (; e < last; ++e) {
      const uint32_t column = static_cast<uint32_t>(columns[e]) - first;
      terms[counts[column / kBlockItems]++] = {weight * static_cast<double>(values[e]), column};
    }
  });
}

}  // namespace fastrec

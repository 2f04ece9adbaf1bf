#include "topk_sparse.h"

#include <algorithm>
#include <cstring>

namespace fastrec {

void SparseBlocks::start(std::vector<int64_t> users, int64_t first, int64_t last) {
  users_ = std::move(users);
  first_ = first, last_ = last;
  n_blocks_ = (last - first + kBlockItems - 1) / kBlockItems;
  starts_.assign(users_.size() * (n_blocks_ + 1), -1);
  terms_.clear(), places_.clear(), place_of_.clear();
  sums_.assign(kBlockItems, 0.0);
  for (size_t i = 0; i < users_.size(); ++i) {
    const int64_t u = users_[i];
    int64_t n_terms = 0;
    for (int64_t h = s_.history.indptr[u]; h < s_.history.indptr[u + 1]; ++h)
      n_terms += s_.similarity.size(s_.history.rows[h]);
    place_of_.push_back(static_cast<int64_t>(places_.size()));
    if (n_terms <= kMostTerms) {
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

// Calls body(weight, e) for the terms of user u in the items of the walk. Rows lie anywhere in memory: the next ones
// are asked for early.
template <typename Body>
void SparseBlocks::for_terms(int64_t u, const Body& body) const {
  constexpr int64_t kRowsAhead = 4, kLine = 64 / sizeof(int32_t);
  const int32_t* columns = s_.similarity.rows;
  const int64_t end = s_.history.indptr[u + 1];
  for (int64_t h = s_.history.indptr[u]; h < end; ++h) {
    const int64_t ahead = s_.history.rows[std::min(h + kRowsAhead, end - 1)];
    for (int64_t e = s_.similarity.indptr[ahead], n = 0; e < s_.similarity.indptr[ahead + 1] && n < 4; e += kLine, ++n) {
      __builtin_prefetch(columns + e);
      __builtin_prefetch(s_.similarity.values + e);
    }
    const double weight = s_.history.values[h];
    const int64_t last = s_.similarity.indptr[s_.history.rows[h] + 1];
    int64_t e = s_.similarity.indptr[s_.history.rows[h]];
    if (first_ > 0) e = std::lower_bound(columns + e, columns + last, first_) - columns;
    for (; e < last && columns[e] < last_; ++e) body(weight, e);
  }
}

// A counting sort by block.
void SparseBlocks::sort_terms(int64_t i) {
  const int64_t u = users_[i];
  const uint32_t first = static_cast<uint32_t>(first_);
  int64_t* starts = starts_.data() + i * (n_blocks_ + 1);
  counts_.assign(n_blocks_ + 1, 0);
  found_.resize(kMostTerms);
  int64_t* const counts = counts_.data();
  Term* const begin = found_.data();
  Term* end = begin;
  for_terms(u, [&, first](double weight, int64_t e) {
    const uint32_t column = static_cast<uint32_t>(s_.similarity.rows[e]) - first;
    ++counts[column / kBlockItems];
    *end++ = {weight * static_cast<double>(s_.similarity.values[e]), column};
  });
  int64_t total = static_cast<int64_t>(terms_.size());
  for (int64_t b = 0; b <= n_blocks_; ++b) {
    starts[b] = total;
    total += counts_[b];
    counts_[b] = starts[b];
  }
  terms_.resize(total);
  Term* const terms = terms_.data();
  for (const Term* term = begin; term < end; ++term) terms[counts[term->column / kBlockItems]++] = *term;
}

void SparseBlocks::walk_rows(int64_t i, int64_t block, int64_t n) {
  const int64_t u = users_[i], first = first_ + block * kBlockItems;
  int64_t* place = places_.data() + place_of_[i];
  for (int64_t h = s_.history.indptr[u]; h < s_.history.indptr[u + 1]; ++h, ++place) {
    const double weight = s_.history.values[h];
    const int64_t last = s_.similarity.indptr[s_.history.rows[h] + 1];
    int64_t e = *place;
    for (; e < last && s_.similarity.rows[e] < first + n; ++e) {
      const int32_t column = static_cast<int32_t>(s_.similarity.rows[e] - first);
      sums_[column] += weight * static_cast<double>(s_.similarity.values[e]);
      touched_.push_back(column);
    }
    *place = e;
  }
}

void SparseBlocks::fill(int64_t i, int64_t block, int64_t n, const float* bias, float* init) {
  touched_.clear();
  const int64_t* starts = starts_.data() + i * (n_blocks_ + 1) + block;
  if (starts[0] < 0) {
    walk_rows(i, block, n);
  } else {
    touched_.resize(starts[1] - starts[0]);
    int32_t* touched = touched_.data();
    double* const sums = sums_.data();
    for (const Term *term = terms_.data() + starts[0], *end = terms_.data() + starts[1]; term < end; ++term) {
      const int32_t column = static_cast<int32_t>(term->column % kBlockItems);
      sums[column] += term->value;
      *touched++ = column;
    }
  }
  if (init != bias) std::memcpy(init, bias, n * sizeof(float));
  for (const int32_t c : touched_) {
    if (sums_[c] == 0.0) continue;  // touched twice, or a sum of zero
    init[c] = static_cast<float>(sums_[c] + static_cast<double>(init[c]));
    sums_[c] = 0.0;
  }
}

}  // namespace fastrec

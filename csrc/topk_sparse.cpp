#include "topk_sparse.h"

namespace fastrec {

void SparseTerms::sort_all(int threads) {
  constexpr int64_t kUsersPerTask = 8;
  const int64_t n = static_cast<int64_t>(users_.size());
  parallel_for((n + kUsersPerTask - 1) / kUsersPerTask, threads, [&](int64_t task) {
    for (int64_t i = task * kUsersPerTask; i < std::min(n, (task + 1) * kUsersPerTask); ++i) sort(first_user_ + i);
  });
}

// Rows lie anywhere in memory: their beginning is asked for early.
void SparseTerms::fetch(int64_t j) const {
  constexpr int64_t kLine = 64 / sizeof(int32_t), kMostLines = 8;
  const int64_t first = s_.similarity.indptr[j], last = s_.similarity.indptr[j + 1];
  for (int64_t e = first; e < std::min(last, first + kMostLines * kLine); e += kLine) {
    __builtin_prefetch(s_.similarity.rows + e);
    __builtin_prefetch(s_.similarity.values + e);
  }
}

// A counting sort by block.
void SparseTerms::sort(int64_t u) {
  constexpr int64_t kRowsAhead = 6;
  User& user = users_[u - first_user_];
  const int64_t* const indptr = s_.similarity.indptr;
  const int64_t begin = s_.history.indptr[u], end = s_.history.indptr[u + 1];
  int64_t n_terms = 0;
  for (int64_t h = begin; h < end; ++h) n_terms += s_.similarity.size(s_.history.rows[h]);
  if (n_terms > kMostTerms || end - begin > kMostHistory) return;
  user.starts.assign(n_blocks() + 2, 0);
  int64_t* const next = user.starts.data() + 1;  // one block late: the sort itself moves the starts into place
  const int32_t* const columns = s_.similarity.rows;
  for (int64_t h = begin; h < end; ++h) {
    const int64_t last = indptr[s_.history.rows[h] + 1];
    fetch(s_.history.rows[std::min(h + kRowsAhead, end - 1)]);
    for (int64_t e = indptr[s_.history.rows[h]]; e < last; ++e)
      ++next[static_cast<uint32_t>(columns[e]) / kBlockItems + 1];
  }
  for (int64_t b = 1; b <= n_blocks(); ++b) next[b] += next[b - 1];
  user.terms.reset(new Term[std::max<int64_t>(n_terms, 1)]);
  Term* const terms = user.terms.get();
  for (int64_t h = begin; h < end; ++h) {
    const int64_t last = indptr[s_.history.rows[h] + 1];
    for (int64_t e = indptr[s_.history.rows[h]]; e < last; ++e) {
      const uint32_t column = static_cast<uint32_t>(columns[e]);
      terms[next[column / kBlockItems]++] = {s_.similarity.values[e], static_cast<uint16_t>(column % kBlockItems),
                                             static_cast<uint16_t>(h - begin)};
    }
  }
}

void SparseTerms::sums(int64_t u, const int32_t* rows, int64_t n, double* out) const {
  const float* const weights = s_.history.values + s_.history.indptr[u];
  for (int64_t i = 0; i < n; ++i) {
    if (i > 0 && rows[i] == rows[i - 1]) {
      out[i] = out[i - 1];
      continue;
    }
    const int64_t column = rows[i] % kBlockItems;
    double sum = 0.0;
    for (const Term *term = begin(u, rows[i] / kBlockItems), *last = end(u, rows[i] / kBlockItems); term < last; ++term)
      if (term->column == column)
        sum += static_cast<double>(weights[term->history]) * static_cast<double>(term->similarity);
    out[i] = sum;
  }
}

void SparseWalk::start(const std::vector<int64_t>& users, int64_t first) {
  users_ = users;
  places_.clear(), place_of_.clear();
  const int32_t* columns = s_.similarity.rows;
  for (const int64_t u : users_) {
    place_of_.push_back(static_cast<int64_t>(places_.size()));
    if (t_.sorted(u)) continue;
    for (int64_t h = s_.history.indptr[u]; h < s_.history.indptr[u + 1]; ++h) {
      const int64_t j = s_.history.rows[h];
      const int32_t* end = columns + s_.similarity.indptr[j + 1];
      places_.push_back(std::lower_bound(columns + s_.similarity.indptr[j], end, first) - columns);
    }
  }
}

}  // namespace fastrec

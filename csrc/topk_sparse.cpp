#include "topk_sparse.h"

namespace fastrec {

void SparseTerms::sort_all(int threads) {
  constexpr int64_t kUsersPerTask = 8;
  const int64_t n = static_cast<int64_t>(users_.size());
  const auto for_users = [&](void (SparseTerms::*body)(int64_t)) {
    parallel_for((n + kUsersPerTask - 1) / kUsersPerTask, threads, [&](int64_t task) {
      const int64_t end = std::min(n, (task + 1) * kUsersPerTask);
      for (int64_t i = task * kUsersPerTask; i < end; ++i) (this->*body)(first_user_ + i);
    });
  };
  for_users(&SparseTerms::count);
  int64_t total = 0;
  for (User& user : users_) {
    user.first = total;
    total += std::max<int64_t>(user.n_terms, 0);
  }
  terms_.grow(total);
  for_users(&SparseTerms::sort);
}

void SparseTerms::count(int64_t u) {
  const int64_t begin = s_.history.indptr[u], end = s_.history.indptr[u + 1];
  int64_t n_terms = 0;
  for (int64_t h = begin; h < end; ++h) n_terms += s_.similarity.size(s_.history.rows[h]);
  users_[u - first_user_].n_terms = n_terms > kMostTerms || end - begin > kMostHistory ? -1 : n_terms;
}

// Rows lie anywhere in memory: where they begin, and their beginning, are asked for early.
void SparseTerms::fetch(int64_t j) const {
  constexpr int64_t kLine = 64 / sizeof(int32_t), kMostLines = 8;
  const int64_t first = s_.similarity.indptr[j], last = s_.similarity.indptr[j + 1];
  for (int64_t e = first; e < std::min(last, first + kMostLines * kLine); e += kLine) {
    __builtin_prefetch(s_.similarity.rows + e);
    __builtin_prefetch(s_.similarity.values + e);
  }
}

// A counting sort by block, of a copy: copying waits for several rows at a time, counting would wait for each.
void SparseTerms::sort(int64_t u) {
  constexpr int64_t kRowsAhead = 6;
  if (!sorted(u)) return;
  const int64_t begin = s_.history.indptr[u], end = s_.history.indptr[u + 1];
  const int64_t n = users_[u - first_user_].n_terms;
  Scratch<Term, Copy> copy(n);
  Scratch<uint32_t, Copy> blocks(n);
  int64_t* const starts = starts_.data() + (u - first_user_) * (n_blocks() + 2);
  std::fill_n(starts, n_blocks() + 2, 0);
  int64_t* const next = starts + 1;  // one block late: the sort itself moves the starts into place
  int64_t at = 0;
  for (int64_t h = begin; h < end; ++h) __builtin_prefetch(s_.similarity.indptr + s_.history.rows[h]);
  for (int64_t h = begin; h < std::min(end, begin + kRowsAhead); ++h) fetch(s_.history.rows[h]);
  for (int64_t h = begin; h < end; ++h) {
    fetch(s_.history.rows[std::min(h + kRowsAhead, end - 1)]);
    const int64_t j = s_.history.rows[h], first = s_.similarity.indptr[j], size = s_.similarity.size(j);
    const int32_t* const columns = s_.similarity.rows + first;
    const float* const values = s_.similarity.values + first;
    for (int64_t e = 0; e < size; ++e) {
      const uint32_t column = static_cast<uint32_t>(columns[e]);
      copy.data()[at + e] = {values[e], static_cast<uint16_t>(column % kBlockItems), static_cast<uint16_t>(h - begin)};
      blocks.data()[at + e] = column / kBlockItems;
    }
    at += size;
  }
  for (int64_t e = 0; e < n; ++e) ++next[blocks.data()[e] + 1];
  for (int64_t b = 1; b <= n_blocks(); ++b) next[b] += next[b - 1];
  Term* const terms = terms_.data() + users_[u - first_user_].first;
  for (int64_t e = 0; e < n; ++e) terms[next[blocks.data()[e]]++] = copy.data()[e];
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

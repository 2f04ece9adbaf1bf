#include "scoring.h"

#include <algorithm>

namespace fastrec {

void ExactScorer::operator()(int64_t u, const int32_t* rows, int64_t n, float* out) {
  dense_.assign(n, 0.0), sparse_.assign(n, 0.0);
  if (s_.D > 0) level_.exact(s_.items, s_.D, rows, n, s_.queries + u * s_.D, dense_.data());
  if (s_.history) {
    if (terms_ != nullptr && terms_->sorted(u) && n < terms_->n_blocks()) {
      terms_->sums(u, rows, n, sparse_.data());
    } else {
      add_sparse(u, rows, n);
    }
  }
  for (int64_t i = 0; i < n; ++i) out[i] = score_of_sums(dense_[i], sparse_[i], s_.bias, rows[i]);
}

// A few rows against rows of the similarity that are not much longer: most of their entries are told apart by a
// small table of bits. Otherwise whichever is shorter, the list or the similarity row, is looked up in the other.
void ExactScorer::add_sparse(int64_t u, const int32_t* rows, int64_t n) {
  constexpr uint32_t kBits = 4096;
  const int32_t* const columns = s_.similarity.rows;
  const bool few = n <= kBits / 16;
  uint64_t bits[kBits / 64] = {};
  for (int64_t i = 0; few && i < n; ++i) bits[rows[i] % kBits / 64] |= uint64_t{1} << rows[i] % 64;
  for (int64_t h = s_.history.indptr[u]; h < s_.history.indptr[u + 1]; ++h) {
    const double weight = s_.history.values[h];
    const int64_t first = s_.similarity.indptr[s_.history.rows[h]];
    const int64_t last = s_.similarity.indptr[s_.history.rows[h] + 1];
    const auto add = [&](const int32_t* row, int64_t e) {
      for (; row < rows + n && *row == columns[e]; ++row)
        sparse_[row - rows] += weight * static_cast<double>(s_.similarity.values[e]);
    };
    if (few && last - first < 16 * n) {
      for (int64_t e = first; e < last; ++e)
        if (bits[columns[e] % kBits / 64] >> columns[e] % 64 & 1) add(std::lower_bound(rows, rows + n, columns[e]), e);
    } else if (n < last - first) {
      const int32_t* at = columns + first;
      for (int64_t i = 0; i < n; ++i) {
        at = std::lower_bound(at, columns + last, rows[i]);
        for (const int32_t* c = at; c < columns + last && *c == rows[i]; ++c)
          sparse_[i] += weight * static_cast<double>(s_.similarity.values[c - columns]);
      }
    } else {
      const int32_t* at = rows;
      for (int64_t e = first; e < last; ++e) {
        at = std::lower_bound(at, rows + n, columns[e]);
        add(at, e);
      }
    }
  }
}

}  // namespace fastrec

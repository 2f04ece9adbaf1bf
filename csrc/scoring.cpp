#include "scoring.h"

#include <algorithm>

namespace fastrec {

void ExactScorer::operator()(int64_t u, const int32_t* rows, int64_t n, float* out) {
  dense_.assign(n, 0.0);
  sparse_.assign(n, 0.0);
  if (s_.D > 0) add_dense(u, rows, n);
  if (s_.history) add_sparse(u, rows, n);
  for (int64_t i = 0; i < n; ++i) {
    double total = dense_[i] + sparse_[i];
    if (s_.bias != nullptr) total += static_cast<double>(s_.bias[rows[i]]);
    out[i] = static_cast<float>(total) + 0.0f;  // no negative zero: it would print and sort oddly
  }
}

// An item costs the reading of its whole panel, whose 16 lanes lie in the same cache lines; so all lanes are
// computed, and rows next to one another share the work.
void ExactScorer::add_dense(int64_t u, const int32_t* rows, int64_t n) {
  constexpr int64_t kBatch = 64;
  query_.assign(s_.queries + u * s_.D, s_.queries + (u + 1) * s_.D);
  lanes_.resize(kBatch * kLanes);
  for (int64_t begin = 0, i = 0; begin < n; begin = i) {
    panels_.clear();
    for (i = begin; i < n; ++i) {
      const int32_t panel = rows[i] / kLanes;
      if (!panels_.empty() && panels_.back() == panel) continue;
      if (static_cast<int64_t>(panels_.size()) == kBatch) break;
      panels_.push_back(panel);
    }
    level_.exact(s_.panels, s_.D, panels_.data(), static_cast<int64_t>(panels_.size()), query_.data(),
                 lanes_.data());
    int64_t slot = -1;
    int32_t previous = -1;
    for (int64_t j = begin; j < i; ++j) {
      const int32_t panel = rows[j] / kLanes;
      if (panel != previous) ++slot, previous = panel;
      dense_[j] = lanes_[slot * kLanes + rows[j] % kLanes];
    }
  }
}

// Whichever is shorter, the list or the similarity row, is looked up in the other.
void ExactScorer::add_sparse(int64_t u, const int32_t* rows, int64_t n) {
  const int32_t* const end = rows + n;
  for (int64_t h = s_.history.indptr[u]; h < s_.history.indptr[u + 1]; ++h) {
    const double weight = s_.history.values[h];
    const int64_t first = s_.similarity.indptr[s_.history.rows[h]];
    const int64_t last = s_.similarity.indptr[s_.history.rows[h] + 1];
    const int32_t* const columns = s_.similarity.rows;
    if (n < last - first) {
      const int32_t* at = columns + first;
      for (int64_t i = 0; i < n; ++i) {
        at = std::lower_bound(at, columns + last, rows[i]);
        for (const int32_t* c = at; c < columns + last && *c == rows[i]; ++c)
          sparse_[i] += weight * static_cast<double>(s_.similarity.values[c - columns]);
      }
    } else {
      const int32_t* at = rows;
      for (int64_t e = first; e < last; ++e) {
        at = std::lower_bound(at, end, columns[e]);
        for (const int32_t* r = at; r < end && *r == columns[e]; ++r)
          sparse_[r - rows] += weight * static_cast<double>(s_.similarity.values[e]);
      }
    }
  }
}

}  // namespace fastrec

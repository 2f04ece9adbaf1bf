#include "scoring.h"

#include <algorithm>

namespace fastrec {
namespace {

// out [dims, 16]: 16 vectors side by side, coordinate d of each at [d * stride]. Four at a time: reading one alone
// would wait for memory.
void gather(const float* const* from, int64_t stride, int64_t dims, float* out) {
  for (int lane = 0; lane < kLanes; lane += 4) {
    const float *a = from[lane], *b = from[lane + 1], *c = from[lane + 2], *e = from[lane + 3];
    float* to = out + lane;
    for (int64_t d = 0; d < dims; ++d, to += kLanes) {
      to[0] = a[d * stride], to[1] = b[d * stride];
      to[2] = c[d * stride], to[3] = e[d * stride];
    }
  }
}

}  // namespace

void ExactScorer::operator()(int64_t u, const int32_t* rows, int64_t n, float* out) {
  dense_.assign(n, 0.0);
  if (s_.D > 0) add_dense(u, rows, n);
  total(u, rows, n, dense_.data(), out);
}

void ExactScorer::total(int64_t u, const int32_t* rows, int64_t n, const double* dense, float* out) {
  sparse_.assign(n, 0.0);
  if (s_.history) add_sparse(u, rows, n);
  for (int64_t i = 0; i < n; ++i) {
    double total = dense[i] + sparse_[i];
    if (s_.bias != nullptr) total += static_cast<double>(s_.bias[rows[i]]);
    out[i] = static_cast<float>(total) + 0.0f;  // no negative zero: it would print and sort oddly
  }
}

// A panel that several users want is read from memory once, as the pairs come in order of the rows; 16 pairs at a
// time are copied side by side.
void ExactScorer::dense(const std::vector<Pair>& pairs, double* out) {
  const int64_t D = s_.D, n = static_cast<int64_t>(pairs.size());
  if (D == 0) return std::fill(out, out + n, 0.0);
  order_.resize(n);
  for (int64_t i = 0; i < n; ++i) order_[i] = static_cast<uint64_t>(pairs[i].row) << 32 | static_cast<uint64_t>(i);
  std::sort(order_.begin(), order_.end());
  gathered_.resize(2 * D * kLanes);
  float* queries = gathered_.data() + D * kLanes;
  lanes_.resize(kBatch * kLanes);
  for (int64_t begin = 0; begin < n; begin += kLanes) {
    const int64_t count = std::min<int64_t>(kLanes, n - begin);
    const float* items[kLanes];
    const float* users[kLanes];
    for (int64_t lane = 0; lane < kLanes; ++lane) {  // the last pair fills the lanes that are left
      const Pair& pair = pairs[order_[begin + std::min(lane, count - 1)] & 0xffffffffu];
      items[lane] = item(pair.row);
      users[lane] = s_.queries + pair.u * D;
    }
    gather(items, kLanes, D, gathered_.data());
    gather(users, 1, D, queries);
    level_.exact_pairs(gathered_.data(), D, queries, lanes_.data());
    for (int64_t lane = 0; lane < count; ++lane) out[order_[begin + lane] & 0xffffffffu] = lanes_[lane];
  }
}

// Items that lie together in panels are scored where they are. Scattered ones are copied into a panel of their own
// first: 15 of the 16 lanes would be computed in vain.
void ExactScorer::add_dense(int64_t u, const int32_t* rows, int64_t n) {
  query_.assign(s_.queries + u * s_.D, s_.queries + (u + 1) * s_.D);
  lanes_.resize(kBatch * kLanes);
  int64_t panels = 0;
  int32_t previous = -1;
  for (int64_t i = 0; i < n; ++i) {
    panels += rows[i] / kLanes != previous;
    previous = rows[i] / kLanes;
  }
  if (n < 4 * panels) return add_scattered(rows, n);
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
    previous = -1;
    for (int64_t j = begin; j < i; ++j) {
      const int32_t panel = rows[j] / kLanes;
      if (panel != previous) ++slot, previous = panel;
      dense_[j] = lanes_[slot * kLanes + rows[j] % kLanes];
    }
  }
}

void ExactScorer::add_scattered(const int32_t* rows, int64_t n) {
  const int64_t D = s_.D;
  gathered_.resize(D * kLanes);
  const int32_t only = 0;
  for (int64_t begin = 0; begin < n; begin += kLanes) {
    const int64_t count = std::min<int64_t>(kLanes, n - begin);
    const float* items[kLanes];
    for (int64_t lane = 0; lane < kLanes; ++lane) items[lane] = item(rows[begin + std::min(lane, count - 1)]);
    gather(items, kLanes, D, gathered_.data());
    level_.exact(gathered_.data(), D, &only, 1, query_.data(), lanes_.data());
    std::copy_n(lanes_.begin(), count, dense_.begin() + begin);
  }
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

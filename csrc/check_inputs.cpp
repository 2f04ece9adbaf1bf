// What Python asks about its inputs at every call, in one pass each. Where something is wrong, Python finds the words.
#include <algorithm>
#include <cmath>

#include "ops.h"

namespace fastrec {

namespace {

double square(float x) { return static_cast<double>(x) * static_cast<double>(x); }

}  // namespace

Order check_lists(Csr lists, int64_t n_rows, int64_t n_entries, int64_t n_cols) {
  if (lists.indptr[0] != 0 || lists.indptr[n_rows] != n_entries) return Order::kBroken;
  for (int64_t r = 0; r < n_rows; ++r)
    if (lists.indptr[r + 1] < lists.indptr[r]) return Order::kBroken;
  bool wild = false, falls = false, repeats = false;
  for (int64_t r = 0; r < n_rows; ++r) {
    int64_t before = -1;
    for (int64_t e = lists.indptr[r]; e < lists.indptr[r + 1]; ++e) {
      const int64_t row = lists.rows[e];
      wild |= row < 0 || row >= n_cols;
      falls |= row < before, repeats |= row == before;
      before = row;
    }
  }
  return wild ? Order::kBroken : falls ? Order::kNone : repeats ? Order::kAscending : Order::kStrict;
}

double scaled_lengths(const float* values, int64_t n, int64_t dims, double scale, double* out) {
  constexpr int64_t kSums = 8;
  double largest = 0.0;
  bool finite = true;
  for (int64_t i = 0; i < n; ++i, values += dims) {
    double sums[kSums] = {};
    int64_t d = 0;
    for (; d + kSums <= dims; d += kSums)
      for (int64_t j = 0; j < kSums; ++j) sums[j] += square(values[d + j]);
    for (; d < dims; ++d) sums[0] += square(values[d]);
    for (int64_t j = 1; j < kSums; ++j) sums[0] += sums[j];
    finite = finite && std::isfinite(sums[0]);
    out[i] = std::sqrt(sums[0]) * scale;
    largest = std::max(largest, out[i]);
  }
  return finite ? largest : std::nan("");
}

}  // namespace fastrec

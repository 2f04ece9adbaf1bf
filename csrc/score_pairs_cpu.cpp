#include <algorithm>
#include <vector>

#include "ops.h"
#include "scoring.h"

namespace fastrec {

void score_pairs(const Scoring& s, Csr pairs, int threads, float* scores, const Kernel& level, Stop& stop) {
  constexpr int64_t kUsersPerTask = 16;
  parallel_for((s.B + kUsersPerTask - 1) / kUsersPerTask, threads, [&](int64_t task) {
    ExactScorer exact(s, level);
    std::vector<int64_t> order;
    std::vector<int32_t> rows;
    std::vector<float> found;
    for (int64_t u = task * kUsersPerTask; u < std::min(s.B, (task + 1) * kUsersPerTask); ++u) {
      stop.check();
      const int64_t first = pairs.indptr[u], n = pairs.size(u);
      order.resize(n), rows.resize(n), found.resize(n);
      for (int64_t i = 0; i < n; ++i) order[i] = i;
      std::sort(order.begin(), order.end(),
                [&](int64_t x, int64_t y) { return pairs.rows[first + x] < pairs.rows[first + y]; });
      for (int64_t i = 0; i < n; ++i) rows[i] = pairs.rows[first + order[i]];
      exact(u, rows.data(), n, found.data());
      for (int64_t i = 0; i < n; ++i) scores[first + order[i]] = found[i];
    }
  });
}

}  // namespace fastrec

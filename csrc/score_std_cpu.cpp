#include <algorithm>
#include <cmath>
#include <vector>

#include "ops.h"

namespace fastrec {

// Four users share one reading of the covariance; each of them adds its terms in the same order as alone.
void score_std(const float* queries, int64_t B, int64_t dims, const double* covariance, int threads,
               double* out, Stop& stop) {
  constexpr int64_t kUsers = 4;
  parallel_for((B + kUsers - 1) / kUsers, threads, [&](int64_t task) {
    stop.check();
    const int64_t first = task * kUsers, n = std::min(kUsers, B - first);
    std::vector<double> products(n * dims, 0.0);  // q' C
    for (int64_t i = 0; i < dims; ++i) {
      const double* row = covariance + i * dims;
      for (int64_t u = 0; u < n; ++u) {
        const double q = queries[(first + u) * dims + i];
        double* t = products.data() + u * dims;
        for (int64_t j = 0; j < dims; ++j) t[j] += q * row[j];
      }
    }
    for (int64_t u = 0; u < n; ++u) {
      double variance = 0.0;
      for (int64_t j = 0; j < dims; ++j)
        variance += products[u * dims + j] * static_cast<double>(queries[(first + u) * dims + j]);
      out[first + u] = variance > 0.0 ? std::sqrt(variance) : 0.0;
    }
  });
}

// Only touched columns are visited. The mean first and the deviations from it second: the difference of
// E[s^2] and E[s]^2 would lose its digits where the scores are alike.
void sparse_score_std(Csr history, Csr similarity, int64_t B, int64_t N, int threads, double* out, Stop& stop) {
  const int64_t per_task = std::max<int64_t>(1, (B + 4 * threads - 1) / (4 * threads));
  parallel_for((B + per_task - 1) / per_task, threads, [&](int64_t task) {
    std::vector<double> scores(N, 0.0);
    std::vector<uint8_t> seen(N, 0);
    std::vector<int32_t> touched;
    for (int64_t u = task * per_task; u < std::min(B, (task + 1) * per_task); ++u) {
      stop.check();
      touched.clear();
      for (int64_t h = history.indptr[u]; h < history.indptr[u + 1]; ++h) {
        const double weight = history.values[h];
        const int64_t j = history.rows[h];
        for (int64_t e = similarity.indptr[j]; e < similarity.indptr[j + 1]; ++e) {
          const int32_t column = similarity.rows[e];
          if (!seen[column]) seen[column] = 1, touched.push_back(column);
          scores[column] += weight * static_cast<double>(similarity.values[e]);
        }
      }
      std::sort(touched.begin(), touched.end());
      double sum = 0.0, squares = 0.0;
      for (int32_t column : touched) sum += scores[column];
      const double mean = N > 0 ? sum / static_cast<double>(N) : 0.0;
      for (int32_t column : touched) {
        const double deviation = scores[column] - mean;
        squares += deviation * deviation;
        scores[column] = 0.0;
        seen[column] = 0;
      }
      squares += static_cast<double>(N - static_cast<int64_t>(touched.size())) * (mean * mean);
      out[u] = N > 0 ? std::sqrt(squares / static_cast<double>(N)) : 0.0;
    }
  });
}

}  // namespace fastrec

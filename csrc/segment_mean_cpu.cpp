#include <algorithm>
#include <cmath>
#include <vector>

#include "ops.h"

namespace fastrec {

void segment_mean(const float* values, int64_t dims, Csr segments, int64_t B, bool normalize, int threads,
                  float* out, Stop& stop) {
  constexpr int64_t kPerTask = 32;
  parallel_for((B + kPerTask - 1) / kPerTask, threads, [&](int64_t task) {
    stop.check();
    std::vector<double> sum(dims);
    for (int64_t b = task * kPerTask; b < std::min(B, (task + 1) * kPerTask); ++b) {
      std::fill(sum.begin(), sum.end(), 0.0);
      double weights = 0.0;
      for (int64_t e = segments.indptr[b]; e < segments.indptr[b + 1]; ++e) {
        const double weight = segments.values[e];
        const float* row = values + segments.rows[e] * dims;
        weights += weight;
        for (int64_t d = 0; d < dims; ++d) sum[d] += weight * static_cast<double>(row[d]);
      }
      double divisor = weights;
      if (normalize) {
        double square = 0.0;
        for (int64_t d = 0; d < dims; ++d) square += sum[d] * sum[d];
        divisor = std::sqrt(square);
      }
      for (int64_t d = 0; d < dims; ++d)
        out[b * dims + d] = divisor == 0.0 ? 0.0f : static_cast<float>(sum[d] / divisor) + 0.0f;
    }
  });
}

}  // namespace fastrec

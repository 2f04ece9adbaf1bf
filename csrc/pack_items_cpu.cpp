#include <algorithm>

#include "ops.h"

namespace fastrec {

void pack_items(const float* items, int64_t n, int64_t dims, float* panels, double* squares, int threads) {
  constexpr int64_t kPanelsPerTask = 64;
  const int64_t count = (n + kLanes - 1) / kLanes;
  parallel_for((count + kPanelsPerTask - 1) / kPanelsPerTask, threads, [&](int64_t task) {
    for (int64_t p = task * kPanelsPerTask; p < std::min(count, (task + 1) * kPanelsPerTask); ++p) {
      float* panel = panels + p * dims * kLanes;
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const int64_t i = p * kLanes + lane;
        if (i >= n) {
          for (int64_t d = 0; d < dims; ++d) panel[d * kLanes + lane] = 0.0f;
          continue;
        }
        const float* item = items + i * dims;
        double square = 0.0;
        for (int64_t d = 0; d < dims; ++d) {
          panel[d * kLanes + lane] = item[d];
          square += static_cast<double>(item[d]) * static_cast<double>(item[d]);
        }
        squares[i] = square;
      }
    }
  });
}

}  // namespace fastrec

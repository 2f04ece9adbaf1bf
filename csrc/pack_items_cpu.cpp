#include <algorithm>
#include <cstring>

#include "ops.h"

namespace fastrec {

void pack_items(const float* items, int64_t n, int64_t dims, float* rows, double* squares, int threads) {
  constexpr int64_t kRowsPerTask = 1024;
  parallel_for((n + kRowsPerTask - 1) / kRowsPerTask, threads, [&](int64_t task) {
    const int64_t first = task * kRowsPerTask, last = std::min(n, first + kRowsPerTask);
    if (dims > 0) std::memcpy(rows + first * dims, items + first * dims, (last - first) * dims * sizeof(float));
    for (int64_t i = first; i < last; ++i) {
      double square = 0.0;
      for (int64_t d = 0; d < dims; ++d) {
        const double x = items[i * dims + d];
        square += x * x;
      }
      squares[i] = square;
    }
  });
}

}  // namespace fastrec

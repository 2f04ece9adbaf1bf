#include <algorithm>
#include <vector>

#include "check.h"
#include "ops.h"
#include "scratch.h"

namespace fastrec {

void ridge_solve(const Ridge& given, int64_t n_rows, int threads, const Kernel& level, Stop& stop) {
  if (given.D == 0) return;
  const int64_t width = (given.D + kLanes - 1) / kLanes * kLanes;
  Ridge a = given;
  std::vector<float> padded;
  if (width != given.D) {
    padded.assign(given.D * width, 0.0f);
    for (int64_t d = 0; d < given.D; ++d) std::copy_n(given.gram + d * given.D, given.D, padded.data() + d * width);
    a.gram = padded.data();
  }
  a.context = &stop;
  a.check = [](void* context) { static_cast<Stop*>(context)->check(); };
  constexpr int64_t kGroups = 16;  // of a task
  const int64_t groups = (n_rows + kRidgeRows - 1) / kRidgeRows;
  parallel_for((groups + kGroups - 1) / kGroups, threads, [&](int64_t task) {
    Scratch<float, Ridge> scratch(5 * kRidgeRows * width + kRidgeEntries);
    for (int64_t g = task * kGroups; g < std::min(groups, (task + 1) * kGroups); ++g)
      level.ridge_group(a, g * kRidgeRows, std::min<int64_t>(kRidgeRows, n_rows - g * kRidgeRows), scratch.data());
  });
}

}  // namespace fastrec

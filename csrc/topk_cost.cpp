// Which walk is faster: a model of the time of a call, fitted to single calls on one core of a Xeon (Sapphire Rapids)
// with N = 3e3 .. 1e5, D = 64 and 256, B = 1 and 64, k = 10 .. 1000. A wrong choice costs time and never a result.
//
//   walk   the catalogue is read once, at 27 GB/s, or multiplied B times, at Kernel::cost picoseconds a product,
//          whichever takes longer
//   extra  wider bounds let more candidates through: about k (0.15 + 0.00176 D (log10 N - 3)^2) microseconds a user
//          for int8, a quarter of it for bfloat16
#include <algorithm>
#include <cmath>

#include "topk_bounds.h"

namespace fastrec {

bool screen_pays(const TopkArgs& a, const Kernel& level) {
  const double B = static_cast<double>(a.s.B), N = static_cast<double>(a.s.N), D = static_cast<double>(a.s.D);
  const auto walk = [&](double bytes, double picoseconds) {  // in microseconds
    return N * D * 1e-6 * std::max(bytes * 1e3 / 27.0, B * picoseconds);
  };
  const bool int8 = a.screen_kind == ScreenKind::kInt8;
  const double decades = std::max(std::log10(N) - 3.0, 0.0);
  const double extra = static_cast<double>(a.k) * (0.15 + 0.00176 * D * decades * decades) * (int8 ? 1.0 : 0.25);
  const double screened = int8 ? walk(1.0, level.cost.int8) : walk(2.0, level.cost.bf16);
  return screened + B * extra < walk(4.0, level.cost.float32);
}

}  // namespace fastrec

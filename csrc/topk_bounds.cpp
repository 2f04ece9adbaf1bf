#include "topk_bounds.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace fastrec {
namespace {

const double kUnit = std::ldexp(1.0, -24);

double gamma(double n) { return n * kUnit > 0.5 ? std::numeric_limits<double>::infinity() : n * kUnit / (1.0 - n * kUnit); }

double length(const float* q, int64_t dims) {
  double square = 0.0;
  for (int64_t d = 0; d < dims; ++d) square += static_cast<double>(q[d]) * static_cast<double>(q[d]);
  return std::sqrt(square) * (1.0 + 1e-9);
}

float largest(const float* q, int64_t dims) {
  float most = 0.0f;
  for (int64_t d = 0; d < dims; ++d) most = std::max(most, std::fabs(q[d]));
  return most;
}

}  // namespace

Bound bound_of(const TopkArgs& a, ScreenKind kind, int64_t u, int query_max, int8_t* codes) {
  const int64_t dims = a.s.D;
  const float* q = a.s.queries + u * dims;
  const double y = a.init_bound[u], tiny = std::ldexp(1.0, -126);
  Bound bound;
  bound.exact = dims == 0 || a.dense_bound[u] == 0.0;
  if (kind == ScreenKind::kInt8) std::memset(codes, 0, dims);
  if (bound.exact) return bound;
  if (kind == ScreenKind::kNone) {
    bound.pad = gamma(dims + 4) * a.dense_bound[u] + 4.0 * kUnit * y + (dims + 4) * tiny;
    return bound;
  }
  const double norm = length(q, dims);
  bound.item_weight = up(norm);
  if (kind == ScreenKind::kBf16) {
    const double z = norm * (a.screen_reach + a.screen_error);
    bound.pad = gamma(dims + 10) * z + 8.0 * kUnit * y + (dims + 10) * tiny;
    return bound;
  }
  bound.step = largest(q, dims) / static_cast<float>(query_max);
  double square = 0.0;
  for (int64_t d = 0; d < dims; ++d) {
    const float code = std::nearbyintf(q[d] / bound.step);
    codes[d] = static_cast<int8_t>(std::min(std::max(code, -static_cast<float>(query_max)), static_cast<float>(query_max)));
    const double off = static_cast<double>(q[d]) - static_cast<double>(bound.step) * codes[d];
    square += off * off;
  }
  const double off = std::sqrt(square);
  bound.query_weight = up(off);
  const double z = norm * a.screen_error + (norm + 2.0 * off) * a.screen_reach;
  bound.pad = 16.0 * kUnit * z + 8.0 * kUnit * y + std::ldexp(1.0, -120);
  return bound;
}

ScreenKind choose_screen(const TopkArgs& a, const Kernel& level) {
  const ScreenKind kind = a.screen_kind;
  if (kind == ScreenKind::kNone || a.s.D == 0) return ScreenKind::kNone;
  const double root = std::sqrt(static_cast<double>(a.s.D));
  for (int64_t u = 0; u < a.s.B; ++u) {
    if (a.dense_bound[u] == 0.0) continue;
    const float* q = a.s.queries + u * a.s.D;
    const double norm = length(q, a.s.D);
    if (norm * (a.screen_reach + a.screen_error) * 4.0 + a.init_bound[u] > 1e38) return ScreenKind::kNone;
    if (kind == ScreenKind::kInt8 &&
        (norm * root * 1e3 > 1e38 || largest(q, a.s.D) < std::ldexp(128.0f, -100)))
      return ScreenKind::kNone;
  }
  return a.screen_always || screen_pays(a, level) ? kind : ScreenKind::kNone;
}

}  // namespace fastrec

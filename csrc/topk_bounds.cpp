#include "topk_bounds.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace fastrec {
namespace {

const double kUnit = std::ldexp(1.0, -24);

double gamma(double n) {
  return n * kUnit > 0.5 ? std::numeric_limits<double>::infinity() : n * kUnit / (1.0 - n * kUnit);
}

double length(const float* q, int64_t dims) {
  double length = 0.0;
  scaled_lengths(q, 1, dims, 1.0 + 1e-9, &length);
  return length;
}

float largest(const float* q, int64_t dims) {
  uint32_t most = 0;  // without its sign a float orders as its bits do, and these need no one branch each
  for (int64_t d = 0; d < dims; ++d) {
    uint32_t bits;
    std::memcpy(&bits, q + d, 4);
    most = std::max(most, bits & 0x7fffffffu);
  }
  float value;
  std::memcpy(&value, &most, 4);
  return value;
}

// The nearest whole number, ties to even, of |x| < 2^22: beyond 2^23 a float has no more bits for fractions. Inline,
// and several at a time, which a call of the library is not.
inline float nearest(float x) {
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23
  return (x + kShift) - kShift;
}

}  // namespace

int64_t words_of(ScreenKind kind, const Walk& walk, int64_t dims) {
  if (kind == ScreenKind::kInt8) return (dims + 3) / 4;
  return walk.query_bf16 ? (dims + 1) / 2 : (dims + 1) / 2 * 2;
}

Bound bound_of(const TopkArgs& a, ScreenKind kind, int64_t u, const Walk& walk, int query_max, uint32_t* words,
               int32_t* offset) {
  const int64_t dims = a.s.D;
  const float* q = a.s.queries + u * dims;
  const double tiny = std::ldexp(1.0, -126);
  const double terms = a.s.history ? static_cast<double>(a.s.history.size(u)) * static_cast<double>(a.repeats) : 0.0;
  const double init = gamma(terms + 12) * a.init_bound[u] + terms * tiny;
  std::fill_n(words, words_of(kind, walk, dims), 0u);
  *offset = 0;
  Bound bound;
  if (dims == 0 || a.dense_bound[u] == 0.0) {
    bound.exact = terms == 0.0;
    bound.pad = bound.exact ? 0.0 : init;
    return bound;
  }
  const double norm = length(q, dims);
  double square = 0.0;  // of q - q'
  if (kind == ScreenKind::kInt8) {
    const float most = static_cast<float>(query_max);
    bound.step = largest(q, dims) / most;
    int8_t* codes = reinterpret_cast<int8_t*>(words);
    int32_t sum = 0;
    for (int64_t d = 0; d < dims; ++d) {
      const float code = nearest(q[d] / bound.step);
      codes[d] = static_cast<int8_t>(code > most ? most : code < -most ? -most : code);
      sum += codes[d];
    }
    for (int64_t d = 0; d < dims; ++d) {
      const double off = static_cast<double>(q[d]) - static_cast<double>(bound.step) * codes[d];
      square += off * off;
    }
    *offset = -128 * sum;
  } else if (walk.query_bf16) {
    uint16_t* codes = reinterpret_cast<uint16_t*>(words);
    for (int64_t d = 0; d < dims; ++d) {
      codes[d] = to_bf16(q[d]);
      const double off = static_cast<double>(q[d]) - static_cast<double>(from_bf16(codes[d]));
      square += off * off;
    }
  } else {
    std::memcpy(words, q, dims * sizeof(float));
  }
  const double off = std::sqrt(square);
  bound.item_weight = up(norm);
  bound.query_weight = up(off);
  const double z = norm * a.screen_error + (norm + 2.0 * off) * a.screen_reach;
  if (kind == ScreenKind::kInt8) {
    bound.pad = 16.0 * kUnit * z + init + std::ldexp(1.0, -120);
  } else {
    bound.pad = gamma(2 * dims + 16) * z + init + (2 * dims + 16) * tiny;
  }
  return bound;
}

bool screen_holds(const TopkArgs& a) {
  // Of items longer than float32 reaches a zero query would have 0 times infinity, which is no number.
  if (!(a.screen_error + a.screen_reach < 1e38)) return false;
  const double root = std::sqrt(static_cast<double>(a.s.D));
  for (int64_t u = 0; u < a.s.B; ++u) {
    if (a.dense_bound[u] == 0.0) continue;
    const float* q = a.s.queries + u * a.s.D;
    const double norm = length(q, a.s.D);
    if (norm * (a.screen_reach + a.screen_error) * 8.0 + a.init_bound[u] > 1e38) return false;
    if (norm * root * 1e3 > 1e38) return false;
    if (a.screen_kind == ScreenKind::kInt8 && largest(q, a.s.D) < std::ldexp(128.0f, -100)) return false;
  }
  return true;
}

}  // namespace fastrec

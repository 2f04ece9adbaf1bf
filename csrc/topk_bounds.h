// How far what a walk computes may be from the score: what makes the search exact.
//
// Notation. s: the float64 total of a pair; r: its float32 rounding, the score; x: what the walk gives to the
// hits. u = 2^-24, gamma(n) = n u / (1 - n u); X >= |q| |v| and Y >= |sparse + bias| for every item. There is a
// width w >= 0 of a pair (0 in a walk over float32) and a pad of a user with
//     x - 2 w - pad  <=  r  <=  x + pad.
// If T is the k-th largest x - 2 w of the items that a user may get, k of them have r >= T - pad; an item with
// x < T - 2 pad has r < T - pad: it is strictly worse than k others and cannot be among the best, whatever its
// row. Against exact scores r of k items, the worst of them R, the same holds for x < R - pad.
//
// float32. x is a sum of D fused or unfused multiply-adds, a rounded float32 of sparse + bias and one addition:
//   float32 products and sums in any order, and the last addition:  gamma(D + 2) X
//   rounding of sparse + bias, and the last addition:               2 u Y (1 + u)
//   rounding of s to r:                                             u (X + Y)
//   float64 rounding of s, against the same in float32: below u (X + Y), for up to 2^28 terms
//   underflow, also where the process flushes denormal numbers: 2^-126 a step
// so pad = gamma(D + 4) X + 4 u Y + (D + 4) 2^-126.
//
// bfloat16. The items v' are rounded, |v - v'| <= e over the panel: |<q, v> - <q, v'>| <= |q| e = w, and x is the
// float32 walk over v' plus w. The pad is that of float32 for |q| (|v'| + e), with a few more steps.
//
// int8. v' = s c and q' = t x with integer codes, |v - v'| <= s a and |c| <= b over the panel. Then
//   <q, v> - <q', v'> = <q, v - v'> + <q - q', v'>,  at most  w = s (|q| a + |q - q'| b)
// by Cauchy-Schwarz, and x = s (t <x, c> + |q| a + |q - q'| b) + init has eight roundings, as <x, c> is an exact
// integer: its conversion, five for the sum in brackets, the last multiply-add, and those of r and s. All of its
// parts are at most Z = |q| max(s a) + (|q| + 2 |q - q'|) max(s b), so pad = 16 u Z + 8 u Y + 2^-120 is ample.
// Steps t are at least 2^-100, so that underflow stays below u Z; queries beyond this, or so large that a sum in
// brackets might overflow, are left to float32.
//
// pad and w are 0 where the walk is exact: without dense terms x is the rounding of sparse + bias, the score.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "ops.h"

namespace fastrec {

// A float32 not below x, with room for the rounding of a sum: the search relies on it.
inline float up(double x) {
  const float f = static_cast<float>(x * (1.0 + 1e-6));
  return static_cast<double>(f) < x ? std::nextafterf(f, std::numeric_limits<float>::infinity()) : f;
}

struct Bound {
  double pad = 0.0;
  bool exact = false;         // x is the score
  float item_weight = 0.0f;   // at least |q|; 0 in float32
  float query_weight = 0.0f;  // at least |q - q'|; 0 but in int8
  float step = 0.0f;          // t of int8
};

// codes: in int8 receives the D codes of the query, each at most query_max.
Bound bound_of(const TopkArgs& args, ScreenKind kind, int64_t u, int query_max, int8_t* codes);

// w of a pair.
inline double width_of(const TopkArgs& args, ScreenKind kind, const Bound& bound, int32_t row) {
  if (kind == ScreenKind::kNone) return 0.0;
  const float* errors = args.screen.errors + 2 * (row / kLanes);
  const double item = static_cast<double>(bound.item_weight) * static_cast<double>(errors[0]);
  if (kind == ScreenKind::kBf16) return item;
  const double query = static_cast<double>(bound.query_weight) * static_cast<double>(errors[1]);
  return static_cast<double>(args.screen.scales[row]) * (item + query);
}

// Whether walking over the screen takes less time than over the panels.
bool screen_pays(const TopkArgs& args, const Kernel& level);

// The screen that this call walks over: the one that was packed, where the bounds above hold for every query
// and it is faster than float32.
ScreenKind choose_screen(const TopkArgs& args, const Kernel& level);

}  // namespace fastrec

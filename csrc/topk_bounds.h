// How far what a walk computes may be from the score: what makes the search exact.
//
// Notation. s: the float64 total of a pair; r: its float32 rounding, the score; x: what the walk gives to the
// hits. u = 2^-24, gamma(n) = n u / (1 - n u); Y >= sum |sparse terms| + |bias| for every item, of at most T terms.
// q' and v' are what the codes of the query and of the item stand for. There is a width w >= 0 of a pair and a pad of
// a user with
//     x - 2 w - pad  <=  r  <=  x + pad.
// If T is the k-th largest x - 2 w of the items that a user may get, k of them have r >= T - pad; an item with
// x < T - 2 pad has r < T - pad: it is strictly worse than k others and cannot be among the best, whatever its
// row. Against exact scores r of k items, the worst of them R, the same holds for x < R - pad.
//
// By Cauchy-Schwarz, with e >= |v - v'| and b >= |v'| over the panel,
//     |<q, v> - <q', v'>| = |<q, v - v'> + <q - q', v'>|  <=  w = |q| e + |q - q'| b,
// and x = <q', v'> + w + init, where init is the float32 sum of the sparse terms and the bias. The pad covers what is
// rounded on the way to x, to s and to r:
//   init, in any order of the terms:  gamma(T + 1) Y;   its addition, r and s:  a few u (|<q', v'>| + w + Y)
//   underflow, also where the instructions take denormal numbers for zeros: 2^-126 a step
//
// bfloat16. <q', v'> takes at most 2 D + 2 roundings of float32, in any order; q' = q where the level multiplies
// float32 queries. All parts are at most Z = |q| max e + (|q| + 2 |q - q'|) max b, so
//     pad = gamma(2 D + 16) Z + gamma(T + 12) Y + (2 D + T + 16) 2^-126.
//
// int8. v' = s c and q' = t y with integer codes, e = s a, b = s |c|, and x = s (t <y, c> + |q| a + |q - q'| |c|) +
// init has eight roundings but for init, as <y, c> is an exact integer. With the same Z
//     pad = 16 u Z + gamma(T + 12) Y + T 2^-126 + 2^-120.
// Steps t are at least 2^-100, so that underflow stays below u Z.
//
// Queries beyond this, or so large that a sum might overflow, are left to exact scores of all items. pad and w are 0
// where x is the score: without dense and sparse terms it is the bias.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "ops.h"

namespace fastrec {

// A float32 not below x, with room for the rounding of a sum: the search relies on it.
inline float up(double x) {
  if (x >= std::numeric_limits<float>::max()) return std::numeric_limits<float>::infinity();
  const float f = static_cast<float>(x * (1.0 + 1e-6));
  return static_cast<double>(f) < x ? std::nextafterf(f, std::numeric_limits<float>::infinity()) : f;
}

struct Bound {
  double pad = 0.0;
  bool exact = false;         // x is the score
  float item_weight = 0.0f;   // at least |q|; 0 in float32
  float query_weight = 0.0f;  // at least |q - q'|
  float step = 0.0f;          // t of int8
};

// The nearest bfloat16, ties to even; zero instead of a denormal number and the largest finite one instead of infinity.
inline uint16_t to_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  if ((rounded & 0x7fffffffu) >= 0x7f800000u) rounded = bits;
  return (rounded & 0x7f800000u) == 0 ? 0 : static_cast<uint16_t>(rounded >> 16);
}

inline float from_bf16(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

// The words of 4 bytes that a query has: float32, pairs of bfloat16, or four int8.
int64_t words_of(ScreenKind kind, const Walk& walk, int64_t dims);

// words: receives the query as the walk wants it. offset: -128 times the sum of its int8 codes.
Bound bound_of(const TopkArgs& args, ScreenKind kind, int64_t u, const Walk& walk, int query_max, uint32_t* words,
               int32_t* offset);

// Whether the bounds hold for every query of the call.
bool screen_holds(const TopkArgs& args);

}  // namespace fastrec

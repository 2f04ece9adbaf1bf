// The inner loop of score_topk over an int8 screen, written once over the types of a level.
//
// The including file defines, in namespace fastrec::FASTREC_LEVEL, beside Vec the types Codes (16 items, 4 codes
// each) and Sums (16 int32), with Sums::add_dots(Codes items, int32_t four codes of a query), and int8_panels_for(U)
// and int8_splits_for(U). Items are unsigned (128 + code) and queries signed, as the instructions want them; the
// sums start at -128 times the sum of the query's codes, so that they end as sums of code * code.
//
// The upper bound of the score of item i = s c for query q' = t x, written to the hits in place of a score:
//   s (t <x, c> + |q| max(|i - i'| / s) + |q - q'| max|c|) + init,   the maxima over the panel
#pragma once

#include "scan_hits.h"

namespace fastrec {
namespace FASTREC_LEVEL {

static constexpr int64_t kPanelsAhead = 4;  // whose scales are fetched: one line a panel is no stream to the machine

template <int U, int P, int S>
static inline void walk_int8(const Screen& screen, int64_t steps, int64_t first, const float* init,
                             const Tile& tile, Ahead ahead) {
  Sums sums[U][P][S];
#pragma GCC unroll 16
  for (int u = 0; u < U; ++u)
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      sums[u][p][0] = Sums::all(tile.offset[u]);
#pragma GCC unroll 8
      for (int s = 1; s < S; ++s) sums[u][p][s] = Sums::all(0);
    }
  const uint8_t* values = static_cast<const uint8_t*>(screen.codes) + first * steps * 4 * kLanes;
  if (S > 1) {
    __builtin_prefetch(screen.scales + (first + kPanelsAhead) * kLanes);
    __builtin_prefetch(screen.errors + 2 * (first + 2 * kPanelsAhead));
  }
  const uint8_t* query = static_cast<const uint8_t*>(tile.queries);
  constexpr int kSteps = S > 1 ? S : 4;
  int64_t d = 0;
  for (; d + kSteps <= steps; d += kSteps) {
    if (S == 1) ahead.next();
#pragma GCC unroll 8
    for (int s = 0; s < kSteps; ++s, query += 4 * U, values += 4 * kLanes) {
      Codes items[P];
      if (S > 1) __builtin_prefetch(values + kAhead);
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) items[p] = Codes::load(values + p * steps * 4 * kLanes);
#pragma GCC unroll 16
      for (int u = 0; u < U; ++u) {
        int32_t four;
        __builtin_memcpy(&four, query + 4 * u, 4);
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) sums[u][p][s % S].add_dots(items[p], four);
      }
    }
  }
  for (; d < steps; ++d, query += 4 * U, values += 4 * kLanes) {
    for (int u = 0; u < U; ++u) {
      int32_t four;
      __builtin_memcpy(&four, query + 4 * u, 4);
      for (int p = 0; p < P; ++p) sums[u][p][0].add_dots(Codes::load(values + p * steps * 4 * kLanes), four);
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
    const Vec scale = Vec::load(screen.scales + (first + p) * kLanes);
    const Vec item_error = Vec::all(screen.errors[2 * (first + p)]);
    const Vec norm = Vec::all(screen.errors[2 * (first + p) + 1]);
    const int32_t row = static_cast<int32_t>((first + p) * kLanes);
#pragma GCC unroll 16
    for (int u = 0; u < U; ++u) {
#pragma GCC unroll 8
      for (int s = 1; s < S; ++s) sums[u][p][0].plus(sums[u][p][s]);
      Vec inner = Vec::all(0.0f);
      inner.add_product(Vec::all(tile.item_weight[u]), item_error);
      inner.add_product(Vec::all(tile.query_weight[u]), norm);
      inner.add_product(Vec::all(tile.step[u]), sums[u][p][0].to_float());
      Vec bound = Vec::load(init + u * tile.init_stride + p * kLanes);
      bound.add_product(inner, scale);
      test(bound, row, tile.hits[u]);
    }
  }
  for (int u = 0; u < U; ++u)
    if (__builtin_expect(tile.hits[u].count > kFlushAt, 0)) tile.flush(tile.context, tile.first_user + u);
}

template <int U>
static void scan_int8_users(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  constexpr int P = int8_panels_for(U), S = int8_splits_for(U);
  const int64_t steps = (dims + 3) / 4;
  const float* init = tile.init;
  int64_t p = first;
  for (; p + P <= last; p += P, init += P * kLanes) {
    walk_int8<U, P, S>(screen, steps, p, init, tile, Ahead::of(tile, p - first, P, steps / 4));
  }
  for (; p < last; ++p, init += kLanes) walk_int8<U, 1, S>(screen, steps, p, init, tile, {nullptr, 0});
}

}  // namespace FASTREC_LEVEL
}  // namespace fastrec

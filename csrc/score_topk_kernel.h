// The inner loops of score_topk, written once over the 16-lane types of a level.
//
// The including file defines, in namespace fastrec::FASTREC_LEVEL (so that no symbol is shared between levels), the
// types Vec (16 floats) and Vec64 (16 doubles), transpose (16 rows of 16 floats), and for each kind of codes a type
// Sums of 16 dot products:
//   Part, load(values, h)        64 bytes of a panel, or the h-th part of what they stand for; kParts of them
//   start(tile, u), zero()       where the sums begin
//   add(part, word), plus(sums)  a word of a query times the part; two sums added up
//   to_float()                   the sums as a Vec
//   kScaled                      items and queries have scales
//   panels(U), splits(U)         the register tile for U users, and the sums that share the terms of one panel: they
//                                take turns and are added up at the end, which hides the latency of the additions
// Only static functions and no std:: templates: see simd.h.
//
// Codes of int8 are unsigned (128 + code) in items and signed in queries, as the instructions want them; the sums
// start at -128 times the sum of the query's codes, so that they end as sums of code * code.
#pragma once

#include "scan_hits.h"

namespace fastrec {
namespace FASTREC_LEVEL {

static constexpr int64_t kStepBytes = 4 * kLanes;  // of a panel that a word of a query is multiplied with
static constexpr int64_t kPanelsAhead = 4;  // whose scales are fetched: one line a panel is no stream to the machine

// Inlined by force: one user's panel takes no longer than a call with its registers put away.
template <class Sums, int U, int P, int S, int kInto>
__attribute__((always_inline)) static inline void walk(const Screen& screen, int64_t steps, int64_t first,
                                                       const float* init, const Tile& tile, Ahead ahead) {
  constexpr int H = Sums::kParts;
  Sums sums[U][P][S];
#pragma GCC unroll 16
  for (int u = 0; u < U; ++u)
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      sums[u][p][0] = Sums::start(tile, u);
#pragma GCC unroll 8
      for (int s = 1; s < S; ++s) sums[u][p][s] = Sums::zero();
    }
  const char* values = static_cast<const char*>(screen.codes) + first * steps * kStepBytes;
  if (S > 1) {
    if (Sums::kScaled) __builtin_prefetch(screen.scales + (first + kPanelsAhead) * kLanes);
    __builtin_prefetch(screen.errors + 2 * (first + 2 * kPanelsAhead));
  }
  const int32_t* query = static_cast<const int32_t*>(tile.queries);
  constexpr int kSteps = S > 1 ? S : 4;
  int64_t d = 0;
  for (; d + kSteps <= steps; d += kSteps) {
    if (S == 1) ahead.next();
#pragma GCC unroll 8
    for (int s = 0; s < kSteps; ++s, query += H * U, values += kStepBytes) {
      if (S > 1) __builtin_prefetch(values + kAhead, 0, kInto);
#pragma GCC unroll 2
      for (int h = 0; h < H; ++h) {
        typename Sums::Part items[P];
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) items[p] = Sums::load(values + p * steps * kStepBytes, h);
#pragma GCC unroll 16
        for (int u = 0; u < U; ++u)
#pragma GCC unroll 4
          for (int p = 0; p < P; ++p) sums[u][p][s % S].add(items[p], query[h * U + u]);
      }
    }
  }
  for (; d < steps; ++d, query += H * U, values += kStepBytes) {
    for (int h = 0; h < H; ++h)
      for (int u = 0; u < U; ++u)
        for (int p = 0; p < P; ++p)
          sums[u][p][0].add(Sums::load(values + p * steps * kStepBytes, h), query[h * U + u]);
  }
  float w[P][U];
  for (int p = 0; p < P; ++p)
    for (int u = 0; u < U; ++u) w[p][u] = width_of(screen, first + p, tile, u);
#pragma GCC unroll 16
  for (int u = 0; u < U; ++u) {
    Vec bounds[P];
    uint32_t masks[P], any = 0;
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 8
      for (int s = 1; s < S; ++s) sums[u][p][0].plus(sums[u][p][s]);
      bounds[p] = bounds_of<Sums::kScaled>(screen, first + p, sums[u][p][0].to_float(), w[p][u], tile, u,
                                           init + p * kLanes);
      masks[p] = bounds[p].above(tile.hits[u].cut);
      any |= masks[p];
    }
    if (__builtin_expect(any == 0, 1)) continue;
    for (int p = 0; p < P; ++p)
      if (masks[p] != 0) push<Sums::kScaled>(screen, first + p, bounds[p], w[p][u], masks[p], tile.hits[u]);
    flush_full(tile, u);
  }
}

template <class Sums, int U, int kInto>
static void scan_users(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  constexpr int P = Sums::panels(U), S = Sums::splits(U);
  const int64_t steps = (dims + Sums::kDims - 1) / Sums::kDims;
  const float* init = tile.init;
  int64_t p = first;
  for (; p + P <= last; p += P, init += P * kLanes)
    walk<Sums, U, P, S, kInto>(screen, steps, p, init, tile, Ahead::of(tile, p - first, P, steps / 4));
  for (; p < last; ++p, init += kLanes) walk<Sums, U, 1, S, kInto>(screen, steps, p, init, tile, {nullptr, 0});
}

// U: the most users of a tile. kInto: where one or two users read ahead, see kAhead.
template <class Sums, int U, int kInto = kIntoL2>
static void scan(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  if constexpr (U > 1) {
    if (tile.n_users < U) return scan<Sums, U - 1, kInto>(screen, dims, first, last, tile);
  }
  scan_users<Sums, U, kInto>(screen, dims, first, last, tile);
}

}  // namespace FASTREC_LEVEL
}  // namespace fastrec

// The inner loops of score_topk, written once over the 16-lane types of a level.
//
// The including file defines, in namespace fastrec::FASTREC_LEVEL (so that no symbol is shared between
// levels), the types Vec (16 floats) and Vec64 (16 doubles) and panels_for(U), the panels of a register
// tile for U users. Only static functions and no std:: templates: see simd.h.
#pragma once

#include "simd.h"

namespace fastrec {
namespace FASTREC_LEVEL {

static inline void push(const Vec& scores, uint32_t mask, int32_t row, Hits& hits) {
  float lanes[kLanes];
  scores.store(lanes);
  int32_t count = hits.count;
  for (; mask != 0; mask &= mask - 1) {
    const int lane = __builtin_ctz(mask);
    hits.scores[count] = lanes[lane];
    hits.rows[count] = row + lane;
    ++count;
  }
  hits.count = count;
}

// P panels for U users: the sums stay in U * P registers and take the terms in order of d, whatever U and P
// are; the threshold is tested before anything is written.
template <int U, int P>
static inline void walk(const float* panel, int64_t dims, const float* init, int32_t row, const Tile& tile) {
  Vec sums[U][P];
#pragma GCC unroll 8
  for (int u = 0; u < U; ++u) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) sums[u][p] = Vec::zero();
  }
  const float* query = tile.queries;
  const float* values = panel;
  for (int64_t d = 0; d < dims; ++d, query += U, values += kLanes) {
    Vec items[P];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) items[p] = Vec::load(values + p * dims * kLanes);
#pragma GCC unroll 8
    for (int u = 0; u < U; ++u) {
      const Vec q = Vec::all(query[u]);
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) sums[u][p].add_product(q, items[p]);
    }
  }
#pragma GCC unroll 8
  for (int u = 0; u < U; ++u) {
    Hits& hits = tile.hits[u];
    const float* start = init + u * tile.init_stride;
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const Vec scores = sums[u][p].plus(Vec::load(start + p * kLanes));
      const uint32_t mask = scores.above(hits.cut);
      if (__builtin_expect(mask != 0, 0)) push(scores, mask, row + p * kLanes, hits);
    }
    if (__builtin_expect(hits.count > kFlushAt, 0)) tile.flush(tile.context, tile.first_user + u);
  }
}

template <int U>
static void scan_users(const float* panels, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  constexpr int P = panels_for(U);
  const float* init = tile.init;
  int64_t p = first;
  for (; p + P <= last; p += P, init += P * kLanes)
    walk<U, P>(panels + p * dims * kLanes, dims, init, static_cast<int32_t>(p * kLanes), tile);
  for (; p < last; ++p, init += kLanes)
    walk<U, 1>(panels + p * dims * kLanes, dims, init, static_cast<int32_t>(p * kLanes), tile);
}

// Four panels at once hide the latency of the additions, which have to wait for one another within a panel.
template <int P>
static inline void exact_panels(const float* panels, int64_t dims, const int32_t* listed, const double* query,
                                double* out) {
  const float* values[P];
  Vec64 sums[P];
  for (int p = 0; p < P; ++p) {
    values[p] = panels + listed[p] * dims * kLanes;
    sums[p] = Vec64::zero();
  }
  for (int64_t d = 0; d < dims; ++d) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) sums[p].add_product(query[d], values[p] + d * kLanes);
  }
  for (int p = 0; p < P; ++p) sums[p].store(out + p * kLanes);
}

static void exact(const float* panels, int64_t dims, const int32_t* listed, int64_t n, const double* query,
                  double* out) {
  constexpr int P = kExactPanels;
  int64_t i = 0;
  for (; i + P <= n; i += P) exact_panels<P>(panels, dims, listed + i, query, out + i * kLanes);
  for (; i < n; ++i) exact_panels<1>(panels, dims, listed + i, query, out + i * kLanes);
}

}  // namespace FASTREC_LEVEL
}  // namespace fastrec

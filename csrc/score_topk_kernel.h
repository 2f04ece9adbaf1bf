// The inner loops of score_topk, written once over the 16-lane types of a level.
//
// The including file defines, in namespace fastrec::FASTREC_LEVEL (so that no symbol is shared between
// levels), the types Vec (16 floats) and Vec64 (16 doubles) and the shape of a register tile for U users:
// panels_for(U), and splits_for(U), the sums that share the terms of one panel. Only static functions and no
// std:: templates: see simd.h.
#pragma once

#include "scan_hits.h"

namespace fastrec {
namespace FASTREC_LEVEL {

static constexpr int64_t kChunk = 8;  // steps between two reads ahead, a multiple of all splits_for

// P panels for U users: the sums stay in U * P * S registers; the S sums of a panel take turns and are added up
// at the end, which hides the latency of the additions where U * P is small.
template <int U, int P, int S>
static inline void walk(const float* panel, int64_t dims, const float* init, int32_t row, const Tile& tile,
                        Ahead ahead) {
  Vec sums[U][P][S];
#pragma GCC unroll 16
  for (int u = 0; u < U; ++u)
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 8
      for (int s = 0; s < S; ++s) sums[u][p][s] = Vec::zero();
  const float* query = static_cast<const float*>(tile.queries);
  const float* values = panel;
  int64_t d = 0;
  while (d + kChunk <= dims) {
    if (S == 1) ahead.next();
    // Unrolled further, the loop would not be faster.
    for (const int64_t end = d + kChunk; d < end; d += S) {
#pragma GCC unroll 8
      for (int s = 0; s < S; ++s, query += U, values += kLanes) {
        Vec items[P];
        if (S > 1) __builtin_prefetch(values + kAhead / 4);
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) items[p] = Vec::load(values + p * dims * kLanes);
#pragma GCC unroll 16
        for (int u = 0; u < U; ++u) {
          const Vec q = Vec::all(query[u]);
#pragma GCC unroll 4
          for (int p = 0; p < P; ++p) sums[u][p][s].add_product(q, items[p]);
        }
      }
    }
  }
  for (; d < dims; ++d, query += U, values += kLanes) {
    for (int u = 0; u < U; ++u)
      for (int p = 0; p < P; ++p)
        sums[u][p][0].add_product(Vec::all(query[u]), Vec::load(values + p * dims * kLanes));
  }
#pragma GCC unroll 16
  for (int u = 0; u < U; ++u) {
    const float* start = init + u * tile.init_stride;
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 8
      for (int s = 1; s < S; ++s) sums[u][p][0] = sums[u][p][0].plus(sums[u][p][s]);
      test(sums[u][p][0].plus(Vec::load(start + p * kLanes)), row + p * kLanes, tile.hits[u]);
    }
    if (__builtin_expect(tile.hits[u].count > kFlushAt, 0)) tile.flush(tile.context, tile.first_user + u);
  }
}

template <int U>
static void scan_users(const float* panels, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  constexpr int P = panels_for(U), S = splits_for(U);
  const float* init = tile.init;
  int64_t p = first;
  for (; p + P <= last; p += P, init += P * kLanes) {
    walk<U, P, S>(panels + p * dims * kLanes, dims, init, static_cast<int32_t>(p * kLanes), tile,
                  Ahead::of(tile, p - first, P, dims / kChunk));
  }
  for (; p < last; ++p, init += kLanes)
    walk<U, 1, S>(panels + p * dims * kLanes, dims, init, static_cast<int32_t>(p * kLanes), tile, {nullptr, 0});
}

// The same for one panel in bfloat16, whose pairs of dimensions become two registers of float32; the upper bound
// of a score is its value plus |q| times the error of the panel.
template <int U>
static void scan_bf16_users(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  constexpr int S = U <= 2 ? 2 : 1;
  const int64_t pairs = (dims + 1) / 2;
  const uint16_t* values = static_cast<const uint16_t*>(screen.codes) + first * pairs * 2 * kLanes;
  const float* init = tile.init;
  for (int64_t p = first; p < last; ++p, init += kLanes) {
    Vec sums[U][2 * S];
#pragma GCC unroll 16
    for (int u = 0; u < U; ++u)
#pragma GCC unroll 4
      for (int s = 0; s < 2 * S; ++s) sums[u][s] = Vec::zero();
    const float* query = static_cast<const float*>(tile.queries);
    Ahead ahead = Ahead::of(tile, p - first, 1, pairs);
    int64_t d = 0;
    for (; d + S <= pairs; d += S) {
#pragma GCC unroll 2
      for (int s = 0; s < S; ++s, query += 2 * U, values += 2 * kLanes) {
        if (S > 1) __builtin_prefetch(values + kAhead / 2);
        if (S == 1) ahead.next();
        Vec even, odd;
        Vec::load_pairs(values, even, odd);
#pragma GCC unroll 16
        for (int u = 0; u < U; ++u) {
          sums[u][2 * s].add_product(Vec::all(query[u]), even);
          sums[u][2 * s + 1].add_product(Vec::all(query[U + u]), odd);
        }
      }
    }
    for (; d < pairs; ++d, query += 2 * U, values += 2 * kLanes) {
      Vec even, odd;
      Vec::load_pairs(values, even, odd);
      for (int u = 0; u < U; ++u) {
        sums[u][0].add_product(Vec::all(query[u]), even);
        sums[u][1].add_product(Vec::all(query[U + u]), odd);
      }
    }
    const Vec error = Vec::all(screen.errors[2 * p]);
#pragma GCC unroll 16
    for (int u = 0; u < U; ++u) {
#pragma GCC unroll 4
      for (int s = 1; s < 2 * S; ++s) sums[u][0] = sums[u][0].plus(sums[u][s]);
      Vec bound = sums[u][0].plus(Vec::load(init + u * tile.init_stride));
      bound.add_product(Vec::all(tile.item_weight[u]), error);
      test(bound, static_cast<int32_t>(p * kLanes), tile.hits[u]);
      if (__builtin_expect(tile.hits[u].count > kFlushAt, 0)) tile.flush(tile.context, tile.first_user + u);
    }
  }
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

static void exact_pairs(const float* items, int64_t dims, const float* queries, double* out) {
  Vec64 sums = Vec64::zero();
  for (int64_t d = 0; d < dims; ++d) sums.add_products(queries + d * kLanes, items + d * kLanes);
  sums.store(out);
}

}  // namespace FASTREC_LEVEL
}  // namespace fastrec

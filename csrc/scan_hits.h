// What the walks of all kinds share: the test of a panel's scores against the threshold of a user.
#pragma once

#include "simd.h"

namespace fastrec {
namespace FASTREC_LEVEL {

// Bytes that a walk for one or two users reads ahead: it waits for memory, and for nothing else.
static constexpr int64_t kAhead = 1024;

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

// A part of the next block comes into the L2 cache while this one is worked on, a little at every step.
struct Ahead {
  const char* at;
  int64_t step;

  // For n_steps calls of next() from this panel of the walk on.
  static inline Ahead of(const Tile& tile, int64_t panel, int64_t n_panels, int64_t n_steps) {
    if (tile.ahead == nullptr) return {nullptr, 0};
    return {tile.ahead + panel * tile.ahead_bytes, n_panels * tile.ahead_bytes / (n_steps > 0 ? n_steps : 1)};
  }
  inline void next() {
    if (at == nullptr) return;
    __builtin_prefetch(at, 0, 2);
    __builtin_prefetch(at + step / 2, 0, 2);
    at += step;
  }
};

// Tests the bounds of a panel's scores before anything is written:
//   s (t <x, c> + |q| max(|i - i'| / s) + |q - q'| max|c|) + init   for item i' = s c and query q' = t x,
// the maxima over the panel, s = t = 1 where nothing is scaled.
template <bool kScaled>
static inline void finish(const Screen& screen, int64_t panel, const Vec& dots, const Tile& tile, int u,
                          const float* init) {
  Vec bound = Vec::load(init + u * tile.init_stride), inner = dots;
  if (kScaled) {
    inner = Vec::all(0.0f);
    inner.add_product(Vec::all(tile.step[u]), dots);
  }
  inner.add_product(Vec::all(tile.item_weight[u]), Vec::all(screen.errors[2 * panel]));
  inner.add_product(Vec::all(tile.query_weight[u]), Vec::all(screen.errors[2 * panel + 1]));
  if (kScaled) {
    bound.add_product(inner, Vec::load(screen.scales + panel * kLanes));
  } else {
    bound = bound.plus(inner);
  }
  const uint32_t mask = bound.above(tile.hits[u].cut);
  if (__builtin_expect(mask != 0, 0)) push(bound, mask, static_cast<int32_t>(panel * kLanes), tile.hits[u]);
}

// Makes room for another tile.
static inline void flush_full(const Tile& tile, int u) {
  if (__builtin_expect(tile.hits[u].count > kFlushAt, 0)) tile.flush(tile.context, tile.first_user + u);
}

}  // namespace FASTREC_LEVEL
}  // namespace fastrec

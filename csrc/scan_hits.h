// What the walks of all kinds share: the upper bounds of a panel's scores against the threshold of a user.
#pragma once

#include "simd.h"

namespace fastrec {
namespace FASTREC_LEVEL {

// Bytes that a walk for one or two users reads ahead: it waits for memory, and for nothing else. Into the L2 cache: the
// few places for lines on their way to L1 are better left to the loads (Zen 4: a third slower). But where there are more
// of them (Zen 5), what lies in the L3 cache comes faster into L1, by a quarter, and from memory no slower.
static constexpr int64_t kAhead = 4096;
static constexpr int kIntoL2 = 2, kIntoL1 = 3;

// The hits of a panel, with lower bounds: widths are w * scales here, as the bounds have them. Their roundings, a few
// u w, and those on the way to the lower bounds, a few u (|x| + w), are below 2^-20 (|x| + w), and the last term covers
// underflow. Not inline: the walk around it is long, and comes here seldom.
template <bool kScaled>
__attribute__((noinline)) static void push(const Screen& screen, int64_t panel, const Vec& bounds, float w,
                                           uint32_t mask, Hits& hits) {
  Vec width = Vec::all(w), lows = bounds;
  if (kScaled) {
    width = Vec::zero();
    width.add_product(Vec::all(w), Vec::load(screen.scales + panel * kLanes));
  }
  lows.add_product(Vec::all(-2.0f), width);
  lows.add_product(Vec::all(-0x1p-20f), bounds.absolute().plus(width).plus(width));
  lows = lows.plus(Vec::all(-1e-36f));
  const int32_t count = hits.count;
  store_some(bounds, mask, hits.scores + count);
  store_some(lows, mask, hits.lows + count);
  hits.count = count + store_rows(mask, static_cast<int32_t>(panel * kLanes), hits.rows + count);
}

// What the walk tests, of one user and one panel:
//   s (t <x, c> + w) + init   for item i' = s c and query q' = t x,   w = |q| max(|i - i'| / s) + |q - q'| max|c|,
// the maxima over the panel, s = t = 1 where nothing is scaled.
static inline float width_of(const Screen& screen, int64_t panel, const Tile& tile, int u) {
  return tile.item_weight[u] * screen.errors[2 * panel] + tile.query_weight[u] * screen.errors[2 * panel + 1];
}

template <bool kScaled>
static inline Vec bounds_of(const Screen& screen, int64_t panel, const Vec& dots, float w, const Tile& tile, int u,
                            const float* init) {
  Vec bounds = Vec::load(init + u * tile.init_stride), inner = Vec::all(w);
  if (!kScaled) return bounds.plus(dots.plus(inner));
  inner.add_product(Vec::all(tile.step[u]), dots);
  bounds.add_product(inner, Vec::load(screen.scales + panel * kLanes));
  return bounds;
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
    for (int64_t i = 0; i < step; i += 64) __builtin_prefetch(at + i, 0, 2);
    at += step;
  }
};

// Makes room for another tile.
static inline void flush_full(const Tile& tile, int u) {
  if (__builtin_expect(tile.hits[u].count > tile.hits[u].flush_at, 0)) tile.flush(tile.context, tile.first_user + u);
}

}  // namespace FASTREC_LEVEL
}  // namespace fastrec

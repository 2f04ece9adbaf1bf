// What the walks of all kinds share: the test of a panel's scores against the threshold of a user.
#pragma once

#include "simd.h"

namespace fastrec {
namespace FASTREC_LEVEL {

// Bytes that a walk for one or two users reads ahead: it waits for memory, and for nothing else.
static constexpr int64_t kAhead = 4096;

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

// Tests a panel's scores before anything is written.
static inline void test(const Vec& scores, int32_t row, Hits& hits) {
  const uint32_t mask = scores.above(hits.cut);
  if (__builtin_expect(mask != 0, 0)) push(scores, mask, row, hits);
}

}  // namespace FASTREC_LEVEL
}  // namespace fastrec

// What is done to the hits of a user between two tiles, written once over the Vec of a level.
#pragma once

#include "simd.h"

namespace fastrec {
namespace FASTREC_LEVEL {

// The first place whose row is not below this one: by steps that double, then by halves.
static inline const int32_t* skip(const int32_t* at, const int32_t* end, int32_t row) {
  if (at == end || *at >= row) return at;
  int64_t step = 1;
  for (; end - at > step && at[step] < row; step *= 2) at += step;
  int64_t n = (end - at < step ? end - at : step) - 1;
  ++at;
  while (n > 0) {
    const int64_t half = n / 2;
    if (at[half] < row) {
      at += half + 1, n -= half + 1;
    } else {
      n = half;
    }
  }
  return at;
}

// Which of up to 16 ascending rows are in the list. Lists are short where hits lie close together, so that it is
// mostly a few comparisons with all of them at once.
static inline uint32_t listed(RowList& list, const int32_t* rows, int32_t n) {
  constexpr int kCompared = 32;
  uint32_t mask = 0;
  int steps = 0;
  for (list.at = skip(list.at, list.end, rows[0]); list.at != list.end && *list.at <= rows[n - 1]; ++list.at) {
    if (steps++ < kCompared) {
      mask |= equal(rows, *list.at);
      continue;
    }
    for (int lane = 0; lane < n; ++lane) {
      if (list.at == list.end || rows[lane] < *list.at) continue;
      list.at = skip(list.at, list.end, rows[lane]);
      mask |= static_cast<uint32_t>(list.at != list.end && *list.at == rows[lane]) << lane;
    }
    break;
  }
  return mask;
}

static void keep(Hits& hits, int32_t from, RowLists* lists) {
  int32_t to = from;
  for (int32_t i = from; i < hits.count; i += kLanes) {
    const int32_t n = hits.count - i < kLanes ? hits.count - i : kLanes;
    const Vec scores = Vec::load(hits.scores + i), lows = Vec::load(hits.lows + i);
    uint32_t mask = scores.above(hits.cut) & (0xffffu >> (kLanes - n));
    if (lists != nullptr && mask != 0) {
      const int32_t* rows = hits.rows + i;
      mask &= ~(listed(lists->seen, rows, n) | listed(lists->deny, rows, n));
      if (lists->has_allow) mask &= listed(lists->allow, rows, n);
    }
    store_some(scores, mask, hits.scores + to);
    store_some(lows, mask, hits.lows + to);
    to += store_some_rows(hits.rows + i, mask, hits.rows + to);
  }
  hits.count = to;
}

static float kth_low(const Hits& hits, int32_t k, float low) {
  constexpr int kSteps = 16;
  const int32_t n = hits.count, beyond = (kLanes - n % kLanes) % kLanes;
  const float first = hits.lows[0];
  Vec::all(first).store(hits.lows + n);  // the lanes beyond the last
  Vec least = Vec::all(first), most = least;
  for (int32_t i = 0; i < n; i += kLanes) {
    const Vec lows = Vec::load(hits.lows + i);
    least = least.least(lows), most = most.most(lows);
  }
  float smallest[kLanes], largest[kLanes];
  least.store(smallest), most.store(largest);
  float bottom = first, high = first;
  for (int i = 0; i < kLanes; ++i) {
    if (smallest[i] < bottom) bottom = smallest[i];
    if (largest[i] > high) high = largest[i];
  }
  if (bottom > low) low = bottom;
  for (int step = 0; step < kSteps; ++step) {
    const float middle = low + (high - low) / 2;
    int32_t count = first > middle ? -beyond : 0;
    for (int32_t i = 0; i < n; i += kLanes) count += Vec::load(hits.lows + i).count_above(middle);
    (count >= k ? low : high) = middle;
    if (count >= k && count - k <= k / 16 + 1) break;  // near enough
  }
  return low;
}

}  // namespace FASTREC_LEVEL
}  // namespace fastrec

// The limits of the machine that benchmarks report shares of, over the Vec of a level with its kProbeSums.
#pragma once

#include "scan_hits.h"

namespace fastrec {
namespace FASTREC_LEVEL {

// Every sum waits for its own last step only.
static float probe_fma(int64_t rounds) {
  constexpr int kSums = kProbeSums;
  Vec sums[kSums];
  float ones[kLanes];
  for (int i = 0; i < kLanes; ++i) ones[i] = 1.0f;
  // Read anew for every sum and every register of it, or the compiler sees equal ones and adds up one for several.
  for (int i = 0; i < kSums; ++i) {
    asm volatile("" : : "r"(ones) : "memory");
    sums[i] = Vec::load(ones);
  }
  const Vec shrink = Vec::all(-1e-3f * ones[0]), other = Vec::all(ones[1]);
  for (int64_t r = 0; r < rounds * (24 / kSums); ++r) {
#pragma GCC unroll 24
    for (int i = 0; i < kSums; ++i) sums[i].add_product(shrink, other);
  }
  for (int i = 1; i < kSums; ++i) sums[0] = sums[0].plus(sums[i]);
  float lanes[kLanes];
  sums[0].store(lanes);
  return lanes[0];
}

static float probe_read(const float* values, int64_t n) {
  Vec sums[4];
  for (int i = 0; i < 4; ++i) sums[i] = Vec::zero();
  for (int64_t i = 0; i + 64 <= n; i += 64) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      __builtin_prefetch(values + i + 16 * j + kAhead / 4, 0, kIntoL2);
      sums[j] = sums[j].plus(Vec::load(values + i + 16 * j));
    }
  }
  float lanes[kLanes];
  sums[0].plus(sums[1]).plus(sums[2].plus(sums[3])).store(lanes);
  return lanes[0];
}

}  // namespace FASTREC_LEVEL
}  // namespace fastrec

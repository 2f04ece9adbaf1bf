// What score_topk knows of a user on the way: which rows may come, and the candidates so far.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "ops.h"
#include "topk_bounds.h"

namespace fastrec {

constexpr float kInf = std::numeric_limits<float>::infinity();

// Larger key: better, score first and then the smaller row.
inline uint64_t to_key(float score, int32_t row) {
  uint32_t bits;
  std::memcpy(&bits, &score, 4);
  bits = (bits & 0x80000000u) ? ~bits : bits | 0x80000000u;
  return (static_cast<uint64_t>(bits) << 32) | ~static_cast<uint32_t>(row);
}
inline int32_t row_of(uint64_t key) { return static_cast<int32_t>(~static_cast<uint32_t>(key)); }
inline float score_of(uint64_t key) {
  uint32_t bits = static_cast<uint32_t>(key >> 32);
  bits = (bits & 0x80000000u) ? bits & 0x7fffffffu : ~bits;
  float score;
  std::memcpy(&score, &bits, 4);
  return score;
}

// A cut that everything from x on passes: two steps below the nearest float32.
inline float just_below(double x) {
  const float f = static_cast<float>(x);
  if (!(std::fabs(f) > 1e-36f)) return f - 1e-36f;
  int32_t bits;
  std::memcpy(&bits, &f, 4);
  bits += f > 0.0f ? -2 : 2;
  float below;
  std::memcpy(&below, &bits, 4);
  return f == -kInf ? f : below;
}

// Which rows user u may get.
inline RowLists lists_of(const TopkArgs& a, int64_t u) {
  const auto list = [&](const Csr& rows) {
    return rows ? RowList{rows.rows + rows.indptr[u], rows.rows + rows.indptr[u + 1]} : RowList{nullptr, nullptr};
  };
  return {list(a.seen), list(a.deny), list(a.allow), static_cast<bool>(a.allow)};
}

// The same for one row, in any order.
inline bool may_get(const TopkArgs& a, int64_t u, int32_t row) {
  const auto holds = [&](const Csr& list) {
    return std::binary_search(list.rows + list.indptr[u], list.rows + list.indptr[u + 1], row);
  };
  return !(a.seen && holds(a.seen)) && !(a.deny && holds(a.deny)) && (!a.allow || holds(a.allow));
}

struct User {
  int64_t u;
  Bound bound;
  RowLists lists;
  std::unique_ptr<char[]> columns{};  // of the hits
  size_t places = 0;                  // in each of them
  int32_t kept = 0;                   // hits that are above the cut of the last prune and that the user may get
  size_t next_prune = 0;
  std::vector<uint64_t> best{};  // the best by exact score, at most k
  float kth_low = -kInf;         // k items are known to have at least this lower bound, but for the pad
};

}  // namespace fastrec

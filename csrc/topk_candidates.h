// What score_topk knows of a user on the way: which rows may come, and the candidates so far.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
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

// Walks along an ascending list; the rows that are asked for must ascend too.
struct Cursor {
  const int32_t* at = nullptr;
  const int32_t* end = nullptr;

  Cursor() = default;
  Cursor(const Csr& list, int64_t u) : at(list.rows + list.indptr[u]), end(list.rows + list.indptr[u + 1]) {}
  bool holds(int32_t row) {
    for (int step = 0; at != end && *at < row; ++at)
      if (++step > 8) {  // a long list: the rest of the way in larger steps
        at = std::lower_bound(at, end, row);
        break;
      }
    return at != end && *at == row;
  }
};

// Which rows a user may get.
struct Filter {
  Cursor seen, deny, allow;
  bool has_allow = false;

  Filter(const TopkArgs& a, int64_t u) {
    if (a.seen) seen = Cursor(a.seen, u);
    if (a.deny) deny = Cursor(a.deny, u);
    if (a.allow) allow = Cursor(a.allow, u), has_allow = true;
  }
  bool passes(int32_t row) { return !seen.holds(row) && !deny.holds(row) && (!has_allow || allow.holds(row)); }
};

// The same for rows in any order.
inline bool may_get(const TopkArgs& a, int64_t u, int32_t row) {
  const auto holds = [&](const Csr& list) {
    return std::binary_search(list.rows + list.indptr[u], list.rows + list.indptr[u + 1], row);
  };
  return !(a.seen && holds(a.seen)) && !(a.deny && holds(a.deny)) && (!a.allow || holds(a.allow));
}

// Candidates by what the walk gave, in two columns: the cut is found from the second alone.
struct Pool {
  std::vector<uint64_t> keys;
  std::vector<float> lows;  // lower bounds, but for the pad

  size_t size() const { return keys.size(); }
  void push(uint64_t key, float low) { keys.push_back(key), lows.push_back(low); }
  void resize(size_t n) { keys.resize(n), lows.resize(n); }
};

struct User {
  int64_t u;
  Bound bound;
  Filter filter;
  Pool pool{};                   // all above the cut
  std::vector<uint64_t> best{};  // the best by exact score, at most k
  float kth_low = -kInf;         // k of the pool are known to have at least this lower bound
  size_t next_prune = 0;
};

}  // namespace fastrec

// The sparse terms of a block of items: history[u, j] * similarity[j, i], in float64.
//
// The terms of a user are sorted by block beforehand, each block's in order of j. A user with so many terms that
// their copies would fill the cache keeps a place in every row of the similarity instead: rows are long then.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "ops.h"

namespace fastrec {

class SparseBlocks {
 public:
  static constexpr int64_t kBlockItems = 2048;  // 64 users * 2048 items * 4 bytes = 512 KB of starts
  static constexpr int64_t kMostTerms = 1 << 15;

  explicit SparseBlocks(const Scoring& scoring) : s_(scoring) {}

  // A walk over items [first, last), with these users.
  void start(std::vector<int64_t> users, int64_t first, int64_t last);

  int64_t n_blocks() const { return n_blocks_; }

  // Calls body(column, term) in order of j for the i-th user and item first + kBlockItems * block + column; the blocks
  // come in order.
  template <typename Body>
  void for_block(int64_t i, int64_t block, const Body& body) {
    const int64_t* starts = starts_.data() + i * (n_blocks_ + 1) + block;
    if (starts[0] < 0) return walk_rows(i, block, body);
    const uint32_t begin = static_cast<uint32_t>(block * kBlockItems);
    for (const Term *term = terms_.data() + starts[0], *end = terms_.data() + starts[1]; term < end; ++term)
      body(term->column - begin, term->value);
  }

 private:
  struct Term {
    double value;
    uint32_t column;  // from the first item of the walk on
  };

  template <typename Body>
  void for_rows(int64_t u, const Body& body) const;
  void fetch(int64_t u) const;
  void sort_terms(int64_t i);

  template <typename Body>
  void walk_rows(int64_t i, int64_t block, const Body& body) {
    const int64_t u = users_[i], begin = first_ + block * kBlockItems, end = begin + kBlockItems;
    int64_t* place = places_.data() + place_of_[i];
    for (int64_t h = s_.history.indptr[u]; h < s_.history.indptr[u + 1]; ++h, ++place) {
      const double weight = s_.history.values[h];
      const int64_t last = s_.similarity.indptr[s_.history.rows[h] + 1];
      int64_t e = *place;
      for (; e < last && s_.similarity.rows[e] < std::min(end, last_); ++e)
        body(static_cast<uint32_t>(s_.similarity.rows[e] - begin), weight * static_cast<double>(s_.similarity.values[e]));
      *place = e;
    }
  }

  const Scoring& s_;
  int64_t first_ = 0, last_ = 0, n_blocks_ = 0;
  std::vector<int64_t> users_;
  // Of sorted users: [user][block + 1], where the terms of the block begin; of the others -1.
  std::vector<int64_t> starts_;
  std::vector<Term> terms_;
  // Of the others: the next entry of every row of their history.
  std::vector<int64_t> places_, place_of_;
  std::vector<int64_t> counts_;
};

}  // namespace fastrec

// The sparse terms of a block of items: history[u, j] * similarity[j, i], in float64.
//
// The terms of a user are sorted by block beforehand, each block's in order of j. A user with so many terms that
// their copies would fill the cache keeps a place in every row of the similarity instead: rows are long then.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "ops.h"
#include "scratch.h"

namespace fastrec {

// The sorted terms of some users: made once, read by all threads.
class SparseTerms {
 public:
  static constexpr int64_t kBlockItems = 1536;  // 64 users * 1536 items * 4 bytes = 384 KB of starts
  static constexpr int64_t kMostTerms = 1 << 15, kMostHistory = 1 << 16;

  // Of 8 bytes, so that those of a user stay in the L1 cache.
  struct Term {
    float similarity;
    uint16_t column;   // from the first item of the block on
    uint16_t history;  // entry of the user's history
  };

  SparseTerms(const Scoring& scoring, int64_t first_user, int64_t n_users)
      : s_(scoring), first_user_(first_user), users_(n_users), starts_(n_users * (n_blocks() + 2)) {}

  void sort_all(int threads);

  // Whether user u has sorted terms; otherwise there are too many.
  bool sorted(int64_t u) const { return users_[u - first_user_].n_terms >= 0; }
  const Term* begin(int64_t u, int64_t block) const { return terms_of(u) + starts_of(u)[block]; }
  const Term* end(int64_t u, int64_t block) const { return terms_of(u) + starts_of(u)[block + 1]; }
  int64_t n_blocks() const { return (s_.N + kBlockItems - 1) / kBlockItems; }

  // out[n]: the sums of the terms of rows that ascend, in order of j, for a sorted user.
  void sums(int64_t u, const int32_t* rows, int64_t n, double* out) const;

 private:
  struct User {
    int64_t n_terms;  // -1 where they are not sorted
    int64_t first;    // of terms_
  };

  struct Copy;

  void count(int64_t u);
  void sort(int64_t u);
  void fetch(int64_t j) const;
  const Term* terms_of(int64_t u) const { return terms_.data() + users_[u - first_user_].first; }
  const int64_t* starts_of(int64_t u) const { return starts_.data() + (u - first_user_) * (n_blocks() + 2); }

  const Scoring& s_;
  const int64_t first_user_;
  std::vector<User> users_;
  Scratch<int64_t, SparseTerms> starts_;  // [user][block + 1], and one more for the sort
  Scratch<Term, SparseTerms> terms_;
};

// One thread's walk over them, block after block.
class SparseWalk {
 public:
  SparseWalk(const Scoring& scoring, const SparseTerms& terms) : s_(scoring), t_(terms) {}

  // From item `first` on, for these users; `first` begins a block unless all users are unsorted.
  void start(const std::vector<int64_t>& users, int64_t first);

  // Calls body(column, history, similarity) in order of j for the i-th user and item kBlockItems * block + column.
  template <typename Body>
  void for_block(int64_t i, int64_t block, const Body& body) {
    const int64_t u = users_[i];
    if (!t_.sorted(u)) return walk_rows(i, block, body);
    const float* const weights = s_.history.values + s_.history.indptr[u];
    for (const SparseTerms::Term *term = t_.begin(u, block), *end = t_.end(u, block); term < end; ++term)
      body(static_cast<uint32_t>(term->column), weights[term->history], term->similarity);
  }

 private:
  template <typename Body>
  void walk_rows(int64_t i, int64_t block, const Body& body) {
    const int64_t u = users_[i], begin = block * SparseTerms::kBlockItems, end = begin + SparseTerms::kBlockItems;
    int64_t* place = places_.data() + place_of_[i];
    for (int64_t h = s_.history.indptr[u]; h < s_.history.indptr[u + 1]; ++h, ++place) {
      const float weight = s_.history.values[h];
      const int64_t last = s_.similarity.indptr[s_.history.rows[h] + 1];
      int64_t e = *place;
      for (; e < last && s_.similarity.rows[e] < end; ++e)
        body(static_cast<uint32_t>(s_.similarity.rows[e] - begin), weight, s_.similarity.values[e]);
      *place = e;
    }
  }

  const Scoring& s_;
  const SparseTerms& t_;
  std::vector<int64_t> users_;
  std::vector<int64_t> places_, place_of_;  // of users without sorted terms: the next entry of every row
};

}  // namespace fastrec

// One thread's part of score_topk: the best k of some users among the items of some panels.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <vector>

#include "ops.h"
#include "scoring.h"
#include "topk_candidates.h"
#include "topk_sparse.h"

namespace fastrec {

constexpr int64_t kBlockPanels = SparseTerms::kBlockItems / kLanes;
constexpr int64_t kSparseUsers = 64;  // most users of a search with a sparse term, for the size of its blocks

// Panels that several threads walk together. Each takes some of those that are left, fewer and fewer: one that wakes up
// late, or whose core others use too, walks less, and all end at about the same time.
class SharedPanels {
 public:
  SharedPanels(int64_t n, int threads) : n_(n), threads_(threads) {}

  // The next ones [first, last), a multiple of `unit` but for the end; false where none are left.
  bool take(int64_t unit, int64_t& first, int64_t& last) {
    first = next_.load(std::memory_order_relaxed);
    do {
      if (first >= n_) return false;
      const int64_t units = std::max<int64_t>((n_ - first) / (2 * threads_ * unit), 1);
      last = std::min(first + units * unit, n_);
    } while (!next_.compare_exchange_weak(first, last, std::memory_order_relaxed));
    return true;
  }

 private:
  const int64_t n_, threads_;
  std::atomic<int64_t> next_{0};
};

class Search {
 public:
  virtual ~Search() = default;

  // terms: the sorted terms of the users where there is a history.
  Search(const TopkArgs& args, ScreenKind kind, const Kernel& level, const SparseTerms& terms, Stop& stop)
      : a_(args), kind_(kind), level_(level), stop_(stop), exact_(args.s, level, &terms), sparse_(args.s, terms),
        k_(static_cast<size_t>(std::min(args.k, args.s.N))) {}

  // found[i]: keys of user first + i, the best first, out of these panels, which begin a block of SparseTerms where there
  // is a history. Where panels are shared, the walk takes of those instead.
  void run(int64_t first, int64_t last, int64_t panel_first, int64_t panel_last, std::vector<uint64_t>* found,
           SharedPanels* shared = nullptr);

 protected:
  // Of the hits that are new, those stay which the user may have.
  virtual void keep_new(User& user, Hits& hits) { level_.keep(hits, user.kept, &user.lists); }

  // A walk for users that are admitted then.
  void begin(const Walk& walk);
  void admit(int64_t u);
  // found(u): where the keys of user u go.
  void end(const std::function<std::vector<uint64_t>*(int64_t)>& found);
  // A tile from the i-th user on, but for its width and where it begins.
  Tile tile_of(int64_t i, const uint32_t* queries);
  void score_all(User& user, Hits& hits);
  void walk(SharedPanels* shared);
  void walk_panels(int64_t panel_first, int64_t panel_last, int64_t block);
  void scan(int64_t first_user, int64_t n_users, int64_t panel_first, int64_t panel_last, const float* starts);
  void pack_queries();
  const float* fill_bias(int64_t panel, int64_t end);
  const float* bias_of(int64_t panel, int64_t end);
  void flush(int64_t i);
  void prune(User& user, Hits& hits);
  void keys_of(const Hits& hits);
  void refine(User& user, Hits& hits);
  void score(User& user);
  float cut_of(const User& user) const;
  void settle(User& user, Hits& hits);
  void finish(User& user, const Hits& hits, std::vector<uint64_t>& found);

  const TopkArgs& a_;
  const ScreenKind kind_;
  const Kernel& level_;
  Stop& stop_;
  ExactScorer exact_;
  SparseWalk sparse_;
  const size_t k_;
  Walk walk_{};
  int64_t n_words_ = 0;  // of a query
  int64_t panel_first_ = 0, panel_last_ = 0, tile_ = 1, tile_words_ = 0;
  int64_t outer_ = 0, stride_ = 0;  // panels that are made ready at once, and floats of a user in init_
  std::vector<User> users_;
  std::vector<Hits> hits_;
  std::vector<uint32_t> words_, queries_;                    // [user][word], and as the tiles want them
  std::vector<float> item_weights_, query_weights_, steps_;  // [user], as in Tile
  std::vector<int32_t> offsets_;
  Scratch<float, Search> init_;
  int64_t zeros_ = 0;  // so many stand at the front of init_
  std::vector<float> scores_;
  std::vector<int32_t> rows_;
  std::vector<uint64_t> keys_;
};

}  // namespace fastrec

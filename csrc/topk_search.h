// One thread's part of score_topk: the best k of some users among the items of some panels.
#pragma once

#include <vector>

#include "ops.h"
#include "scoring.h"
#include "topk_candidates.h"
#include "topk_sparse.h"

namespace fastrec {

constexpr int64_t kBlockPanels = SparseTerms::kBlockItems / kLanes;
constexpr int64_t kSparseUsers = 64;  // most users of a search with a sparse term, for the size of its blocks

class Search {
 public:
  // terms: the sorted terms of the users where there is a history.
  Search(const TopkArgs& args, ScreenKind kind, const Kernel& level, const SparseTerms& terms, Stop& stop)
      : a_(args), kind_(kind), level_(level), stop_(stop), exact_(args.s, level, &terms), sparse_(args.s, terms),
        k_(static_cast<size_t>(std::min(args.k, args.s.N))) {}

  // found[i]: keys of user first + i, the best first. With a history, panel_first begins a block of SparseTerms.
  void run(int64_t first, int64_t last, int64_t panel_first, int64_t panel_last, std::vector<uint64_t>* found);

 private:
  void score_all(User& user, Hits& hits);
  void walk();
  void scan(int64_t first_user, int64_t n_users, int64_t panel_first, int64_t panel_last, int64_t block_first,
            int64_t init_stride);
  void pack_queries();
  void fill_bias(int64_t panel, int64_t end);
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
  std::vector<User> users_;
  std::vector<Hits> hits_;
  std::vector<uint32_t> words_, queries_;                    // [user][word], and as the tiles want them
  std::vector<float> item_weights_, query_weights_, steps_;  // [user], as in Tile
  std::vector<int32_t> offsets_;
  Scratch<float, Search> init_;
  std::vector<float> scores_;
  std::vector<int32_t> rows_;
  std::vector<uint64_t> keys_;
};

}  // namespace fastrec

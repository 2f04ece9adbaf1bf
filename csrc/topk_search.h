// One thread's part of score_topk: the best k of some users among the items of some panels.
#pragma once

#include <vector>

#include "ops.h"
#include "scoring.h"
#include "topk_candidates.h"
#include "topk_sparse.h"

namespace fastrec {

constexpr int64_t kSparseUsers = 64;  // most users of a search with a sparse term, for the size of its blocks

class Search {
 public:
  Search(const TopkArgs& args, ScreenKind kind, const Kernel& level, Stop& stop)
      : a_(args), kind_(kind), level_(level), stop_(stop), exact_(args.s, level), sparse_(args.s),
        k_(static_cast<size_t>(std::min(args.k, args.s.N))) {}

  // found[i]: keys of user first + i, the best first.
  void run(int64_t first, int64_t last, int64_t panel_first, int64_t panel_last, std::vector<uint64_t>* found);

 private:
  void score_list(User& user, const int32_t* rows, int64_t n);
  void walk();
  void scan(int64_t first_user, int64_t n_users, int64_t panel_first, int64_t panel_last, int64_t block_first,
            int64_t init_stride);
  void pack_queries();
  void fill_bias(int64_t panel, int64_t end);
  void flush(int64_t i);
  void prune(User& user, Hits& hits);
  float kth_low(const User& user);
  void refine(User& user, Hits* hits);
  void keep_best(User& user);
  float cut_of(const User& user) const;
  void settle();
  void refine_all();
  void finish(User& user, std::vector<uint64_t>& found);

  const TopkArgs& a_;
  const ScreenKind kind_;
  const Kernel& level_;
  Stop& stop_;
  ExactScorer exact_;
  SparseBlocks sparse_;
  const size_t k_;
  int64_t panel_first_ = 0, panel_last_ = 0, tile_ = 1, query_bytes_ = 0;
  std::vector<User> users_;
  std::vector<Hits> hits_;
  std::vector<char> queries_;                                // of all tiles, query_bytes_ each user
  std::vector<int8_t> codes_;                                // int8: [user][D]
  std::vector<float> item_weights_, query_weights_, steps_;  // [user], as in Tile
  std::vector<int32_t> offsets_;
  std::vector<float> init_, scores_, lows_;
  std::vector<int32_t> rows_;
  std::vector<Pair> pairs_;
  std::vector<double> dense_;
};

}  // namespace fastrec

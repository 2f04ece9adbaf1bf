#include "topk_search.h"

#include <algorithm>
#include <functional>

namespace fastrec {
namespace {

constexpr int64_t kBlockBytes = 192 << 10;  // items that are to stay in the L2 cache for all users
constexpr int64_t kFetching = 6;            // tiles that fetch the next block
constexpr size_t kRefineAt = 1024;          // unsettled candidates beyond the k that a user needs

int64_t panel_bytes_of(ScreenKind kind, int64_t dims) {
  return 4 * kLanes * (kind == ScreenKind::kInt8 ? (dims + 3) / 4 : (dims + 1) / 2);
}

// Puts the k best first, and the k-th at its place.
void select_best(std::vector<uint64_t>& keys, size_t k) {
  std::nth_element(keys.begin(), keys.begin() + (k - 1), keys.end(), std::greater<uint64_t>());
}

}  // namespace

void Search::run(int64_t first, int64_t last, int64_t panel_first, int64_t panel_last,
                 std::vector<uint64_t>* found) {
  panel_first_ = panel_first, panel_last_ = panel_last;
  users_.clear(), words_.clear(), offsets_.clear();
  const bool few = last - first <= level_.few;
  walk_ = kind_ == ScreenKind::kInt8 ? (few ? level_.int8_few : level_.int8) : (few ? level_.bf16_few : level_.bf16);
  n_words_ = words_of(kind_, walk_, a_.s.D);
  // An exact score costs as much as the walk spends on so many items: a tile shares its reading, one user alone
  // waits for memory.
  const int64_t shortest_walk = a_.s.N / (last - first < walk_.users ? 8 : 64);
  std::vector<uint32_t> words(n_words_);
  for (int64_t u = first; u < last; ++u) {
    int32_t offset = 0;
    Bound bound;
    if (kind_ != ScreenKind::kNone) bound = bound_of(a_, kind_, u, walk_, level_.query_max, words.data(), &offset);
    User user{u, bound, Filter(a_, u)};
    user.next_prune = k_ + 64;
    if (kind_ == ScreenKind::kNone || (a_.allow && a_.allow.size(u) <= shortest_walk)) {
      score_all(user);
      finish(user, found[u - first]);
    } else {
      users_.push_back(std::move(user));
      words_.insert(words_.end(), words.begin(), words.end());
      offsets_.push_back(offset);
    }
  }
  if (users_.empty()) return;
  hits_.resize(users_.size());
  for (Hits& h : hits_) h.cut = -kInf, h.count = 0;
  walk();
  for (size_t i = 0; i < users_.size(); ++i) {
    flush(i);
    settle(users_[i]);
    finish(users_[i], found[users_[i].u - first]);
  }
}

// No walk: all items that the user may get receive their exact scores.
void Search::score_all(User& user) {
  const int64_t low = panel_first_ * kLanes, high = std::min(panel_last_ * kLanes, a_.s.N);
  const auto add = [&](int64_t row) {
    if (a_.s.bias != nullptr && a_.s.bias[row] == -kInf) return;
    if (user.filter.passes(static_cast<int32_t>(row))) user.pool.push(to_key(0.0f, row), -kInf);
    if (user.pool.size() < kRefineAt) return;
    stop_.check();
    refine(user);
  };
  if (a_.allow) {
    for (int64_t i = a_.allow.indptr[user.u]; i < a_.allow.indptr[user.u + 1]; ++i)
      if (a_.allow.rows[i] >= low && a_.allow.rows[i] < high) add(a_.allow.rows[i]);
  } else {
    for (int64_t row = low; row < high; ++row) add(row);
  }
  refine(user);
}

void Search::walk() {
  const int64_t n = static_cast<int64_t>(users_.size());
  const int64_t panel_bytes = std::max<int64_t>(panel_bytes_of(kind_, a_.s.D), 1);
  // A multiple of 6 panels suits register tiles of 2 and of 3.
  int64_t block = kBlockBytes / panel_bytes / 6 * 6;
  block = std::min(std::max<int64_t>(block, 12), kBlockPanels / 6 * 6);
  const bool sparse = static_cast<bool>(a_.s.history);
  const int64_t outer = sparse ? kBlockPanels : block;
  // A line more, so that the rows of the users do not compete for the same lines of the L1 cache.
  const int64_t stride = sparse ? (outer + 1) * kLanes : 0;
  pack_queries();
  init_.resize(std::max(n * stride, outer * kLanes));
  if (sparse) {
    std::vector<int64_t> users;
    for (const User& user : users_) users.push_back(user.u);
    sparse_.start(users, panel_first_ * kLanes);
  }
  for (int64_t p = panel_first_; p < panel_last_; p += outer) {
    const int64_t outer_end = std::min(p + outer, panel_last_);
    fill_bias(p, outer_end);
    // The bias is in the first user's place and is overwritten last.
    for (int64_t i = sparse ? n - 1 : -1; i >= 0; --i) {
      float* init = init_.data() + i * stride;
      if (i > 0) std::copy_n(init_.data(), (outer_end - p) * kLanes, init);
      sparse_.for_block(i, p / outer, [=](uint32_t column, float history, float similarity) {
        init[column] += history * similarity;
      });
    }
    for (int64_t q = p; q < outer_end; q += block) {
      stop_.check();
      for (int64_t i = 0; i < n; i += tile_)
        scan(i, std::min(tile_, n - i), q, std::min(q + block, outer_end), p, stride);
    }
  }
}

void Search::scan(int64_t i, int64_t n_users, int64_t panel_first, int64_t panel_last, int64_t block_first,
                  int64_t init_stride) {
  Tile tile{};
  tile.n_users = static_cast<int32_t>(n_users);
  tile.queries = queries_.data() + i / tile_ * tile_words_;
  tile.init_stride = init_stride;
  tile.init = init_.data() + i * init_stride + (panel_first - block_first) * kLanes;
  tile.hits = hits_.data() + i;
  tile.first_user = i;
  const int64_t tiles = (static_cast<int64_t>(users_.size()) + tile_ - 1) / tile_;
  const int64_t fetching = std::min(tiles, kFetching);
  if (tile_ > 2 && panel_last < panel_last_ && i / tile_ < fetching) {  // few users read ahead by themselves
    const int64_t panel_bytes = panel_bytes_of(kind_, a_.s.D);
    tile.ahead = static_cast<const char*>(a_.screen.codes) + panel_last * panel_bytes +
                 i / tile_ * (panel_last - panel_first) * panel_bytes / fetching;
    tile.ahead_bytes = panel_bytes / fetching;
  }
  tile.context = this;
  tile.flush = [](void* self, int64_t user) { static_cast<Search*>(self)->flush(user); };
  tile.item_weight = item_weights_.data() + i;
  tile.query_weight = query_weights_.data() + i;
  tile.step = steps_.data() + i;
  tile.offset = offsets_.data() + i;
  walk_.scan(a_.screen, a_.s.D, panel_first, panel_last, tile);
}

// Tiles of about the same width, see Tile.
void Search::pack_queries() {
  const int64_t n = static_cast<int64_t>(users_.size());
  int64_t tiles = (n + walk_.users - 1) / walk_.users;
  tile_ = (n + tiles - 1) / tiles;
  if (walk_.tiled) tile_ = (tile_ + kLanes - 1) / kLanes * kLanes;
  tiles = (n + tile_ - 1) / tile_;
  const int64_t depth = (n_words_ + 15) / 16;
  tile_words_ = walk_.tiled ? tile_ * 16 * depth : tile_ * n_words_;
  queries_.assign(tiles * tile_words_, 0);
  item_weights_.clear(), query_weights_.clear(), steps_.clear();
  for (int64_t i = 0; i < n; ++i) {
    uint32_t* tile = queries_.data() + i / tile_ * tile_words_;
    const uint32_t* words = words_.data() + i * n_words_;
    const int64_t j = i % tile_, width = std::min(tile_, n - i / tile_ * tile_);
    for (int64_t w = 0; w < n_words_; ++w)
      tile[walk_.tiled ? ((j / 16 * depth + w / 16) * 16 + j % 16) * 16 + w % 16 : w * width + j] = words[w];
    item_weights_.push_back(users_[i].bound.item_weight);
    query_weights_.push_back(users_[i].bound.query_weight);
    steps_.push_back(users_[i].bound.step);
  }
}

// The bias of a block into the first row of init_; -inf keeps the lanes beyond N from ever passing.
void Search::fill_bias(int64_t p, int64_t end) {
  const int64_t first = p * kLanes, valid = std::min(end * kLanes, a_.s.N);
  for (int64_t i = first; i < valid; ++i) init_[i - first] = a_.s.bias != nullptr ? a_.s.bias[i] : 0.0f;
  std::fill(init_.begin() + (valid - first), init_.begin() + (end - p) * kLanes, -kInf);
}

// Hits that the user may have go to the pool.
void Search::flush(int64_t i) {
  Hits& hits = hits_[i];
  User& user = users_[i];
  Pool& pool = user.pool;
  size_t n = pool.size();
  pool.resize(n + hits.count);
  Filter filter = user.filter;  // in registers
  for (int32_t h = 0; h < hits.count; ++h) {
    const int32_t row = hits.rows[h];
    const float high = hits.scores[h];
    pool.keys[n] = to_key(high, row), pool.lows[n] = user.bound.exact ? high : hits.lows[h];
    n += high > hits.cut && filter.passes(row);
  }
  user.filter = filter;
  pool.resize(n);
  hits.count = 0;
  if (user.pool.size() >= user.next_prune) prune(user, hits);
}

// Raises kth_low to nearly the k-th largest lower bound in the pool: by bisection, as counting has no branches to
// guess.
void Search::raise_kth_low(User& user) const {
  constexpr int kSteps = 16;
  const std::vector<float>& lows = user.pool.lows;
  constexpr size_t kWays = 4;  // comparisons that do not wait for one another
  float least[kWays] = {kInf, kInf, kInf, kInf}, most[kWays] = {-kInf, -kInf, -kInf, -kInf};
  for (size_t i = 0; i < lows.size(); ++i) {
    least[i % kWays] = std::min(least[i % kWays], lows[i]);
    most[i % kWays] = std::max(most[i % kWays], lows[i]);
  }
  float low = std::max(user.kth_low, *std::min_element(least, least + kWays));
  float high = *std::max_element(most, most + kWays);
  if (!(low > -1e37f && high < 1e37f)) {
    std::vector<float> sorted = lows;
    std::nth_element(sorted.begin(), sorted.begin() + (k_ - 1), sorted.end(), std::greater<float>());
    low = sorted[k_ - 1];
  } else {
    for (int step = 0; step < kSteps; ++step) {
      const float middle = low + (high - low) / 2;
      int32_t matches = 0;  // as wide as a float, for the registers
      for (const float x : lows) matches += x >= middle;
      const size_t count = static_cast<size_t>(matches);
      (count >= k_ ? low : high) = middle;
      if (count >= k_ && count <= k_ + k_ / 16 + 1) break;  // near enough
    }
  }
  user.kth_low = std::max(user.kth_low, low);
}

// Raises the cut and drops what is below it. The next time is when the pool has doubled, so that a hit costs a
// constant number of steps even where most of the pool has to stay.
void Search::prune(User& user, Hits& hits) {
  Pool& pool = user.pool;
  if (pool.size() >= k_) {
    if (user.bound.exact) {
      // Exact scores, and rows that ascend: a later item with the same score comes after these k.
      select_best(pool.keys, k_);
      pool.resize(k_);
      hits.cut = std::max(hits.cut, score_of(pool.keys[k_ - 1]));
    } else {
      raise_kth_low(user);
      hits.cut = std::max(hits.cut, just_below(static_cast<double>(user.kth_low) - 2.0 * user.bound.pad));
      const uint64_t least = to_key(hits.cut, 0) >> 32;
      size_t kept = 0;
      for (size_t i = 0; i < pool.size(); ++i) {
        pool.keys[kept] = pool.keys[i], pool.lows[kept] = pool.lows[i];
        kept += pool.keys[i] >> 32 > least;
      }
      pool.resize(kept);
      if (pool.size() > k_ + kRefineAt) {
        refine(user);
        hits.cut = std::max(hits.cut, cut_of(user));
      }
    }
  }
  user.next_prune = std::max<size_t>(2 * pool.size(), k_ + 64);
}

// Replaces the scores of the walk by the exact ones and keeps the best k.
void Search::refine(User& user) {
  rows_.clear();
  for (const uint64_t key : user.pool.keys) rows_.push_back(row_of(key));
  user.pool.resize(0);
  if (a_.s.history) std::sort(rows_.begin(), rows_.end());
  scores_.resize(rows_.size());
  exact_(user.u, rows_.data(), static_cast<int64_t>(rows_.size()), scores_.data());
  for (size_t i = 0; i < rows_.size(); ++i) user.best.push_back(to_key(scores_[i], rows_[i]));
  if (user.best.size() <= k_) return;
  select_best(user.best, k_);
  user.best.resize(k_);
}

// What the walk must give for an item to be better than k exact scores.
float Search::cut_of(const User& user) const {
  if (user.best.size() < k_) return -kInf;
  const uint64_t worst = *std::min_element(user.best.begin(), user.best.end());
  return just_below(static_cast<double>(score_of(worst)) - user.bound.pad);
}

// The pool becomes exact. The last cut saves exact scores, and the scores of the likely best ones make it sharper
// still.
void Search::settle(User& user) {
  if (user.bound.exact) return;
  Hits last;
  last.cut = -kInf;
  prune(user, last);
  Pool& pool = user.pool;
  // Where little is left over, a second round costs more than it saves.
  if (pool.size() <= k_ + k_ / 2 + 8) return refine(user);
  select_best(pool.keys, k_);
  rest_.assign(pool.keys.begin() + k_, pool.keys.end());
  pool.resize(k_);
  refine(user);
  const float cut = std::max(last.cut, cut_of(user));
  for (const uint64_t key : rest_)
    if (score_of(key) > cut) user.pool.push(key, -kInf);
  refine(user);
}

void Search::finish(User& user, std::vector<uint64_t>& found) {
  for (const uint64_t key : user.pool.keys) user.best.push_back(key);  // exact, or none
  std::sort(user.best.begin(), user.best.end(), std::greater<uint64_t>());
  if (user.best.size() > k_) user.best.resize(k_);
  found = std::move(user.best);
  user.pool = {};
}

}  // namespace fastrec

#include "topk_search.h"

#include <algorithm>
#include <functional>

#include "check.h"

namespace fastrec {
namespace {

constexpr int64_t kBlockBytes = 192 << 10;  // items that are to stay in the L2 cache for all users
constexpr int64_t kShared = 2;              // blocks that a thread takes at least where threads share the panels
constexpr int64_t kFetching = 6;            // tiles that fetch the next block
constexpr size_t kRefineAt = 1024;          // unsettled candidates beyond the k that a user needs
constexpr size_t kFirstHits = 64;           // beyond the k, before a cut is worth its work
constexpr size_t kMostFirstHits = 256;      // so that a large k takes memory only where there are hits

int64_t panel_bytes_of(ScreenKind kind, int64_t dims) {
  return 4 * kLanes * (kind == ScreenKind::kInt8 ? (dims + 3) / 4 : (dims + 1) / 2);
}

// Puts the k best first, and the k-th at its place.
void select_best(std::vector<uint64_t>& keys, size_t k) {
  std::nth_element(keys.begin(), keys.begin() + (k - 1), keys.end(), std::greater<uint64_t>());
}

// Lets the hits grow to flush_at before they are looked at: in new columns where there are not enough places.
void make_room(User& user, Hits& hits, size_t flush_at) {
  hits.flush_at = static_cast<int32_t>(flush_at);
  const size_t places = flush_at + kHitsBeyond, n = static_cast<size_t>(hits.count);
  if (places <= user.places) return;
  require(places < (size_t{1} << 31), "hits are counted in int32");
  std::unique_ptr<char[]> columns(new char[places * 12]);
  float* scores = reinterpret_cast<float*>(columns.get());
  float* lows = scores + places;
  int32_t* rows = reinterpret_cast<int32_t*>(lows + places);
  std::copy_n(hits.scores, n, scores), std::copy_n(hits.lows, n, lows), std::copy_n(hits.rows, n, rows);
  hits.scores = scores, hits.lows = lows, hits.rows = rows;
  user.columns = std::move(columns);
  user.places = places;
}

}  // namespace

void Search::run(int64_t first, int64_t last, int64_t panel_first, int64_t panel_last,
                 std::vector<uint64_t>* found, SharedPanels* shared) {
  panel_first_ = panel_first, panel_last_ = panel_last;
  const bool few = last - first <= level_.few;
  begin(kind_ == ScreenKind::kInt8 ? (few ? level_.int8_few : level_.int8) : (few ? level_.bf16_few : level_.bf16));
  // An exact score costs as much as the walk spends on so many items: a tile shares its reading, one user alone
  // waits for memory.
  const int64_t shortest_walk = a_.s.N / (last - first < walk_.users ? 8 : 64);
  for (int64_t u = first; u < last; ++u) {
    if (kind_ == ScreenKind::kNone || (a_.allow && a_.allow.size(u) <= shortest_walk)) {
      User user{u, {}, lists_of(a_, u)};
      Hits hits{};
      hits.cut = -kInf;
      score_all(user, hits);
      finish(user, hits, found[u - first]);
    } else {
      admit(u);
    }
  }
  if (users_.empty()) return;
  walk(shared);
  end([&](int64_t u) { return found + (u - first); });
}

void Search::begin(const Walk& walk) {
  walk_ = walk;
  n_words_ = words_of(kind_, walk_, a_.s.D);
  users_.clear(), hits_.clear(), words_.clear(), offsets_.clear();
  item_weights_.clear(), query_weights_.clear(), steps_.clear();
}

void Search::admit(int64_t u) {
  words_.resize(words_.size() + n_words_);
  int32_t offset = 0;
  User user{u, bound_of(a_, kind_, u, walk_, level_.query_max, words_.data() + (words_.size() - n_words_), &offset),
            lists_of(a_, u)};
  user.next_prune = k_ + kFirstHits;
  Hits hits{};
  hits.cut = -kInf;
  make_room(user, hits, std::min(user.next_prune, kMostFirstHits));
  offsets_.push_back(offset);
  item_weights_.push_back(user.bound.item_weight);
  query_weights_.push_back(user.bound.query_weight);
  steps_.push_back(user.bound.step);
  users_.push_back(std::move(user));
  hits_.push_back(hits);
}

void Search::end(const std::function<std::vector<uint64_t>*(int64_t)>& found) {
  for (size_t i = 0; i < users_.size(); ++i) {
    flush(static_cast<int64_t>(i));
    settle(users_[i], hits_[i]);
    finish(users_[i], hits_[i], *found(users_[i].u));
  }
}

// No walk: all items that the user may get receive their exact scores.
void Search::score_all(User& user, Hits& hits) {
  const int64_t low = panel_first_ * kLanes, high = std::min(panel_last_ * kLanes, a_.s.N);
  make_room(user, hits, kRefineAt);
  const auto add = [&](int64_t row) {
    if (a_.s.bias != nullptr && a_.s.bias[row] == -kInf) return;
    const int32_t n = hits.count++;
    hits.scores[n] = 0.0f, hits.lows[n] = -kInf, hits.rows[n] = static_cast<int32_t>(row);
    if (hits.count < hits.flush_at) return;
    stop_.check();
    level_.keep(hits, 0, &user.lists);
    refine(user, hits);
  };
  if (a_.allow) {
    for (int64_t i = a_.allow.indptr[user.u]; i < a_.allow.indptr[user.u + 1]; ++i)
      if (a_.allow.rows[i] >= low && a_.allow.rows[i] < high) add(a_.allow.rows[i]);
  } else {
    for (int64_t row = low; row < high; ++row) add(row);
  }
  level_.keep(hits, 0, &user.lists);
  refine(user, hits);
}

void Search::walk(SharedPanels* shared) {
  const int64_t n = static_cast<int64_t>(users_.size());
  const int64_t panel_bytes = std::max<int64_t>(panel_bytes_of(kind_, a_.s.D), 1);
  // A multiple of 6 panels suits register tiles of 2 and of 3.
  int64_t block = kBlockBytes / panel_bytes / 6 * 6;
  block = std::min(std::max<int64_t>(block, 12), kBlockPanels);
  const bool sparse = static_cast<bool>(a_.s.history);
  // The next block is read ahead in the size of this one, so that those of a sparse term are cut into equal ones.
  if (sparse) block = kBlockPanels / ((kBlockPanels + block - 1) / block) / 6 * 6;
  outer_ = sparse ? kBlockPanels : block;
  // A line more, so that the rows of the users do not compete for the same lines of the L1 cache.
  stride_ = sparse ? (outer_ + 1) * kLanes : 0;
  pack_queries();
  init_.grow(std::max(n * stride_, outer_ * kLanes));
  zeros_ = 0;
  if (sparse) {
    std::vector<int64_t> users;
    for (const User& user : users_) users.push_back(user.u);
    sparse_.start(users, panel_first_ * kLanes);
  }
  if (shared == nullptr) return walk_panels(panel_first_, panel_last_, block);
  while (shared->take(kShared * block, panel_first_, panel_last_)) walk_panels(panel_first_, panel_last_, block);
}

void Search::walk_panels(int64_t panel_first, int64_t panel_last, int64_t block) {
  const int64_t n = static_cast<int64_t>(users_.size());
  const bool sparse = static_cast<bool>(a_.s.history);
  for (int64_t p = panel_first; p < panel_last; p += outer_) {
    const int64_t outer_end = std::min(p + outer_, panel_last);
    const float* starts = sparse ? fill_bias(p, outer_end) : bias_of(p, outer_end);
    // The bias is in the first user's place and is overwritten last.
    for (int64_t i = sparse ? n - 1 : -1; i >= 0; --i) {
      float* init = init_.data() + i * stride_;
      if (i > 0) std::copy_n(init_.data(), (outer_end - p) * kLanes, init);
      sparse_.for_block(i, p / outer_, [=](uint32_t column, float history, float similarity) {
        init[column] += history * similarity;
      });
    }
    for (int64_t q = p; q < outer_end; q += block) {
      stop_.check();
      for (int64_t i = 0; i < n; i += tile_)
        scan(i, std::min(tile_, n - i), q, std::min(q + block, outer_end), starts + (q - p) * kLanes);
    }
  }
}

void Search::scan(int64_t i, int64_t n_users, int64_t panel_first, int64_t panel_last,
                  const float* starts) {
  Tile tile = tile_of(i, queries_.data() + i / tile_ * tile_words_);
  tile.n_users = static_cast<int32_t>(n_users);
  tile.init_stride = stride_;
  tile.init = starts + i * stride_;
  const int64_t tiles = (static_cast<int64_t>(users_.size()) + tile_ - 1) / tile_;
  const int64_t fetching = std::min(tiles, kFetching);
  if (tile_ > 2 && panel_last < panel_last_ && i / tile_ < fetching) {  // few users read ahead by themselves
    const int64_t panel_bytes = panel_bytes_of(kind_, a_.s.D);
    tile.ahead = static_cast<const char*>(a_.screen.codes) + panel_last * panel_bytes +
                 i / tile_ * (panel_last - panel_first) * panel_bytes / fetching;
    tile.ahead_bytes = panel_bytes / fetching;
  }
  walk_.scan(a_.screen, a_.s.D, panel_first, panel_last, tile);
}

Tile Search::tile_of(int64_t i, const uint32_t* queries) {
  Tile tile{};
  tile.queries = queries;
  tile.hits = hits_.data() + i;
  tile.first_user = i;
  tile.context = this;
  tile.flush = [](void* self, int64_t user) { static_cast<Search*>(self)->flush(user); };
  tile.item_weight = item_weights_.data() + i;
  tile.query_weight = query_weights_.data() + i;
  tile.step = steps_.data() + i;
  tile.offset = offsets_.data() + i;
  return tile;
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
  for (int64_t i = 0; i < n; ++i) {
    uint32_t* tile = queries_.data() + i / tile_ * tile_words_;
    const uint32_t* words = words_.data() + i * n_words_;
    const int64_t j = i % tile_, width = std::min(tile_, n - i / tile_ * tile_);
    for (int64_t w = 0; w < n_words_; ++w)
      tile[walk_.tiled ? ((j / 16 * depth + w / 16) * 16 + j % 16) * 16 + w % 16 : w * width + j] = words[w];
  }
}

// The bias of a block into the first row of init_; -inf keeps the lanes beyond N from ever passing.
const float* Search::fill_bias(int64_t p, int64_t end) {
  const int64_t first = p * kLanes, valid = std::min(end * kLanes, a_.s.N);
  for (int64_t i = first; i < valid; ++i) init_.data()[i - first] = a_.s.bias != nullptr ? a_.s.bias[i] : 0.0f;
  std::fill(init_.data() + (valid - first), init_.data() + (end - p) * kLanes, -kInf);
  zeros_ = a_.s.bias == nullptr ? valid - first : 0;
  return init_.data();
}

// The same where nothing is added to it: what is there already is not written again. For one user and few dimensions
// that is a tenth of the walk.
const float* Search::bias_of(int64_t p, int64_t end) {
  const bool whole = end * kLanes <= a_.s.N;
  if (whole && a_.s.bias != nullptr) return a_.s.bias + p * kLanes;
  return whole && zeros_ >= (end - p) * kLanes ? init_.data() : fill_bias(p, end);
}

// Drops the hits that the user may not have.
void Search::flush(int64_t i) {
  Hits& hits = hits_[i];
  User& user = users_[i];
  keep_new(user, hits);
  user.kept = hits.count;
  if (static_cast<size_t>(hits.count) >= user.next_prune) prune(user, hits);
  // Some more than there are, or every hit that the user may not have would be looked at alone.
  const size_t count = static_cast<size_t>(hits.count), least = count + 2 * kLanes;
  make_room(user, hits, std::max(least, std::min(user.next_prune, std::max(2 * count, kMostFirstHits))));
}

// Raises the cut and drops what is below it. The next time is when the hits have doubled, so that a hit costs a
// constant number of steps even where most of them have to stay.
void Search::prune(User& user, Hits& hits) {
  if (static_cast<size_t>(hits.count) >= k_) {
    if (user.bound.exact) {
      // Exact scores, and rows that ascend: a later item with the same score comes after these k.
      keys_of(hits);
      select_best(keys_, k_);
      for (size_t i = 0; i < k_; ++i) hits.scores[i] = score_of(keys_[i]), hits.rows[i] = row_of(keys_[i]);
      hits.count = static_cast<int32_t>(k_);
      hits.cut = std::max(hits.cut, score_of(keys_[k_ - 1]));
    } else {
      user.kth_low = std::max(user.kth_low, level_.kth_low(hits, static_cast<int32_t>(k_), user.kth_low));
      hits.cut = std::max(hits.cut, just_below(static_cast<double>(user.kth_low) - 2.0 * user.bound.pad));
      level_.keep(hits, 0, nullptr);
      if (static_cast<size_t>(hits.count) > k_ + kRefineAt) {
        refine(user, hits);
        hits.cut = std::max(hits.cut, cut_of(user));
      }
    }
  }
  user.kept = hits.count;
  user.next_prune = std::max(2 * static_cast<size_t>(hits.count), k_ + kFirstHits);
}

void Search::keys_of(const Hits& hits) {
  keys_.resize(hits.count);
  for (int32_t i = 0; i < hits.count; ++i) keys_[i] = to_key(hits.scores[i], hits.rows[i]);
}

// Replaces the scores of the walk by the exact ones and keeps the best k.
void Search::refine(User& user, Hits& hits) {
  rows_.assign(hits.rows, hits.rows + hits.count);
  hits.count = 0;
  score(user);
}

void Search::score(User& user) {
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

// The hits become exact. The last cut saves exact scores, and the scores of the likely best ones make it sharper
// still.
void Search::settle(User& user, Hits& hits) {
  if (user.bound.exact) return;
  prune(user, hits);
  const size_t first = (k_ + kLanes - 1) / kLanes * kLanes;  // as many as whole turns of the exact scores take
  if (static_cast<size_t>(hits.count) <= first) return refine(user, hits);
  keys_of(hits);
  select_best(keys_, first);
  rows_.clear();
  for (size_t i = 0; i < first; ++i) rows_.push_back(row_of(keys_[i]));
  score(user);
  hits.cut = std::max(hits.cut, cut_of(user));
  rows_.clear();
  for (size_t i = first; i < keys_.size(); ++i)
    if (score_of(keys_[i]) > hits.cut) rows_.push_back(row_of(keys_[i]));
  hits.count = 0;
  score(user);
}

void Search::finish(User& user, const Hits& hits, std::vector<uint64_t>& found) {
  for (int32_t i = 0; i < hits.count; ++i)
    user.best.push_back(to_key(hits.scores[i], hits.rows[i]));  // exact, or none
  std::sort(user.best.begin(), user.best.end(), std::greater<uint64_t>());
  if (user.best.size() > k_) user.best.resize(k_);
  found = std::move(user.best);
  user.columns = {};
}

}  // namespace fastrec

#include "topk_search.h"

#include <algorithm>
#include <functional>

namespace fastrec {
namespace {

constexpr int64_t kSparsePanels = SparseBlocks::kBlockItems / kLanes;
constexpr int64_t kBlockBytes = 192 << 10;  // items that are to stay in the L2 cache for all users
constexpr int64_t kFetching = 6;            // tiles that fetch the next block
constexpr size_t kRefineAt = 1024;          // unsettled candidates beyond the k that a user needs

int32_t users_of_tile(const Kernel& level, ScreenKind kind) {
  if (kind == ScreenKind::kInt8) return level.users_int8;
  return kind == ScreenKind::kBf16 ? level.users_bf16 : level.users;
}

int64_t dims_of(ScreenKind kind, int64_t dims) {
  if (kind == ScreenKind::kInt8) return (dims + 3) / 4 * 4;
  return kind == ScreenKind::kBf16 ? (dims + 1) / 2 * 2 : dims;
}

int64_t bytes_of(ScreenKind kind) { return kind == ScreenKind::kInt8 ? 1 : kind == ScreenKind::kBf16 ? 2 : 4; }

bool better(const Candidate& x, const Candidate& y) { return x.key > y.key; }

}  // namespace

void Search::run(int64_t first, int64_t last, int64_t panel_first, int64_t panel_last,
                 std::vector<uint64_t>* found) {
  panel_first_ = panel_first, panel_last_ = panel_last;
  users_.clear();
  codes_.clear();
  // An exact score costs as much as the walk spends on so many items: a tile shares its reading, one user alone
  // waits for memory.
  const int64_t shortest_walk = a_.s.N / (last - first < level_.users ? 16 : 128);
  std::vector<int8_t> codes(kind_ == ScreenKind::kInt8 ? a_.s.D : 0);
  for (int64_t u = first; u < last; ++u) {
    User user{u, bound_of(a_, kind_, u, level_.query_max, codes.data()), Filter(a_, u)};
    user.next_prune = k_ + 64;
    if (a_.allow && a_.allow.size(u) <= shortest_walk) {
      score_list(user, a_.allow.rows + a_.allow.indptr[u], a_.allow.size(u));
      finish(user, found[u - first]);
    } else {
      users_.push_back(std::move(user));
      codes_.insert(codes_.end(), codes.begin(), codes.end());
    }
  }
  if (users_.empty()) return;
  hits_.resize(users_.size());
  for (Hits& h : hits_) h.cut = -kInf, h.count = 0;
  walk();
  for (size_t i = 0; i < users_.size(); ++i) flush(i);
  settle();
  for (User& user : users_) finish(user, found[user.u - first]);
}

// A short allow list: no walk, its items get their exact scores.
void Search::score_list(User& user, const int32_t* rows, int64_t n) {
  const int64_t low = panel_first_ * kLanes, high = panel_last_ * kLanes;
  for (int64_t i = 0; i < n; ++i) {
    const int32_t row = rows[i];
    if (row < low || row >= high || (a_.s.bias != nullptr && a_.s.bias[row] == -kInf)) continue;
    if (user.filter.passes(row)) user.pool.push_back({to_key(0.0f, row), -kInf});
    if (user.pool.size() >= kRefineAt) refine(user, nullptr);
  }
  refine(user, nullptr);
}

void Search::walk() {
  const int64_t n = static_cast<int64_t>(users_.size());
  const int64_t panel_bytes = std::max<int64_t>(dims_of(kind_, a_.s.D), 1) * kLanes * bytes_of(kind_);
  // A multiple of 6 panels suits register tiles of 2 and of 3.
  int64_t block = kBlockBytes / panel_bytes / 6 * 6;
  block = std::min(std::max<int64_t>(block, 12), kSparsePanels / 6 * 6);
  const bool sparse = static_cast<bool>(a_.s.history);
  const int64_t outer = sparse ? kSparsePanels : block, stride = sparse ? outer * kLanes : 0;
  pack_queries();
  init_.resize((sparse ? n : 1) * outer * kLanes);
  if (sparse) {
    std::vector<int64_t> users;
    for (const User& user : users_) users.push_back(user.u);
    sparse_.start(std::move(users), panel_first_ * kLanes, panel_last_ * kLanes);
  }
  for (int64_t p = panel_first_; p < panel_last_; p += outer) {
    const int64_t outer_end = std::min(p + outer, panel_last_);
    fill_bias(p, outer_end);
    // The bias is in the first user's place and is overwritten last.
    for (int64_t i = sparse ? n - 1 : -1; i >= 0; --i)
      sparse_.fill(i, (p - panel_first_) / outer, (outer_end - p) * kLanes, init_.data(), init_.data() + i * stride);
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
  tile.queries = queries_.data() + i * query_bytes_;
  tile.init_stride = init_stride;
  tile.init = init_.data() + i * init_stride + (panel_first - block_first) * kLanes;
  tile.hits = hits_.data() + i;
  tile.first_user = i;
  const int64_t tiles = (static_cast<int64_t>(users_.size()) + tile_ - 1) / tile_, fetching = std::min(tiles, kFetching);
  if (tile_ > 2 && panel_last < panel_last_ && i / tile_ < fetching) {  // few users read ahead by themselves
    const int64_t panel_bytes = dims_of(kind_, a_.s.D) * kLanes * bytes_of(kind_);
    const void* items = kind_ == ScreenKind::kNone ? a_.s.panels : a_.screen.codes;
    tile.ahead = static_cast<const char*>(items) + panel_last * panel_bytes +
                 i / tile_ * (panel_last - panel_first) * panel_bytes / fetching;
    tile.ahead_bytes = panel_bytes / fetching;
  }
  tile.context = this;
  tile.flush = [](void* self, int64_t user) { static_cast<Search*>(self)->flush(user); };
  if (kind_ == ScreenKind::kNone) return level_.scan(a_.s.panels, a_.s.D, panel_first, panel_last, tile);
  tile.item_weight = item_weights_.data() + i;
  tile.query_weight = query_weights_.data() + i;
  tile.step = steps_.data() + i;
  tile.offset = offsets_.data() + i;
  const auto run = kind_ == ScreenKind::kInt8 ? level_.scan_int8 : level_.scan_bf16;
  run(a_.screen, a_.s.D, panel_first, panel_last, tile);
}

// Tiles of about the same width, each [d][user of the tile]; int8 [d / 4][user][4].
void Search::pack_queries() {
  const int64_t D = a_.s.D, n = static_cast<int64_t>(users_.size()), most = users_of_tile(level_, kind_);
  const int64_t tiles = (n + most - 1) / most, dims = dims_of(kind_, D);
  tile_ = (n + tiles - 1) / tiles;
  query_bytes_ = dims * (kind_ == ScreenKind::kInt8 ? 1 : 4);
  queries_.assign(n * query_bytes_, 0);
  item_weights_.clear(), query_weights_.clear(), steps_.clear(), offsets_.clear();
  for (int64_t i = 0; i < n; i += tile_) {
    const int64_t w = std::min(tile_, n - i);
    char* tile = queries_.data() + i * query_bytes_;
    for (int64_t j = 0; j < w; ++j) {
      const Bound& bound = users_[i + j].bound;
      item_weights_.push_back(bound.item_weight);
      query_weights_.push_back(bound.query_weight);
      steps_.push_back(bound.step);
      int32_t sum = 0;
      if (kind_ == ScreenKind::kInt8) {
        const int8_t* codes = codes_.data() + (i + j) * D;
        for (int64_t d = 0; d < D; ++d) {
          reinterpret_cast<int8_t*>(tile)[(d / 4 * w + j) * 4 + d % 4] = codes[d];
          sum += codes[d];
        }
      } else {
        const float* q = a_.s.queries + users_[i + j].u * D;
        for (int64_t d = 0; d < D; ++d) reinterpret_cast<float*>(tile)[d * w + j] = q[d];
      }
      offsets_.push_back(-128 * sum);
    }
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
  for (int32_t h = 0; h < hits.count; ++h) {
    const int32_t row = hits.rows[h];
    const float high = hits.scores[h];
    if (high <= hits.cut || !user.filter.passes(row)) continue;
    float low = high;
    if (kind_ != ScreenKind::kNone && !user.bound.exact)
      low = just_below(static_cast<double>(high) - 2.0 * width_of(a_, kind_, user.bound, row));
    user.pool.push_back({to_key(high, row), low});
  }
  hits.count = 0;
  if (user.pool.size() >= user.next_prune) prune(user, hits);
}

// The k-th largest lower bound in the pool, but for the pad.
float Search::kth_low(const User& user) {
  lows_.clear();
  for (const Candidate& c : user.pool) lows_.push_back(c.low);
  std::nth_element(lows_.begin(), lows_.begin() + (k_ - 1), lows_.end(), std::greater<float>());
  return lows_[k_ - 1];
}

// Raises the cut and drops what is below it. The next time is when the pool has doubled, so that a hit costs a
// constant number of steps even where most of the pool has to stay.
void Search::prune(User& user, Hits& hits) {
  std::vector<Candidate>& pool = user.pool;
  if (pool.size() >= k_) {
    if (user.bound.exact) {
      // Exact scores, and rows that ascend: a later item with the same score comes after these k.
      std::nth_element(pool.begin(), pool.begin() + (k_ - 1), pool.end(), better);
      pool.resize(k_);
      hits.cut = std::max(hits.cut, score_of(pool[k_ - 1].key));
    } else {
      hits.cut = std::max(hits.cut, just_below(static_cast<double>(kth_low(user)) - 2.0 * user.bound.pad));
      const auto lost = [&](const Candidate& c) { return score_of(c.key) <= hits.cut; };
      pool.erase(std::remove_if(pool.begin(), pool.end(), lost), pool.end());
      if (pool.size() > k_ + kRefineAt) refine(user, &hits);
    }
  }
  user.next_prune = std::max<size_t>(2 * pool.size(), k_ + 64);
}

// Replaces the scores of the walk by the exact ones and keeps the best k.
void Search::refine(User& user, Hits* hits) {
  rows_.clear();
  for (const Candidate& c : user.pool) rows_.push_back(row_of(c.key));
  std::sort(rows_.begin(), rows_.end());
  scores_.resize(rows_.size());
  exact_(user.u, rows_.data(), static_cast<int64_t>(rows_.size()), scores_.data());
  keep_best(user);
  if (hits != nullptr) hits->cut = std::max(hits->cut, cut_of(user));
}

// rows_ with scores_ take the place of the pool.
void Search::keep_best(User& user) {
  user.pool.clear();
  for (size_t i = 0; i < rows_.size(); ++i) user.best.push_back(to_key(scores_[i], rows_[i]));
  if (user.best.size() < k_) return;
  std::nth_element(user.best.begin(), user.best.begin() + (k_ - 1), user.best.end(), std::greater<uint64_t>());
  user.best.resize(k_);
}

// What the walk must give for an item to be better than k exact scores.
float Search::cut_of(const User& user) const {
  if (user.best.size() < k_) return -kInf;
  return just_below(static_cast<double>(score_of(user.best[k_ - 1])) - user.bound.pad);
}

// The pools of all users become exact. Only now is the k-th of all known: the last cut saves exact scores, and the
// scores of the likely best ones make it sharper still.
void Search::settle() {
  std::vector<std::vector<Candidate>> rest(users_.size());
  std::vector<float> cuts(users_.size(), -kInf);
  for (size_t i = 0; i < users_.size(); ++i) {
    User& user = users_[i];
    if (user.bound.exact) continue;
    Hits last;
    last.cut = -kInf;
    prune(user, last);
    cuts[i] = last.cut;
    std::vector<Candidate>& pool = user.pool;
    // Where little is left over, a second round costs more than it saves.
    if (pool.size() <= k_ + k_ / 4 + 8) continue;
    std::nth_element(pool.begin(), pool.begin() + (k_ - 1), pool.end(), better);
    rest[i].assign(pool.begin() + k_, pool.end());
    pool.resize(k_);
  }
  refine_all();
  bool more = false;
  for (size_t i = 0; i < users_.size(); ++i) {
    if (rest[i].empty()) continue;
    User& user = users_[i];
    const float cut = std::max(cuts[i], cut_of(user));
    for (const Candidate& c : rest[i])
      if (score_of(c.key) > cut) user.pool.push_back(c), more = true;
  }
  if (more) refine_all();
}

// refine for all users at once, so that an item that several of them want is read once.
void Search::refine_all() {
  pairs_.clear();
  for (User& user : users_) {
    if (user.bound.exact) continue;
    std::sort(user.pool.begin(), user.pool.end(),
              [](const Candidate& x, const Candidate& y) { return row_of(x.key) < row_of(y.key); });
    for (const Candidate& c : user.pool) pairs_.push_back({user.u, row_of(c.key)});
  }
  dense_.resize(pairs_.size());
  exact_.dense(pairs_, dense_.data());
  size_t at = 0;
  for (User& user : users_) {
    if (user.bound.exact) continue;
    rows_.clear();
    for (const Candidate& c : user.pool) rows_.push_back(row_of(c.key));
    scores_.resize(rows_.size());
    exact_.total(user.u, rows_.data(), static_cast<int64_t>(rows_.size()), dense_.data() + at, scores_.data());
    at += rows_.size();
    keep_best(user);
  }
}

void Search::finish(User& user, std::vector<uint64_t>& found) {
  for (const Candidate& c : user.pool) user.best.push_back(c.key);  // exact, or none
  std::sort(user.best.begin(), user.best.end(), std::greater<uint64_t>());
  if (user.best.size() > k_) user.best.resize(k_);
  found = std::move(user.best);
  user.pool = {};
}

}  // namespace fastrec

#include "topk_cells.h"

#include <algorithm>

#include "cell_bounds.h"
#include "topk_search.h"

namespace fastrec {
namespace {

constexpr int kLikely = 3, kSeeds = 16;  // cells that a user begins with, and as many more where that leaves too many
constexpr int kTurn = 4;                // of these, before they are counted
constexpr int64_t kFewOpen = 32;        // one of so many cells
constexpr double kMostWork = 0.5;       // of the pairs of users and panels, for the cells to be worth it
constexpr int64_t kUsersPerTask = 8;
constexpr int64_t kCellsAtOnce = 16;

// A cell that may have something for a user.
struct Open {
  int32_t cell, user;
  float bound;
};

class CellSearch : public Search {
 public:
  CellSearch(const TopkArgs& args, ScreenKind kind, const Kernel& level, const SparseTerms& none, Stop& stop)
      : Search(args, kind, level, none, stop), cells_(args.cells) {
    begin(walk_of(level, kind));
  }

  using Search::admit;
  using Search::end;

  // The walk of one user, or of a tile of them, over a cell.
  void walk_one(int64_t i, int64_t cell) {
    Tile tile = tile_of(i, words_.data() + i * n_words_);
    tile.n_users = 1;
    walk_cell(tile, cell);
  }
  void walk_some(const Open* open, int64_t n, int64_t cell);
  // The cell to fetch during the next walk.
  void fetch(int64_t cell) { next_ = cell; }

  // The cut by exact scores, and whether there are k.
  bool sharpen(int64_t i) {
    flush(i);
    if (static_cast<size_t>(hits_[i].count) + users_[i].best.size() < k_) return false;
    refine(users_[i], hits_[i]);
    hits_[i].cut = std::max(hits_[i].cut, cut_of(users_[i]));
    users_[i].kept = 0;
    return true;
  }
  float cut(int64_t i) const { return hits_[i].cut; }
  void set_cut(int64_t i, float cut) { hits_[i].cut = cut; }
  int64_t tile() const { return walk_.users; }

 protected:
  // What a walk over cells finds are places.
  void keep_new(User& user, Hits& hits) override {
    int32_t n = user.kept;
    for (int32_t i = user.kept; i < hits.count; ++i) {
      const int32_t row = cells_.order[hits.rows[i]];
      if (!(hits.scores[i] > hits.cut) || !may_get(a_, user.u, row)) continue;
      hits.scores[n] = hits.scores[i], hits.lows[n] = hits.lows[i], hits.rows[n] = row;
      ++n;
    }
    hits.count = n;
  }

 private:
  void walk_cell(Tile& tile, int64_t cell) {
    const int64_t begin = cells_.begins[cell], panels = cells_.begins[cell + 1] - begin, dims = a_.s.D;
    if (next_ >= 0 && panels > 0) {
      const int64_t bytes = 4 * kLanes * (kind_ == ScreenKind::kInt8 ? (dims + 3) / 4 : (dims + 1) / 2);
      tile.ahead = static_cast<const char*>(cells_.screen.codes) + cells_.begins[next_] * bytes;
      tile.ahead_bytes = (cells_.begins[next_ + 1] - cells_.begins[next_]) * bytes / panels;
    }
    next_ = -1;
    tile.init = cells_.bias + begin * kLanes;
    walk_.scan(cells_.screen, dims, begin, begin + panels, tile);
  }

  const Cells& cells_;
  int64_t next_ = -1;
  std::vector<int64_t> tile_users_;  // of the tile that is walked
  std::vector<Hits> tile_hits_;
  std::vector<float> weights_;  // item weights, query weights and steps
  std::vector<int32_t> tile_offsets_;
};

void CellSearch::walk_some(const Open* open, int64_t n, int64_t cell) {
  if (n == 1) return walk_one(open->user, cell);
  queries_.resize(n * n_words_), tile_hits_.resize(n), weights_.resize(3 * n), tile_offsets_.resize(n);
  tile_users_.resize(n);
  for (int64_t j = 0; j < n; ++j) {
    const int64_t i = open[j].user;
    for (int64_t w = 0; w < n_words_; ++w) queries_[w * n + j] = words_[i * n_words_ + w];
    tile_users_[j] = i, tile_hits_[j] = hits_[i], tile_offsets_[j] = offsets_[i];
    weights_[j] = item_weights_[i], weights_[n + j] = query_weights_[i], weights_[2 * n + j] = steps_[i];
  }
  Tile tile{};
  tile.n_users = static_cast<int32_t>(n);
  tile.queries = queries_.data();
  tile.hits = tile_hits_.data();
  tile.context = this;
  tile.flush = [](void* self, int64_t j) {
    auto* search = static_cast<CellSearch*>(self);
    const int64_t i = search->tile_users_[j];
    search->hits_[i] = search->tile_hits_[j];
    search->flush(i);
    search->tile_hits_[j] = search->hits_[i];
  };
  tile.item_weight = weights_.data(), tile.query_weight = weights_.data() + n, tile.step = weights_.data() + 2 * n;
  tile.offset = tile_offsets_.data();
  walk_cell(tile, cell);
  for (int64_t j = 0; j < n; ++j) hits_[tile_users_[j]] = tile_hits_[j];
}

// The users on their way.
struct Plan {
  std::vector<int64_t> users;
  std::vector<std::vector<uint64_t>> best;  // [user], keys out of the cells that he began with
  std::vector<float> cuts;                  // [user]
  std::vector<std::vector<Open>> open;      // [user], the other cells that may have something for him
  std::vector<int64_t> begins;              // [cells + 1], of
  std::vector<Open> by_cell;                // the same by cell

  int64_t place(int64_t user) const { return std::lower_bound(users.begin(), users.end(), user) - users.begin(); }
};

// Looks into some cells for every user, and finds out which others are left.
void begin_all(const TopkArgs& a, const TopkArgs& coarse, ScreenKind kind, const Kernel& level, Stop& stop, int threads,
               const SparseTerms& none, Plan& plan) {
  const int64_t n = static_cast<int64_t>(plan.users.size());
  plan.best.resize(n), plan.open.resize(n), plan.cuts.assign(n, -kInf);
  parallel_for((n + kUsersPerTask - 1) / kUsersPerTask, threads, [&](int64_t task) {
    Bounds bounds(coarse, kind, level);
    const int64_t begin = task * kUsersPerTask, end = std::min(n, begin + kUsersPerTask);
    CellSearch search(a, kind, level, none, stop);
    for (int64_t i = begin; i < end; ++i) search.admit(plan.users[i]);
    for (int64_t i = begin; i < end; ++i) {
      stop.check();
      const int64_t mine = i - begin;
      if (mine % search.tile() == 0) bounds.compute(i, std::min(search.tile(), end - i));
      bounds.of(i);
      bool enough = false;
      const auto look_into = [&](int64_t cell) {
        if (cell < 0) return false;
        search.walk_one(mine, cell);
        enough = search.sharpen(mine);
        return true;
      };
      for (const int64_t cell : bounds.likely(kLikely)) look_into(cell);
      for (int turn = 0; turn < kSeeds || !enough; ++turn) {
        if (turn % kTurn == 0 && enough && bounds.count_above(search.cut(mine)) <= a.cells.n / kFewOpen) break;
        if (!look_into(bounds.take_best())) break;
      }
      plan.cuts[i] = search.cut(mine);
      bounds.above(plan.cuts[i],
                   [&](int32_t cell, float x) { plan.open[i].push_back({cell, static_cast<int32_t>(i), x}); });
    }
    search.end([&](int64_t u) { return &plan.best[plan.place(u)]; });
  });
}

// Turns the plan from users to cells; false where too much is left.
bool turn_plan(const Cells& cells, Plan& plan) {
  plan.begins.assign(cells.n + 1, 0);
  double work = 0.0;
  for (const std::vector<Open>& mine : plan.open)
    for (const Open& one : mine) {
      ++plan.begins[one.cell + 1];
      work += static_cast<double>(cells.begins[one.cell + 1] - cells.begins[one.cell]);
    }
  if (work > kMostWork * static_cast<double>(plan.users.size()) * static_cast<double>(cells.begins[cells.n]))
    return false;
  for (int64_t c = 0; c < cells.n; ++c) plan.begins[c + 1] += plan.begins[c];
  plan.by_cell.resize(plan.begins[cells.n]);
  std::vector<int64_t> at(plan.begins.begin(), plan.begins.end() - 1);
  for (std::vector<Open>& mine : plan.open) {
    for (const Open& one : mine) plan.by_cell[at[one.cell]++] = one;
    std::vector<Open>().swap(mine);
  }
  return true;
}

// found [threads][user]: the best out of the cells that were left, which all threads share.
void walk_open(const TopkArgs& a, ScreenKind kind, const Kernel& level, Stop& stop, int threads, const SparseTerms& none,
               const Plan& plan, std::vector<std::vector<uint64_t>>& found) {
  const int64_t n = static_cast<int64_t>(plan.users.size());
  std::vector<int64_t> visited;
  for (int64_t c = 0; c < a.cells.n; ++c)
    if (plan.begins[c + 1] > plan.begins[c]) visited.push_back(c);
  SharedPanels shared(static_cast<int64_t>(visited.size()), threads);
  parallel_for(threads, threads, [&](int64_t part) {
    CellSearch search(a, kind, level, none, stop);
    for (int64_t i = 0; i < n; ++i) search.admit(plan.users[i]), search.set_cut(i, plan.cuts[i]);
    std::vector<Open> tile;
    int64_t from = 0, to = 0;
    while (shared.take(kCellsAtOnce, from, to)) {
      for (int64_t v = from; v < to; ++v) {
        stop.check();
        const int64_t cell = visited[v], end = plan.begins[cell + 1];
        if (v + 1 < to) search.fetch(visited[v + 1]);
        for (int64_t j = plan.begins[cell]; j < end; ++j) {
          const Open& open = plan.by_cell[j];
          if (open.bound > search.cut(open.user)) tile.push_back(open);
          if (tile.empty() || (static_cast<int64_t>(tile.size()) < search.tile() && j + 1 < end)) continue;
          search.walk_some(tile.data(), static_cast<int64_t>(tile.size()), cell);
          tile.clear();
        }
      }
    }
    search.end([&](int64_t u) { return &found[part * n + plan.place(u)]; });
  });
}

}  // namespace

bool search_cells(const TopkArgs& given, ScreenKind kind, const Kernel& level, Stop& stop, int threads, int64_t first,
                  int64_t last, const std::function<void(int64_t, const std::vector<uint64_t>&)>& write) {
  TopkArgs a = given;  // with what the panels of the cells may be off, which hold other items together
  a.screen_error = a.cells.error, a.screen_reach = a.cells.reach;
  Plan plan;
  for (int64_t u = first; u < last; ++u)
    if (a.dense_bound[u] > 0.0) plan.users.push_back(u);
  const Coarse coarse(a, plan.users);
  if (!screen_holds(a) || !screen_holds(coarse.args)) return false;
  const SparseTerms none(a.s, 0, 0);
  begin_all(a, coarse.args, kind, level, stop, threads, none, plan);
  if (!turn_plan(a.cells, plan)) return false;
  const size_t n = plan.users.size();
  std::vector<std::vector<uint64_t>> found(threads * n);
  walk_open(a, kind, level, stop, threads, none, plan, found);

  TopkArgs zero = a;  // of whose queries only the bias counts
  zero.s.D = 0;
  size_t next = 0;
  for (int64_t u = first; u < last; ++u) {
    std::vector<uint64_t> all;
    if (next == n || plan.users[next] != u) {
      Search(zero, kind, level, none, stop).run(u, u + 1, 0, (a.s.N + kLanes - 1) / kLanes, &all);
    } else {
      all = std::move(plan.best[next]);
      for (int part = 0; part < threads; ++part) {
        const std::vector<uint64_t>& more = found[part * n + next];
        all.insert(all.end(), more.begin(), more.end());
      }
      std::sort(all.begin(), all.end(), std::greater<uint64_t>());
      ++next;
    }
    write(u, all);
  }
  return true;
}

void arrange_bias(const Cells& cells, const float* bias, int threads, float* arranged, float* most) {
  constexpr int64_t kCellsPerTask = 64;
  parallel_for((cells.n + kCellsPerTask - 1) / kCellsPerTask, threads, [&](int64_t task) {
    for (int64_t c = task * kCellsPerTask; c < std::min(cells.n, (task + 1) * kCellsPerTask); ++c) {
      float largest = -kInf;
      for (int64_t i = cells.begins[c] * kLanes; i < cells.begins[c + 1] * kLanes; ++i) {
        const int32_t row = cells.order[i];
        arranged[i] = row < 0 ? -kInf : bias == nullptr ? 0.0f : bias[row];
        largest = std::max(largest, arranged[i]);
      }
      most[c] = largest;
    }
  });
}

}  // namespace fastrec

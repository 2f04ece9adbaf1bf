// score_topk on the CPU: a fast float32 walk that keeps a proven superset, then the exact scores of what is left.
//
// The bound. Let s be the float64 total of a pair, r its float32 rounding (the score), and a what the walk
// computes: D fused or unfused multiply-adds in float32, a rounded float32 of sparse + bias, one addition.
// With u = 2^-24, X >= sum_d |q_d v_d| (Cauchy-Schwarz: |q| max|v|) and Y >= |sparse + bias|:
//   float32 products and sums, and the last addition:  gamma(D + 2) X,  gamma(n) = n u / (1 - n u)
//   rounding of sparse + bias, and the last addition:  2 u Y (1 + u)
//   rounding of s to r:                                u (X + Y)
//   float64 rounding of s, against the same in float32: below u (X + Y), for up to 2^28 terms
//   underflow, also where the process flushes denormal numbers: 2^-126 a step
// so |a - r| <= eps = gamma(D + 4) X + 4 u Y + (D + 4) 2^-126. If the k-th best a of some k items is T, each of
// them has r >= T - eps; an item with a < T - 2 eps has r < T - eps: it is strictly worse than k others and
// cannot be among the best, whatever its row. And against exact scores r of k items, the worst of them R, the
// same holds for a < R - eps.
//
// eps is 0 where the walk is exact: without dense terms a is the rounding of sparse + bias, which is the score.
#include "ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "check.h"
#include "scoring.h"

namespace fastrec {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr int64_t kSparseUsers = 64;     // users whose sparse scores are written for a block at once
constexpr int64_t kSparsePanels = 128;   // panels of such a block: 64 users * 2048 items * 4 bytes = 512 KB
constexpr int64_t kBlockBytes = 384 << 10;  // items that are to stay in the L2 cache for all users
constexpr int64_t kUsers = 1024;         // most users of one task, for the size of its state
constexpr size_t kRefineAt = 1024;       // unsettled candidates beyond the k that a user needs

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

// A cut that everything from x on passes.
inline float just_below(double x) {
  float f = static_cast<float>(x);
  if (static_cast<double>(f) > x) f = std::nextafterf(f, -kInf);
  return std::nextafterf(f, -kInf);
}

double error_bound(const TopkArgs& a, int64_t u) {
  const double x = a.dense_bound[u], unit = std::ldexp(1.0, -24);
  if (a.s.D == 0 || x == 0.0) return 0.0;
  const double steps = static_cast<double>(a.s.D + 4) * unit;
  if (steps > 0.5) return std::numeric_limits<double>::infinity();
  return steps / (1.0 - steps) * x + 4.0 * unit * a.init_bound[u] + (a.s.D + 4) * std::ldexp(1.0, -126);
}

// Walks along an ascending list; the rows that are asked for must ascend too.
struct Cursor {
  const int32_t* at = nullptr;
  const int32_t* end = nullptr;

  Cursor() = default;
  Cursor(const Csr& list, int64_t u) : at(list.rows + list.indptr[u]), end(list.rows + list.indptr[u + 1]) {}
  bool holds(int32_t row) {
    at = std::lower_bound(at, end, row);
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

struct User {
  int64_t u;
  double eps;
  Filter filter;
  std::vector<uint64_t> pool{};  // candidates by the score of the walk, all above the cut
  std::vector<uint64_t> best{};  // the best by exact score, at most k
  size_t next_prune = 0;
};

// One thread's work: the best k of some users among the items of some panels.
class Search {
 public:
  Search(const TopkArgs& args, const Kernel& level, Stop& stop)
      : a_(args), level_(level), stop_(stop), exact_(args.s, level), k_(static_cast<size_t>(std::min(args.k, args.s.N))) {}

  // found[i]: keys of user first + i, the best first.
  void run(int64_t first, int64_t last, int64_t panel_first, int64_t panel_last,
           std::vector<uint64_t>* found) {
    panel_first_ = panel_first, panel_last_ = panel_last;
    users_.clear();
    // An exact score costs as much as the walk spends on so many items: a tile shares its reading, one user alone
    // waits for memory.
    const int64_t shortest_walk = a_.s.N / (last - first < level_.users ? 16 : 128);
    for (int64_t u = first; u < last; ++u) {
      User user{u, error_bound(a_, u), Filter(a_, u)};
      user.next_prune = k_ + 64;
      if (a_.allow && a_.allow.size(u) <= shortest_walk) {
        score_list(user, a_.allow.rows + a_.allow.indptr[u], a_.allow.size(u));
        finish(user, found[u - first]);
      } else {
        users_.push_back(std::move(user));
      }
    }
    if (users_.empty()) return;
    hits_.resize(users_.size());
    for (Hits& h : hits_) h.cut = -kInf, h.count = 0;
    walk();
    for (size_t i = 0; i < users_.size(); ++i) {
      flush(i);
      finish(users_[i], found[users_[i].u - first]);
    }
  }

 private:
  // A short allow list: no walk, its items get their exact scores.
  void score_list(User& user, const int32_t* rows, int64_t n) {
    const int64_t low = panel_first_ * kLanes, high = panel_last_ * kLanes;
    for (int64_t i = 0; i < n; ++i) {
      const int32_t row = rows[i];
      if (row < low || row >= high || (a_.s.bias != nullptr && a_.s.bias[row] == -kInf)) continue;
      if (user.filter.passes(row)) user.pool.push_back(to_key(0.0f, row));
      if (user.pool.size() >= kRefineAt) refine(user, nullptr);
    }
    refine(user, nullptr);
  }

  void walk() {
    const int64_t D = a_.s.D, n = static_cast<int64_t>(users_.size()), width = level_.users;
    // A multiple of 12 panels suits register tiles of 3 and of 4.
    int64_t block = kBlockBytes / (std::max<int64_t>(D, 1) * kLanes * 4) / 12 * 12;
    block = std::min(std::max<int64_t>(block, 12), kSparsePanels / 12 * 12);
    const bool sparse = static_cast<bool>(a_.s.history);
    const int64_t outer = sparse ? kSparsePanels / block * block : block;
    pack_queries(width);
    init_.resize((sparse ? n : 1) * outer * kLanes);
    if (sparse) start_histories();
    for (int64_t p = panel_first_; p < panel_last_; p += outer) {
      const int64_t outer_end = std::min(p + outer, panel_last_);
      fill_bias(p, outer_end);
      if (sparse) {
        for (int64_t i = n - 1; i >= 0; --i) fill_sparse(i, p, outer_end, outer * kLanes);
      }
      for (int64_t q = p; q < outer_end; q += block) {
        stop_.check();
        for (int64_t i = 0; i < n; i += width) {
          Tile tile;
          tile.n_users = static_cast<int32_t>(std::min(width, n - i));
          tile.queries = queries_.data() + i * D;
          tile.init_stride = sparse ? outer * kLanes : 0;
          tile.init = init_.data() + i * tile.init_stride + (q - p) * kLanes;
          tile.hits = hits_.data() + i;
          tile.first_user = i;
          tile.context = this;
          tile.flush = [](void* self, int64_t user) { static_cast<Search*>(self)->flush(user); };
          level_.scan(a_.s.panels, D, q, std::min(q + block, outer_end), tile);
        }
      }
    }
  }

  // [tile][d][user of the tile]
  void pack_queries(int64_t width) {
    const int64_t D = a_.s.D, n = static_cast<int64_t>(users_.size());
    queries_.resize(n * D);
    for (int64_t i = 0; i < n; i += width) {
      const int64_t w = std::min(width, n - i);
      for (int64_t j = 0; j < w; ++j) {
        const float* q = a_.s.queries + users_[i + j].u * D;
        for (int64_t d = 0; d < D; ++d) queries_[i * D + d * w + j] = q[d];
      }
    }
  }

  // The bias of a block into the first row of init_; -inf keeps the lanes beyond N from ever passing.
  void fill_bias(int64_t p, int64_t end) {
    const int64_t first = p * kLanes, valid = std::min(end * kLanes, a_.s.N);
    for (int64_t i = first; i < valid; ++i) init_[i - first] = a_.s.bias != nullptr ? a_.s.bias[i] : 0.0f;
    std::fill(init_.begin() + (valid - first), init_.begin() + (end - p) * kLanes, -kInf);
  }

  void start_histories() {
    places_.clear();
    place_of_.clear();
    for (const User& user : users_) {
      place_of_.push_back(places_.size());
      for (int64_t h = a_.s.history.indptr[user.u]; h < a_.s.history.indptr[user.u + 1]; ++h) {
        const int32_t* columns = a_.s.similarity.rows;
        const int64_t j = a_.s.history.rows[h];
        const int32_t* begin = columns + a_.s.similarity.indptr[j];
        const int32_t* end = columns + a_.s.similarity.indptr[j + 1];
        places_.push_back(std::lower_bound(begin, end, panel_first_ * kLanes) - columns);
      }
    }
    sums_.assign(kSparsePanels * kLanes, 0.0);
  }

  // float32(sparse + bias) of a block for one user, by the definition: in float64, in order of the history.
  // Row 0 of init_ holds the bias and is overwritten last.
  void fill_sparse(int64_t i, int64_t p, int64_t end, int64_t stride) {
    const int64_t u = users_[i].u, first = p * kLanes, n = (end - p) * kLanes;
    const int64_t* indptr = a_.s.similarity.indptr;
    int64_t* place = places_.data() + place_of_[i];
    bool touched = false;
    for (int64_t h = a_.s.history.indptr[u]; h < a_.s.history.indptr[u + 1]; ++h, ++place) {
      const double weight = a_.s.history.values[h];
      const int64_t last = indptr[a_.s.history.rows[h] + 1];
      int64_t e = *place;
      for (; e < last && a_.s.similarity.rows[e] < first + n; ++e) {
        sums_[a_.s.similarity.rows[e] - first] += weight * static_cast<double>(a_.s.similarity.values[e]);
        touched = true;
      }
      *place = e;
    }
    float* out = init_.data() + i * stride;
    if (!touched) {
      if (i > 0) std::memcpy(out, init_.data(), n * sizeof(float));
      return;
    }
    for (int64_t c = 0; c < n; ++c) {
      out[c] = static_cast<float>(sums_[c] + static_cast<double>(init_[c]));
      sums_[c] = 0.0;
    }
  }

  // Hits that the user may have go to the pool.
  void flush(int64_t i) {
    Hits& hits = hits_[i];
    User& user = users_[i];
    for (int32_t h = 0; h < hits.count; ++h) {
      if (user.filter.passes(hits.rows[h])) user.pool.push_back(to_key(hits.scores[h], hits.rows[h]));
    }
    hits.count = 0;
    if (user.pool.size() >= user.next_prune) prune(user, hits);
  }

  // Raises the cut and drops what is below it. The next time is when the pool has doubled, so that a hit costs a
  // constant number of steps even where most of the pool has to stay.
  void prune(User& user, Hits& hits) {
    std::vector<uint64_t>& pool = user.pool;
    if (pool.size() >= k_) {
      std::nth_element(pool.begin(), pool.begin() + (k_ - 1), pool.end(), std::greater<uint64_t>());
      const float kth = score_of(pool[k_ - 1]);
      if (user.eps == 0.0) {
        // Exact scores, and rows that ascend: a later item with the same score comes after these k.
        pool.resize(k_);
        hits.cut = std::max(hits.cut, kth);
      } else {
        hits.cut = std::max(hits.cut, just_below(static_cast<double>(kth) - 2.0 * user.eps));
        const auto lost = [&](uint64_t key) { return score_of(key) <= hits.cut; };
        pool.erase(std::remove_if(pool.begin(), pool.end(), lost), pool.end());
        if (pool.size() > k_ + kRefineAt) refine(user, &hits);
      }
    }
    user.next_prune = std::max<size_t>(2 * pool.size(), k_ + 64);
  }

  // Replaces the scores of the walk by the exact ones and keeps the best k.
  void refine(User& user, Hits* hits) {
    rows_.clear();
    for (uint64_t key : user.pool) rows_.push_back(row_of(key));
    std::sort(rows_.begin(), rows_.end());
    scores_.resize(rows_.size());
    exact_(user.u, rows_.data(), static_cast<int64_t>(rows_.size()), scores_.data());
    user.pool.clear();
    for (size_t i = 0; i < rows_.size(); ++i) user.best.push_back(to_key(scores_[i], rows_[i]));
    if (user.best.size() < k_) return;
    std::nth_element(user.best.begin(), user.best.begin() + (k_ - 1), user.best.end(), std::greater<uint64_t>());
    user.best.resize(k_);
    if (hits != nullptr)
      hits->cut = std::max(hits->cut, just_below(static_cast<double>(score_of(user.best.back())) - user.eps));
  }

  void finish(User& user, std::vector<uint64_t>& found) {
    if (user.eps == 0.0) {
      user.best.insert(user.best.end(), user.pool.begin(), user.pool.end());
    } else {
      // Only now is the k-th of all known: the last cut saves exact scores.
      Hits last;
      last.cut = -kInf;
      prune(user, last);
      refine(user, nullptr);
    }
    std::sort(user.best.begin(), user.best.end(), std::greater<uint64_t>());
    if (user.best.size() > k_) user.best.resize(k_);
    found = std::move(user.best);
    user.pool = {};
  }

  const TopkArgs& a_;
  const Kernel& level_;
  Stop& stop_;
  ExactScorer exact_;
  const size_t k_;
  int64_t panel_first_ = 0, panel_last_ = 0;
  std::vector<User> users_;
  std::vector<Hits> hits_;
  std::vector<float> queries_, init_, scores_;
  std::vector<double> sums_;
  std::vector<int64_t> places_;
  std::vector<size_t> place_of_;
  std::vector<int32_t> rows_;
};

void write(const TopkArgs& a, int64_t u, const std::vector<uint64_t>& keys) {
  const int64_t n = std::min<int64_t>(a.k, keys.size());
  for (int64_t i = 0; i < a.k; ++i) {
    a.scores[u * a.k + i] = i < n ? score_of(keys[i]) : -kInf;
    a.rows[u * a.k + i] = i < n ? row_of(keys[i]) : -1;
  }
}

}  // namespace

void score_topk(const TopkArgs& a, const Kernel& level, Stop& stop) {
  const int64_t B = a.s.B, N = a.s.N, panels = (N + kLanes - 1) / kLanes;
  require(N < (int64_t{1} << 31) - kLanes, "item rows fit into int32");
  if (B == 0 || a.k == 0) return;
  if (N == 0) {
    for (int64_t u = 0; u < B; ++u) write(a, u, {});
    return;
  }
  // Below about a tenth of a millisecond of work a second thread costs more than it gives.
  const double work = static_cast<double>(B) * static_cast<double>(N) * static_cast<double>(a.s.D + 8);
  const int threads = work < 4e6 ? 1 : a.threads;
  const int64_t most = a.s.history ? kSparseUsers : kUsers;
  if (threads > 1 && B < threads * level.users && panels >= 24 * threads) {
    // Few users: every thread takes a part of the items, and the parts are merged.
    const int64_t parts = threads;
    std::vector<std::vector<uint64_t>> found(parts * B);
    parallel_for(parts, threads, [&](int64_t part) {
      Search(a, level, stop)
          .run(0, B, panels * part / parts, panels * (part + 1) / parts, found.data() + part * B);
    });
    for (int64_t u = 0; u < B; ++u) {
      std::vector<uint64_t> all;
      for (int64_t part = 0; part < parts; ++part)
        all.insert(all.end(), found[part * B + u].begin(), found[part * B + u].end());
      std::sort(all.begin(), all.end(), std::greater<uint64_t>());
      write(a, u, all);
    }
    return;
  }
  int64_t size = (B + threads - 1) / threads;
  size = std::min((size + level.users - 1) / level.users * level.users, most);
  parallel_for((B + size - 1) / size, threads, [&](int64_t task) {
    const int64_t first = task * size, last = std::min(B, first + size);
    std::vector<std::vector<uint64_t>> found(last - first);
    Search(a, level, stop).run(first, last, 0, panels, found.data());
    for (int64_t u = first; u < last; ++u) write(a, u, found[u - first]);
  });
}

void score_pairs(const Scoring& s, Csr pairs, int threads, float* scores, const Kernel& level, Stop& stop) {
  constexpr int64_t kUsersPerTask = 16;
  parallel_for((s.B + kUsersPerTask - 1) / kUsersPerTask, threads, [&](int64_t task) {
    ExactScorer exact(s, level);
    std::vector<int64_t> order;
    std::vector<int32_t> rows;
    std::vector<float> found;
    for (int64_t u = task * kUsersPerTask; u < std::min(s.B, (task + 1) * kUsersPerTask); ++u) {
      stop.check();
      const int64_t first = pairs.indptr[u], n = pairs.size(u);
      order.resize(n), rows.resize(n), found.resize(n);
      for (int64_t i = 0; i < n; ++i) order[i] = i;
      std::sort(order.begin(), order.end(),
                [&](int64_t x, int64_t y) { return pairs.rows[first + x] < pairs.rows[first + y]; });
      for (int64_t i = 0; i < n; ++i) rows[i] = pairs.rows[first + order[i]];
      exact(u, rows.data(), n, found.data());
      for (int64_t i = 0; i < n; ++i) scores[first + order[i]] = found[i];
    }
  });
}

std::vector<const Kernel*> simd_levels() {
  std::vector<const Kernel*> levels = {&kernel_scalar};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) levels.push_back(&kernel_avx2);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    levels.push_back(&kernel_avx512);
#endif
  return levels;
}

const Kernel& simd_level(const char* name) {
  const std::vector<const Kernel*> levels = simd_levels();
  if (*name == '\0') return *levels.back();
  for (const Kernel* level : levels)
    if (std::strcmp(level->name, name) == 0) return *level;
  throw std::logic_error(std::string("[fastrec._C] no SIMD level ") + name);
}

}  // namespace fastrec

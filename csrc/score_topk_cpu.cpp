// score_topk on the CPU: a fast walk that keeps a proven superset (topk_bounds.h has the proof, topk_search.cpp the
// walk), then the exact scores of what is left. Here: who does which part.
#include <algorithm>
#include <functional>

#include "check.h"
#include "sparse_search.h"
#include "topk_cells.h"
#include "topk_search.h"

namespace fastrec {
namespace {

constexpr int64_t kUsers = 1024;       // most users of one task, for the size of its state
constexpr double kFewNumbers = 16e6;   // in the items
constexpr int64_t kSharedUsers = 256;  // up to so many users the reading of the items is the larger half

void write(const TopkArgs& a, int64_t u, const std::vector<uint64_t>& keys) {
  const int64_t n = std::min<int64_t>(a.k, keys.size());
  for (int64_t i = 0; i < a.k; ++i) {
    a.scores[u * a.k + i] = i < n ? score_of(keys[i]) : -kInf;
    a.rows[u * a.k + i] = i < n ? row_of(keys[i]) : -1;
  }
}

// Every thread takes a part of the items for users [first, last), and the parts are merged.
void split_items(const TopkArgs& a, ScreenKind kind, const Kernel& level, Stop& stop, int threads, int64_t first,
                 int64_t last) {
  const int64_t parts = threads, n = last - first, panels = (a.s.N + kLanes - 1) / kLanes;
  const int64_t unit = a.s.history ? kBlockPanels : 1, units = (panels + unit - 1) / unit;
  SparseTerms terms(a.s, first, a.s.history ? n : 0);
  terms.sort_all(threads);
  std::vector<std::vector<uint64_t>> found(parts * n);
  SharedPanels shared(panels, threads);  // of a sparse term every thread has a part of its own
  parallel_for(parts, threads, [&](int64_t part) {
    const auto begin = [&](int64_t i) { return std::min(panels, units * i / parts * unit); };
    Search(a, kind, level, terms, stop)
        .run(first, last, begin(part), begin(part + 1), found.data() + part * n, a.s.history ? nullptr : &shared);
  });
  for (int64_t u = 0; u < n; ++u) {
    std::vector<uint64_t> all;
    for (int64_t part = 0; part < parts; ++part)
      all.insert(all.end(), found[part * n + u].begin(), found[part * n + u].end());
    std::sort(all.begin(), all.end(), std::greater<uint64_t>());
    write(a, first + u, all);
  }
}

// Sparse terms are found for a user, in all items at once.
void search_sparse(const TopkArgs& a, Stop& stop, int threads) {
  constexpr int64_t kUsersPerTask = 16;
  parallel_for((a.s.B + kUsersPerTask - 1) / kUsersPerTask, threads, [&](int64_t task) {
    SparseSearch search(a);
    std::vector<uint64_t> found;
    for (int64_t u = task * kUsersPerTask; u < std::min(a.s.B, (task + 1) * kUsersPerTask); ++u) {
      stop.check();
      search.run(u, found);
      write(a, u, found);
    }
  });
}

// Without the first users.
TopkArgs from(const TopkArgs& a, int64_t user) {
  TopkArgs rest = a;
  rest.s.queries += user * a.s.D, rest.s.B -= user;
  for (Csr* list : {&rest.seen, &rest.deny, &rest.allow, &rest.s.history})
    if (*list) list->indptr += user;
  rest.dense_bound += user, rest.init_bound += user;
  rest.scores += user * a.k, rest.rows += user * a.k;
  return rest;
}

// As many users as the cells of the items say something about; returns how many.
int64_t by_cells(const TopkArgs& a, ScreenKind kind, const Kernel& level, Stop& stop, int threads) {
  if (a.cells.n == 0 || kind == ScreenKind::kNone || a.s.history || a.allow || a.s.B <= level.few) return 0;
  if (a.k > a.s.N / 64) return 0;
  int64_t first = 0;
  const auto put = [&](int64_t u, const std::vector<uint64_t>& keys) { write(a, u, keys); };
  while (first < a.s.B) {
    const int64_t last = std::min(a.s.B, first + kCellUsers);
    if (!search_cells(a, kind, level, stop, threads, first, last, put)) break;
    first = last;
  }
  return first;
}

}  // namespace

void score_topk(const TopkArgs& given, const Kernel& level, Stop& stop) {
  TopkArgs a = given;
  const int64_t N = a.s.N, panels = (N + kLanes - 1) / kLanes;
  int64_t B = a.s.B;
  require(N < (int64_t{1} << 31) - kLanes, "item rows fit into int32");
  if (B == 0 || a.k == 0) return;
  if (N == 0) {
    for (int64_t u = 0; u < B; ++u) write(a, u, {});
    return;
  }
  // Below some ten microseconds of work a second thread costs more than it gives.
  const double pairs = static_cast<double>(B) * static_cast<double>(N);
  const double listed = a.allow ? static_cast<double>(a.allow.indptr[B]) : pairs;
  const double work = std::min(listed, pairs) * static_cast<double>(a.s.D + 8);
  const int threads = work < 1e6 ? 1 : a.threads;
  if (a.s.D == 0 && a.s.history) return search_sparse(a, stop, threads);
  const ScreenKind kind = screen_holds(a) ? a.screen_kind : ScreenKind::kNone;
  if (const int64_t done = by_cells(a, kind, level, stop, threads); done > 0) {
    a = from(a, done), B = a.s.B;
    if (B == 0) return;
  }
  const int64_t most = a.s.history ? kSparseUsers : kUsers, wide = level.bf16.users;
  // Every part costs a user some candidates. Reading the items once for each thread costs less where they are few.
  const double few = kFewNumbers;
  const bool by_users = B >= threads * wide && static_cast<double>(N) * static_cast<double>(a.s.D) < few;
  if (threads > 1 && !by_users && B <= std::max<int64_t>(kSharedUsers, threads * wide) &&
      panels >= (a.s.history ? 4 * kBlockPanels : 24) * threads) {
    for (int64_t first = 0; first < B; first += most)
      split_items(a, kind, level, stop, threads, first, std::min(B, first + most));
    return;
  }
  int64_t size = (B + threads - 1) / threads;
  size = std::min((size + wide - 1) / wide * wide, most);
  parallel_for((B + size - 1) / size, threads, [&](int64_t task) {
    const int64_t first = task * size, last = std::min(B, first + size);
    std::vector<std::vector<uint64_t>> found(last - first);
    SparseTerms terms(a.s, first, a.s.history ? last - first : 0);
    terms.sort_all(1);
    Search(a, kind, level, terms, stop).run(first, last, 0, panels, found.data());
    for (int64_t u = first; u < last; ++u) write(a, u, found[u - first]);
  });
}

}  // namespace fastrec

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "check.h"
#include "ops.h"
#include "topk_candidates.h"

namespace fastrec {
namespace {

// What no sum of terms that are not negative can become: a column that was not met yet. The first sum takes it for 0.
constexpr float kUnmet = -0.0f;

inline bool unmet(float sum) {
  uint32_t bits;
  std::memcpy(&bits, &sum, 4);
  return bits == 0x80000000u;
}

// The row of sums that a thread works on; between two items all of it is unmet.
struct Row {
  explicit Row(int64_t n_cols) : sums(n_cols, kUnmet), met(n_cols + 1) {}

  std::vector<float> sums;
  std::vector<int32_t> met;  // in the order of the first meeting; one place more, for the write that does not count
  std::vector<uint64_t> best;
};

// Rows that no thread holds at present.
class Rows {
 public:
  explicit Rows(int64_t n_cols) : n_cols_(n_cols) {}

  std::unique_ptr<Row> take() {
    {
      std::lock_guard<std::mutex> hold(lock_);
      if (!free_.empty()) {
        std::unique_ptr<Row> row = std::move(free_.back());
        free_.pop_back();
        return row;
      }
    }
    return std::make_unique<Row>(n_cols_);
  }
  void give_back(std::unique_ptr<Row> row) {
    std::lock_guard<std::mutex> hold(lock_);
    free_.push_back(std::move(row));
  }

 private:
  const int64_t n_cols_;
  std::mutex lock_;
  std::vector<std::unique_ptr<Row>> free_;
};

// The sums of item i. Where most columns are met anyway it costs less not to note which: kNoted is false then.
template <bool kNoted>
int64_t add_up(const CooccurrenceArgs& a, int64_t i, Row& row) {
  constexpr int64_t kRowsAhead = 4, kBeginsAhead = 16;  // entries of the item: their rows lie anywhere
  constexpr int64_t kMostAhead = 128;                   // of such a row; of the rest the machine takes care
  float* sums = row.sums.data();
  int32_t* met = row.met.data();
  int64_t n = 0;
  const auto add = [&](float left, int64_t first, int64_t last) {
    for (int64_t q = first; q < last; ++q) {
      const int32_t column = a.entries.rows[q];
      const float sum = sums[column];
      if (kNoted) {
        met[n] = column;
        n += unmet(sum);
      }
      sums[column] = sum + left * a.entries.values[q];
    }
  };
  const int64_t end = a.begins[i + 1];
  for (int64_t e = a.begins[i]; e < end; ++e) {
    if (e + kBeginsAhead < end) __builtin_prefetch(a.entries.indptr + a.owners[e + kBeginsAhead]);
    if (e + kRowsAhead < end) {
      const int64_t* row_of_it = a.entries.indptr + a.owners[e + kRowsAhead];
      const int64_t place = row_of_it[0] + a.places[e + kRowsAhead];
      __builtin_prefetch(a.entries.values + place);
      const int64_t from = a.n_steps ? place : row_of_it[0], to = a.n_steps ? place + 1 : row_of_it[1];
      for (int64_t q = from; q < std::min(to, from + kMostAhead); q += 16) {
        __builtin_prefetch(a.entries.rows + q);
        __builtin_prefetch(a.entries.values + q);
      }
    }
    const int64_t first = a.entries.indptr[a.owners[e]], last = a.entries.indptr[a.owners[e] + 1];
    const int64_t place = first + a.places[e];
    const float value = a.entries.values[place];
    if (a.n_steps == 0) {
      add(value, first, last);
    } else {
      for (int64_t g = 0; g < std::min(a.n_steps, last - place - 1); ++g)
        add(value * a.steps[g], place + 1 + g, place + 2 + g);
    }
  }
  return n;
}

// The best k of the columns of item i by likeness, columns ascending; returns how many. The row is unmet again.
template <bool kNoted>
int32_t select(const CooccurrenceArgs& a, int64_t i, int64_t n_met, Row& row, int32_t* columns, float* values) {
  const size_t k = static_cast<size_t>(a.k), room = 2 * k + 64;
  const float own = a.norms[i];
  uint64_t cut = to_key(0.0f, 0);  // no positive score is below it, nor is a smaller row's
  row.best.clear();
  for (int64_t m = 0; m < (kNoted ? n_met : a.n_cols); ++m) {
    const int32_t column = kNoted ? row.met[m] : static_cast<int32_t>(m);
    const float likeness = row.sums[column] / (own * a.norms[column] + a.shrinkage);
    row.sums[column] = kUnmet;
    if (!(likeness > 0.0f && likeness < kInf) || column == i) continue;
    const uint64_t key = to_key(likeness, column);
    if (key <= cut) continue;
    row.best.push_back(key);
    if (row.best.size() < room) continue;
    std::nth_element(row.best.begin(), row.best.begin() + (k - 1), row.best.end(), std::greater<uint64_t>());
    row.best.resize(k);
    cut = row.best[k - 1];
  }
  if (row.best.size() > k) {
    std::nth_element(row.best.begin(), row.best.begin() + (k - 1), row.best.end(), std::greater<uint64_t>());
    row.best.resize(k);
  }
  std::sort(row.best.begin(), row.best.end(), [](uint64_t x, uint64_t y) { return row_of(x) < row_of(y); });
  for (size_t m = 0; m < row.best.size(); ++m) columns[m] = row_of(row.best[m]), values[m] = score_of(row.best[m]);
  return static_cast<int32_t>(row.best.size());
}

}  // namespace

void entries_by_column(Csr entries, int64_t n_rows, int64_t n_cols, int64_t* begins, int32_t* owners,
                       int32_t* places) {
  const int64_t nnz = entries.indptr[n_rows];
  std::fill_n(begins, n_cols + 1, 0);
  for (int64_t e = 0; e < nnz; ++e) ++begins[entries.rows[e] + 1];
  for (int64_t c = 0; c < n_cols; ++c) begins[c + 1] += begins[c];
  std::vector<int64_t> next(begins, begins + n_cols);
  for (int64_t r = 0; r < n_rows; ++r) {
    require(entries.size(r) < (int64_t{1} << 31), "a place within a row fits into int32");
    for (int64_t e = entries.indptr[r]; e < entries.indptr[r + 1]; ++e) {
      const int64_t at = next[entries.rows[e]]++;
      owners[at] = static_cast<int32_t>(r), places[at] = static_cast<int32_t>(e - entries.indptr[r]);
    }
  }
}

void cooccurrence_topk(const CooccurrenceArgs& a, int64_t first, int64_t last, int threads, int32_t* columns,
                       float* values, int32_t* counts, Stop& stop) {
  // Tasks of about as many entries: a popular item is one of its own, of the rare ones thousands go together.
  const int64_t n_tasks = std::min<int64_t>(last - first, 16 * static_cast<int64_t>(threads));
  const auto work_until = [&](int64_t item) { return a.begins[item] - a.begins[first] + (item - first); };
  const auto edge = [&](int64_t task) {
    const int64_t wanted = work_until(last) / n_tasks * task;
    int64_t low = first, high = last;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (work_until(middle) < wanted) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  };
  const int64_t rows = std::max<int64_t>(a.n_rows, 1), in_row = (a.entries.indptr[a.n_rows] + rows - 1) / rows;
  const int64_t each = a.n_steps ? std::min(a.n_steps, in_row) : in_row;  // columns that an entry meets
  Rows pool(a.n_cols);
  parallel_for(n_tasks, threads, [&](int64_t task) {
    std::unique_ptr<Row> row = pool.take();
    for (int64_t i = edge(task); i < (task + 1 == n_tasks ? last : edge(task + 1)); ++i) {
      stop.check();
      const int64_t at = (i - first) * a.k;
      if ((a.begins[i + 1] - a.begins[i]) * each < a.n_cols) {
        const int64_t n = add_up<true>(a, i, *row);
        counts[i - first] = select<true>(a, i, n, *row, columns + at, values + at);
      } else {
        add_up<false>(a, i, *row);
        counts[i - first] = select<false>(a, i, 0, *row, columns + at, values + at);
      }
    }
    pool.give_back(std::move(row));
  });
}

}  // namespace fastrec

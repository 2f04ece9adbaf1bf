// Every native operator with its shape contract: the table of contents.
//
// All matrices are row-major and contiguous. Python has checked every input (fastrec/ops/*.py states the
// contract for users); nothing is allocated for the caller, and every cell of an output is written.
//
// B users, N items, D dimensions, M rows of the similarity, k results. Sums are taken in float64 and in a
// fixed order, so that no result depends on the instruction set, the number of threads or the batch.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "parallel.h"
#include "simd.h"

namespace fastrec {

// rows[indptr[r] .. indptr[r + 1]) belong to row r; indptr is null where the whole list was left out.
struct Csr {
  const int64_t* indptr = nullptr;
  const int32_t* rows = nullptr;
  const float* values = nullptr;

  explicit operator bool() const { return indptr != nullptr; }
  int64_t size(int64_t r) const { return indptr[r + 1] - indptr[r]; }
};

// What is known of the rows of lists: outside their bounds, or their order within each list.
enum class Order { kBroken, kNone, kAscending, kStrict };
// Of lists with so many rows and entries: indptr ascends from 0 to n_entries, rows lie in [0, n_cols).
Order check_lists(Csr lists, int64_t n_rows, int64_t n_entries, int64_t n_cols);

// out [n]: scale times the length of every row of values [n, dims]; returns the largest, NaN where a row has NaN or
// inf.
double scaled_lengths(const float* values, int64_t n, int64_t dims, double scale, double* out);

// The levels that this machine can run, the best last.
std::vector<const Kernel*> simd_levels();
// The level of this name, or the best for "".
const Kernel& simd_level(const char* name);

// The limits of the machine on so many threads: floating-point operations a second, and bytes a second when reading
// values [n].
std::pair<double, double> probe(const float* values, int64_t n, int64_t rounds, int threads, const Kernel& level);

// rows [N, D]: a copy of items [N, D]; squares [N]: the squared length of every item.
void pack_items(const float* items, int64_t n, int64_t dims, float* rows, double* squares, int threads);

// The screens of simd.h out of items [N, D], with scales [panels, 16] and errors [panels, 2]; what lies beyond N
// stands for zeros.
void screen_int8(const float* items, int64_t n, int64_t dims, uint8_t* codes, float* scales, float* errors,
                 int threads);
void screen_bf16(const float* items, int64_t n, int64_t dims, uint16_t* codes, float* scales, float* errors,
                 int threads);

// score(u, i) = float32(<queries[u], item i> + sum_j history[u, j] * similarity[j, i] + bias[i])
struct Scoring {
  const float* queries;  // [B, D]
  const float* items;    // [N, D]
  int64_t B, N, D;
  const float* bias;     // [N] or null; -inf: never returned
  Csr history;           // [B, M] with values, or null
  Csr similarity;        // [M, N] with values, columns ascending
};

// What the codes are that a catalogue is screened with before the exact scores; none: every score is exact.
enum class ScreenKind { kNone, kInt8, kBf16 };

// The catalogue once more, in an order in which neighbours lie together, cut into cells: see topk_cells.h.
struct Cells {
  int64_t n = 0;                    // 0: there are none
  const int64_t* begins = nullptr;  // [n + 1], panels
  const int32_t* order = nullptr;   // [panels, 16], the row at every place, -1 where a cell has no more
  Screen screen{};                  // of the items in that order, of the same kind
  double error = 0.0, reach = 0.0;  // as screen_error and screen_reach below; other panels have others
  const float* radii = nullptr;     // [n], the largest distance of an item from the middle of its cell
  Screen coarse{};                  // of items [n, D + 1]: the middle of a cell and its radius
  double coarse_error = 0.0, coarse_reach = 0.0;  // the same
  double coarse_length = 0.0;       // at least the length of every one
  const float* bias = nullptr;      // [panels, 16], -inf where there is no item
  const float* most_bias = nullptr;  // [n]
};
// bias [panels, 16] and most_bias [n] of these cells out of a bias [N], or of zeros where it is null.
void arrange_bias(const Cells& cells, const float* bias, int threads, float* arranged, float* most);

// The best k items of every user that are neither seen nor denied, are allowed where `allow` is given, and
// whose bias is above -inf; score descending, then the smaller row.
struct TopkArgs {
  Scoring s;
  int64_t k;
  Csr seen, deny, allow;      // [B, N], rows ascending without repeats
  const double* dense_bound;  // [B] at least |<queries[u], item i>| for every i, and 0 only for a zero query
  const double* init_bound;   // [B] at least sum |sparse terms| + |bias| for every i
  int64_t repeats;            // most entries of one column in one row of the similarity
  int threads;
  float* scores;              // [B, k], -inf where fewer than k exist
  int64_t* rows;              // [B, k], -1 there
  ScreenKind screen_kind;     // what screen holds
  Screen screen;
  double screen_error, screen_reach;  // at least scale * error, and scale * code length, of every item
  Cells cells;
};
void score_topk(const TopkArgs& args, const Kernel& level, Stop& stop);

// scores [nnz]: of the pairs (u, pairs.rows[..]), rows in any order, with the bits of score_topk.
void score_pairs(const Scoring& s, Csr pairs, int threads, float* scores, const Kernel& level, Stop& stop);

// out [B, D]: per segment the sum of weight * values[row], in the order of the entries, made a unit vector
// (zero stays zero) or divided by the sum of the weights (0 gives zero).
void segment_mean(const float* values, int64_t dims, Csr segments, int64_t B, bool normalize, int threads,
                  float* out, Stop& stop);

// One part of fused features: scales[b] * values[rows[b]], all rows in order where rows is null and 1 for scales.
struct FeaturePart {
  const float* values;  // [.., dims]
  int64_t dims;
  const int64_t* rows;   // [B] or null
  const double* scales;  // [B] or null
};
// out [B, sum of dims], float or IEEE half: the parts beside one another, made a unit vector or not (zero stays zero).
void fuse_features(const std::vector<FeaturePart>& parts, int64_t B, bool normalize, bool half, int threads, void* out,
                   Stop& stop);

// The entries of every column: begins [n_cols + 1], and by column the row and the place within it, both [nnz].
void entries_by_column(Csr entries, int64_t n_rows, int64_t n_cols, int64_t* begins, int32_t* owners, int32_t* places);

// likeness(i, j) = together(i, j) / (norms[i] norms[j] + shrinkage), with together(i, j) the sum over the entries p of
// column i and q of column j in one row of value[p] value[q], or only over those q that stand g = 1 .. n_steps places
// after p, of value[p] steps[g - 1] value[q]. Sums in float32, in the order of p and q.
struct CooccurrenceArgs {
  Csr entries;  // [n_rows, n_cols] with values of at least +0
  int64_t n_rows, n_cols;
  const int64_t* begins;  // of entries_by_column
  const int32_t* owners;
  const int32_t* places;
  const float* steps;  // [n_steps] of at least +0; no steps: all entries of the row
  int64_t n_steps;
  int64_t k;
  const float* norms;  // [n_cols]
  float shrinkage;
};
// columns, values [last - first, k], counts [last - first]: of the items from first to before last the k largest
// positive finite likenesses with others, columns ascending; at equal ones the smaller column. Cells beyond a count
// stay as they are.
void cooccurrence_topk(const CooccurrenceArgs& args, int64_t first, int64_t last, int threads, int32_t* columns,
                       float* values, int32_t* counts, Stop& stop);

// Improves every row of x [n_rows, D] by at most `steps` steps of conjugate gradients; rows without a right side become 0.
// No row changes a bit of another.
void ridge_solve(const Ridge& systems, int64_t n_rows, int threads, const Kernel& level, Stop& stop);

// out [B]: sqrt(max(0, q' C q)), C [D, D] float64.
void score_std(const float* queries, int64_t B, int64_t dims, const double* covariance, int threads,
               double* out, Stop& stop);

// out [B]: the population standard deviation over all N items of sum_j history[u, j] * similarity[j, i].
void sparse_score_std(Csr history, Csr similarity, int64_t B, int64_t N, int threads, double* out, Stop& stop);

// out [ceil(bytes / kSumBlock), 2]: two checksums of 64 bits of every block of the data, the last one padded with zeros;
// key [kSumBlock / 4 + 4]. Fast enough to check what is read from the page cache.
constexpr int64_t kSumBlock = 4096;
void block_sums(const uint8_t* data, int64_t bytes, const uint32_t* key, int threads, bool simd, uint64_t* out,
                Stop& stop);

}  // namespace fastrec

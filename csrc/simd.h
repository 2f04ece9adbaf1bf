// What the instruction-set files give to score_topk_cpu.cpp: one Kernel each, over raw pointers.
//
// This header is compiled with the flags of every level, so it holds plain structs only: an inline function
// here could be emitted with AVX-512 code and be the copy that the linker keeps for all.
#pragma once

#include <stdint.h>

namespace fastrec {

constexpr int kLanes = 16;      // items of a panel
constexpr int kMaxPanels = 4;   // panels of the widest tile
constexpr int kHitsBeyond = kLanes * (kMaxPanels + 1);  // places that a tile and a whole vector may take after flush_at

// What passed the threshold of one user, in columns of at least flush_at + kHitsBeyond places.
struct Hits {
  float cut;  // a score passes when it is larger
  int32_t count;
  int32_t flush_at;  // with more hits than this they have to be looked at
  float* scores;
  float* lows;  // at most scores - 2 w, the w of topk_bounds.h
  int32_t* rows;
};

// Ascending rows [at, end); what lies behind is dropped.
struct RowList {
  const int32_t* at;
  const int32_t* end;
};

// Which rows a user may get. Those that are asked for ascend.
struct RowLists {
  RowList seen, deny, allow;
  bool has_allow;
};

// Some users on their way over the catalogue. Queries come in words of 4 bytes: a float32, two bfloat16 or four int8;
// [word][user], and in AMX tiles [16 users][16 words][user][word], words beyond the query and users beyond the last
// are 0.
struct Tile {
  int32_t n_users;    // 1 .. users of the kernel's scan
  const void* queries;
  const float* init;  // added to the dense scores; user u, item i of the walk at [u * init_stride + i]
  int64_t init_stride;
  Hits* hits;          // [n_users]
  int64_t first_user;  // of hits[0], handed to flush
  const char* ahead;        // what the next walk reads first, or null: ahead_bytes of it are fetched for every panel
  int64_t ahead_bytes;
  void* context;
  void (*flush)(void* context, int64_t user);  // makes room in the hits of a user, may raise the cut
  // What a score may be off, per user, in units of the two errors of a panel.
  const float* item_weight;   // [n_users], at least |q|
  const float* query_weight;  // [n_users], at least |q - q'|
  const float* step;          // [n_users], q' = step * its codes; scan_int8 only
  const int32_t* offset;      // [n_users], -128 * the sum of its codes; scan_int8 only
};

// The catalogue in fewer bits, in panels of 16 items: item = scale * code + an error of known length.
//   int8:     codes uint8 [panel][ceil(dims / 4)][16][4], 128 + the code of -127 .. 127
//   bfloat16: codes uint16 [panel][ceil(dims / 2)][16][2], the upper halves of float32; all scales are 1
struct Screen {
  const void* codes;
  const float* scales;  // [panel][16]
  const float* errors;  // [panel][2], over the items of the panel: max |item - item'| / scale, max |codes|
  int64_t n_panels;
};

using Scan = void (*)(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile);

// A walk over panels [first, last): an upper bound of every score, but for the rounding, is tested, and what passes
// goes to the hits. tile.init is at item 16 * first.
struct Walk {
  Scan scan;
  int32_t users;  // of a full tile
  bool query_bf16 = false;  // the bfloat16 walk takes queries that are rounded too
  bool tiled = false;       // wants its queries in AMX tiles
};

// Many systems (gram + sum_e extra[e] y_e y_e') x = sum_e right[e] y_e, one for each row of x, over the entries e of the
// row and y_e = others[indices[e]].
struct Ridge {
  float* x;             // [.., D], the first guess and the result
  const float* others;  // [.., D]
  const float* gram;    // [D, D]; for the kernels its rows are padded with zeros to whole registers
  const int64_t* indptr;
  const int32_t* indices;
  const float* right;  // or null: 1 + extra
  const float* extra;
  int64_t D, steps;
  void* context;
  void (*check)(void* context);  // called between pieces of the work, may throw
};
constexpr int64_t kRidgeEntries = 4096;     // of a row, as many at a time
constexpr int kRidgeRows = 8;               // of a group, a multiple of every kGramRows
constexpr float kRidgeTolerance = 1e-5f;    // a residual this small beside the right side ends a row
constexpr float kRidgeNothing = 1e-24f;     // a right side whose squared length is below it gives zeros

struct Kernel {
  const char* name;
  int32_t query_max;  // the largest int8 code of a query that cannot saturate
  Walk bf16, int8;
  // For as few users: a tile would be empty for the most part. May be the same.
  int32_t few;
  Walk bf16_few, int8_few;
  // out[n]: the dot products, in float64 and in order of d, of query [dims] with the listed rows of items [.., dims].
  void (*exact)(const float* items, int64_t dims, const int32_t* rows, int64_t n, const float* query, double* out);
  // Keeps of the hits from this one on those above the cut which the user may get; all may where lists is null.
  void (*keep)(Hits& hits, int32_t from, RowLists* lists);
  // Nearly the k-th largest lower bound, of at least k hits, and never more than it; or low, where k hits are known to
  // have that. By bisection, as counting has no branches to guess. The bounds lie within 1.5e38 (see screen_holds).
  float (*kth_low)(const Hits& hits, int32_t k, float low);
  // The limits of the machine: multiply-adds that do not wait for one another, [rounds] of 24 * 16, and the
  // reading of n floats, n a multiple of 64. They return something so that the work is done.
  float (*probe_fma)(int64_t rounds);
  float (*probe_read)(const float* values, int64_t n);
  // Rows [u, u + n) of the systems, n up to kRidgeRows; scratch [5 kRidgeRows width + kRidgeEntries].
  void (*ridge_group)(const Ridge& a, int64_t u, int64_t n, float* scratch);
};

extern const Kernel kernel_scalar;
#if defined(__x86_64__)
extern const Kernel kernel_avx2;
extern const Kernel kernel_avx512;
// What the levels beyond AVX-512 do better.
void scan_int8_avx512_vnni(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile);
void scan_bf16_avx512_bf16(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile);
// The same for one or two users on machines that are best read ahead of into the L1 cache, see kAhead.
constexpr int kFewUsers = 2;
void scan_int8_avx512_vnni_l1(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile);
void scan_bf16_avx512_bf16_l1(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile);
void scan_int8_amx(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile);
void scan_bf16_amx(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile);
#endif

}  // namespace fastrec

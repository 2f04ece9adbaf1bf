// What the instruction-set files give to score_topk_cpu.cpp: one Kernel each, over raw pointers.
//
// This header is compiled with the flags of every level, so it holds plain structs only: an inline function
// here could be emitted with AVX-512 code and be the copy that the linker keeps for all.
#pragma once

#include <stdint.h>

namespace fastrec {

constexpr int kLanes = 16;      // items of a panel
constexpr int kMaxPanels = 4;   // panels of the widest register tile
constexpr int kRawHits = 192;   // capacity of Hits
constexpr int kFlushAt = kRawHits - kLanes * kMaxPanels;  // beyond it a tile might not fit any more

// What passed the threshold of one user and was not looked at yet; rows ascend.
struct Hits {
  float cut;  // a score passes when it is larger
  int32_t count;
  float scores[kRawHits];
  int32_t rows[kRawHits];
};

// Some users on their way over the catalogue.
struct Tile {
  int32_t n_users;    // 1 .. users of the kernel's scan
  const void* queries;  // float [dims, n_users]; for scan_int8 int8 [dims4 / 4, n_users, 4]
  const float* init;  // added to the dense scores; user u, item i of the walk at [u * init_stride + i]
  int64_t init_stride;
  Hits* hits;          // [n_users]
  int64_t first_user;  // of hits[0], handed to flush
  void* context;
  void (*flush)(void* context, int64_t user);  // empties the hits of a user, may raise the cut
  // Of the screens, per user: what a score may be off, in units of the two errors of a panel.
  const float* item_weight;   // [n_users], at least |q|
  const float* query_weight;  // [n_users], at least |q - q'|; scan_int8 only
  const float* step;          // [n_users], q' = step * its codes; scan_int8 only
  const int32_t* offset;      // [n_users], -128 * the sum of its codes; scan_int8 only
};

// The catalogue in fewer bits, in panels of 16 items: item = scale * code + an error of known length.
//   int8:     codes uint8 [panel][dims4 / 4][16][4], 128 + the code of -127 .. 127; dims4: dims rounded up to 4
//   bfloat16: codes uint16 [panel][dims2 / 2][16][2], the upper halves of float32; all scales are 1
struct Screen {
  const void* codes;
  const float* scales;  // [panel][16]
  const float* errors;  // [panel][2], over the items of the panel: max |item - item'| / scale, max |codes|
};

struct Kernel {
  const char* name;
  int32_t users;  // users of a full tile
  // Scores panels [first, last) of panels [.., dims, 16] in float32 for a tile; what passes goes to the hits.
  // tile.init is at item 16 * first.
  void (*scan)(const float* panels, int64_t dims, int64_t first, int64_t last, const Tile& tile);
  // out[n, 16]: the dot products, in float64 and in order of d, of query [dims] with the listed panels.
  void (*exact)(const float* panels, int64_t dims, const int32_t* listed, int64_t n, const double* query,
                double* out);
  // The same walk over a screen: an upper bound of every score, but for the rounding, takes its place.
  void (*scan_bf16)(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile);
  int32_t users_int8;  // users of a full tile of scan_int8
  int32_t query_max;   // the largest code of a query that cannot saturate
  void (*scan_int8)(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile);
  // The limits of the machine: multiply-adds that do not wait for one another, [rounds] of 24 * 16, and the
  // reading of n floats, n a multiple of 64. They return something so that the work is done.
  float (*probe_fma)(int64_t rounds);
  float (*probe_read)(const float* values, int64_t n);
};

// The levels' functions that another level uses as well.
#if defined(__x86_64__)
void scan_avx512(const float* panels, int64_t dims, int64_t first, int64_t last, const Tile& tile);
#endif

extern const Kernel kernel_scalar;
#if defined(__x86_64__)
extern const Kernel kernel_avx2;
extern const Kernel kernel_avx512;
extern const Kernel kernel_avx512_vnni;
#endif

}  // namespace fastrec

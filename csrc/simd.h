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
  int32_t n_users;       // 1 .. Kernel::users
  const float* queries;  // [dims, n_users]
  const float* init;     // added to the dense scores; user u, item i of the walk at [u * init_stride + i]
  int64_t init_stride;
  Hits* hits;            // [n_users]
  int64_t first_user;    // of hits[0], handed to flush
  void* context;
  void (*flush)(void* context, int64_t user);  // empties the hits of a user, may raise the cut
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
};

extern const Kernel kernel_scalar;
#if defined(__x86_64__)
extern const Kernel kernel_avx2;
extern const Kernel kernel_avx512;
#endif

}  // namespace fastrec

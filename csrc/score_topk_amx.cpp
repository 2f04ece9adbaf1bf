// AMX: 32 users times two panels in four tiles. A panel of codes is laid out as a tile wants it.
#if defined(__x86_64__)
#define FASTREC_LEVEL amx

#include "amx_tiles.h"
#include "avx512_types.h"
#include "scan_hits.h"

namespace fastrec {
namespace amx {

static constexpr int64_t kTileBytes = 1024;

// C = tiles 0..3, A = 4, 5 (users), B = 6, 7 (items). kUsers and kPanels: 1 or 2 tiles of each.
template <bool kInt8, int kUsers, int kPanels>
static inline void products(const char* queries, int64_t next_users, const char* panel0, const char* panel1,
                            int64_t tiles, Ahead ahead, float* c) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t t = 0; t < tiles; ++t) {
    for (int i = 0; i < 4; ++i) ahead.next();
    _tile_loadd(6, panel0 + kTileBytes * t, 64);
    _tile_loadd(4, queries + kTileBytes * t, 64);
    if (kPanels > 1) _tile_loadd(7, panel1 + kTileBytes * t, 64);
    if (kUsers > 1) _tile_loadd(5, queries + next_users + kTileBytes * t, 64);
    if (kInt8) {
      _tile_dpbsud(0, 4, 6);
      if (kPanels > 1) _tile_dpbsud(1, 4, 7);
      if (kUsers > 1) _tile_dpbsud(2, 5, 6);
      if (kUsers > 1 && kPanels > 1) _tile_dpbsud(3, 5, 7);
    } else {
      _tile_dpbf16ps(0, 4, 6);
      if (kPanels > 1) _tile_dpbf16ps(1, 4, 7);
      if (kUsers > 1) _tile_dpbf16ps(2, 5, 6);
      if (kUsers > 1 && kPanels > 1) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, c, 128);
  if (kPanels > 1) _tile_stored(1, c + 16, 128);
  if (kUsers > 1) _tile_stored(2, c + 16 * 32, 128);
  if (kUsers > 1 && kPanels > 1) _tile_stored(3, c + 16 * 32 + 16, 128);
}

template <bool kInt8, int kUsers, int kPanels>
static inline void walk(const Screen& screen, int64_t steps, int64_t panel, const char* panel0, const char* panel1,
                        const float* init, const Tile& tile, Ahead ahead) {
  alignas(64) float c[32 * 32];
  const int64_t tiles = (steps + 15) / 16;
  products<kInt8, kUsers, kPanels>(static_cast<const char*>(tile.queries), tiles * kTileBytes, panel0, panel1, tiles,
                                   ahead, c);
  for (int u = 0; u < tile.n_users; ++u) {
    if (tile.init_stride != 0) {  // the rows of the users lie too far apart for the machine to read ahead
      __builtin_prefetch(init + u * tile.init_stride + kPanels * kLanes);
      __builtin_prefetch(init + u * tile.init_stride + kPanels * kLanes + kLanes);
    }
#pragma GCC unroll 2
    for (int p = 0; p < kPanels; ++p) {
      const float* sums = c + 32 * u + 16 * p;
      const Vec dots = kInt8 ? Vec{_mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_load_si512(sums),
                                                                      _mm512_set1_epi32(tile.offset[u])))}
                             : Vec::load(sums);
      const float w = width_of(screen, panel + p, tile, u);
      const Vec bounds = bounds_of<kInt8>(screen, panel + p, dots, w, tile, u, init + p * kLanes);
      const uint32_t mask = bounds.above(tile.hits[u].cut);
      if (__builtin_expect(mask != 0, 0)) push<kInt8>(screen, panel + p, bounds, w, mask, tile.hits[u]);
    }
    flush_full(tile, u);
  }
}

template <bool kInt8, int kUsers>
static void scan_users(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  const TileConfig config;
  _tile_loadconfig(&config);
  const int64_t steps = kInt8 ? (dims + 3) / 4 : (dims + 1) / 2, bytes = 64 * steps;
  const char* codes = static_cast<const char*>(screen.codes);
  const float* init = tile.init;
  // The last tile of a panel may reach into the panels that follow, and meets zeros of the query there. It must not
  // reach beyond the last of all.
  const int64_t reach = (steps + 15) / 16 * kTileBytes;
  int64_t end = last;
  while (end > first && (end - 1) * bytes + reach > screen.n_panels * bytes) --end;
  int64_t p = first;
  for (; p + 2 <= end; p += 2, init += 2 * kLanes)
    walk<kInt8, kUsers, 2>(screen, steps, p, codes + p * bytes, codes + (p + 1) * bytes, init, tile,
                           Ahead::of(tile, p - first, 2, steps / 4));
  if (p < end) {
    walk<kInt8, kUsers, 1>(screen, steps, p, codes + p * bytes, nullptr, init, tile, {nullptr, 0});
    ++p, init += kLanes;
  }
  if (p < last) {
    char* copy = static_cast<char*>(__builtin_malloc(reach));
    if (copy == nullptr) __builtin_trap();
    __builtin_memset(copy + bytes, 0, reach - bytes);
    for (; p < last; ++p, init += kLanes) {
      __builtin_memcpy(copy, codes + p * bytes, bytes);
      walk<kInt8, kUsers, 1>(screen, steps, p, copy, nullptr, init, tile, {nullptr, 0});
    }
    __builtin_free(copy);
  }
  _tile_release();
}

template <bool kInt8>
static void scan(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  if (tile.n_users > 16) return scan_users<kInt8, 2>(screen, dims, first, last, tile);
  scan_users<kInt8, 1>(screen, dims, first, last, tile);
}

}  // namespace amx

void scan_bf16_amx(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  amx::scan<false>(screen, dims, first, last, tile);
}

void scan_int8_amx(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  amx::scan<true>(screen, dims, first, last, tile);
}

}  // namespace fastrec
#endif

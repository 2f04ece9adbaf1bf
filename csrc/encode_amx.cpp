// int8 and bfloat16 linear layers by AMX: 32 x 32 outputs in four tiles, 64 bytes of a row at a time.
#if defined(__x86_64__)
#define FASTREC_LEVEL enc_amx

#include "encode_vec512.h"
#include "encode_linear_kernel.h"
#include "amx_tiles.h"

#include <sys/syscall.h>
#include <unistd.h>

namespace fastrec {
namespace enc_amx {

enum class Kind { kInt8, kBf16, kSplit };

template <Kind K, bool Two>
static inline void products() {
  if (K == Kind::kInt8) {
    _tile_dpbusd(0, 4, 6);
    _tile_dpbusd(2, 5, 6);
    if (Two) {
      _tile_dpbusd(1, 4, 7);
      _tile_dpbusd(3, 5, 7);
    }
  } else {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(2, 5, 6);
    if (Two) {
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
}

// One 32 x 32 (or 32 x 16) block: C = tiles 0..3, A = 4, 5, B = 6, 7.
template <Kind K, bool Two>
static inline void block(const char* a, int64_t next_a, const char* b0, const char* b1, int64_t low_b, int64_t tiles,
                         float* c) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t t = 0; t < tiles; ++t) {
    _tile_loadd(4, a + 1024 * t, 64);
    _tile_loadd(5, a + next_a + 1024 * t, 64);
    if (K == Kind::kSplit) {
      _tile_loadd(6, b0 + low_b + 1024 * t, 64);
      if (Two) _tile_loadd(7, b1 + low_b + 1024 * t, 64);
      products<K, Two>();
    }
    _tile_loadd(6, b0 + 1024 * t, 64);
    if (Two) _tile_loadd(7, b1 + 1024 * t, 64);
    products<K, Two>();
    if (K == Kind::kSplit) {
      const char* low = a + 1024 * (tiles + t);
      _tile_loadd(4, low, 64);
      _tile_loadd(5, low + next_a, 64);
      products<K, Two>();
    }
  }
  _tile_stored(0, c, 128);
  _tile_stored(2, c + 16 * 32, 128);
  if (Two) {
    _tile_stored(1, c + 16, 128);
    _tile_stored(3, c + 16 * 32 + 16, 128);
  }
}

template <Kind K>
static void linear_tiles(const Rows& x, int64_t rows, const Linear& w, float* out) {
  const TileConfig config;
  _tile_loadconfig(&config);
  constexpr Codes kCodes = K == Kind::kInt8 ? Codes::kInt8 : Codes::kNone;
  constexpr int64_t kTimes = K == Kind::kSplit ? 2 : 1;
  alignas(64) float c[32 * 32];
  const int64_t tiles = w.steps / 16, n_panels = (w.N + 15) / 16, next_a = kTimes * 64 * w.steps;
  const int64_t low_b = 64 * w.steps;
  for (int64_t panel = 0; panel < n_panels; panel += 2) {
    const bool two = panel + 1 < n_panels;
    const char* b0 = static_cast<const char*>(w.panels) + panel * kTimes * low_b;
    for (int64_t row = 0; row < rows; row += 32) {
      const char* a = static_cast<const char*>(x.data) + row / 16 * next_a;
      if (two) {
        block<K, true>(a, next_a, b0, b0 + kTimes * low_b, low_b, tiles, c);
      } else {
        block<K, false>(a, next_a, b0, nullptr, low_b, tiles, c);
      }
      const int64_t here = rows - row < 32 ? rows - row : 32;
      for (int64_t r = 0; r < here; ++r)
        for (int p = 0; p < (two ? 2 : 1); ++p) {
          const int64_t column = 16 * (panel + p);
          const float* from = c + 32 * r + 16 * p;
          const Vec sum = K == Kind::kInt8 ? Vec{_mm512_cvtepi32_ps(_mm512_load_si512(from))} : Vec::load(from);
          const Vec value = Column::load(kCodes, w, column).finish(sum, kCodes, x, row + r);
          value.store_n(out + (row + r) * w.N + column, w.N - column);
        }
      const int64_t left = w.N - 16 * panel;
      if (w.activation != kNoActivation)
        activate(out + row * w.N + 16 * panel, here, w.N, left < 32 ? left : 32, w.activation);
    }
  }
  _tile_release();
}

}  // namespace enc_amx

// Linux gives a process the tiles when it asks for them; a virtual machine may refuse.
bool amx_allowed() {
  constexpr int kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool allowed = syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
  return allowed;
}

void linear_int8_amx(const Rows& x, int64_t rows, const Linear& w, float* out) {
  enc_amx::linear_tiles<enc_amx::Kind::kInt8>(x, rows, w, out);
}

void linear_bf16_amx(const Rows& x, int64_t rows, const Linear& w, float* out) {
  enc_amx::linear_tiles<enc_amx::Kind::kBf16>(x, rows, w, out);
}

void linear_split_amx(const Rows& x, int64_t rows, const Linear& w, float* out) {
  enc_amx::linear_tiles<enc_amx::Kind::kSplit>(x, rows, w, out);
}

}  // namespace fastrec
#endif

// The tiles of AMX in software, for machines without them. The module _C_amx_model has this header before the files
// that use tiles (-include, see CMakeLists.txt), and their intrinsics become these functions. They follow the operation
// sections of Intel's manual (SDM, volume 2); what is a fault there ends the process with a message.
#pragma once

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

// Functions are static: this is compiled with the flags of several levels, see simd.h.
namespace fastrec_amx_model {

constexpr int kTiles = 8, kRows = 16, kRowBytes = 64;

struct State {
  bool configured;
  uint16_t bytes[kTiles];  // of a row
  uint8_t rows[kTiles];
  alignas(64) uint8_t data[kTiles][kRows][kRowBytes];  // zero beyond `rows` and `bytes`
};
inline thread_local State state{};
inline std::atomic<bool> permitted{false};

static inline void need(bool good, const char* what) {
  if (__builtin_expect(good, 1)) return;
  std::fprintf(stderr, "amx_model: %s\n", what);
  std::abort();
}

// LDTILECFG: all tiles become zero.
static inline void load_config(const void* from) {
  need(permitted, "LDTILECFG before the process has asked for tiles");
  need(!state.configured, "LDTILECFG again without TILERELEASE: no fault, but whoever had the tiles has kept them");
  const uint8_t* c = static_cast<const uint8_t*>(from);
  state = State{};
  if (c[0] == 0) return;
  need(c[0] == 1, "LDTILECFG: palette above 1");
  need(c[1] == 0, "LDTILECFG: start_row is for what an interrupt left");
  for (int i = 0; i < 64; ++i)
    need((i >= 2 && i < 16) || (i >= 32 && i < 48) || i >= 56 ? c[i] == 0 : true, "LDTILECFG: reserved byte not zero");
  std::memcpy(state.bytes, c + 16, sizeof state.bytes);
  std::memcpy(state.rows, c + 48, sizeof state.rows);
  for (int t = 0; t < kTiles; ++t) {
    need(state.bytes[t] <= kRowBytes && state.rows[t] <= kRows, "LDTILECFG: tile too large");
    need((state.bytes[t] == 0) == (state.rows[t] == 0), "LDTILECFG: tile with rows or columns alone");
  }
  state.configured = true;
}

static inline void release() { state = State{}; }

static inline void check(int t) {
  need(state.configured, "tiles are not configured");
  need(t >= 0 && t < kTiles && state.rows[t] != 0, "tile is not configured");
  need(state.bytes[t] % 4 == 0, "tile row is no multiple of 4 bytes");
}

static inline void zero(int t) {
  check(t);
  std::memset(state.data[t], 0, sizeof state.data[t]);
}

static inline void load(int t, const void* base, int64_t stride) {
  zero(t);
  for (int r = 0; r < state.rows[t]; ++r)
    std::memcpy(state.data[t][r], static_cast<const char*>(base) + r * stride, state.bytes[t]);
}

static inline void store(int t, void* base, int64_t stride) {
  check(t);
  for (int r = 0; r < state.rows[t]; ++r)
    std::memcpy(static_cast<char*>(base) + r * stride, state.data[t][r], state.bytes[t]);
}

// C [m, n] += A [m, k] B [k, n], all in units of 4 bytes.
static inline void check_product(int c, int a, int b) {
  check(c), check(a), check(b);
  need(c != a && c != b && a != b, "product of a tile with itself");
  need(state.rows[c] == state.rows[a] && state.bytes[c] == state.bytes[b] && state.bytes[a] / 4 == state.rows[b],
       "product of tiles that do not fit");
}

// TDPBSUD, TDPBUSD: four products of bytes are added, in int32 that wraps around.
template <typename A, typename B>
static inline void dot_bytes(int c, int a, int b) {
  check_product(c, a, b);
  const int n = state.bytes[c] / 4, k = state.rows[b];
  uint32_t right[kRows][4][kRowBytes / 4] = {};
  for (int i = 0; i < k; ++i)
    for (int j = 0; j < 4 * n; ++j) right[i][j % 4][j / 4] = static_cast<uint32_t>(static_cast<B>(state.data[b][i][j]));
  for (int m = 0; m < state.rows[c]; ++m) {
    uint32_t sums[kRowBytes / 4];
    std::memcpy(sums, state.data[c][m], sizeof sums);
    for (int i = 0; i < 4 * k; ++i) {
      const uint32_t left = static_cast<uint32_t>(static_cast<A>(state.data[a][m][i]));
      for (int j = 0; j < kRowBytes / 4; ++j) sums[j] += left * right[i / 4][i % 4][j];
    }
    std::memcpy(state.data[c][m], sums, 4 * n);
  }
}

// MXCSR while it lives: round to nearest even, denormals are zeros as inputs and as outputs. The compiler moves neither
// loads from the tiles nor stores into them across it, and what is computed lies between those.
struct Flush {
  uint32_t before;
  Flush() {
    const uint32_t mode = 0x9fc0;
    asm volatile("stmxcsr %0\n\tldmxcsr %1" : "=m"(before) : "m"(mode) : "memory");
  }
  ~Flush() { asm volatile("ldmxcsr %0" : : "m"(before) : "memory"); }
};

// TDPBF16PS: the first of all pairs and the second of all pairs are summed apart, by FMAs from 0 on; then the two are
// added, and the sum is added to C.
static inline void dot_bf16(int c, int a, int b) {
  check_product(c, a, b);
  constexpr int kWords = kRowBytes / 4;
  const int n = state.bytes[c] / 4, k = state.rows[b];
  const auto halves = [](const uint8_t* row, float* first, float* second) {
    uint32_t words[kWords], low[kWords], high[kWords];
    std::memcpy(words, row, sizeof words);
    for (int j = 0; j < kWords; ++j) low[j] = words[j] << 16, high[j] = words[j] & 0xffff0000u;
    std::memcpy(first, low, sizeof low), std::memcpy(second, high, sizeof high);
  };
  const Flush flush;
  float right[kRows][2][kWords];
  for (int i = 0; i < k; ++i) halves(state.data[b][i], right[i][0], right[i][1]);
  for (int m = 0; m < state.rows[c]; ++m) {
    float left[2][kWords], even[kWords] = {}, odd[kWords] = {}, sums[kWords];
    halves(state.data[a][m], left[0], left[1]);
    for (int i = 0; i < k; ++i)
      for (int j = 0; j < kWords; ++j) {
        even[j] = __builtin_fmaf(left[0][i], right[i][0][j], even[j]);
        odd[j] = __builtin_fmaf(left[1][i], right[i][1][j], odd[j]);
      }
    std::memcpy(sums, state.data[c][m], sizeof sums);
    for (int j = 0; j < kWords; ++j) sums[j] += even[j] + odd[j];
    std::memcpy(state.data[c][m], sums, 4 * n);
  }
}

// arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
static inline long request(long number, int what, int feature) {
  permitted = number == SYS_arch_prctl && what == 0x1023 && feature == 18;
  return permitted ? 0 : -1;
}

}  // namespace fastrec_amx_model

// The processor has what it has, and tiles.
#define __builtin_cpu_supports(feature) (std::strncmp(feature, "amx-", 4) == 0 || __builtin_cpu_supports(feature))
#define syscall fastrec_amx_model::request

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbsud
#undef _tile_dpbusd
#undef _tile_dpbf16ps
#define _tile_loadconfig fastrec_amx_model::load_config
#define _tile_release fastrec_amx_model::release
#define _tile_zero fastrec_amx_model::zero
#define _tile_loadd fastrec_amx_model::load
#define _tile_stored fastrec_amx_model::store
#define _tile_dpbsud (fastrec_amx_model::dot_bytes<int8_t, uint8_t>)
#define _tile_dpbusd (fastrec_amx_model::dot_bytes<uint8_t, int8_t>)
#define _tile_dpbf16ps fastrec_amx_model::dot_bf16

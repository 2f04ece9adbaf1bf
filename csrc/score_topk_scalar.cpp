// The level that every machine has: plain loops, which the compiler turns into its baseline vectors.
#include <stdint.h>

#define FASTREC_LEVEL scalar

namespace fastrec {
namespace scalar {

static constexpr int kWidth = 16;

struct Vec {
  float v[kWidth];
  static inline Vec zero() { return all(0.0f); }
  static inline Vec all(float x) {
    Vec r;
    for (int i = 0; i < kWidth; ++i) r.v[i] = x;
    return r;
  }
  static inline Vec load(const float* p) {
    Vec r;
    for (int i = 0; i < kWidth; ++i) r.v[i] = p[i];
    return r;
  }
  static inline void load_pairs(const uint16_t* p, Vec& even, Vec& odd) {
    for (int i = 0; i < kWidth; ++i) {
      const uint32_t bits[2] = {static_cast<uint32_t>(p[2 * i]) << 16, static_cast<uint32_t>(p[2 * i + 1]) << 16};
      __builtin_memcpy(&even.v[i], &bits[0], 4);
      __builtin_memcpy(&odd.v[i], &bits[1], 4);
    }
  }
  inline void store(float* p) const {
    for (int i = 0; i < kWidth; ++i) p[i] = v[i];
  }
  inline void add_product(const Vec& a, const Vec& b) {
    for (int i = 0; i < kWidth; ++i) v[i] += a.v[i] * b.v[i];
  }
  inline Vec plus(const Vec& other) const {
    Vec r;
    for (int i = 0; i < kWidth; ++i) r.v[i] = v[i] + other.v[i];
    return r;
  }
  inline uint32_t above(float cut) const {
    uint32_t mask = 0;
    for (int i = 0; i < kWidth; ++i) mask |= static_cast<uint32_t>(v[i] > cut) << i;
    return mask;
  }
};

struct Vec64 {
  double v[kWidth];
  static inline Vec64 zero() {
    Vec64 r;
    for (int i = 0; i < kWidth; ++i) r.v[i] = 0.0;
    return r;
  }
  inline void add_product(double q, const float* p) {
    for (int i = 0; i < kWidth; ++i) v[i] += q * static_cast<double>(p[i]);
  }
  inline void add_products(const float* q, const float* p) {
    for (int i = 0; i < kWidth; ++i) v[i] += static_cast<double>(q[i]) * static_cast<double>(p[i]);
  }
  inline void store(double* p) const {
    for (int i = 0; i < kWidth; ++i) p[i] = v[i];
  }
};

struct Codes {
  uint8_t v[4 * kWidth];
  static inline Codes load(const uint8_t* p) {
    Codes r;
    __builtin_memcpy(r.v, p, sizeof r.v);
    return r;
  }
};

struct Sums {
  int32_t v[kWidth];
  static inline Sums all(int32_t x) {
    Sums r;
    for (int i = 0; i < kWidth; ++i) r.v[i] = x;
    return r;
  }
  inline void add_dots(const Codes& items, int32_t four) {
    int8_t q[4];
    __builtin_memcpy(q, &four, 4);
    for (int i = 0; i < kWidth; ++i)
      for (int j = 0; j < 4; ++j) v[i] += static_cast<int32_t>(items.v[4 * i + j]) * q[j];
  }
  inline void plus(const Sums& other) {
    for (int i = 0; i < kWidth; ++i) v[i] += other.v[i];
  }
  inline Vec to_float() const {
    Vec r;
    for (int i = 0; i < kWidth; ++i) r.v[i] = static_cast<float>(v[i]);
    return r;
  }
};

static constexpr int panels_for(int) { return 1; }
static constexpr int splits_for(int) { return 1; }
static constexpr int kExactPanels = 1;
static constexpr int kProbeSums = 2;
static constexpr int int8_panels_for(int) { return 1; }
static constexpr int int8_splits_for(int) { return 1; }

}  // namespace scalar
}  // namespace fastrec

#include "probe_kernel.h"
#include "score_topk_int8_kernel.h"
#include "score_topk_kernel.h"

namespace fastrec {

static void scan(const float* panels, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  if (tile.n_users == 2) return scalar::scan_users<2>(panels, dims, first, last, tile);
  scalar::scan_users<1>(panels, dims, first, last, tile);
}

static void scan_bf16(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  scalar::scan_bf16_users<1>(screen, dims, first, last, tile);
}

static void scan_int8(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  scalar::scan_int8_users<1>(screen, dims, first, last, tile);
}

const Kernel kernel_scalar = {"scalar", 2, scan, scalar::exact, scalar::exact_pairs, 1, scan_bf16, 1, 127, scan_int8,
                              scalar::probe_fma, scalar::probe_read, {77.0, 360.0, 290.0}};

}  // namespace fastrec

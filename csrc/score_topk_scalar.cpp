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
  inline void store(double* p) const {
    for (int i = 0; i < kWidth; ++i) p[i] = v[i];
  }
};

static constexpr int panels_for(int) { return 1; }
static constexpr int kExactPanels = 1;

}  // namespace scalar
}  // namespace fastrec

#include "score_topk_kernel.h"

namespace fastrec {

static void scan_scalar(const float* panels, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  if (tile.n_users == 2) return scalar::scan_users<2>(panels, dims, first, last, tile);
  scalar::scan_users<1>(panels, dims, first, last, tile);
}

const Kernel kernel_scalar = {"scalar", 2, scan_scalar, scalar::exact};

}  // namespace fastrec

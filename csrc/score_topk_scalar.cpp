// The level that every machine has: plain loops, which the compiler turns into its baseline vectors.
#define FASTREC_LEVEL scalar

#include "simd.h"

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
  static inline Vec load_first(const float* p, int64_t n) {
    Vec r = zero();
    for (int64_t i = 0; i < n; ++i) r.v[i] = p[i];
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
  inline Vec absolute() const {
    Vec r;
    for (int i = 0; i < kWidth; ++i) r.v[i] = __builtin_fabsf(v[i]);
    return r;
  }
  inline uint32_t above(float cut) const {
    uint32_t mask = 0;
    for (int i = 0; i < kWidth; ++i) mask |= static_cast<uint32_t>(v[i] > cut) << i;
    return mask;
  }
  inline int32_t count_above(float cut) const {
    int32_t count = 0;
    for (int i = 0; i < kWidth; ++i) count += v[i] > cut;
    return count;
  }
  inline Vec least(const Vec& other) const {
    Vec r;
    for (int i = 0; i < kWidth; ++i) r.v[i] = other.v[i] < v[i] ? other.v[i] : v[i];
    return r;
  }
  inline float sum() const {
    float part[kWidth / 2];
    for (int i = 0; i < kWidth / 2; ++i) part[i] = v[i] + v[i + kWidth / 2];
    for (int n = kWidth / 4; n > 0; n /= 2)
      for (int i = 0; i < n; ++i) part[i] += part[i + n];
    return part[0];
  }
  inline Vec most(const Vec& other) const {
    Vec r;
    for (int i = 0; i < kWidth; ++i) r.v[i] = other.v[i] > v[i] ? other.v[i] : v[i];
    return r;
  }
};

static inline uint32_t equal(const int32_t* rows, int32_t row) {
  uint32_t mask = 0;
  for (int i = 0; i < kWidth; ++i) mask |= static_cast<uint32_t>(rows[i] == row) << i;
  return mask;
}

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

// Codes of bfloat16 against float32 queries.
struct SumsBf16 {
  using Part = Vec;
  static constexpr int kDims = 2, kParts = 2;
  static constexpr bool kScaled = false;
  static constexpr int panels(int) { return 1; }
  static constexpr int splits(int) { return 1; }
  Vec v;
  static inline SumsBf16 zero() { return {Vec::zero()}; }
  static inline SumsBf16 start(const Tile&, int) { return zero(); }
  static inline Vec load(const char* values, int h) {
    Vec r;
    for (int i = 0; i < kWidth; ++i) {
      uint16_t half;
      __builtin_memcpy(&half, values + 4 * i + 2 * h, 2);
      const uint32_t bits = static_cast<uint32_t>(half) << 16;
      __builtin_memcpy(&r.v[i], &bits, 4);
    }
    return r;
  }
  inline void add(const Vec& items, int32_t word) {
    float q;
    __builtin_memcpy(&q, &word, 4);
    v.add_product(Vec::all(q), items);
  }
  inline void plus(const SumsBf16& other) { v = v.plus(other.v); }
  inline Vec to_float() const { return v; }
};

struct SumsInt8 {
  struct Part {
    uint8_t v[4 * kWidth];
  };
  static constexpr int kDims = 4, kParts = 1;
  static constexpr bool kScaled = true;
  static constexpr int panels(int) { return 1; }
  static constexpr int splits(int) { return 1; }
  int32_t v[kWidth];
  static inline SumsInt8 all(int32_t x) {
    SumsInt8 r;
    for (int i = 0; i < kWidth; ++i) r.v[i] = x;
    return r;
  }
  static inline SumsInt8 zero() { return all(0); }
  static inline SumsInt8 start(const Tile& tile, int u) { return all(tile.offset[u]); }
  static inline Part load(const char* values, int) {
    Part r;
    __builtin_memcpy(r.v, values, sizeof r.v);
    return r;
  }
  inline void add(const Part& items, int32_t word) {
    int8_t q[4];
    __builtin_memcpy(q, &word, 4);
    for (int i = 0; i < kWidth; ++i)
      for (int j = 0; j < 4; ++j) v[i] += static_cast<int32_t>(items.v[4 * i + j]) * q[j];
  }
  inline void plus(const SumsInt8& other) {
    for (int i = 0; i < kWidth; ++i) v[i] += other.v[i];
  }
  inline Vec to_float() const {
    Vec r;
    for (int i = 0; i < kWidth; ++i) r.v[i] = static_cast<float>(v[i]);
    return r;
  }
};

static inline void transpose(const float* const* from, int64_t d, float* block) {
  for (int lane = 0; lane < kWidth; ++lane)
    for (int j = 0; j < 16; ++j) block[j * kWidth + lane] = from[lane][d + j];
}

static constexpr int kProbeSums = 2;
static constexpr int kGramRows = 4, kGramColumns = 1, kEntrySums = 1;  // see ridge_kernel.h

}  // namespace scalar
}  // namespace fastrec

#include "store_some.h"
#include "exact_kernel.h"
#include "hits_kernel.h"
#include "probe_kernel.h"
#include "ridge_kernel.h"
#include "score_topk_kernel.h"

namespace fastrec {

static constexpr Walk kBf16 = {scalar::scan<scalar::SumsBf16, 1>, 1};
static constexpr Walk kInt8 = {scalar::scan<scalar::SumsInt8, 1>, 1};

const Kernel kernel_scalar = {"scalar", 127, kBf16, kInt8, 0, kBf16, kInt8, scalar::exact, scalar::keep,
                              scalar::kth_low, scalar::probe_fma, scalar::probe_read, scalar::ridge_group};

}  // namespace fastrec

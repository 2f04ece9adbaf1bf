// AVX2 and FMA: a panel is two registers.
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

#define FASTREC_LEVEL avx2

namespace fastrec {
namespace avx2 {

struct Vec {
  __m256 lo, hi;
  static inline Vec zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static inline Vec all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static inline Vec load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static inline void load_pairs(const uint16_t* p, Vec& even, Vec& odd) {
    const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 16));
    even = {_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))};
    odd = {_mm256_castsi256_ps(_mm256_and_si256(a, upper)), _mm256_castsi256_ps(_mm256_and_si256(b, upper))};
  }
  inline void store(float* p) const {
    _mm256_storeu_ps(p, lo);
    _mm256_storeu_ps(p + 8, hi);
  }
  inline void add_product(const Vec& a, const Vec& b) {
    lo = _mm256_fmadd_ps(a.lo, b.lo, lo);
    hi = _mm256_fmadd_ps(a.hi, b.hi, hi);
  }
  inline Vec plus(const Vec& other) const { return {_mm256_add_ps(lo, other.lo), _mm256_add_ps(hi, other.hi)}; }
  inline uint32_t above(float cut) const {
    const __m256 c = _mm256_set1_ps(cut);
    const int low = _mm256_movemask_ps(_mm256_cmp_ps(lo, c, _CMP_GT_OQ));
    const int high = _mm256_movemask_ps(_mm256_cmp_ps(hi, c, _CMP_GT_OQ));
    return static_cast<uint32_t>(low | (high << 8));
  }
};

struct Vec64 {
  __m256d v[4];
  static inline Vec64 zero() {
    const __m256d z = _mm256_setzero_pd();
    return {{z, z, z, z}};
  }
  inline void add_product(double q, const float* p) {
    const __m256d all = _mm256_set1_pd(q);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) v[i] = _mm256_fmadd_pd(all, _mm256_cvtps_pd(_mm_loadu_ps(p + 4 * i)), v[i]);
  }
  inline void add_products(const float* q, const float* p) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m256d left = _mm256_cvtps_pd(_mm_loadu_ps(q + 4 * i));
      v[i] = _mm256_fmadd_pd(left, _mm256_cvtps_pd(_mm_loadu_ps(p + 4 * i)), v[i]);
    }
  }
  inline void store(double* p) const {
    for (int i = 0; i < 4; ++i) _mm256_storeu_pd(p + 4 * i, v[i]);
  }
};

struct Codes {
  __m256i lo, hi;
  static inline Codes load(const uint8_t* p) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
  }
};

struct Sums {
  __m256i lo, hi;
  static inline Sums all(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
  // Pairs fit into int16 because the codes of a query stay within -63 .. 63: 2 * 255 * 63 < 2^15.
  static inline __m256i dots(__m256i items, __m256i four) {
    return _mm256_madd_epi16(_mm256_maddubs_epi16(items, four), _mm256_set1_epi16(1));
  }
  inline void add_dots(const Codes& items, int32_t four) {
    const __m256i query = _mm256_set1_epi32(four);
    lo = _mm256_add_epi32(lo, dots(items.lo, query));
    hi = _mm256_add_epi32(hi, dots(items.hi, query));
  }
  inline void plus(const Sums& other) {
    lo = _mm256_add_epi32(lo, other.lo);
    hi = _mm256_add_epi32(hi, other.hi);
  }
  inline Vec to_float() const { return {_mm256_cvtepi32_ps(lo), _mm256_cvtepi32_ps(hi)}; }
};

// 12 sums, 2 registers of items and the query fill the 16 registers.
static constexpr int panels_for(int users) { return users == 2 ? 2 : 1; }
static constexpr int splits_for(int users) { return users == 1 ? 4 : 1; }
static constexpr int kExactPanels = 2;
static constexpr int kProbeSums = 6;
// The products need registers of their own.
static constexpr int int8_panels_for(int) { return 1; }
static constexpr int int8_splits_for(int users) { return users == 1 ? 4 : 1; }

}  // namespace avx2
}  // namespace fastrec

#include "probe_kernel.h"
#include "score_topk_int8_kernel.h"
#include "score_topk_kernel.h"
#include "scan_switch.h"

namespace fastrec {

static void scan(const float* panels, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  FASTREC_SWITCH_6(avx2::scan_users, panels, dims, first, last, tile);
}

static void scan_bf16(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  switch (tile.n_users) {
    FASTREC_CASE(1, avx2::scan_bf16_users, screen, dims, first, last, tile);
    FASTREC_CASE(2, avx2::scan_bf16_users, screen, dims, first, last, tile);
    default: return avx2::scan_bf16_users<3>(screen, dims, first, last, tile);
  }
}

static void scan_int8(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  switch (tile.n_users) {
    FASTREC_CASE(1, avx2::scan_int8_users, screen, dims, first, last, tile);
    FASTREC_CASE(2, avx2::scan_int8_users, screen, dims, first, last, tile);
    FASTREC_CASE(3, avx2::scan_int8_users, screen, dims, first, last, tile);
    default: return avx2::scan_int8_users<4>(screen, dims, first, last, tile);
  }
}

const Kernel kernel_avx2 = {"avx2", 6, scan, avx2::exact, avx2::exact_pairs, 3, scan_bf16, 4, 63, scan_int8,
                            avx2::probe_fma, avx2::probe_read, {14.0, 28.0, 11.4}};

}  // namespace fastrec
#endif

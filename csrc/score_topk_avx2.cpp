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
  inline void store(double* p) const {
    for (int i = 0; i < 4; ++i) _mm256_storeu_pd(p + 4 * i, v[i]);
  }
};

// 12 sums, 2 registers of items and the query fill the 16 registers.
static constexpr int panels_for(int users) { return users == 1 ? 4 : users == 2 ? 2 : 1; }
static constexpr int kExactPanels = 2;

}  // namespace avx2
}  // namespace fastrec

#include "score_topk_kernel.h"

namespace fastrec {

static void scan_avx2(const float* panels, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  switch (tile.n_users) {
    case 1: return avx2::scan_users<1>(panels, dims, first, last, tile);
    case 2: return avx2::scan_users<2>(panels, dims, first, last, tile);
    case 3: return avx2::scan_users<3>(panels, dims, first, last, tile);
    case 4: return avx2::scan_users<4>(panels, dims, first, last, tile);
    case 5: return avx2::scan_users<5>(panels, dims, first, last, tile);
    default: return avx2::scan_users<6>(panels, dims, first, last, tile);
  }
}

const Kernel kernel_avx2 = {"avx2", 6, scan_avx2, avx2::exact};

}  // namespace fastrec
#endif

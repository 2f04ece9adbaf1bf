// AVX-512: a panel is one register.
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

#define FASTREC_LEVEL avx512

namespace fastrec {
namespace avx512 {

struct Vec {
  __m512 v;
  static inline Vec zero() { return {_mm512_setzero_ps()}; }
  static inline Vec all(float x) { return {_mm512_set1_ps(x)}; }
  static inline Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  inline void store(float* p) const { _mm512_storeu_ps(p, v); }
  inline void add_product(const Vec& a, const Vec& b) { v = _mm512_fmadd_ps(a.v, b.v, v); }
  inline Vec plus(const Vec& other) const { return {_mm512_add_ps(v, other.v)}; }
  inline uint32_t above(float cut) const { return _mm512_cmp_ps_mask(v, _mm512_set1_ps(cut), _CMP_GT_OQ); }
};

struct Vec64 {
  __m512d lo, hi;
  static inline Vec64 zero() { return {_mm512_setzero_pd(), _mm512_setzero_pd()}; }
  inline void add_product(double q, const float* p) {
    const __m512d all = _mm512_set1_pd(q);
    lo = _mm512_fmadd_pd(all, _mm512_cvtps_pd(_mm256_loadu_ps(p)), lo);
    hi = _mm512_fmadd_pd(all, _mm512_cvtps_pd(_mm256_loadu_ps(p + 8)), hi);
  }
  inline void store(double* p) const {
    _mm512_storeu_pd(p, lo);
    _mm512_storeu_pd(p + 8, hi);
  }
};

// 24 sums, 3 registers of items and the query fit into the 32 registers.
static constexpr int panels_for(int users) { return users <= 4 ? 4 : 3; }
static constexpr int kExactPanels = 4;

}  // namespace avx512
}  // namespace fastrec

#include "score_topk_kernel.h"

namespace fastrec {

static void scan_avx512(const float* panels, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  switch (tile.n_users) {
    case 1: return avx512::scan_users<1>(panels, dims, first, last, tile);
    case 2: return avx512::scan_users<2>(panels, dims, first, last, tile);
    case 3: return avx512::scan_users<3>(panels, dims, first, last, tile);
    case 4: return avx512::scan_users<4>(panels, dims, first, last, tile);
    case 5: return avx512::scan_users<5>(panels, dims, first, last, tile);
    case 6: return avx512::scan_users<6>(panels, dims, first, last, tile);
    case 7: return avx512::scan_users<7>(panels, dims, first, last, tile);
    default: return avx512::scan_users<8>(panels, dims, first, last, tile);
  }
}

const Kernel kernel_avx512 = {"avx512", 8, scan_avx512, avx512::exact};

}  // namespace fastrec
#endif

// The 16-lane types of the AVX-512 levels, in the namespace of the level that includes them.
#pragma once

#include <immintrin.h>
#include <stdint.h>

namespace fastrec {
namespace FASTREC_LEVEL {

struct Vec {
  __m512 v;
  static inline Vec zero() { return {_mm512_setzero_ps()}; }
  static inline Vec all(float x) { return {_mm512_set1_ps(x)}; }
  static inline Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static inline void load_pairs(const uint16_t* p, Vec& even, Vec& odd) {
    const __m512i pairs = _mm512_loadu_si512(p);
    even.v = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
    odd.v = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
  }
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
  inline void add_products(const float* q, const float* p) {
    lo = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm256_loadu_ps(q)), _mm512_cvtps_pd(_mm256_loadu_ps(p)), lo);
    hi = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm256_loadu_ps(q + 8)), _mm512_cvtps_pd(_mm256_loadu_ps(p + 8)), hi);
  }
  inline void store(double* p) const {
    _mm512_storeu_pd(p, lo);
    _mm512_storeu_pd(p + 8, hi);
  }
};

struct Codes {
  __m512i v;
  static inline Codes load(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
};

// 28 sums, 2 registers of items and the query fit into the 32 registers.
static constexpr int panels_for(int users) { return users <= 2 ? 1 : users <= 8 ? 3 : 2; }
static constexpr int splits_for(int users) { return users == 1 ? 8 : users == 2 ? 4 : 1; }
static constexpr int kExactPanels = 4;
static constexpr int kProbeSums = 24;
static constexpr int int8_panels_for(int users) { return users <= 2 ? 1 : users <= 8 ? 3 : 2; }
static constexpr int int8_splits_for(int users) { return users == 1 ? 8 : users == 2 ? 4 : 1; }

}  // namespace FASTREC_LEVEL
}  // namespace fastrec

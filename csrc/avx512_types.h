// The 16-lane types of the AVX-512 levels, in the namespace of the level that includes them.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "simd.h"

namespace fastrec {
namespace FASTREC_LEVEL {

struct Vec {
  __m512 v;
  static inline Vec zero() { return {_mm512_setzero_ps()}; }
  static inline Vec all(float x) { return {_mm512_set1_ps(x)}; }
  static inline Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  // The first n of 16; what lies behind is not read, and 0.
  static inline Vec load_first(const float* p, int64_t n) {
    return {_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1u), p)};
  }
  inline void store(float* p) const { _mm512_storeu_ps(p, v); }
  inline void add_product(const Vec& a, const Vec& b) { v = _mm512_fmadd_ps(a.v, b.v, v); }
  inline Vec plus(const Vec& other) const { return {_mm512_add_ps(v, other.v)}; }
  inline Vec absolute() const { return {_mm512_abs_ps(v)}; }
  inline uint32_t above(float cut) const { return _mm512_cmp_ps_mask(v, _mm512_set1_ps(cut), _CMP_GT_OQ); }
  inline int32_t count_above(float cut) const { return __builtin_popcount(above(cut)); }
  inline Vec least(const Vec& other) const { return {_mm512_min_ps(v, other.v)}; }
  inline Vec most(const Vec& other) const { return {_mm512_max_ps(v, other.v)}; }
  inline float sum() const { return _mm512_reduce_add_ps(v); }
};

// As in store_some.h, but the rest of 16 places is overwritten. A compressing store takes some machines a hundred
// cycles, a compressed register two.
static inline void store_some(const Vec& v, uint32_t mask, float* p) {
  _mm512_storeu_ps(p, _mm512_maskz_compress_ps(static_cast<__mmask16>(mask), v.v));
}

static inline int32_t store_rows(uint32_t mask, int32_t row, int32_t* p) {
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i rows = _mm512_add_epi32(lanes, _mm512_set1_epi32(row));
  _mm512_storeu_si512(p, _mm512_maskz_compress_epi32(static_cast<__mmask16>(mask), rows));
  return __builtin_popcount(mask);
}

static inline int32_t store_some_rows(const int32_t* from, uint32_t mask, int32_t* to) {
  const __m512i rows = _mm512_loadu_si512(from);
  _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(static_cast<__mmask16>(mask), rows));
  return __builtin_popcount(mask);
}

static inline uint32_t equal(const int32_t* rows, int32_t row) {
  return _mm512_cmpeq_epi32_mask(_mm512_loadu_si512(rows), _mm512_set1_epi32(row));
}

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

// 28 sums, 2 registers of items and the query fit into the 32 registers.
static constexpr int panels_for(int users) { return users <= 2 ? 1 : users <= 8 ? 3 : 2; }
static constexpr int splits_for(int users) { return users == 1 ? 8 : users == 2 ? 4 : 1; }

// What the kinds of int8 sums share.
struct Int8 {
  using Part = __m512i;
  static constexpr int kDims = 4, kParts = 1;
  static constexpr bool kScaled = true;
  static constexpr int panels(int users) { return panels_for(users); }
  static constexpr int splits(int users) { return splits_for(users); }
  __m512i v;
  static inline __m512i load(const char* values, int) { return _mm512_loadu_si512(values); }
  inline void plus(const Int8& other) { v = _mm512_add_epi32(v, other.v); }
  inline Vec to_float() const { return {_mm512_cvtepi32_ps(v)}; }
};

}  // namespace FASTREC_LEVEL
}  // namespace fastrec

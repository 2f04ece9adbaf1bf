// The 16 lanes of the AVX-512 files of the encoder, in the namespace of the file that includes it.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "encode.h"
#include "transpose_x86.h"

namespace fastrec {
namespace FASTREC_LEVEL {

static inline __mmask16 first_lanes(int64_t n) { return static_cast<__mmask16>(n >= 16 ? 0xffff : (1u << n) - 1); }

struct Vec {
  static constexpr bool kTransposes = true;
  static inline void transpose(const float* const* from, int64_t c, float* out) {
    FASTREC_LEVEL::transpose(from, c, out);
  }
  __m512 v;
  static inline Vec zero() { return {_mm512_setzero_ps()}; }
  static inline Vec all(float x) { return {_mm512_set1_ps(x)}; }
  static inline Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static inline Vec load_n(const float* p, int64_t n) { return {_mm512_maskz_loadu_ps(first_lanes(n), p)}; }
  static inline Vec raw(const void* p, int64_t n) { return {_mm512_maskz_loadu_ps(first_lanes(n), p)}; }
  inline void store(float* p) const { _mm512_storeu_ps(p, v); }
  inline void store_n(float* p, int64_t n) const { _mm512_mask_storeu_ps(p, first_lanes(n), v); }
  inline Vec add(Vec o) const { return {_mm512_add_ps(v, o.v)}; }
  inline Vec sub(Vec o) const { return {_mm512_sub_ps(v, o.v)}; }
  inline Vec mul(Vec o) const { return {_mm512_mul_ps(v, o.v)}; }
  inline Vec div(Vec o) const { return {_mm512_div_ps(v, o.v)}; }
  // Right to two units in the last place, for divisors far from 0 and infinity.
  inline Vec over(Vec o) const {
    const __m512 r = _mm512_rcp14_ps(o.v);
    return {_mm512_mul_ps(v, _mm512_mul_ps(r, _mm512_fnmadd_ps(o.v, r, _mm512_set1_ps(2.0f))))};
  }
  inline Vec fma(Vec a, Vec b) const { return {_mm512_fmadd_ps(a.v, b.v, v)}; }  // this + a * b
  // The second operand where one is NaN.
  inline Vec max(Vec o) const { return {_mm512_max_ps(v, o.v)}; }
  inline Vec min(Vec o) const { return {_mm512_min_ps(v, o.v)}; }
  inline Vec abs() const { return {_mm512_abs_ps(v)}; }
  inline Vec round() const { return {_mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
  inline Vec scaled(Vec n) const { return {_mm512_scalef_ps(v, n.v)}; }  // this * 2^n, n whole
  inline Vec with_sign_of(Vec o) const {
    const __m512i sign = _mm512_set1_epi32(static_cast<int>(0x80000000u));
    return {_mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(v), _mm512_and_si512(_mm512_castps_si512(o.v), sign)))};
  }
  inline float sum() const { return _mm512_reduce_add_ps(v); }
  inline float largest() const { return _mm512_reduce_max_ps(v); }
  inline float smallest() const { return _mm512_reduce_min_ps(v); }
  inline void store_codes(uint8_t* p) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(v)));
  }
  inline void store_words(int16_t* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(v)));
  }
  static inline Vec load_bf16(const uint16_t* p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
  }
  // To bfloat16, ties to even.
  inline __m256i bf16() const {
#if defined(__AVX512BF16__)
    const __m256bh halves = _mm512_cvtneps_pbh(v);
    return reinterpret_cast<const __m256i&>(halves);
#else
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
#endif
  }
  inline void store_bf16(uint16_t* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), bf16()); }
  inline Vec rounded() const {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bf16()), 16))};
  }
  inline Vec first(int64_t n) const { return {_mm512_maskz_mov_ps(n > 0 ? first_lanes(n) : 0, v)}; }
};

static constexpr int kKeys = 12;
static constexpr int kValueRows = 8, kValueColumns = 2;

// 24 sums, 2 panels and an input fit into the 32 registers.
struct Tile {
  static constexpr int kRows = 12, kPanels = 2;
  static constexpr int64_t kUnit = 1, kBlock = 256;
  static constexpr bool kFresh = false;
};

struct SumsF32 : Tile {
  Vec v;
  static constexpr Codes kCodes = Codes::kNone;
  using Panel = Vec;
  static inline Panel panel(const char* p) { return {_mm512_loadu_ps(p)}; }
  static inline Vec input(const char* x) { return Vec::all(*reinterpret_cast<const float*>(x)); }
  static inline SumsF32 of(Vec v) {
    SumsF32 out;
    out.v = v;
    return out;
  }
  static inline SumsF32 zero() { return of(Vec::zero()); }
  static inline SumsF32 load_n(const float* p, int64_t n) { return of(Vec::load_n(p, n)); }
  inline void store_n(float* p, int64_t n) const { v.store_n(p, n); }
  inline void add(Vec x, Panel b) { v = v.fma(x, b); }
  inline Vec value() const { return v; }
};

// Sums in int32, moved as bits.
template <class Own>
struct SumsInt : Tile {
  __m512i v;
  using Panel = __m512i;
  static inline Panel panel(const char* p) { return _mm512_loadu_si512(p); }
  static inline __m512i input(const char* x) { return _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(x)); }
  static inline Own of(__m512i v) {
    Own out;
    out.v = v;
    return out;
  }
  static inline Own zero() { return of(_mm512_setzero_si512()); }
  static inline Own load_n(const float* p, int64_t n) { return of(_mm512_maskz_loadu_epi32(first_lanes(n), p)); }
  inline void store_n(float* p, int64_t n) const { _mm512_mask_storeu_epi32(p, first_lanes(n), v); }
  inline Vec value() const { return {_mm512_cvtepi32_ps(v)}; }
};

}  // namespace FASTREC_LEVEL
}  // namespace fastrec

// AVX2 and FMA for the encoder: 16 lanes are two registers.
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

#include "encode.h"

#define FASTREC_LEVEL enc_avx2

#include "transpose_x86.h"

namespace fastrec {
namespace enc_avx2 {

struct Mask {
  __m256i lo, hi;
  explicit inline Mask(int64_t n) {
    const __m256i count = _mm256_set1_epi32(static_cast<int>(n > 16 ? 16 : n));
    lo = _mm256_cmpgt_epi32(count, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    hi = _mm256_cmpgt_epi32(count, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15));
  }
};

struct Vec {
  static constexpr bool kTransposes = true;
  static inline void transpose(const float* const* from, int64_t c, float* out) {
    enc_avx2::transpose(from, c, out);
  }
  __m256 lo, hi;
  static inline Vec zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static inline Vec all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static inline Vec load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static inline Vec load_n(const float* p, int64_t n) {
    if (n >= 16) return load(p);
    const Mask m(n);
    return {_mm256_maskload_ps(p, m.lo), _mm256_maskload_ps(p + 8, m.hi)};
  }
  inline void store(float* p) const {
    _mm256_storeu_ps(p, lo);
    _mm256_storeu_ps(p + 8, hi);
  }
  inline void store_n(float* p, int64_t n) const {
    if (n >= 16) return store(p);
    const Mask m(n);
    _mm256_maskstore_ps(p, m.lo, lo);
    _mm256_maskstore_ps(p + 8, m.hi, hi);
  }
  inline Vec add(Vec o) const { return {_mm256_add_ps(lo, o.lo), _mm256_add_ps(hi, o.hi)}; }
  inline Vec sub(Vec o) const { return {_mm256_sub_ps(lo, o.lo), _mm256_sub_ps(hi, o.hi)}; }
  inline Vec mul(Vec o) const { return {_mm256_mul_ps(lo, o.lo), _mm256_mul_ps(hi, o.hi)}; }
  inline Vec div(Vec o) const { return {_mm256_div_ps(lo, o.lo), _mm256_div_ps(hi, o.hi)}; }
  // Right to two units in the last place, for divisors far from 0 and infinity.
  static inline __m256 half_over(__m256 v, __m256 o) {
    const __m256 r = _mm256_rcp_ps(o);
    return _mm256_mul_ps(v, _mm256_mul_ps(r, _mm256_fnmadd_ps(o, r, _mm256_set1_ps(2.0f))));
  }
  inline Vec over(Vec o) const { return {half_over(lo, o.lo), half_over(hi, o.hi)}; }
  inline Vec fma(Vec a, Vec b) const { return {_mm256_fmadd_ps(a.lo, b.lo, lo), _mm256_fmadd_ps(a.hi, b.hi, hi)}; }
  inline Vec max(Vec o) const { return {_mm256_max_ps(lo, o.lo), _mm256_max_ps(hi, o.hi)}; }
  inline Vec min(Vec o) const { return {_mm256_min_ps(lo, o.lo), _mm256_min_ps(hi, o.hi)}; }
  inline Vec abs() const {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, lo), _mm256_andnot_ps(sign, hi)};
  }
  inline Vec round() const {
    constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(lo, kNearest), _mm256_round_ps(hi, kNearest)};
  }
  static inline __m256 half_scaled(__m256 v, __m256 n) {
    const __m256i power = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(v), power));
  }
  // this * 2^n, n whole, for what stays a normal number; NaN stays NaN for NaN n (which becomes 0 here).
  inline Vec scaled(Vec n) const { return {half_scaled(lo, n.lo), half_scaled(hi, n.hi)}; }
  inline Vec with_sign_of(Vec o) const {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_or_ps(lo, _mm256_and_ps(o.lo, sign)), _mm256_or_ps(hi, _mm256_and_ps(o.hi, sign))};
  }
  inline float sum() const {
    const __m256 s = _mm256_add_ps(lo, hi);
    const __m128 q = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    const __m128 h = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)));
  }
  inline float largest() const {
    const __m256 s = _mm256_max_ps(lo, hi);
    const __m128 q = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    const __m128 h = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(h, _mm_movehdup_ps(h)));
  }
  inline float smallest() const { return -Vec{_mm256_sub_ps(_mm256_setzero_ps(), lo), _mm256_sub_ps(_mm256_setzero_ps(), hi)}.largest(); }
  inline void store_codes(uint8_t* p) const {
    const __m256i words = _mm256_packus_epi32(_mm256_cvtps_epi32(lo), _mm256_cvtps_epi32(hi));  // 0-3 8-11 4-7 12-15
    const __m256i order = _mm256_permute4x64_epi64(words, 0xd8);
    const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(order), _mm256_extracti128_si256(order, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
  }
  inline void store_words(int16_t* p) const {
    const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(lo), _mm256_cvtps_epi32(hi));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(words, 0xd8));
  }
  static inline __m256 half_bf16(const uint16_t* p) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  }
  static inline Vec load_bf16(const uint16_t* p) { return {half_bf16(p), half_bf16(p + 8)}; }
  static inline __m256i upper(__m256 v) {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    return _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  }
  inline void store_bf16(uint16_t* p) const {
    const __m256i words = _mm256_packus_epi32(upper(lo), upper(hi));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(words, 0xd8));
  }
};

static constexpr int kKeys = 6;
static constexpr int kValueRows = 6, kValueColumns = 1;

// 12 sums, the panel and an input fill the 16 registers.
struct SumsF32 {
  Vec v;
  static constexpr Codes kCodes = Codes::kNone;
  static constexpr int kRows = 6, kPanels = 1;
  static constexpr int64_t kUnit = 1, kBlock = 256;
  static constexpr bool kFresh = false;
  using Panel = Vec;
  static inline Panel panel(const char* p) { return Vec::load(reinterpret_cast<const float*>(p)); }
  static inline Vec input(const char* x) { return Vec::all(*reinterpret_cast<const float*>(x)); }
  static inline SumsF32 zero() { return {Vec::zero()}; }
  static inline SumsF32 load_n(const float* p, int64_t n) { return {Vec::load_n(p, n)}; }
  inline void store_n(float* p, int64_t n) const { v.store_n(p, n); }
  inline void add(Vec x, Panel b) { v = v.fma(x, b); }
  inline Vec value() const { return v; }
};

// The sums of both below are written out: with the intrinsics GCC 12 moves them to the stack and back.

// Four products of bytes are summed in int16 before they go on to int32: two steps at a time. See Linear::code_max.
struct SumsInt8 {
  __m256i lo, hi;
  static constexpr Codes kCodes = Codes::kInt8;
  static constexpr int kRows = 4, kPanels = 1;
  static constexpr int64_t kUnit = 2, kBlock = 256;
  static constexpr bool kFresh = false;
  struct Panel {
    __m256i lo, hi;
    const __m256i* next;  // read where it lies: there is no register left for it
  };
  static inline Panel panel(const char* p) {
    const __m256i* at = reinterpret_cast<const __m256i*>(p);
    return {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1), at + 2};
  }
  static inline const int32_t* input(const char* x) { return reinterpret_cast<const int32_t*>(x); }
  static inline SumsInt8 zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static inline SumsInt8 load_n(const float* p, int64_t n) {
    const Vec bits = Vec::load_n(p, n);
    return {_mm256_castps_si256(bits.lo), _mm256_castps_si256(bits.hi)};
  }
  inline void store_n(float* p, int64_t n) const {
    Vec{_mm256_castsi256_ps(lo), _mm256_castsi256_ps(hi)}.store_n(p, n);
  }
  inline void add(const int32_t* x, const Panel& b) {
    __m256i first = _mm256_set1_epi32(x[0]), second = _mm256_set1_epi32(x[1]), sum, other;
    const __m256i one = _mm256_set1_epi16(1);
    __asm__("vpmaddubsw %2, %1, %0" : "=x"(sum) : "x"(first), "x"(b.lo));
    __asm__("vpmaddubsw %2, %1, %0" : "=x"(other) : "x"(second), "m"(b.next[0]));
    __asm__("vpaddw %1, %0, %0" : "+x"(sum) : "x"(other));
    __asm__("vpmaddwd %1, %0, %0" : "+x"(sum) : "x"(one));
    __asm__("vpaddd %1, %0, %0" : "+x"(lo) : "x"(sum));
    __asm__("vpmaddubsw %1, %0, %0" : "+x"(first) : "x"(b.hi));
    __asm__("vpmaddubsw %1, %0, %0" : "+x"(second) : "m"(b.next[1]));
    __asm__("vpaddw %1, %0, %0" : "+x"(first) : "x"(second));
    __asm__("vpmaddwd %1, %0, %0" : "+x"(first) : "x"(one));
    __asm__("vpaddd %1, %0, %0" : "+x"(hi) : "x"(first));
  }
  inline Vec value() const { return {_mm256_cvtepi32_ps(lo), _mm256_cvtepi32_ps(hi)}; }
};

struct SumsInt16 {
  __m256i lo, hi;
  static constexpr Codes kCodes = Codes::kInt16;
  static constexpr int kRows = 6, kPanels = 1;
  static constexpr int64_t kUnit = 1, kBlock = kInt16Steps;
  static constexpr bool kFresh = true;
  struct Panel {
    __m256i lo, hi;
  };
  static inline Panel panel(const char* p) {
    const __m256i* at = reinterpret_cast<const __m256i*>(p);
    return {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
  }
  static inline __m256i input(const char* x) { return _mm256_set1_epi32(*reinterpret_cast<const int32_t*>(x)); }
  static inline SumsInt16 zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static inline SumsInt16 load_n(const float*, int64_t) { return zero(); }
  inline void store_n(float*, int64_t) const {}
  inline void add(__m256i x, const Panel& b) {
    __m256i product;
    __asm__("vpmaddwd %2, %1, %0" : "=x"(product) : "x"(x), "x"(b.lo));
    __asm__("vpaddd %1, %0, %0" : "+x"(lo) : "x"(product));
    __asm__("vpmaddwd %1, %0, %0" : "+x"(x) : "x"(b.hi));
    __asm__("vpaddd %1, %0, %0" : "+x"(hi) : "x"(x));
  }
  inline Vec value() const { return {_mm256_cvtepi32_ps(lo), _mm256_cvtepi32_ps(hi)}; }
};

}  // namespace enc_avx2
}  // namespace fastrec

#include "encode_attention_kernel.h"
#include "encode_kernel.h"
#include "encode_linear_kernel.h"

namespace fastrec {

const EncodeKernel encode_avx2 = {
    "avx2", kSmallCodes, false, enc_avx2::linear<enc_avx2::SumsF32>, enc_avx2::linear<enc_avx2::SumsInt8>,
    enc_avx2::linear<enc_avx2::SumsInt16>, nullptr, nullptr, enc_avx2::quantize, enc_avx2::to_int16,
    enc_avx2::to_bf16, enc_avx2::split, enc_avx2::bias_gelu, enc_avx2::add_layer_norm, enc_avx2::attention,
    enc_avx2::attention, enc_avx2::attention, enc_avx2::row_sum};

}  // namespace fastrec
#endif

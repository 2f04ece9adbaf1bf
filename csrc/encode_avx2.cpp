// AVX2 and FMA for the encoder: 16 lanes are two registers.
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

#include "encode.h"

#define FASTREC_LEVEL enc_avx2

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
  inline Vec over(Vec o) const { return div(o); }
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
  static inline __m256 half_power(__m256 n) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
  }
  inline Vec power_of_two() const { return {half_power(lo), half_power(hi)}; }
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

// 12 sums, the panel and a broadcast fill the 16 registers.
static constexpr int kTileRows = 6;
static constexpr int kTilePanels = 1;
static constexpr int kQueries = 6;

struct SumsF32 {
  Vec v;
  static constexpr Codes kCodes = Codes::kNone;
  static constexpr int64_t kSteps = kAllSteps;
  static inline void settle() {}
  using Panel = Vec;
  static inline Panel panel(const char* p) { return Vec::load(reinterpret_cast<const float*>(p)); }
  static inline SumsF32 zero() { return {Vec::zero()}; }
  static inline SumsF32 load_n(const float* p, int64_t n) { return {Vec::load_n(p, n)}; }
  inline void store_n(float* p, int64_t n) const { v.store_n(p, n); }
  inline void add(const char* x, Panel b) { v = v.fma(Vec::all(*reinterpret_cast<const float*>(x)), b); }
  inline Vec value() const { return v; }
};

// Sums in int32, moved as bits. Pairs fit into int16 because the codes of a row stay within 0 .. 127.
struct SumsInt8 {
  __m256i lo, hi;
  static constexpr Codes kCodes = Codes::kInt8;
  static constexpr int64_t kSteps = kAllSteps;
  static inline void settle() {}
  struct Panel {
    __m256i lo, hi;
  };
  static inline Panel panel(const char* p) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
  }
  static inline SumsInt8 zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static inline SumsInt8 load_n(const float* p, int64_t n) {
    const Vec bits = Vec::load_n(p, n);
    return {_mm256_castps_si256(bits.lo), _mm256_castps_si256(bits.hi)};
  }
  inline void store_n(float* p, int64_t n) const {
    Vec{_mm256_castsi256_ps(lo), _mm256_castsi256_ps(hi)}.store_n(p, n);
  }
  inline void add(const char* x, Panel b) {
    const __m256i four = _mm256_set1_epi32(*reinterpret_cast<const int32_t*>(x)), one = _mm256_set1_epi16(1);
    lo = _mm256_add_epi32(lo, _mm256_madd_epi16(_mm256_maddubs_epi16(four, b.lo), one));
    hi = _mm256_add_epi32(hi, _mm256_madd_epi16(_mm256_maddubs_epi16(four, b.hi), one));
  }
  inline Vec value() const { return {_mm256_cvtepi32_ps(lo), _mm256_cvtepi32_ps(hi)}; }
};

// Sums in int32 for some steps, in float32 for all.
struct SumsInt16 {
  __m256i lo, hi;
  Vec total;
  static constexpr Codes kCodes = Codes::kInt16;
  static constexpr int64_t kSteps = kInt16Steps;
  using Panel = const __m256i*;  // read where it lies: 12 sums leave no registers for it
  static inline Panel panel(const char* p) { return reinterpret_cast<const __m256i*>(p); }
  static inline SumsInt16 zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256(), Vec::zero()}; }
  static inline SumsInt16 load_n(const float* p, int64_t n) {
    return {_mm256_setzero_si256(), _mm256_setzero_si256(), Vec::load_n(p, n)};
  }
  inline void store_n(float* p, int64_t n) const { total.store_n(p, n); }
  inline void add(const char* x, Panel b) {
    const __m256i two = _mm256_set1_epi32(*reinterpret_cast<const int32_t*>(x));
    __m256i product;  // written out: with the intrinsics GCC 12 moves sums to the stack and back
    __asm__("vpmaddwd %2, %1, %0" : "=x"(product) : "x"(two), "m"(b[0]));
    __asm__("vpaddd %1, %0, %0" : "+x"(lo) : "x"(product));
    __asm__("vpmaddwd %2, %1, %0" : "=x"(product) : "x"(two), "m"(b[1]));
    __asm__("vpaddd %1, %0, %0" : "+x"(hi) : "x"(product));
  }
  inline void settle() {
    total = total.add({_mm256_cvtepi32_ps(lo), _mm256_cvtepi32_ps(hi)});
    lo = hi = _mm256_setzero_si256();
  }
  inline Vec value() const { return total; }
};

}  // namespace enc_avx2
}  // namespace fastrec

#include "encode_kernel.h"
#include "encode_linear_kernel.h"

namespace fastrec {

const EncodeKernel encode_avx2 = {
    "avx2", 127, false, enc_avx2::linear<enc_avx2::SumsF32>, enc_avx2::linear<enc_avx2::SumsInt8>,
    enc_avx2::linear<enc_avx2::SumsInt16>, nullptr, nullptr, enc_avx2::quantize, enc_avx2::to_int16,
    enc_avx2::to_bf16, enc_avx2::split, enc_avx2::bias_gelu, enc_avx2::add_layer_norm, enc_avx2::attention,
    enc_avx2::attention, enc_avx2::attention, enc_avx2::row_sum};

}  // namespace fastrec
#endif

// AVX2 and FMA: a panel is two registers.
#if defined(__x86_64__)
#define FASTREC_LEVEL avx2

#include <immintrin.h>

#include "simd.h"

namespace fastrec {
namespace avx2 {

struct Vec {
  __m256 lo, hi;
  static inline Vec zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static inline Vec all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static inline Vec load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  // The first n of 16; what lies behind is not read, and 0.
  static inline Vec load_first(const float* p, int64_t n) {
    alignas(32) static const int32_t kMask[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    const __m256i* mask = reinterpret_cast<const __m256i*>(kMask + 16 - n);
    return {_mm256_maskload_ps(p, _mm256_loadu_si256(mask)), _mm256_maskload_ps(p + 8, _mm256_loadu_si256(mask + 1))};
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
  inline Vec absolute() const {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, lo), _mm256_andnot_ps(sign, hi)};
  }
  inline uint32_t above(float cut) const {
    const __m256 c = _mm256_set1_ps(cut);
    const int low = _mm256_movemask_ps(_mm256_cmp_ps(lo, c, _CMP_GT_OQ));
    const int high = _mm256_movemask_ps(_mm256_cmp_ps(hi, c, _CMP_GT_OQ));
    return static_cast<uint32_t>(low | (high << 8));
  }
  inline int32_t count_above(float cut) const { return __builtin_popcount(above(cut)); }
  inline Vec least(const Vec& other) const { return {_mm256_min_ps(lo, other.lo), _mm256_min_ps(hi, other.hi)}; }
  inline Vec most(const Vec& other) const { return {_mm256_max_ps(lo, other.lo), _mm256_max_ps(hi, other.hi)}; }
  inline float sum() const {
    const __m256 eight = _mm256_add_ps(lo, hi);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1)));
  }
};

static inline uint32_t equal(const int32_t* rows, int32_t row) {
  const __m256i all = _mm256_set1_epi32(row);
  const __m256i_u* at = reinterpret_cast<const __m256i_u*>(rows);
  const int low = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_loadu_si256(at), all)));
  const int high = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_loadu_si256(at + 1), all)));
  return static_cast<uint32_t>(low | (high << 8));
}

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

// Codes of bfloat16 against float32 queries: the even dimensions are the lower halves of the words. 12 sums, 2
// registers of items, the query and the mask fill the 16 registers.
struct SumsBf16 {
  using Part = Vec;
  static constexpr int kDims = 2, kParts = 2;
  static constexpr bool kScaled = false;
  static constexpr int panels(int users) { return users == 2 ? 2 : 1; }
  static constexpr int splits(int users) { return users == 1 ? 4 : 1; }
  Vec v;
  static inline SumsBf16 zero() { return {Vec::zero()}; }
  static inline SumsBf16 start(const Tile&, int) { return zero(); }
  static inline Vec load(const char* values, int h) {
    const __m256i_u* at = reinterpret_cast<const __m256i_u*>(values);
    if (h == 0) {
      return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(at), 16)),
              _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(at + 1), 16))};
    }
    // Read again: kept from the even part the codes would push sums out of the registers, hence no intrinsics here.
    const __m256 upper = _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(0xffff0000u)));
    Vec odd;
    asm("vandps %2, %1, %0" : "=x"(odd.lo) : "x"(upper), "m"(at[0]));
    asm("vandps %2, %1, %0" : "=x"(odd.hi) : "x"(upper), "m"(at[1]));
    return odd;
  }
  inline void add(const Vec& items, int32_t word) {
    const __m256 q = _mm256_castsi256_ps(_mm256_set1_epi32(word));
    v.add_product({q, q}, items);
  }
  inline void plus(const SumsBf16& other) { v = v.plus(other.v); }
  inline Vec to_float() const { return v; }
};

struct SumsInt8 {
  struct Part {
    __m256i lo, hi;
  };
  static constexpr int kDims = 4, kParts = 1;
  static constexpr bool kScaled = true;
  // The products need registers of their own.
  static constexpr int panels(int) { return 1; }
  static constexpr int splits(int users) { return users == 1 ? 4 : 1; }
  __m256i lo, hi;
  static inline SumsInt8 zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static inline SumsInt8 start(const Tile& tile, int u) {
    return {_mm256_set1_epi32(tile.offset[u]), _mm256_set1_epi32(tile.offset[u])};
  }
  static inline Part load(const char* values, int) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(values)),
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + 32))};
  }
  // Pairs fit into int16 because the codes of a query stay within -63 .. 63: 2 * 255 * 63 < 2^15.
  static inline __m256i dots(__m256i items, __m256i four) {
    return _mm256_madd_epi16(_mm256_maddubs_epi16(items, four), _mm256_set1_epi16(1));
  }
  inline void add(const Part& items, int32_t word) {
    const __m256i query = _mm256_set1_epi32(word);
    lo = _mm256_add_epi32(lo, dots(items.lo, query));
    hi = _mm256_add_epi32(hi, dots(items.hi, query));
  }
  inline void plus(const SumsInt8& other) {
    lo = _mm256_add_epi32(lo, other.lo);
    hi = _mm256_add_epi32(hi, other.hi);
  }
  inline Vec to_float() const { return {_mm256_cvtepi32_ps(lo), _mm256_cvtepi32_ps(hi)}; }
};

static constexpr int kProbeSums = 6;
static constexpr int kGramRows = 4, kGramColumns = 1, kEntrySums = 4;  // see ridge_kernel.h

}  // namespace avx2
}  // namespace fastrec

#include "store_some.h"
#include "transpose_x86.h"
#include "exact_kernel.h"
#include "hits_kernel.h"
#include "probe_kernel.h"
#include "ridge_kernel.h"
#include "score_topk_kernel.h"

namespace fastrec {

static constexpr Walk kBf16 = {avx2::scan<avx2::SumsBf16, 6>, 6};
static constexpr Walk kInt8 = {avx2::scan<avx2::SumsInt8, 4>, 4};

const Kernel kernel_avx2 = {"avx2", 63, kBf16, kInt8, 0, kBf16, kInt8, avx2::exact, avx2::keep,
                            avx2::kth_low, avx2::probe_fma, avx2::probe_read, avx2::ridge_group};

}  // namespace fastrec
#endif

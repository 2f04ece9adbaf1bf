// AVX-512: a panel is one register.
#if defined(__x86_64__)
#define FASTREC_LEVEL avx512

#include "avx512_types.h"

namespace fastrec {
namespace avx512 {

// Codes of bfloat16 against float32 queries: the even dimensions are the lower halves of the words.
struct SumsBf16 {
  using Part = Vec;
  static constexpr int kDims = 2, kParts = 2;
  static constexpr bool kScaled = false;
  static constexpr int panels(int users) { return panels_for(users); }
  static constexpr int splits(int users) { return splits_for(users); }
  Vec v;
  static inline SumsBf16 zero() { return {Vec::zero()}; }
  static inline SumsBf16 start(const Tile&, int) { return zero(); }
  static inline Vec load(const char* values, int h) {
    const __m512i_u& pairs = *reinterpret_cast<const __m512i_u*>(values);
    Vec part;
    // Read twice: kept for the odd part the codes would push sums out of the registers, hence no intrinsics here.
    if (h == 0) {
      asm("vpslld $16, %1, %0" : "=v"(part.v) : "m"(pairs));
    } else {
      const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
      asm("vpandd %2, %1, %0" : "=v"(part.v) : "v"(upper), "m"(pairs));
    }
    return part;
  }
  inline void add(const Vec& items, int32_t word) {
    v.add_product({_mm512_castsi512_ps(_mm512_set1_epi32(word))}, items);
  }
  inline void plus(const SumsBf16& other) { v = v.plus(other.v); }
  inline Vec to_float() const { return v; }
};

struct SumsInt8 : Int8 {
  static inline SumsInt8 zero() { return {{_mm512_setzero_si512()}}; }
  static inline SumsInt8 start(const Tile& tile, int u) { return {{_mm512_set1_epi32(tile.offset[u])}}; }
  // Pairs fit into int16 because the codes of a query stay within -63 .. 63: 2 * 255 * 63 < 2^15.
  inline void add(__m512i items, int32_t word) {
    const __m512i pairs = _mm512_maddubs_epi16(items, _mm512_set1_epi32(word));
    v = _mm512_add_epi32(v, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
  }
};

static constexpr int kProbeSums = 24;
static constexpr int kGramRows = 8, kGramColumns = 2, kEntrySums = 8;  // see ridge_kernel.h

}  // namespace avx512
}  // namespace fastrec

#include "transpose_x86.h"
#include "exact_kernel.h"
#include "hits_kernel.h"
#include "probe_kernel.h"
#include "ridge_kernel.h"
#include "score_topk_kernel.h"

namespace fastrec {

static constexpr Walk kBf16 = {avx512::scan<avx512::SumsBf16, 8>, 8};
static constexpr Walk kInt8 = {avx512::scan<avx512::SumsInt8, 8>, 8};

const Kernel kernel_avx512 = {"avx512", 63, kBf16, kInt8, 0, kBf16, kInt8, avx512::exact, avx512::keep,
                              avx512::kth_low, avx512::probe_fma, avx512::probe_read, avx512::ridge_group};

}  // namespace fastrec
#endif

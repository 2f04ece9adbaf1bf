// AVX-512 BF16: one instruction for two products of bfloat16 and their sum; the queries are rounded too.
#if defined(__x86_64__)
#define FASTREC_LEVEL avx512_bf16

#include "avx512_types.h"

namespace fastrec {
namespace avx512_bf16 {

struct SumsBf16 {
  using Part = __m512i;
  static constexpr int kDims = 2, kParts = 1;
  static constexpr bool kScaled = false;
  static constexpr int panels(int users) { return panels_for(users); }
  static constexpr int splits(int users) { return splits_for(users); }
  __m512 v;
  static inline SumsBf16 zero() { return {_mm512_setzero_ps()}; }
  static inline SumsBf16 start(const Tile&, int) { return zero(); }
  static inline __m512i load(const char* values, int) { return _mm512_loadu_si512(values); }
  inline void add(__m512i items, int32_t word) {
    v = _mm512_dpbf16_ps(v, reinterpret_cast<__m512bh>(items), reinterpret_cast<__m512bh>(_mm512_set1_epi32(word)));
  }
  inline void plus(const SumsBf16& other) { v = _mm512_add_ps(v, other.v); }
  inline Vec to_float() const { return {v}; }
};

}  // namespace avx512_bf16
}  // namespace fastrec

#include "score_topk_kernel.h"

namespace fastrec {

void scan_bf16_avx512_bf16(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  avx512_bf16::scan<avx512_bf16::SumsBf16, 8>(screen, dims, first, last, tile);
}
void scan_bf16_avx512_bf16_l1(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  avx512_bf16::scan<avx512_bf16::SumsBf16, kFewUsers, avx512_bf16::kIntoL1>(screen, dims, first, last, tile);
}

}  // namespace fastrec
#endif

// bfloat16 linear layers by AVX512-BF16.
#if defined(__x86_64__)
#define FASTREC_LEVEL enc_bf16

#include "encode_vec512.h"

namespace fastrec {
namespace enc_bf16 {

struct SumsBf16 {
  Vec v;
  static constexpr Codes kCodes = Codes::kNone;
  static constexpr int64_t kSteps = kAllSteps;
  static inline void settle() {}
  using Panel = __m512i;
  static inline Panel panel(const char* p) { return _mm512_loadu_si512(p); }
  static inline SumsBf16 zero() { return {Vec::zero()}; }
  static inline SumsBf16 load_n(const float* p, int64_t n) { return {Vec::load_n(p, n)}; }
  inline void store_n(float* p, int64_t n) const { v.store_n(p, n); }
  inline void add(const char* x, Panel b) {
    const __m512i two = _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(x));
    // Written out: with the intrinsic GCC 12 moves every sum to the stack and back.
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(v.v) : "v"(two), "v"(b));
  }
  inline Vec value() const { return v; }
};

}  // namespace enc_bf16
}  // namespace fastrec

#include "encode_linear_kernel.h"

namespace fastrec {

void linear_bf16_avx512(const Rows& x, int64_t rows, const Linear& w, float* out) {
  enc_bf16::linear<enc_bf16::SumsBf16>(x, rows, w, out);
}

}  // namespace fastrec
#endif

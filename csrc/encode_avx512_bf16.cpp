// bfloat16 linear layers by AVX512-BF16.
#if defined(__x86_64__)
#define FASTREC_LEVEL enc_bf16

#include "encode_vec512.h"

namespace fastrec {
namespace enc_bf16 {

// Pairs of bfloat16 in the 4 bytes of a lane; sums in float32.
struct SumsBf16 : SumsInt<SumsBf16> {
  static constexpr Codes kCodes = Codes::kNone;
  // Written out: with the intrinsic GCC 12 moves every sum to the stack and back.
  inline void add(__m512i x, Panel b) { __asm__("vdpbf16ps %2, %1, %0" : "+v"(v) : "v"(x), "v"(b)); }
  inline Vec value() const { return {_mm512_castsi512_ps(v)}; }
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

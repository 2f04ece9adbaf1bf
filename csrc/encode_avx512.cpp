// AVX-512 for the encoder.
#if defined(__x86_64__)
#define FASTREC_LEVEL enc_avx512

#include "encode_vec512.h"

namespace fastrec {
namespace enc_avx512 {

// Four products of bytes are summed in int16 before they go on to int32: two steps at a time. See Linear::code_max.
struct SumsInt8 : SumsInt<SumsInt8> {
  static constexpr Codes kCodes = Codes::kInt8;
  static constexpr int kRows = 8, kPanels = 2;
  static constexpr int64_t kUnit = 2;
  struct Panel {
    __m512i first, second;
  };
  static inline Panel panel(const char* p) { return {_mm512_loadu_si512(p), _mm512_loadu_si512(p + 64)}; }
  static inline Panel input(const char* x) { return {SumsInt::input(x), SumsInt::input(x + 4)}; }
  inline void add(const Panel& x, const Panel& b) {
    const __m512i first = _mm512_maddubs_epi16(x.first, b.first);
    const __m512i sum = _mm512_add_epi16(first, _mm512_maddubs_epi16(x.second, b.second));
    v = _mm512_add_epi32(v, _mm512_madd_epi16(sum, _mm512_set1_epi16(1)));
  }
};

struct SumsInt16 : SumsInt<SumsInt16> {
  static constexpr Codes kCodes = Codes::kInt16;
  static constexpr int64_t kBlock = kInt16Steps;
  static constexpr bool kFresh = true;
  inline void add(__m512i x, Panel b) { v = _mm512_add_epi32(v, _mm512_madd_epi16(x, b)); }
};

}  // namespace enc_avx512
}  // namespace fastrec

#include "encode_attention_kernel.h"
#include "encode_kernel.h"
#include "encode_linear_kernel.h"

namespace fastrec {

const EncodeKernel encode_avx512 = {
    "avx512", kSmallCodes, false, enc_avx512::linear<enc_avx512::SumsF32>, enc_avx512::linear<enc_avx512::SumsInt8>,
    enc_avx512::linear<enc_avx512::SumsInt16>, nullptr, nullptr, enc_avx512::quantize, enc_avx512::to_int16,
    enc_avx512::to_bf16, enc_avx512::split, enc_avx512::bias_gelu, enc_avx512::add_layer_norm, enc_avx512::attention,
    enc_avx512::attention, enc_avx512::attention, enc_avx512::row_sum};

}  // namespace fastrec
#endif

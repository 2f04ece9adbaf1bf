// AVX-512 for the encoder.
#if defined(__x86_64__)
#define FASTREC_LEVEL enc_avx512

#include "encode_vec512.h"

namespace fastrec {
namespace enc_avx512 {

struct SumsInt8 : SumsInt {
  static inline SumsInt8 zero() { return {{_mm512_setzero_si512()}}; }
  static inline SumsInt8 load_n(const float* p, int64_t n) { return {{bits_n(p, n)}}; }
  // Pairs fit into int16 because the codes of a row stay within 0 .. 127: 2 * 127 * 127 < 2^15.
  inline void add(const char* x, Panel b) {
    v = _mm512_add_epi32(v, _mm512_madd_epi16(_mm512_maddubs_epi16(four(x), b), _mm512_set1_epi16(1)));
  }
};

struct SumsInt16 : SumsWords {
  static inline SumsInt16 zero() { return {{_mm512_setzero_si512(), Vec::zero()}}; }
  static inline SumsInt16 load_n(const float* p, int64_t n) { return {{_mm512_setzero_si512(), Vec::load_n(p, n)}}; }
  inline void add(const char* x, Panel b) { v = _mm512_add_epi32(v, _mm512_madd_epi16(two(x), b)); }
};

}  // namespace enc_avx512
}  // namespace fastrec

#include "encode_kernel.h"
#include "encode_linear_kernel.h"

namespace fastrec {

const EncodeKernel encode_avx512 = {
    "avx512", 127, false, enc_avx512::linear<enc_avx512::SumsF32>, enc_avx512::linear<enc_avx512::SumsInt8>,
    enc_avx512::linear<enc_avx512::SumsInt16>, nullptr, nullptr, enc_avx512::quantize, enc_avx512::to_int16,
    enc_avx512::to_bf16, enc_avx512::split, enc_avx512::bias_gelu, enc_avx512::add_layer_norm, enc_avx512::attention,
    enc_avx512::attention, enc_avx512::attention, enc_avx512::row_sum};

}  // namespace fastrec
#endif

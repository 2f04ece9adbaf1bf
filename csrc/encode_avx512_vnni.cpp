// int8 linear layers by VNNI.
#if defined(__x86_64__)
#define FASTREC_LEVEL enc_vnni

#include "encode_vec512.h"

namespace fastrec {
namespace enc_vnni {

struct SumsInt8 : SumsInt {
  static inline SumsInt8 zero() { return {{_mm512_setzero_si512()}}; }
  static inline SumsInt8 load_n(const float* p, int64_t n) { return {{bits_n(p, n)}}; }
  inline void add(const char* x, Panel b) { v = _mm512_dpbusd_epi32(v, four(x), b); }
};

}  // namespace enc_vnni
}  // namespace fastrec

#include "encode_linear_kernel.h"

namespace fastrec {

void linear_int8_vnni(const Rows& x, int64_t rows, const Linear& w, float* out) {
  enc_vnni::linear<enc_vnni::SumsInt8>(x, rows, w, out);
}

}  // namespace fastrec
#endif

// int8 and int16 linear layers by VNNI.
#if defined(__x86_64__)
#define FASTREC_LEVEL enc_vnni

#include "encode_vec512.h"

namespace fastrec {
namespace enc_vnni {

struct SumsInt8 : SumsInt {
  static inline SumsInt8 zero() { return {{_mm512_setzero_si512()}}; }
  static inline SumsInt8 load_n(const float* p, int64_t n) { return {{bits_n(p, n)}}; }
  // Written out: with the intrinsic GCC 12 moves every sum to the stack and back.
  inline void add(const char* x, Panel b) { __asm__("vpdpbusd %2, %1, %0" : "+v"(v) : "v"(four(x)), "v"(b)); }
};

struct SumsInt16 : SumsWords {
  static inline SumsInt16 zero() { return {{_mm512_setzero_si512(), Vec::zero()}}; }
  static inline SumsInt16 load_n(const float* p, int64_t n) { return {{_mm512_setzero_si512(), Vec::load_n(p, n)}}; }
  inline void add(const char* x, Panel b) { __asm__("vpdpwssd %2, %1, %0" : "+v"(v) : "v"(two(x)), "v"(b)); }
};

}  // namespace enc_vnni
}  // namespace fastrec

#include "encode_linear_kernel.h"

namespace fastrec {

void linear_int8_vnni(const Rows& x, int64_t rows, const Linear& w, float* out) {
  enc_vnni::linear<enc_vnni::SumsInt8>(x, rows, w, out);
}

void linear_int16_vnni(const Rows& x, int64_t rows, const Linear& w, float* out) {
  enc_vnni::linear<enc_vnni::SumsInt16>(x, rows, w, out);
}

}  // namespace fastrec
#endif

// int8 and int16 linear layers by VNNI.
#if defined(__x86_64__)
#define FASTREC_LEVEL enc_vnni

#include "encode_vec512.h"

namespace fastrec {
namespace enc_vnni {

// Both written out: with the intrinsics GCC 12 moves every sum to the stack and back.
struct SumsInt8 : SumsInt<SumsInt8> {
  static constexpr Codes kCodes = Codes::kInt8;
  inline void add(__m512i x, Panel b) { __asm__("vpdpbusd %2, %1, %0" : "+v"(v) : "v"(x), "v"(b)); }
};

struct SumsInt16 : SumsInt<SumsInt16> {
  static constexpr Codes kCodes = Codes::kInt16;
  static constexpr int64_t kBlock = kInt16Steps;
  static constexpr bool kFresh = true;
  inline void add(__m512i x, Panel b) { __asm__("vpdpwssd %2, %1, %0" : "+v"(v) : "v"(x), "v"(b)); }
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

// AVX-512 VNNI: one instruction for four products of codes and their sum, without saturation.
#if defined(__x86_64__)
#define FASTREC_LEVEL avx512_vnni

#include "avx512_types.h"

namespace fastrec {
namespace avx512_vnni {

struct Sums {
  __m512i v;
  static inline Sums all(int32_t x) { return {_mm512_set1_epi32(x)}; }
  inline void add_dots(const Codes& items, int32_t four) {
    v = _mm512_dpbusd_epi32(v, items.v, _mm512_set1_epi32(four));
  }
  inline void plus(const Sums& other) { v = _mm512_add_epi32(v, other.v); }
  inline Vec to_float() const { return {_mm512_cvtepi32_ps(v)}; }
};

}  // namespace avx512_vnni
}  // namespace fastrec

#include "score_topk_int8_kernel.h"
#include "scan_switch.h"

namespace fastrec {

void scan_int8_avx512_vnni(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  FASTREC_SWITCH_8(avx512_vnni::scan_int8_users, screen, dims, first, last, tile);
}

}  // namespace fastrec
#endif

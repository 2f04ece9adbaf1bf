// AVX-512 VNNI: one instruction for four products of codes and their sum, without saturation.
#if defined(__x86_64__)
#define FASTREC_LEVEL avx512_vnni

#include "avx512_types.h"

namespace fastrec {
namespace avx512_vnni {

struct SumsInt8 : Int8 {
  static inline SumsInt8 zero() { return {{_mm512_setzero_si512()}}; }
  static inline SumsInt8 start(const Tile& tile, int u) { return {{_mm512_set1_epi32(tile.offset[u])}}; }
  // Written out: with the intrinsic GCC 12 moves sums to the stack and back.
  inline void add(__m512i items, int32_t word) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(v) : "v"(items), "v"(_mm512_set1_epi32(word)));
  }
};

}  // namespace avx512_vnni
}  // namespace fastrec

#include "score_topk_kernel.h"

namespace fastrec {

void scan_int8_avx512_vnni(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  avx512_vnni::scan<avx512_vnni::SumsInt8, 8>(screen, dims, first, last, tile);
}
void scan_int8_avx512_vnni_l1(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  avx512_vnni::scan<avx512_vnni::SumsInt8, kFewUsers, avx512_vnni::kIntoL1>(screen, dims, first, last, tile);
}

}  // namespace fastrec
#endif

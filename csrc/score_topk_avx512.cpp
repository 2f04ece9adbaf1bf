// AVX-512: a panel is one register.
#if defined(__x86_64__)
#define FASTREC_LEVEL avx512

#include "avx512_types.h"

namespace fastrec {
namespace avx512 {

struct Sums {
  __m512i v;
  static inline Sums all(int32_t x) { return {_mm512_set1_epi32(x)}; }
  // Pairs fit into int16 because the codes of a query stay within -63 .. 63: 2 * 255 * 63 < 2^15.
  inline void add_dots(const Codes& items, int32_t four) {
    const __m512i pairs = _mm512_maddubs_epi16(items.v, _mm512_set1_epi32(four));
    v = _mm512_add_epi32(v, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
  }
  inline void plus(const Sums& other) { v = _mm512_add_epi32(v, other.v); }
  inline Vec to_float() const { return {_mm512_cvtepi32_ps(v)}; }
};

}  // namespace avx512
}  // namespace fastrec

#include "probe_kernel.h"
#include "score_topk_int8_kernel.h"
#include "score_topk_kernel.h"
#include "scan_switch.h"

namespace fastrec {

static void scan(const float* panels, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  FASTREC_SWITCH_14(avx512::scan_users, panels, dims, first, last, tile);
}

static void scan_bf16(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  FASTREC_SWITCH_14(avx512::scan_bf16_users, screen, dims, first, last, tile);
}

static void scan_int8(const Screen& screen, int64_t dims, int64_t first, int64_t last, const Tile& tile) {
  FASTREC_SWITCH_8(avx512::scan_int8_users, screen, dims, first, last, tile);
}

const Kernel kernel_avx512 = {"avx512", 14, scan, avx512::exact, avx512::exact_pairs, 14, scan_bf16, 8, 63, scan_int8,
                              avx512::probe_fma, avx512::probe_read, {8.7, 11.0, 9.8}};

}  // namespace fastrec
#endif

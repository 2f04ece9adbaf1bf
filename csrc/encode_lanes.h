// Rows turned so that a lane holds a row, for the Vec of a level.
#pragma once

#include <stdint.h>

namespace fastrec {
namespace FASTREC_LEVEL {

// out[c][lane] = rows[lane][c] * factor; lanes from n_rows on are 0.
static inline void to_lanes(const float* rows, int64_t stride, int64_t n_rows, int64_t d, Vec factor, float* out) {
  int64_t c = 0;
#if defined(__x86_64__)
  if (Vec::kTransposes && n_rows == 16) {
    const float* from[16];
    for (int64_t lane = 0; lane < 16; ++lane) from[lane] = rows + lane * stride;
    for (; c + 16 <= d; c += 16) Vec::transpose(from, c, out + 16 * c);
  }
#endif
  for (; c < d; ++c)
    for (int64_t lane = 0; lane < 16; ++lane) out[16 * c + lane] = lane < n_rows ? rows[lane * stride + c] : 0.0f;
  for (c = 0; c < d; ++c) Vec::load(out + 16 * c).mul(factor).store(out + 16 * c);
}

}  // namespace FASTREC_LEVEL
}  // namespace fastrec

// A linear layer over panels, for the Vec and the sums of a level.
#pragma once

#include "encode.h"

namespace fastrec {
namespace FASTREC_LEVEL {

constexpr int64_t kStepBlock = 256;  // of a panel; two panels of them stay in the first-level cache

// value of int8: scale of the row and of the column * (sum - zero of the row * sum of the column) + bias; of int16 the
// same without a zero
static inline Vec finish(Vec sum, Codes codes, const Rows& x, int64_t row, const Linear& w, int64_t column) {
  const Vec bias = Vec::load(w.bias + column);
  if (codes == Codes::kNone) return sum.add(bias);
  if (codes == Codes::kInt8) sum = sum.fma(Vec::all(-x.zeros[row]), Vec::load(w.sums + column));
  return bias.fma(sum, Vec::load(w.scales + column).mul(Vec::all(x.scales[row])));
}

template <class Sums, int R, int P>
static inline void linear_tile(const Rows& x, int64_t row, const Linear& w, int64_t panel, int64_t first, int64_t last,
                               float* out) {
  const char* a[R];
  for (int r = 0; r < R; ++r) a[r] = static_cast<const char*>(x.data) + (row + r) * 4 * w.steps;
  const char* b[P];
  for (int p = 0; p < P; ++p) b[p] = static_cast<const char*>(w.panels) + (panel + p) * 64 * w.steps;
  Sums sums[R][P];
  const int64_t column = 16 * panel;
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int p = 0; p < P; ++p)
      sums[r][p] = first == 0 ? Sums::zero() : Sums::load_n(out + r * w.N + 16 * p, w.N - column - 16 * p);
  for (int64_t begin = first; begin < last; begin += Sums::kSteps) {
    const int64_t end = begin + Sums::kSteps < last ? begin + Sums::kSteps : last;
    for (int64_t s = begin; s < end; ++s) {
      typename Sums::Panel panels[P];
#pragma GCC unroll 2
      for (int p = 0; p < P; ++p) panels[p] = Sums::panel(b[p] + 64 * s);
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int p = 0; p < P; ++p) sums[r][p].add(a[r] + 4 * s, panels[p]);
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int p = 0; p < P; ++p) sums[r][p].settle();
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int p = 0; p < P; ++p) {
      const int64_t lanes = w.N - column - 16 * p;
      float* to = out + r * w.N + 16 * p;
      if (last < w.steps) {
        sums[r][p].store_n(to, lanes);
      } else {
        finish(sums[r][p].value(), Sums::kCodes, x, row + r, w, column + 16 * p).store_n(to, lanes);
      }
    }
}

template <class Sums, int P>
static void linear_panels(const Rows& x, int64_t rows, const Linear& w, int64_t panel, int64_t first, int64_t last,
                          float* out) {
  int64_t row = 0;
  float* to = out + 16 * panel;
  for (; row + kTileRows <= rows; row += kTileRows)
    linear_tile<Sums, kTileRows, P>(x, row, w, panel, first, last, to + row * w.N);
  while (row < rows) {
    const int64_t left = rows - row;
    if (kTileRows > 8 && left >= 8) {
      linear_tile<Sums, kTileRows < 8 ? 1 : 8, P>(x, row, w, panel, first, last, to + row * w.N);
      row += 8;
    } else if (left >= 4) {
      linear_tile<Sums, 4, P>(x, row, w, panel, first, last, to + row * w.N);
      row += 4;
    } else if (left >= 2) {
      linear_tile<Sums, 2, P>(x, row, w, panel, first, last, to + row * w.N);
      row += 2;
    } else {
      linear_tile<Sums, 1, P>(x, row, w, panel, first, last, to + row * w.N);
      row += 1;
    }
  }
}

template <class Sums>
static void linear(const Rows& x, int64_t rows, const Linear& w, float* out) {
  const int64_t n_panels = (w.N + 15) / 16;
  for (int64_t first = 0; first < w.steps || first == 0; first += kStepBlock) {
    const int64_t last = first + kStepBlock < w.steps ? first + kStepBlock : w.steps;
    int64_t panel = 0;
    for (; panel + kTilePanels <= n_panels; panel += kTilePanels)
      linear_panels<Sums, kTilePanels>(x, rows, w, panel, first, last, out);
    for (; panel < n_panels; ++panel) linear_panels<Sums, 1>(x, rows, w, panel, first, last, out);
  }
}

}  // namespace FASTREC_LEVEL
}  // namespace fastrec

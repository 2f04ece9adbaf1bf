// A linear layer over panels, for the Vec and the sums of a level.
#pragma once

#include "encode.h"
#include "encode_math.h"

namespace fastrec {
namespace FASTREC_LEVEL {

// What a column adds to its sums.
struct Column {
  Vec bias, scale, sum;
  static inline Column load(Codes codes, const Linear& w, int64_t column) {
    return {Vec::load(w.bias + column), codes == Codes::kNone ? Vec::zero() : Vec::load(w.scales + column),
            codes == Codes::kInt8 ? Vec::load(w.sums + column) : Vec::zero()};
  }
  // Of int8: scale of the row and of the column * (sum - zero of the row * sum of the column) + bias; of int16 the same
  // without a zero.
  inline Vec finish(Vec value, Codes codes, const Rows& x, int64_t row) const {
    if (codes == Codes::kNone) return value.add(bias);
    if (codes == Codes::kInt8) value = value.fma(Vec::all(-x.zeros[row]), sum);
    return bias.fma(value, scale.mul(Vec::all(x.scales[row])));
  }
};

// Outputs that have just been written, in place.
static void activate(float* out, int64_t rows, int64_t stride, int64_t columns, Activation activation) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; c += 16) {
      float* at = out + r * stride + c;
      const Vec v = Vec::load_n(at, columns - c);
      (activation == kGelu ? gelu(v) : gelu_tanh(v)).store_n(at, columns - c);
    }
}

// Panels that the next tiles will need: they are fetched into the second-level cache line by line, meanwhile.
struct Ahead {
  const char* lines;
  int64_t each;  // lines for kAheadSteps steps of a tile
};
constexpr int64_t kAheadSteps = 16;

template <class Sums, int R, int P>
static inline void linear_tile(const Rows& x, int64_t row, const Linear& w, int64_t panel, int64_t first, int64_t last,
                               float* out, Ahead& ahead) {
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
      sums[r][p] = first == 0 || Sums::kFresh ? Sums::zero()
                                              : Sums::load_n(out + r * w.N + 16 * p, w.N - column - 16 * p);
  for (int64_t begin = first; begin < last; begin += kAheadSteps) {
    const int64_t end = begin + kAheadSteps < last ? begin + kAheadSteps : last;
    for (int64_t i = 0; i < ahead.each; ++i) __builtin_prefetch(ahead.lines + 64 * i, 0, 2);
    ahead.lines += 64 * ahead.each;
    for (int64_t s = begin; s < end; s += Sums::kUnit) {
      typename Sums::Panel panels[P];
#pragma GCC unroll 2
      for (int p = 0; p < P; ++p) panels[p] = Sums::panel(b[p] + 64 * s);
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        const auto input = Sums::input(a[r] + 4 * s);
#pragma GCC unroll 2
        for (int p = 0; p < P; ++p) sums[r][p].add(input, panels[p]);
      }
    }
  }
#pragma GCC unroll 2
  for (int p = 0; p < P; ++p) {
    const int64_t lanes = w.N - column - 16 * p;
    const Column own = Column::load(Sums::kCodes, w, column + 16 * p);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      float* to = out + r * w.N + 16 * p;
      if (last < w.steps && !Sums::kFresh) {
        sums[r][p].store_n(to, lanes);
        continue;
      }
      Vec value = sums[r][p].value();
      if (first > 0 && Sums::kFresh) value = value.add(Vec::load_n(to, lanes));
      if (last == w.steps) value = own.finish(value, Sums::kCodes, x, row + r);
      value.store_n(to, lanes);
    }
  }
  const int64_t wide = w.N - column < 16 * P ? w.N - column : 16 * P;
  if (last == w.steps && w.activation != kNoActivation) activate(out, R, w.N, wide, w.activation);
}

template <class Sums, int P>
static void linear_panels(const Rows& x, int64_t rows, const Linear& w, int64_t panel, int64_t first, int64_t last,
                          float* out) {
  constexpr int kRows = Sums::kRows;
  float* to = out + 16 * panel;
  // The panels of the same steps behind these; beyond the last ones there is nothing to be had, which does no harm.
  const int64_t tiles = (rows + kRows - 1) / kRows;
  Ahead ahead = {static_cast<const char*>(w.panels) + (panel + P) * 64 * w.steps + 64 * first,
                 (P * kAheadSteps + tiles - 1) / tiles};
  for (int64_t row = 0; row < rows;) {
    const int64_t left = rows - row;
    float* at = to + row * w.N;
    if (left >= kRows) {
      linear_tile<Sums, kRows, P>(x, row, w, panel, first, last, at, ahead);
      row += kRows;
    } else if (kRows > 8 && left >= 8) {
      linear_tile<Sums, kRows < 8 ? 1 : 8, P>(x, row, w, panel, first, last, at, ahead);
      row += 8;
    } else if (kRows > 4 && left >= 4) {
      linear_tile<Sums, kRows < 4 ? 1 : 4, P>(x, row, w, panel, first, last, at, ahead);
      row += 4;
    } else if (left >= 2) {
      linear_tile<Sums, 2, P>(x, row, w, panel, first, last, at, ahead);
      row += 2;
    } else {
      linear_tile<Sums, 1, P>(x, row, w, panel, first, last, at, ahead);
      row += 1;
    }
  }
}

template <class Sums>
static void linear(const Rows& x, int64_t rows, const Linear& w, float* out) {
  constexpr int kPanels = Sums::kPanels;
  const int64_t n_panels = (w.N + 15) / 16;
  for (int64_t first = 0; first < w.steps || first == 0; first += Sums::kBlock) {
    const int64_t last = first + Sums::kBlock < w.steps ? first + Sums::kBlock : w.steps;
    int64_t panel = 0;
    for (; panel + kPanels <= n_panels; panel += kPanels)
      linear_panels<Sums, kPanels>(x, rows, w, panel, first, last, out);
    for (; panel < n_panels; ++panel) linear_panels<Sums, 1>(x, rows, w, panel, first, last, out);
  }
}

}  // namespace FASTREC_LEVEL
}  // namespace fastrec

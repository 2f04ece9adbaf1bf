// Attention of one sequence and head, for the Vec of a level.
//
// 16 queries lie in the lanes, so that the softmax over the keys needs no sum across lanes and no padding of the keys;
// keys, values and the weights between them are read one number at a time for all lanes, from where they lie.
#pragma once

#include "encode.h"
#include "encode_lanes.h"
#include "encode_math.h"

namespace fastrec {
namespace FASTREC_LEVEL {

// scores[j][lane] of R keys; returns the largest of them and `top`.
template <int R>
static inline Vec score_keys(const float* queries, const float* keys, int64_t stride, int64_t d, float* scores,
                             Vec top) {
  const float* key[R];
  Vec dots[R];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
    key[r] = keys + r * stride;
    dots[r] = Vec::zero();
  }
  for (int64_t c = 0; c < d; ++c) {
    const Vec query = Vec::load(queries + 16 * c);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) dots[r] = dots[r].fma(Vec::all(key[r][c]), query);
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
    dots[r].store(scores + 16 * r);
    top = top.max(dots[r]);
  }
  return top;
}

// Sums of the values of R queries, weighted; C vectors of columns at a time, the last of them perhaps not full.
template <int R, int C>
static inline void sum_values(const float* weights, const float* values, int64_t stride, int64_t keys,
                              const float* shares, float* out, int64_t out_stride, int64_t columns) {
  Vec sums[R][C];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int c = 0; c < C; ++c) sums[r][c] = Vec::zero();
  const bool full = columns >= 16 * C;
  for (int64_t j = 0; j < keys; ++j) {
    Vec value[C];
#pragma GCC unroll 2
    for (int c = 0; c < C; ++c) {
      const float* from = values + j * stride + 16 * c;
      value[c] = full ? Vec::load(from) : Vec::load_n(from, columns - 16 * c);
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const Vec weight = Vec::all(weights[16 * j + r]);
#pragma GCC unroll 2
      for (int c = 0; c < C; ++c) sums[r][c] = sums[r][c].fma(weight, value[c]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int c = 0; c < C; ++c)
      sums[r][c].mul(Vec::all(shares[r])).store_n(out + r * out_stride + 16 * c, columns - 16 * c);
}

template <int C>
static inline void sum_columns(const float* weights, const Attention& a, int64_t keys, const float* shares, int64_t row,
                               int64_t used, int64_t column) {
  constexpr int kRows = kValueRows * kValueColumns / C < 12 ? kValueRows * kValueColumns / C : 12;
  const float* values = a.v + column;
  for (int64_t i = 0; i < used;) {
    float* out = a.out + (row + i) * a.out_stride + column;
    const int64_t left = used - i, columns = a.dims - column;
    const float *w = weights + i, *share = shares + i;
    if (left >= kRows) {
      sum_values<kRows, C>(w, values, a.kv_stride, keys, share, out, a.out_stride, columns);
      i += kRows;
    } else if (left >= 4) {
      sum_values<4, C>(w, values, a.kv_stride, keys, share, out, a.out_stride, columns);
      i += 4;
    } else if (left >= 2) {
      sum_values<2, C>(w, values, a.kv_stride, keys, share, out, a.out_stride, columns);
      i += 2;
    } else {
      sum_values<1, C>(w, values, a.kv_stride, keys, share, out, a.out_stride, columns);
      i += 1;
    }
  }
}

constexpr int64_t kNearRows = 32;

// Rows of d floats close to one another.
static inline void gather_rows(const float* rows, int64_t stride, int64_t n, int64_t d, float* out) {
  for (int64_t j = 0; j < n; ++j)
    for (int64_t c = 0; c < d; c += 16) Vec::load_n(rows + j * stride + c, d - c).store_n(out + j * d + c, d - c);
}

static void attention(const Attention& given) {
  Attention a = given;
  const int64_t L = a.length, d = a.dims;
  float* queries = a.scratch;             // [d][16]
  float* scores = queries + 16 * d;       // [L][16]
  float* turned = scores + 16 * L;        // relative, backwards: [t + L - 1] belongs to query - key = t
  if (L > kNearRows) {  // rows a few kilobytes apart would share a few sets of the first-level cache
    float* near = turned + ceil16(2 * L + 16);
    gather_rows(a.k, a.kv_stride, L, d, near);
    gather_rows(a.v, a.kv_stride, L, d, near + L * d);
    a.k = near;
    a.v = near + L * d;
    a.kv_stride = d;
  }
  alignas(64) float shares[16];
  if (a.relative)
    for (int64_t t = -L + 1; t < L + 16; ++t) turned[t + L - 1] = t < L ? a.relative[-t] : 0.0f;
  for (int64_t row = 0; row < L; row += 16) {
    const int64_t used = L - row < 16 ? L - row : 16, keys = a.causal ? row + used : L;
    to_lanes(a.q + row * a.q_stride, a.q_stride, used, d, Vec::all(a.scale), queries);
    Vec top = Vec::all(-__builtin_inff());
    int64_t j = 0;
    const auto at = [&](int64_t key) { return a.k + key * a.kv_stride; };
    for (; j + kKeys <= keys; j += kKeys) top = score_keys<kKeys>(queries, at(j), a.kv_stride, d, scores + 16 * j, top);
    for (; j + 4 <= keys; j += 4) top = score_keys<4>(queries, at(j), a.kv_stride, d, scores + 16 * j, top);
    for (; j < keys; ++j) top = score_keys<1>(queries, at(j), a.kv_stride, d, scores + 16 * j, top);
    if (a.relative || a.causal) {
      top = Vec::all(-__builtin_inff());
      for (j = 0; j < keys; ++j) {
        float* score = scores + 16 * j;
        if (a.relative) Vec::load(score).add(Vec::load(turned + row - j + L - 1)).store(score);
        // Key j is hidden from the queries before it; what stands for it here, e^-inf, is not quite 0.
        for (int64_t lane = 0; a.causal && lane < j - row; ++lane) score[lane] = -__builtin_inff();
        top = top.max(Vec::load(score));
      }
    }
    Vec total = Vec::zero();
    for (j = 0; j < keys; ++j) {
      float* score = scores + 16 * j;
      const Vec e = exponential(Vec::load(score).sub(top));
      e.store(score);
      if (a.causal && j > row) {
        for (int64_t lane = 0; lane < j - row; ++lane) score[lane] = 0.0f;
        total = total.add(Vec::load(score));
      } else {
        total = total.add(e);
      }
    }
    Vec::all(1.0f).div(total).store(shares);
    int64_t column = 0;
    for (; kValueColumns > 1 && column + 16 * kValueColumns <= d; column += 16 * kValueColumns)
      sum_columns<kValueColumns>(scores, a, keys, shares, row, used, column);
    for (; column < d; column += 16) sum_columns<1>(scores, a, keys, shares, row, used, column);
  }
}

}  // namespace FASTREC_LEVEL
}  // namespace fastrec

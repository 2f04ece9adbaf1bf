// What lies between the linear layers, for the Vec of a level.
#pragma once

#include "encode.h"
#include "encode_math.h"

namespace fastrec {
namespace FASTREC_LEVEL {

static void bias_gelu(float* x, int64_t rows, int64_t D, const float* bias, Activation activation) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t d = 0; d < D; d += 16) {
      float* at = x + r * D + d;
      Vec v = Vec::load_n(at, D - d);
      if (bias) v = v.add(Vec::load_n(bias + d, D - d));
      if (activation == kGelu) v = gelu(v);
      if (activation == kGeluTanh) v = gelu_tanh(v);
      v.store_n(at, D - d);
    }
}

static void add_layer_norm(const float* x, const float* bias, const float* residual, const float* weight,
                           const float* shift, float eps, int64_t rows, int64_t D, float* out) {
  const float share = 1.0f / static_cast<float>(D > 0 ? D : 1);
  for (int64_t r = 0; r < rows; ++r) {
    float* to = out + r * D;
    Vec sum = Vec::zero();
    for (int64_t d = 0; d < D; d += 16) {
      Vec v = Vec::load_n(x + r * D + d, D - d);
      if (bias) v = v.add(Vec::load_n(bias + d, D - d));
      if (residual) v = v.add(Vec::load_n(residual + r * D + d, D - d));
      v.store_n(to + d, D - d);
      sum = sum.add(v);
    }
    const float mean = sum.sum() * share;
    Vec squares = Vec::zero();
    int64_t d = 0;
    for (; d + 16 <= D; d += 16) {
      const Vec v = Vec::load(to + d).sub(Vec::all(mean));
      squares = squares.fma(v, v);
    }
    float square = squares.sum();
    for (; d < D; ++d) square += (to[d] - mean) * (to[d] - mean);
    const Vec factor = Vec::all(1.0f / __builtin_sqrtf(square * share + eps));
    for (d = 0; d < D; d += 16) {
      const Vec v = Vec::load_n(to + d, D - d).sub(Vec::all(mean)).mul(factor);
      Vec::load_n(shift + d, D - d).fma(v, Vec::load_n(weight + d, D - d)).store_n(to + d, D - d);
    }
  }
}

static void row_sum(const float* x, int64_t rows, int64_t D, float factor, float* out) {
  for (int64_t d = 0; d < D; d += 16) {
    Vec sum = Vec::zero();
    for (int64_t r = 0; r < rows; ++r) sum = sum.add(Vec::load_n(x + r * D + d, D - d));
    sum.mul(Vec::all(factor)).store_n(out + d, D - d);
  }
}

static void quantize(const float* x, int64_t rows, int64_t K, int64_t steps, int64_t code_max, bool tiled,
                     uint8_t* codes, float* scales, float* zeros) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* from = x + r * K;
    Vec low = Vec::zero(), high = Vec::zero();  // 0 is always a code
    Vec poison = Vec::zero();                   // NaN where a value is not finite
    for (int64_t k = 0; k < K; k += 16) {
      const Vec v = Vec::load_n(from + k, K - k);
      low = low.min(v);
      high = high.max(v);
      poison = poison.fma(v, Vec::zero());
    }
    const float least = low.smallest(), range = high.largest() - least, top = static_cast<float>(code_max);
    // Not finite in, not finite out: the scale carries it to all of the row.
    const float scale = (range == 0.0f ? 1.0f : range / top) + poison.sum();
    const float zero = __builtin_rintf(-least / scale);
    scales[r] = scale;
    zeros[r] = zero;
    const Vec inverse = Vec::all(1.0f / scale), offset = Vec::all(zero), limit = Vec::all(top);
    for (int64_t k = 0; k < 4 * steps; k += 16) {
      const Vec v = k < K ? Vec::load_n(from + k, K - k) : Vec::zero();
      const Vec code = v.mul(inverse).round().add(offset).max(Vec::zero()).min(limit);
      code.store_codes(codes + byte_place(r, k, steps, tiled));
    }
  }
}

static void to_int16(const float* x, int64_t rows, int64_t K, int64_t steps, int16_t* codes, float* scales) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* from = x + r * K;
    Vec high = Vec::zero(), poison = Vec::zero();
    for (int64_t k = 0; k < K; k += 16) {
      const Vec v = Vec::load_n(from + k, K - k);
      high = high.max(v.abs());
      poison = poison.fma(v, Vec::zero());
    }
    const float most = high.largest();
    const float scale = (most == 0.0f ? 1.0f : most / static_cast<float>(kInt16Inputs)) + poison.sum();
    scales[r] = scale;
    const Vec inverse = Vec::all(1.0f / scale), limit = Vec::all(static_cast<float>(kInt16Inputs));
    for (int64_t k = 0; k < 2 * steps; k += 16) {
      const Vec v = k < K ? Vec::load_n(from + k, K - k) : Vec::zero();
      v.mul(inverse).round().min(limit).max(Vec::zero().sub(limit)).store_words(codes + r * 2 * steps + k);
    }
  }
}

static void to_bf16(const float* x, int64_t rows, int64_t K, int64_t steps, bool tiled, uint16_t* out) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t k = 0; k < 2 * steps; k += 16) {
      const Vec v = k < K ? Vec::load_n(x + r * K + k, K - k) : Vec::zero();
      v.store_bf16(out + byte_place(r, 2 * k, steps, tiled) / 2);
    }
}

// The upper 16 bits of a value and, behind all of the row's, what they leave out.
static void split(const float* x, int64_t rows, int64_t K, int64_t steps, uint16_t* out) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t k = 0; k < 2 * steps; k += 16) {
      const Vec v = k < K ? Vec::load_n(x + r * K + k, K - k) : Vec::zero();
      uint16_t* to = out + byte_place(r, 2 * k, 2 * steps, true) / 2;
      v.store_bf16(to);
      v.sub(Vec::load_bf16(to)).store_bf16(to + 512 * (steps / 16));
    }
}

// One sequence and head: tiles of kQueries over blocks of keys, with a running maximum and sum.
static void attention(const Attention& a) {
  const int64_t L = a.length, d = a.dims, wide = ceil16(d), keys = ceil16(L < kKeyBlock ? L : kKeyBlock);
  float* queries = a.scratch;               // [d][kQueries]
  float* panels = queries + kMostQueries * d;  // [keys / 16][d][16]
  float* values = panels + keys * d;        // [keys][wide]
  float* scores = values + keys * wide;     // [kQueries][keys]
  float* sums = scores + kMostQueries * keys;  // [L][wide]
  float* tops = sums + L * wide;            // [L]
  float* totals = tops + L;                 // [L]
  for (int64_t i = 0; i < L * wide; ++i) sums[i] = 0.0f;
  for (int64_t i = 0; i < L; ++i) tops[i] = -__builtin_inff();
  for (int64_t i = 0; i < L; ++i) totals[i] = 0.0f;

  for (int64_t block = 0; block < L; block += kKeyBlock) {
    const int64_t n = L - block < kKeyBlock ? L - block : kKeyBlock;
    for (int64_t p = 0; p < n; p += 16)
      for (int64_t j = 0; j < 16; ++j) {
        const float* key = a.k + (block + p + j) * a.kv_stride;
        float* to = panels + p * d + j;
        if (p + j < n) {
          for (int64_t c = 0; c < d; ++c) to[16 * c] = key[c];
        } else {
          for (int64_t c = 0; c < d; ++c) to[16 * c] = 0.0f;
        }
      }
    for (int64_t j = 0; j < n; ++j)
      for (int64_t c = 0; c < wide; c += 16)
        Vec::load_n(a.v + (block + j) * a.kv_stride + c, d - c).store(values + j * wide + c);

    for (int64_t row = a.causal ? block / kQueries * kQueries : 0; row < L; row += kQueries) {
      const int64_t used = L - row < kQueries ? L - row : kQueries;
      int64_t m = n;  // keys that some query of the tile sees
      if (a.causal && row + used - block < m) m = row + used - block;
      if (m <= 0) continue;
      for (int64_t i = 0; i < kQueries; ++i)
        for (int64_t c = 0; c < d; ++c)
          queries[c * kQueries + i] = i < used ? a.q[(row + i) * a.q_stride + c] * a.scale : 0.0f;
      for (int64_t p = 0; p < m; p += 16) {
        Vec dots[kQueries];
#pragma GCC unroll 12
        for (int i = 0; i < kQueries; ++i) dots[i] = Vec::zero();
        for (int64_t c = 0; c < d; ++c) {
          const Vec key = Vec::load(panels + p * d + 16 * c);
#pragma GCC unroll 12
          for (int i = 0; i < kQueries; ++i) dots[i] = dots[i].fma(Vec::all(queries[c * kQueries + i]), key);
        }
#pragma GCC unroll 12
        for (int i = 0; i < kQueries; ++i) dots[i].store(scores + i * keys + p);
      }
      const int64_t padded = ceil16(m);
      Vec shrink[kQueries];
      for (int64_t i = 0; i < kQueries; ++i) {
        shrink[i] = Vec::zero();
        float* score = scores + i * keys;
        if (i >= used) {
          for (int64_t j = 0; j < padded; ++j) score[j] = 0.0f;
          continue;
        }
        if (a.relative) {
          const float* bias = a.relative + block - (row + i);
          for (int64_t j = 0; j < m; j += 16)
            Vec::load_n(score + j, m - j).add(Vec::load_n(bias + j, m - j)).store_n(score + j, m - j);
        }
        int64_t seen = m;
        if (a.causal && row + i + 1 - block < seen) seen = row + i + 1 - block;
        for (int64_t j = seen < 0 ? 0 : seen; j < padded; ++j) score[j] = -__builtin_inff();
        Vec top = Vec::all(tops[row + i]);
        for (int64_t j = 0; j < padded; j += 16) top = top.max(Vec::load(score + j));
        const float peak = top.largest();
        if (peak == -__builtin_inff()) {  // no key of this block or an earlier one
          for (int64_t j = 0; j < padded; ++j) score[j] = 0.0f;
          continue;
        }
        Vec total = Vec::zero();
        for (int64_t j = 0; j < padded; j += 16) {
          Vec e = exponential(Vec::load(score + j).sub(Vec::all(peak)));
          e.store(score + j);
        }
        for (int64_t j = seen < 0 ? 0 : seen; j < padded; ++j) score[j] = 0.0f;
        for (int64_t j = 0; j < padded; j += 16) total = total.add(Vec::load(score + j));
        const float old = tops[row + i] == -__builtin_inff() ? 0.0f : __builtin_expf(tops[row + i] - peak);
        shrink[i] = Vec::all(old);
        totals[row + i] = totals[row + i] * old + total.sum();
        tops[row + i] = peak;
      }
      for (int64_t c = 0; c < wide; c += 16) {
        Vec out[kQueries];
#pragma GCC unroll 12
        for (int i = 0; i < kQueries; ++i)
          out[i] = i < used && block > 0 ? Vec::load(sums + (row + i) * wide + c).mul(shrink[i]) : Vec::zero();
        for (int64_t j = 0; j < m; ++j) {
          const Vec value = Vec::load(values + j * wide + c);
#pragma GCC unroll 12
          for (int i = 0; i < kQueries; ++i) out[i] = out[i].fma(Vec::all(scores[i * keys + j]), value);
        }
        for (int i = 0; i < used; ++i) out[i].store(sums + (row + i) * wide + c);
      }
    }
  }
  for (int64_t i = 0; i < L; ++i) {
    const Vec share = Vec::all(1.0f / totals[i]);
    for (int64_t c = 0; c < d; c += 16)
      Vec::load(sums + i * wide + c).mul(share).store_n(a.out + i * a.out_stride + c, d - c);
  }
}

}  // namespace FASTREC_LEVEL
}  // namespace fastrec

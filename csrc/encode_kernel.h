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
    // Not finite in, not finite out: the scale carries it to all of the row. One too small to divide by stands for zeros.
    const float fine = range / top;
    const float scale = (fine < 0x1p-126f ? 1.0f : fine) + poison.sum();
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
    Vec high = Vec::zero(), poison = Vec::zero();  // NaN where a value is not finite
    float longest = 0.0f;
    for (int64_t block = 0; block < K; block += kInt16Block) {
      const int64_t end = block + kInt16Block < K ? block + kInt16Block : K;
      Vec squares = Vec::zero();
      for (int64_t k = block; k < end; k += 16) {
        const Vec v = Vec::load_n(from + k, end - k);
        high = high.max(v.abs());
        squares = squares.fma(v, v);
        poison = poison.fma(v, Vec::zero());
      }
      const float square = squares.sum();
      longest = square > longest ? square : longest;
    }
    // Squares may leave the range of float32 where values do not: then the largest value stands for the length.
    const float most = high.largest();
    const bool ordinary = longest > 1e-30f && longest < 1e30f;
    const float by_length = (ordinary ? __builtin_sqrtf(longest) : most * 20.0f) / kInt16Length;
    const float by_most = most / kInt16Most;
    // Up to 12 bits, so that the order in which squares are summed decides about no code.
    float scale = by_length > by_most ? by_length : by_most;
    if (scale < 0x1p-126f) scale = 1.0f;  // of zeros, or too small to divide by
    uint32_t bits;
    __builtin_memcpy(&bits, &scale, 4);
    bits = (bits + 0xfff) & ~uint32_t{0xfff};
    __builtin_memcpy(&scale, &bits, 4);
    scale += poison.sum();
    scales[r] = scale;
    const Vec inverse = Vec::all(1.0f / scale), limit = Vec::all(kInt16Most);
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

}  // namespace FASTREC_LEVEL
}  // namespace fastrec

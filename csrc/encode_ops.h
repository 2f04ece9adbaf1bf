// The native operators of the encoder with their shape contracts; see ops.h for the conventions.
//
// S sequences of T tokens, packed: the tokens of sequence s are rows cu[s] .. cu[s + 1]. H heads of d dimensions.
#pragma once

#include <vector>

#include "encode.h"

namespace fastrec {

// The levels of simd_levels() and, as the widest, "amx" where there are tiles; "" takes the widest.
const EncodeKernel& encode_level(const char* name);

struct AttentionArgs {
  const float *q, *k, *v;  // q [T, H, d], k, v [T, H_kv, d]; tokens q_stride or kv_stride floats apart
  int64_t q_stride, kv_stride;
  const int64_t* cu;       // [S + 1]
  int64_t S, heads, kv_heads, dims;
  float scale;
  bool causal;
  const float* relative;   // null or [H, 2 R - 1]: added to the score of query i and key j at [R - 1 + j - i]
  int64_t reach;           // R, at least the longest sequence
  float* out;              // [T, H, d]
};
void attention_varlen(const AttentionArgs& args, int threads, const EncodeKernel& level);

// x [T, D] = activation(x + bias), in place
void bias_gelu(float* x, int64_t T, int64_t D, const float* bias, Activation activation, int threads,
               const EncodeKernel& level);

// out [T, D] = layer_norm(x + bias + residual) * weight + shift
void add_layer_norm(const float* x, const float* bias, const float* residual, const float* weight, const float* shift,
                    float eps, int64_t T, int64_t D, float* out, int threads, const EncodeKernel& level);

// out [S, D]: the mean, the first or the last row of every sequence (none may be empty), made a unit vector or not
enum class Pooling { kMean, kFirst, kLast };
void pool_normalize(const float* x, const int64_t* cu, int64_t S, int64_t D, Pooling pooling, bool normalize,
                    float* out, int threads, const EncodeKernel& level);

// out [T, N] = x [T, K] * weights + bias, in the precision of `kind`
void linear_rows(const float* x, int64_t T, const Linear& weights, LinearKind kind, float* out, int threads,
                 const EncodeKernel& level);

struct EncoderLayer {
  Linear qkv, out, up, down;                        // [D, 3 D], [D, D], [D, inner] with the activation, [inner, D]
  const float *weight1, *shift1, *weight2, *shift2; // [D], layer norms behind `out` and `down`
};

// A transformer encoder with the layer norm behind the residual (BERT and its family).
struct EncoderModel {
  LinearKind kind;
  int64_t D, heads, inner;
  float eps;
  Pooling pooling;
  bool normalize;
  const float* words;              // [V, D]
  const float* positions;          // [P, D], the first position of a sequence first
  const float *weight, *shift;     // [D], layer norm of the embeddings
  const float* relative;           // null or [H, 2 R - 1]
  int64_t reach;
  std::vector<EncoderLayer> layers;
};

// out [S, D]: pooled vectors of packed ids [T]. Whole sequences, about kGroupTokens at a time, go through all layers on
// one thread, so that what a layer leaves behind is still in the cache of the core when the next one reads it.
constexpr int64_t kGroupTokens = 128;
void encode_packed(const EncoderModel& model, const int32_t* ids, const int64_t* cu, int64_t S, float* out,
                   int threads, const EncodeKernel& level);

}  // namespace fastrec

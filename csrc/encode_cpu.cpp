#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "check.h"
#include "encode_ops.h"
#include "parallel.h"

namespace fastrec {
namespace {

constexpr int64_t kRows = 128;               // at most, of a block between two layers; a multiple of a row of tiles
constexpr int64_t kKeep = int64_t{4} << 20;  // floats of a buffer that a thread keeps for its next task

// Memory of a thread, at 64 bytes; its content is lost at the next call with the same slot.
float* room(int slot, int64_t floats) {
  struct Buffers {
    std::vector<float> slot[8];
  };
  static thread_local Buffers buffers;
  std::vector<float>& buffer = buffers.slot[slot];
  const int64_t wanted = floats + 16, size = static_cast<int64_t>(buffer.size());
  if (size < wanted || (size > kKeep && wanted <= kKeep)) {
    std::vector<float>().swap(buffer);
    buffer.resize(wanted);
  }
  return reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(buffer.data()) + 63) / 64 * 64);
}

void check_kind(LinearKind kind, const EncodeKernel& level, int64_t code_max) {
  require(kind != kLinearInt8 || code_max <= level.code_max, "weights laid out for this level");
  require(kind != kLinearBf16 || level.linear_bf16, "this level computes in bfloat16");
  require(kind != kLinearSplit || level.linear_split, "this level has tiles");
}

// One block of at most kRows rows, on this thread.
void linear_block(const float* x, int64_t rows, const Linear& w, LinearKind kind, float* out,
                  const EncodeKernel& level) {
  if (kind == kLinearF32) return level.linear_f32({x, nullptr, nullptr}, rows, w, out);
  float* scales = room(0, 2 * kRows);
  void* codes = room(1, kRows * w.steps * (kind == kLinearSplit ? 2 : 1) + 16);
  if (kind == kLinearInt8) {
    level.quantize(x, rows, w.K, w.steps, w.code_max, level.tiled, static_cast<uint8_t*>(codes), scales,
                   scales + kRows);
    level.linear_int8({codes, scales, scales + kRows}, rows, w, out);
  } else if (kind == kLinearInt16) {
    level.to_int16(x, rows, w.K, w.steps, static_cast<int16_t*>(codes), scales);
    level.linear_int16({codes, scales, nullptr}, rows, w, out);
  } else if (kind == kLinearSplit) {
    level.split(x, rows, w.K, w.steps, static_cast<uint16_t*>(codes));
    level.linear_split({codes, nullptr, nullptr}, rows, w, out);
  } else {
    level.to_bf16(x, rows, w.K, w.steps, level.tiled, static_cast<uint16_t*>(codes));
    level.linear_bf16({codes, nullptr, nullptr}, rows, w, out);
  }
}

template <typename Body>
void over_rows(int64_t T, int64_t block, int threads, const Body& body) {
  parallel_for((T + block - 1) / block, threads, [&](int64_t task) {
    body(task * block, std::min(block, T - task * block));
  });
}

void attend(const AttentionArgs& a, int64_t s, int64_t head, float* scratch, void (*attention)(const Attention&)) {
  const int64_t first = a.cu[s], length = a.cu[s + 1] - first, kv_head = head / (a.heads / a.kv_heads);
  const int64_t kv = first * a.kv_stride + kv_head * a.dims;
  Attention one;
  one.q = a.q + first * a.q_stride + head * a.dims;
  one.k = a.k + kv;
  one.v = a.v + kv;
  one.q_stride = a.q_stride;
  one.kv_stride = a.kv_stride;
  one.length = length;
  one.dims = a.dims;
  one.scale = a.scale;
  one.causal = a.causal;
  one.relative = a.relative ? a.relative + head * (2 * a.reach - 1) + a.reach - 1 : nullptr;
  one.out = a.out + first * a.heads * a.dims + head * a.dims;
  one.out_stride = a.heads * a.dims;
  one.scratch = scratch;
  if (length > 0) attention(one);
}

void pool(const float* x, int64_t rows, int64_t D, Pooling pooling, bool normalize, float* out,
          const EncodeKernel& level) {
  if (pooling == Pooling::kMean) {
    level.row_sum(x, rows, D, 1.0f / static_cast<float>(rows), out);
  } else {
    std::memcpy(out, pooling == Pooling::kFirst ? x : x + (rows - 1) * D, 4 * D);
  }
  if (!normalize) return;
  double square = 0.0;
  for (int64_t d = 0; d < D; ++d) square += static_cast<double>(out[d]) * out[d];
  const float factor = static_cast<float>(1.0 / std::max(std::sqrt(square), 1e-12));
  for (int64_t d = 0; d < D; ++d) out[d] *= factor;
}

// The sequences [first, last) through all layers.
void encode_group(const EncoderModel& m, const int32_t* ids, const int64_t* cu, int64_t first, int64_t last,
                  float* out, const EncodeKernel& level) {
  const int64_t begin = cu[first], T = cu[last] - begin, D = m.D;
  // What lies between two layers stays in the second-level cache; tiles are so fast that weights count for more.
  const int64_t block = std::min(T, level.tiled ? kRows : kRows / 2);
  std::vector<int64_t> own(cu + first, cu + last + 1);
  int64_t longest = 0;
  for (size_t s = 0; s + 1 < own.size(); ++s) longest = std::max(longest, own[s + 1] - own[s]);
  for (int64_t& c : own) c -= begin;
  float* x = room(2, T * D);
  float* qkv = room(3, T * 3 * D);
  float* context = room(4, T * D);
  float* inner = room(5, block * m.inner);
  float* hidden = room(6, block * D);
  float* scratch = room(7, attention_scratch(longest, D / m.heads));
  for (size_t s = 0; s + 1 < own.size(); ++s)
    for (int64_t t = own[s]; t < own[s + 1]; ++t) {
      const float* word = m.words + static_cast<int64_t>(ids[begin + t]) * D;
      const float* position = m.positions + (t - own[s]) * D;
      for (int64_t d = 0; d < D; ++d) x[t * D + d] = word[d] + position[d];
    }
  level.add_layer_norm(x, nullptr, nullptr, m.weight, m.shift, m.eps, T, D, x);
  AttentionArgs a = {qkv, qkv + D, qkv + 2 * D, 3 * D, 3 * D, own.data(), last - first, m.heads, m.heads, D / m.heads,
                     1.0f / std::sqrt(static_cast<float>(D / m.heads)), false, m.relative, m.reach, context};
  const bool low = m.kind == kLinearBf16 || m.kind == kLinearInt8;
  const auto attention = low                      ? level.attention_bf16
                         : m.kind == kLinearSplit ? level.attention_split
                                                  : level.attention;
  for (const EncoderLayer& layer : m.layers) {
    for (int64_t t = 0; t < T; t += block)
      linear_block(x + t * D, std::min(block, T - t), layer.qkv, m.kind, qkv + t * 3 * D, level);
    for (int64_t s = 0; s < a.S; ++s)
      for (int64_t head = 0; head < m.heads; ++head) attend(a, s, head, scratch, attention);
    for (int64_t t = 0; t < T; t += block) {
      const int64_t rows = std::min(block, T - t);
      float* at = x + t * D;
      linear_block(context + t * D, rows, layer.out, m.kind, hidden, level);
      level.add_layer_norm(hidden, nullptr, at, layer.weight1, layer.shift1, m.eps, rows, D, at);
      linear_block(at, rows, layer.up, m.kind, inner, level);
      linear_block(inner, rows, layer.down, m.kind, hidden, level);
      level.add_layer_norm(hidden, nullptr, at, layer.weight2, layer.shift2, m.eps, rows, D, at);
    }
  }
  for (int64_t s = first; s < last; ++s)
    pool(x + own[s - first] * D, cu[s + 1] - cu[s], D, m.pooling, m.normalize, out + s * D, level);
}

}  // namespace

void attention_varlen(const AttentionArgs& a, int threads, const EncodeKernel& level) {
  parallel_for(a.S * a.heads, threads, [&](int64_t task) {
    const int64_t s = task / a.heads;
    attend(a, s, task % a.heads, room(7, attention_scratch(a.cu[s + 1] - a.cu[s], a.dims)), level.attention);
  });
}

void bias_gelu(float* x, int64_t T, int64_t D, const float* bias, Activation activation, int threads,
               const EncodeKernel& level) {
  over_rows(T, 64, threads, [&](int64_t t, int64_t rows) { level.bias_gelu(x + t * D, rows, D, bias, activation); });
}

void add_layer_norm(const float* x, const float* bias, const float* residual, const float* weight, const float* shift,
                    float eps, int64_t T, int64_t D, float* out, int threads, const EncodeKernel& level) {
  over_rows(T, 64, threads, [&](int64_t t, int64_t rows) {
    level.add_layer_norm(x + t * D, bias, residual ? residual + t * D : nullptr, weight, shift, eps, rows, D,
                         out + t * D);
  });
}

void pool_normalize(const float* x, const int64_t* cu, int64_t S, int64_t D, Pooling pooling, bool normalize,
                    float* out, int threads, const EncodeKernel& level) {
  parallel_for(S, threads, [&](int64_t s) {
    pool(x + cu[s] * D, cu[s + 1] - cu[s], D, pooling, normalize, out + s * D, level);
  });
}

void linear_rows(const float* x, int64_t T, const Linear& weights, LinearKind kind, float* out, int threads,
                 const EncodeKernel& level) {
  check_kind(kind, level, weights.code_max);
  over_rows(T, kRows, threads, [&](int64_t t, int64_t rows) {
    linear_block(x + t * weights.K, rows, weights, kind, out + t * weights.N, level);
  });
}

void encode_packed(const EncoderModel& model, const int32_t* ids, const int64_t* cu, int64_t S, float* out,
                   int threads, const EncodeKernel& level) {
  check_kind(model.kind, level, model.layers.empty() ? 0 : model.layers[0].qkv.code_max);
  std::vector<int64_t> groups = {0};
  for (int64_t s = 0; s < S; ++s)
    if (cu[s + 1] - cu[groups.back()] > kGroupTokens && s > groups.back()) groups.push_back(s);
  if (S > 0) groups.push_back(S);
  parallel_for(static_cast<int64_t>(groups.size()) - 1, threads, [&](int64_t g) {
    encode_group(model, ids, cu, groups[g], groups[g + 1], out, level);
  });
}

}  // namespace fastrec

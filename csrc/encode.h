// What the instruction-set files give to the encoder: kernels over the rows of one thread.
//
// Compiled with the flags of every level, so plain structs only (see simd.h).
//
// A linear layer [K, N] lies in panels of 16 columns [N / 16][steps][64 bytes]. A step is 4 bytes of a row of
// inputs times 16 columns: 1 float, 2 bfloat16 or int16, or 4 int8; K and N are filled up with zeros. The same walk then
// serves all three, and a panel of bfloat16 or int8 is also a row of AMX tiles.
//
// kLinearInt16 is float32 by fixed point: a row of inputs and a column of weights have a scale each, so chosen that the
// codes of every block of kInt16Steps are no longer, as a vector, than 2^15.5. By Cauchy and Schwarz their products then
// sum up within int32; the sums of blocks are added in float32. Multiplying integers is faster than an FMA with AVX2 and
// with VNNI.
//
// kLinearInt8 without VNNI multiplies bytes into int16, with saturation: the weights of every four inputs that meet in
// such a sum are kept so small (see Linear::code_max) that none is ever reached.
//
// kLinearSplit is float32 by AMX: x = high + low in bfloat16, 16 bits together, and x * w = high * high + high * low +
// low * high, off by 2^-15 of a product. A panel is then [2][steps][64 bytes] and a row of inputs [2][steps][4 bytes].
#pragma once

#include <stdint.h>

namespace fastrec {

enum LinearKind { kLinearF32 = 0, kLinearBf16 = 1, kLinearInt8 = 2, kLinearSplit = 3, kLinearInt16 = 4 };
enum Activation { kNoActivation = 0, kGelu = 1, kGeluTanh = 2 };

struct Linear {
  int64_t K, N;
  int64_t steps;          // of 4 bytes in a row of inputs; for AMX a multiple of 16
  const void* panels;     // [ceil(N / 16)][steps][16] of 4 bytes
  const float* bias;      // [ceil16(N)]
  const float* scales;    // [ceil16(N)], int8 and int16 only: weight = scale * code
  const float* sums;      // [ceil16(N)], int8 only: sums of the codes of a column
  int64_t code_max;       // int8 only: the largest code of an input that these weights are made for
  Activation activation;  // of the outputs
};

// Rows of inputs as a kind wants them: rows * 4 * steps bytes; for int8 x = scale * (code - zero), code uint8,
// and for int16 x = scale * code.
// For AMX (tiled) 16 rows lie together in tiles of 64 bytes a row: [ceil(rows / 16)][steps / 16][16][64 bytes].
struct Rows {
  const void* data;
  const float* scales;  // [rows], int8 and int16 only
  const float* zeros;   // [rows], int8 only
};

struct Attention {
  const float *q, *k, *v;               // of one sequence and head; rows q_stride or kv_stride floats apart
  int64_t q_stride, kv_stride, length, dims;
  float scale;
  bool causal;
  const float* relative;  // null, or added to the score of query i and key j: relative[j - i]
  float* out;             // rows out_stride apart
  int64_t out_stride;
  float* scratch;         // at 64 bytes, attention_scratch(length, dims) floats
};

// Where byte `byte` of row r lies among rows of 4 * steps bytes.
static inline int64_t byte_place(int64_t r, int64_t byte, int64_t steps, bool tiled) {
  if (!tiled) return r * 4 * steps + byte;
  return (r / 16 * (steps / 16) + byte / 64) * 1024 + r % 16 * 64 + byte % 64;
}

// Steps whose products sum up in int32: 384 inputs.
constexpr int64_t kInt16Steps = 192, kInt16Block = 2 * kInt16Steps;
constexpr float kInt16Length = 46300.0f;  // of the codes of a block before rounding, which adds sqrt(384) / 2 at most
constexpr float kInt16Most = 32767.0f;
// The largest code of an input of int8 without VNNI: 2 * 2 products of weights that sum up to 32767 / 200 - 2.
constexpr int64_t kSmallCodes = 200;
enum class Codes { kNone, kInt8, kInt16 };

static inline int64_t ceil16(int64_t n) { return (n + 15) / 16 * 16; }
static inline int64_t attention_scratch(int64_t length, int64_t dims) {
  // Queries, scores, relative positions backwards, keys and values.
  const int64_t wide = ceil16(dims), plain = 16 * dims + 16 * length + 2 * length + 48 + 2 * length * dims;
  // By AMX, in tiles of 32: twice the queries, twice two halves of keys, values and weights, scores and sums.
  const int64_t all = (length + 31) / 32 * 32, broad = (dims + 31) / 32 * 32;
  const int64_t tiled = 32 * broad + all * broad + all * wide + 32 * all + 16 * wide;
  // By pairs of bfloat16: the same as for plain, keys and values in halves.
  const int64_t paired = 24 * dims + (length + 2) * wide + 18 * length + 96;
  const int64_t most = plain > tiled ? plain : tiled;
  return most > paired ? most : paired;
}

struct EncodeKernel {
  const char* name;
  int64_t code_max;  // the largest code of an input that linear_int8 bears, for weights made for it
  bool tiled;        // what linear_int8, linear_bf16 and linear_split take
  // out[rows, N] = inputs * weights + bias
  void (*linear_f32)(const Rows& x, int64_t rows, const Linear& w, float* out);
  void (*linear_int8)(const Rows& x, int64_t rows, const Linear& w, float* out);
  void (*linear_int16)(const Rows& x, int64_t rows, const Linear& w, float* out);
  void (*linear_bf16)(const Rows& x, int64_t rows, const Linear& w, float* out);
  void (*linear_split)(const Rows& x, int64_t rows, const Linear& w, float* out);  // null but with AMX
  // codes [rows, 4 * steps]; scales, zeros [rows]
  void (*quantize)(const float* x, int64_t rows, int64_t K, int64_t steps, int64_t code_max, bool tiled,
                   uint8_t* codes, float* scales, float* zeros);
  void (*to_int16)(const float* x, int64_t rows, int64_t K, int64_t steps, int16_t* codes, float* scales);
  void (*to_bf16)(const float* x, int64_t rows, int64_t K, int64_t steps, bool tiled, uint16_t* out);
  void (*split)(const float* x, int64_t rows, int64_t K, int64_t steps, uint16_t* out);  // tiled
  // x[rows, D] = activation(x + bias) in place; bias may be null
  void (*bias_gelu)(float* x, int64_t rows, int64_t D, const float* bias, Activation activation);
  // out = layer_norm(x + bias + residual) * weight + shift; bias and residual may be null, out may be x or residual
  void (*add_layer_norm)(const float* x, const float* bias, const float* residual, const float* weight,
                         const float* shift, float eps, int64_t rows, int64_t D, float* out);
  void (*attention)(const Attention& a);
  // The same, not causal, for models whose linear layers are no better: products of bfloat16, and of two of them.
  void (*attention_bf16)(const Attention& a);
  void (*attention_split)(const Attention& a);
  // out[D] = factor * the sum of the rows
  void (*row_sum)(const float* x, int64_t rows, int64_t D, float factor, float* out);
};

extern const EncodeKernel encode_scalar;
#if defined(__x86_64__)
extern const EncodeKernel encode_avx2;
extern const EncodeKernel encode_avx512;
// What later instruction sets do better than AVX-512 alone; *_amx need amx_allowed() in the process.
void linear_int16_vnni(const Rows& x, int64_t rows, const Linear& w, float* out);
void linear_int8_vnni(const Rows& x, int64_t rows, const Linear& w, float* out);
void linear_bf16_avx512(const Rows& x, int64_t rows, const Linear& w, float* out);
void attention_bf16_avx512(const Attention& a);
bool amx_allowed();
void linear_int8_amx(const Rows& x, int64_t rows, const Linear& w, float* out);  // readable to 32 full rows
void linear_bf16_amx(const Rows& x, int64_t rows, const Linear& w, float* out);
void linear_split_amx(const Rows& x, int64_t rows, const Linear& w, float* out);
void attention_bf16_amx(const Attention& a);
void attention_split_amx(const Attention& a);
#endif

}  // namespace fastrec

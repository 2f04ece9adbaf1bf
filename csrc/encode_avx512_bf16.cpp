// bfloat16 linear layers and attention by AVX512-BF16.
#if defined(__x86_64__)
#define FASTREC_LEVEL enc_bf16

#include "encode_vec512.h"
#include "encode_math.h"
#include "encode_lanes.h"

namespace fastrec {
namespace enc_bf16 {

// Pairs of bfloat16 in the 4 bytes of a lane; sums in float32.
struct SumsBf16 : SumsInt<SumsBf16> {
  static constexpr Codes kCodes = Codes::kNone;
  // Written out: with the intrinsic GCC 12 moves every sum to the stack and back.
  inline void add(__m512i x, Panel b) { __asm__("vdpbf16ps %2, %1, %0" : "+v"(v) : "v"(x), "v"(b)); }
  inline Vec value() const { return {_mm512_castsi512_ps(v)}; }
};

// c += the products of pairs; written out as above.
static inline void add_products(__m512i* c, __m512i a, __m512i b) {
  __asm__("vdpbf16ps %2, %1, %0" : "+v"(*c) : "v"(a), "v"(b));
}

static inline __m512i both(Vec low, Vec high) {
  const __m512i upper = _mm512_slli_epi32(_mm512_cvtepu16_epi32(high.bf16()), 16);
  return _mm512_or_si512(_mm512_cvtepu16_epi32(low.bf16()), upper);
}

static inline __m512i pair(const uint32_t* p) { return _mm512_set1_epi32(static_cast<int32_t>(*p)); }

// As score_keys of encode_attention_kernel.h, over pairs of dimensions.
template <int R>
static inline Vec score_pairs(const uint32_t* queries, const uint32_t* keys, int64_t stride, int64_t pairs,
                              float* scores, Vec top) {
  __m512i dots[R];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) dots[r] = _mm512_setzero_si512();
  for (int64_t c = 0; c < pairs; ++c) {
    const __m512i query = _mm512_loadu_si512(queries + 16 * c);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) add_products(&dots[r], query, pair(keys + r * stride + c));
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
    const Vec dot = {_mm512_castsi512_ps(dots[r])};
    dot.store(scores + 16 * r);
    top = top.max(dot);
  }
  return top;
}

// As sum_values there, over pairs of keys; one vector of columns at a time.
template <int R>
static inline void sum_pairs(const uint32_t* weights, const uint32_t* values, int64_t wide, int64_t pairs,
                             const float* shares, float* out, int64_t out_stride, int64_t columns) {
  __m512i sums[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) sums[r] = _mm512_setzero_si512();
  for (int64_t j = 0; j < pairs; ++j) {
    const __m512i value = _mm512_loadu_si512(values + j * wide);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) add_products(&sums[r], pair(weights + 16 * j + r), value);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
    Vec{_mm512_castsi512_ps(sums[r])}.mul(Vec::all(shares[r])).store_n(out + r * out_stride, columns);
}

// As attention there, not causal, with products of bfloat16.
static void attend(const Attention& a) {
  const int64_t L = a.length, d = a.dims, wide = ceil16(d), half = (d + 1) / 2, stride = wide / 2, halves = (L + 1) / 2;
  uint32_t* keys = reinterpret_cast<uint32_t*>(a.scratch);  // [L][stride], pairs of dimensions
  uint32_t* values = keys + ceil16(L * stride);             // [halves][wide], pairs of keys
  uint32_t* queries = values + halves * wide;               // [half][16], pairs of dimensions
  float* lanes = reinterpret_cast<float*>(queries + 16 * half);  // [d][16]
  float* scores = lanes + 16 * d;                           // [L][16], then weights of pairs of keys in their place
  float* turned = scores + 16 * (L + 1);
  uint32_t* weights = reinterpret_cast<uint32_t*>(scores);
  alignas(64) float shares[16];
  if (a.relative)
    for (int64_t t = -L + 1; t < L + 16; ++t) turned[t + L - 1] = t < L ? a.relative[-t] : 0.0f;
  for (int64_t j = 0; j < L; ++j)
    for (int64_t c = 0; c < d; c += 16)
      Vec::load_n(a.k + j * a.kv_stride + c, d - c).store_bf16(reinterpret_cast<uint16_t*>(keys + j * stride) + c);
  for (int64_t j = 0; j < L; j += 2)
    for (int64_t c = 0; c < wide; c += 16) {
      const Vec next = j + 1 < L ? Vec::load_n(a.v + (j + 1) * a.kv_stride + c, d - c) : Vec::zero();
      _mm512_storeu_si512(values + j / 2 * wide + c, both(Vec::load_n(a.v + j * a.kv_stride + c, d - c), next));
    }
  for (int64_t row = 0; row < L; row += 16) {
    const int64_t used = L - row < 16 ? L - row : 16;
    to_lanes(a.q + row * a.q_stride, a.q_stride, used, d, Vec::all(a.scale), lanes);
    for (int64_t c = 0; c < half; ++c) {
      const Vec next = 2 * c + 1 < d ? Vec::load(lanes + 32 * c + 16) : Vec::zero();
      _mm512_storeu_si512(queries + 16 * c, both(Vec::load(lanes + 32 * c), next));
    }
    Vec top = Vec::all(-__builtin_inff());
    int64_t j = 0;
    for (; j + 12 <= L; j += 12) top = score_pairs<12>(queries, keys + j * stride, stride, half, scores + 16 * j, top);
    for (; j + 4 <= L; j += 4) top = score_pairs<4>(queries, keys + j * stride, stride, half, scores + 16 * j, top);
    for (; j < L; ++j) top = score_pairs<1>(queries, keys + j * stride, stride, half, scores + 16 * j, top);
    if (a.relative) {
      top = Vec::all(-__builtin_inff());
      for (j = 0; j < L; ++j) {
        const Vec score = Vec::load(scores + 16 * j).add(Vec::load(turned + row - j + L - 1));
        score.store(scores + 16 * j);
        top = top.max(score);
      }
    }
    Vec total = Vec::zero();
    for (j = 0; j < L; j += 2) {
      const Vec e = exponential(Vec::load(scores + 16 * j).sub(top));
      const Vec next = j + 1 < L ? exponential(Vec::load(scores + 16 * j + 16).sub(top)) : Vec::zero();
      total = total.add(e).add(next);
      _mm512_storeu_si512(weights + 8 * j, both(e, next));
    }
    Vec::all(1.0f).div(total).store(shares);
    for (int64_t c = 0; c < d; c += 16)
      for (int64_t i = 0; i < used;) {
        float* out = a.out + (row + i) * a.out_stride + c;
        const int64_t left = used - i;
        if (left >= 16) {
          sum_pairs<16>(weights, values + c, wide, halves, shares, out, a.out_stride, d - c);
          i += 16;
        } else if (left >= 4) {
          sum_pairs<4>(weights + i, values + c, wide, halves, shares + i, out, a.out_stride, d - c);
          i += 4;
        } else {
          sum_pairs<1>(weights + i, values + c, wide, halves, shares + i, out, a.out_stride, d - c);
          i += 1;
        }
      }
  }
}

}  // namespace enc_bf16
}  // namespace fastrec

#include "encode_linear_kernel.h"

namespace fastrec {

void attention_bf16_avx512(const Attention& a) { enc_bf16::attend(a); }

void linear_bf16_avx512(const Rows& x, int64_t rows, const Linear& w, float* out) {
  enc_bf16::linear<enc_bf16::SumsBf16>(x, rows, w, out);
}

}  // namespace fastrec
#endif

// Attention of one sequence and head by AMX: scores and values in tiles of bfloat16, the softmax in float32.
//
// In the split form every number is the sum of two bfloat16 and three of four products are taken, as in kLinearSplit.
#if defined(__x86_64__)
#define FASTREC_LEVEL enc_amx_attention

#include "encode.h"
#include "encode_vec512.h"
#include "encode_math.h"
#include "amx_tiles.h"

namespace fastrec {
namespace enc_amx_attention {

static inline int64_t ceil32(int64_t n) { return (n + 31) / 32 * 32; }

// 16 columns of 32 rows as the right operand of a tile product: row i of the tile has rows 2 i and 2 i + 1 in pairs.
static inline void store_pair(Vec even, Vec odd, uint16_t* to) {
  const __m512i low = _mm512_cvtepu16_epi32(even.bf16()), high = _mm512_cvtepu16_epi32(odd.bf16());
  _mm512_storeu_si512(to, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}

// Rows of 4-byte units turned: out[i][j] = in[j][i], 16 x 16.
static inline void turn(const uint32_t* in, uint32_t* out) {
  __m512i r[16], t[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i] = _mm512_load_si512(in + 16 * i);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  // r[4 g + c] has columns c, c + 4, c + 8, c + 12 of rows 4 g .. 4 g + 3, a lane each.
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512i a = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88), b = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);
    const __m512i d = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88), e = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
    _mm512_store_si512(out + 16 * c, _mm512_shuffle_i32x4(a, d, 0x88));
    _mm512_store_si512(out + 16 * (c + 8), _mm512_shuffle_i32x4(a, d, 0xdd));
    _mm512_store_si512(out + 16 * (c + 4), _mm512_shuffle_i32x4(b, e, 0x88));
    _mm512_store_si512(out + 16 * (c + 12), _mm512_shuffle_i32x4(b, e, 0xdd));
  }
}

// 16 rows of d floats, of which `rows` are there, as tiles of 32 columns; the low halves lie `low` behind the high ones.
template <bool Split>
static inline void to_tiles(const float* x, int64_t stride, int64_t rows, int64_t d, float factor, uint16_t* to,
                            int64_t low) {
  for (int64_t r = 0; r < 16; ++r)
    for (int64_t c = 0; c < ceil32(d); c += 16) {
      const Vec v = r < rows && c < d ? Vec::load_n(x + r * stride + c, d - c).mul(Vec::all(factor)) : Vec::zero();
      uint16_t* at = to + c / 32 * 512 + r * 32 + c % 32;
      v.store_bf16(at);
      if (Split) v.sub(Vec::load_bf16(at)).store_bf16(at + low);
    }
}

struct Room {
  uint16_t *queries, *turned, *keys, *values, *weights;
  float *scores, *sums;
};

// e^x for x <= 0, to 16 bits or, for the split form, to all 24.
template <bool Split>
static inline Vec power(Vec x) {
  if (Split) return exponential(x);
  x = x.max(Vec::all(-87.0f)).mul(Vec::all(1.44269504f));
  const Vec n = x.round(), f = x.sub(n);
  Vec p = Vec::all(0.0096181291f);
  p = Vec::all(0.0555041087f).fma(p, f);
  p = Vec::all(0.2402265070f).fma(p, f);
  p = Vec::all(0.6931471806f).fma(p, f);
  p = Vec::all(1.0f).fma(p, f);
  return p.scaled(n);
}

// Scores of 16 queries with 16 keys, summed over d.
template <bool Split>
static inline void score_tile(const Room& m, int64_t key, int64_t steps, int64_t low_q, int64_t low_k, int64_t keys) {
  _tile_zero(0);
  for (int64_t s = 0; s < steps; ++s) {
    const uint16_t* k = m.keys + (key / 16 * steps + s) * 512;
    const uint16_t* q = m.queries + s * 512;
    _tile_loadd(4, q, 64);
    _tile_loadd(5, k, 64);
    _tile_dpbf16ps(0, 4, 5);
    if (Split) {
      _tile_loadd(6, k + low_k, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, q + low_q, 64);
      _tile_dpbf16ps(0, 7, 5);
    }
  }
  _tile_stored(0, m.scores + key, 4 * keys);
}

// 16 columns of the weighted sums of 16 queries.
template <bool Split>
static inline void sum_tile(const Room& m, int64_t column, int64_t wide, int64_t low_v, int64_t keys) {
  _tile_zero(1);
  for (int64_t s = 0; s < keys / 32; ++s) {
    const uint16_t* v = m.values + (column / 16 * (keys / 32) + s) * 512;
    const uint16_t* w = m.weights + 32 * s;
    _tile_loadd(4, w, 2 * keys);
    _tile_loadd(5, v, 64);
    _tile_dpbf16ps(1, 4, 5);
    if (Split) {
      _tile_loadd(6, v + low_v, 64);
      _tile_dpbf16ps(1, 4, 6);
      _tile_loadd(7, w + 16 * keys, 2 * keys);
      _tile_dpbf16ps(1, 7, 5);
    }
  }
  _tile_stored(1, m.sums + column, 4 * wide);
}

template <bool Split>
static void attend(const Attention& a) {
  const int64_t L = a.length, d = a.dims, keys = ceil32(L), steps = ceil32(d) / 32, wide = ceil16(d);
  const int64_t low_q = 512 * steps, low_k = keys * 32 * steps, low_v = keys * wide;
  constexpr int64_t kTimes = Split ? 2 : 1;
  Room m;
  m.queries = reinterpret_cast<uint16_t*>(a.scratch);
  m.turned = m.queries + kTimes * low_q;
  m.keys = m.turned + kTimes * low_q;
  m.values = m.keys + kTimes * low_k;
  m.weights = m.values + kTimes * low_v;
  m.scores = reinterpret_cast<float*>(m.weights + kTimes * 16 * keys);
  m.sums = m.scores + 16 * keys;
  const TileConfig config;
  _tile_loadconfig(&config);

  for (int64_t j = 0; j < keys; j += 16) {
    const int64_t rows = L - j < 16 ? (L - j > 0 ? L - j : 0) : 16;
    to_tiles<Split>(a.k + j * a.kv_stride, a.kv_stride, rows, d, 1.0f, m.turned, low_q);
    for (int64_t s = 0; s < steps; ++s)
      for (int64_t half = 0; half < kTimes; ++half)
        turn(reinterpret_cast<const uint32_t*>(m.turned + half * low_q + 512 * s),
             reinterpret_cast<uint32_t*>(m.keys + half * low_k + (j / 16 * steps + s) * 512));
  }
  for (int64_t j = 0; j < keys; j += 2)
    for (int64_t c = 0; c < wide; c += 16) {
      const Vec even = j < L ? Vec::load_n(a.v + j * a.kv_stride + c, d - c) : Vec::zero();
      const Vec odd = j + 1 < L ? Vec::load_n(a.v + (j + 1) * a.kv_stride + c, d - c) : Vec::zero();
      uint16_t* to = m.values + (c / 16 * (keys / 32) + j / 32) * 512 + j % 32 / 2 * 32;
      store_pair(even, odd, to);
      if (Split) store_pair(even.sub(even.rounded()), odd.sub(odd.rounded()), to + low_v);
    }

  for (int64_t row = 0; row < L; row += 16) {
    const int64_t here = L - row < 16 ? L - row : 16;
    to_tiles<Split>(a.q + row * a.q_stride, a.q_stride, here, d, a.scale, m.queries, low_q);
    for (int64_t key = 0; key < keys; key += 16) score_tile<Split>(m, key, steps, low_q, low_k, keys);
    float totals[16];
    for (int64_t i = 0; i < here; ++i) {
      float* score = m.scores + i * keys;
      if (a.relative)
        for (int64_t j = 0; j < L; j += 16)
          Vec::load_n(score + j, L - j).add(Vec::load_n(a.relative - (row + i) + j, L - j)).store_n(score + j, L - j);
      for (int64_t j = L; j < keys; ++j) score[j] = -__builtin_inff();
      Vec top = Vec::load(score).max(Vec::load(score + 16));
      for (int64_t j = 32; j < keys; j += 32) top = top.max(Vec::load(score + j)).max(Vec::load(score + j + 16));
      const Vec peak = Vec::all(top.largest());
      Vec total = Vec::zero();
      uint16_t* weight = m.weights + i * keys;
      for (int64_t j = 0; j < keys; j += 16) {
        // Beyond the last key e^-inf is not quite 0: the values there are.
        Vec e = power<Split>(Vec::load(score + j).sub(peak));
        if (j + 16 > L) e = e.first(L - j);
        total = total.add(e);
        e.store_bf16(weight + j);
        if (Split) e.sub(Vec::load_bf16(weight + j)).store_bf16(weight + 16 * keys + j);
      }
      totals[i] = total.sum();
    }
    for (int64_t c = 0; c < wide; c += 16) sum_tile<Split>(m, c, wide, low_v, keys);
    for (int64_t i = 0; i < here; ++i) {
      const Vec share = Vec::all(1.0f / totals[i]);
      for (int64_t c = 0; c < d; c += 16)
        Vec::load(m.sums + i * wide + c).mul(share).store_n(a.out + (row + i) * a.out_stride + c, d - c);
    }
  }
  _tile_release();
}

}  // namespace enc_amx_attention

void attention_bf16_amx(const Attention& a) { enc_amx_attention::attend<false>(a); }

void attention_split_amx(const Attention& a) { enc_amx_attention::attend<true>(a); }

}  // namespace fastrec
#endif

// The level that every machine has, for the encoder: plain loops.
#include <stdint.h>

#include "encode.h"

#define FASTREC_LEVEL enc_scalar

namespace fastrec {
namespace enc_scalar {

#define FASTREC_EACH(expression)                 \
  Vec out;                                       \
  for (int i = 0; i < 16; ++i) out.v[i] = expression; \
  return out

struct Vec {
  static constexpr bool kTransposes = false;
  static inline void transpose(const float* const*, int64_t, float*) {}
  float v[16];
  static inline Vec zero() { return all(0.0f); }
  static inline Vec all(float x) { FASTREC_EACH(x); }
  static inline Vec load(const float* p) { FASTREC_EACH(p[i]); }
  static inline Vec load_n(const float* p, int64_t n) { FASTREC_EACH(i < n ? p[i] : 0.0f); }
  inline void store(float* p) const { store_n(p, 16); }
  inline void store_n(float* p, int64_t n) const {
    for (int i = 0; i < 16 && i < n; ++i) p[i] = v[i];
  }
  inline Vec add(const Vec& o) const { FASTREC_EACH(v[i] + o.v[i]); }
  inline Vec sub(const Vec& o) const { FASTREC_EACH(v[i] - o.v[i]); }
  inline Vec mul(const Vec& o) const { FASTREC_EACH(v[i] * o.v[i]); }
  inline Vec div(const Vec& o) const { FASTREC_EACH(v[i] / o.v[i]); }
  inline Vec over(const Vec& o) const { return div(o); }
  inline Vec fma(const Vec& a, const Vec& b) const { FASTREC_EACH(v[i] + a.v[i] * b.v[i]); }
  inline Vec max(const Vec& o) const { FASTREC_EACH(v[i] > o.v[i] ? v[i] : o.v[i]); }
  inline Vec min(const Vec& o) const { FASTREC_EACH(v[i] < o.v[i] ? v[i] : o.v[i]); }
  inline Vec abs() const { FASTREC_EACH(__builtin_fabsf(v[i])); }
  inline Vec round() const { FASTREC_EACH(__builtin_rintf(v[i])); }
  inline Vec scaled(const Vec& n) const {
    FASTREC_EACH(n.v[i] == n.v[i] ? __builtin_scalbnf(v[i], static_cast<int>(n.v[i])) : n.v[i]);
  }
  inline Vec with_sign_of(const Vec& o) const { FASTREC_EACH(__builtin_copysignf(v[i], o.v[i])); }
  inline float sum() const {
    float s = 0.0f;
    for (int i = 0; i < 16; ++i) s += v[i];
    return s;
  }
  inline float largest() const {
    float s = v[0];
    for (int i = 1; i < 16; ++i) s = s > v[i] ? s : v[i];
    return s;
  }
  inline float smallest() const {
    float s = v[0];
    for (int i = 1; i < 16; ++i) s = s < v[i] ? s : v[i];
    return s;
  }
  inline void store_codes(uint8_t* p) const {
    for (int i = 0; i < 16; ++i) p[i] = static_cast<uint8_t>(v[i]);
  }
  inline void store_words(int16_t* p) const {
    for (int i = 0; i < 16; ++i) p[i] = static_cast<int16_t>(v[i]);
  }
  static inline Vec load_bf16(const uint16_t* p) {
    Vec out;
    for (int i = 0; i < 16; ++i) {
      const uint32_t bits = static_cast<uint32_t>(p[i]) << 16;
      __builtin_memcpy(&out.v[i], &bits, 4);
    }
    return out;
  }
  inline void store_bf16(uint16_t* p) const {
    for (int i = 0; i < 16; ++i) {
      uint32_t bits;
      __builtin_memcpy(&bits, &v[i], 4);
      p[i] = static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }
  }
};

static constexpr int kKeys = 4;
static constexpr int kValueRows = 4, kValueColumns = 1;

struct Tile {
  static constexpr int kRows = 4, kPanels = 1;
  static constexpr int64_t kUnit = 1, kBlock = 256;
  static constexpr bool kFresh = false;
  using Panel = const char*;
  static inline Panel panel(const char* p) { return p; }
  static inline const char* input(const char* x) { return x; }
};

struct SumsF32 : Tile {
  Vec v;
  static constexpr Codes kCodes = Codes::kNone;
  static inline SumsF32 zero() { return {{}, Vec::zero()}; }
  static inline SumsF32 load_n(const float* p, int64_t n) { return {{}, Vec::load_n(p, n)}; }
  inline void store_n(float* p, int64_t n) const { v.store_n(p, n); }
  inline void add(const char* x, Panel b) {
    v = v.fma(Vec::all(*reinterpret_cast<const float*>(x)), Vec::load(reinterpret_cast<const float*>(b)));
  }
  inline Vec value() const { return v; }
};

// Pairs of bfloat16, in order.
struct SumsBf16 : SumsF32 {
  static inline SumsBf16 zero() { return {SumsF32::zero()}; }
  static inline SumsBf16 load_n(const float* p, int64_t n) { return {SumsF32::load_n(p, n)}; }
  static inline float wide(const char* p) {
    uint16_t half;
    __builtin_memcpy(&half, p, 2);
    const uint32_t bits = static_cast<uint32_t>(half) << 16;
    float value;
    __builtin_memcpy(&value, &bits, 4);
    return value;
  }
  inline void add(const char* x, Panel b) {
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 2; ++j) v.v[i] += wide(x + 2 * j) * wide(b + 4 * i + 2 * j);
  }
};

// Sums in int32, moved as bits.
struct SumsInt8 : Tile {
  int32_t v[16];
  static constexpr Codes kCodes = Codes::kInt8;
  static inline SumsInt8 zero() { return {}; }
  static inline SumsInt8 load_n(const float* p, int64_t n) {
    SumsInt8 out = {};
    __builtin_memcpy(out.v, p, 4 * (n < 16 ? n : 16));
    return out;
  }
  inline void store_n(float* p, int64_t n) const { __builtin_memcpy(p, v, 4 * (n < 16 ? n : 16)); }
  inline void add(const char* x, Panel b) {
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 4; ++j)
        v[i] += static_cast<int32_t>(static_cast<uint8_t>(x[j])) * static_cast<int8_t>(b[4 * i + j]);
  }
  inline Vec value() const { FASTREC_EACH(static_cast<float>(v[i])); }
};

struct SumsInt16 : Tile {
  int32_t v[16];
  static constexpr Codes kCodes = Codes::kInt16;
  static constexpr int64_t kBlock = kInt16Steps;
  static constexpr bool kFresh = true;
  static inline SumsInt16 zero() { return {}; }
  static inline SumsInt16 load_n(const float*, int64_t) { return {}; }
  inline void store_n(float*, int64_t) const {}
  static inline int32_t word(const char* p) {
    int16_t value;
    __builtin_memcpy(&value, p, 2);
    return value;
  }
  inline void add(const char* x, Panel b) {
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 2; ++j) v[i] += word(x + 2 * j) * word(b + 4 * i + 2 * j);
  }
  inline Vec value() const { FASTREC_EACH(static_cast<float>(v[i])); }
};

}  // namespace enc_scalar
}  // namespace fastrec

#include "encode_attention_kernel.h"
#include "encode_kernel.h"
#include "encode_linear_kernel.h"

namespace fastrec {

const EncodeKernel encode_scalar = {
    "scalar", 255, false, enc_scalar::linear<enc_scalar::SumsF32>, enc_scalar::linear<enc_scalar::SumsInt8>,
    enc_scalar::linear<enc_scalar::SumsInt16>, enc_scalar::linear<enc_scalar::SumsBf16>, nullptr,
    enc_scalar::quantize, enc_scalar::to_int16, enc_scalar::to_bf16, enc_scalar::split, enc_scalar::bias_gelu,
    enc_scalar::add_layer_norm, enc_scalar::attention, enc_scalar::attention, enc_scalar::attention,
    enc_scalar::row_sum};

}  // namespace fastrec

#include <algorithm>
#include <cmath>
#include <cstring>

#include "topk_bounds.h"

namespace fastrec {
namespace {

constexpr int64_t kPanelsPerTask = 16;
// Calls body(panel) for every panel.
template <typename Body>
void for_panels(int64_t n_panels, int threads, const Body& body) {
  parallel_for((n_panels + kPanelsPerTask - 1) / kPanelsPerTask, threads, [&](int64_t task) {
    for (int64_t p = task * kPanelsPerTask; p < std::min(n_panels, (task + 1) * kPanelsPerTask); ++p) body(p);
  });
}

// The nearest bfloat16, ties to even, and the largest finite one instead of infinity.
inline uint16_t to_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  return static_cast<uint16_t>(((rounded & 0x7fffffffu) >= 0x7f800000u ? bits : rounded) >> 16);
}

inline float from_bf16(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

}  // namespace

// The scale of an item is its largest coordinate over 127, but normal, so that codes have errors of at most 1/2.
void screen_int8(const float* panels, int64_t n_panels, int64_t dims, uint8_t* codes, float* scales, float* errors,
                 int threads) {
  const int64_t steps = (dims + 3) / 4;
  const float least = std::ldexp(1.0f, -100);
  for_panels(n_panels, threads, [&](int64_t p) {
    const float* panel = panels + p * dims * kLanes;
    uint8_t* out = codes + p * steps * 4 * kLanes;
    std::memset(out, 128, steps * 4 * kLanes);
    double error = 0.0, norm = 0.0;
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      float most = 0.0f;
      for (int64_t d = 0; d < dims; ++d) most = std::max(most, std::fabs(panel[d * kLanes + lane]));
      const float scale = std::max(most / 127.0f, least);
      double off = 0.0, square = 0.0;
      for (int64_t d = 0; d < dims; ++d) {
        const float value = panel[d * kLanes + lane];
        const float code = std::min(std::max(std::nearbyintf(value / scale), -127.0f), 127.0f);
        const double rest = static_cast<double>(value) / static_cast<double>(scale) - static_cast<double>(code);
        off += rest * rest;
        square += static_cast<double>(code) * static_cast<double>(code);
        out[((d / 4) * kLanes + lane) * 4 + d % 4] = static_cast<uint8_t>(128 + static_cast<int>(code));
      }
      scales[p * kLanes + lane] = scale;
      error = std::max(error, off);
      norm = std::max(norm, square);
    }
    errors[2 * p] = up(std::sqrt(error));
    errors[2 * p + 1] = up(std::sqrt(norm));
  });
}

void screen_bf16(const float* panels, int64_t n_panels, int64_t dims, uint16_t* codes, float* scales, float* errors,
                 int threads) {
  const int64_t steps = (dims + 1) / 2;
  for_panels(n_panels, threads, [&](int64_t p) {
    const float* panel = panels + p * dims * kLanes;
    uint16_t* out = codes + p * steps * 2 * kLanes;
    std::memset(out, 0, steps * 2 * kLanes * sizeof(uint16_t));
    double error = 0.0, norm = 0.0;
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      double off = 0.0, square = 0.0;
      for (int64_t d = 0; d < dims; ++d) {
        const float value = panel[d * kLanes + lane];
        const uint16_t code = to_bf16(value);
        const double rounded = from_bf16(code), rest = static_cast<double>(value) - rounded;
        off += rest * rest;
        square += rounded * rounded;
        out[((d / 2) * kLanes + lane) * 2 + d % 2] = code;
      }
      scales[p * kLanes + lane] = 1.0f;
      error = std::max(error, off);
      norm = std::max(norm, square);
    }
    errors[2 * p] = up(std::sqrt(error));
    errors[2 * p + 1] = up(std::sqrt(norm));
  });
}

}  // namespace fastrec

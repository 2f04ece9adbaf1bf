#include <algorithm>
#include <cmath>

#include "topk_bounds.h"

namespace fastrec {
namespace {

constexpr int64_t kPanelsPerTask = 16;

// What the codes of an item are away from it, and how long they are.
struct Lengths {
  double off = 0.0, square = 0.0;
};

// Calls code(item, panel, lane) -> Lengths for every item; errors [panels, 2] receive the largest lengths of a panel.
template <typename Code>
void for_items(const float* items, int64_t n, int64_t dims, float* errors, int threads, const Code& code) {
  const int64_t n_panels = (n + kLanes - 1) / kLanes;
  parallel_for((n_panels + kPanelsPerTask - 1) / kPanelsPerTask, threads, [&](int64_t task) {
    for (int64_t p = task * kPanelsPerTask; p < std::min(n_panels, (task + 1) * kPanelsPerTask); ++p) {
      Lengths most;
      for (int64_t lane = 0; lane < std::min<int64_t>(kLanes, n - p * kLanes); ++lane) {
        const Lengths item = code(items + (p * kLanes + lane) * dims, p, lane);
        most.off = std::max(most.off, item.off);
        most.square = std::max(most.square, item.square);
      }
      errors[2 * p] = up(std::sqrt(most.off));
      errors[2 * p + 1] = up(std::sqrt(most.square));
    }
  });
}

}  // namespace

// The scale of an item is its largest coordinate over 127, but normal, so that codes have errors of at most 1/2.
void screen_int8(const float* items, int64_t n, int64_t dims, uint8_t* codes, float* scales, float* errors,
                 int threads) {
  const int64_t size = (dims + 3) / 4 * 4 * kLanes, n_panels = (n + kLanes - 1) / kLanes;
  const float least = std::ldexp(1.0f, -100);
  std::fill(scales, scales + n_panels * kLanes, least);
  if (n_panels > 0) std::fill_n(codes + (n_panels - 1) * size, size, uint8_t{128});
  for_items(items, n, dims, errors, threads, [&](const float* item, int64_t p, int64_t lane) {
    uint8_t* out = codes + p * size + 4 * lane;
    float most = 0.0f;
    for (int64_t d = 0; d < dims; ++d) most = std::max(most, std::fabs(item[d]));
    const float scale = std::max(most / 127.0f, least);
    Lengths lengths;
    for (int64_t d = 0; d < dims; ++d) {
      const float code = std::min(std::max(std::nearbyintf(item[d] / scale), -127.0f), 127.0f);
      const double rest = static_cast<double>(item[d]) / static_cast<double>(scale) - static_cast<double>(code);
      lengths.off += rest * rest;
      lengths.square += static_cast<double>(code) * static_cast<double>(code);
      out[d / 4 * 4 * kLanes + d % 4] = static_cast<uint8_t>(128 + static_cast<int>(code));
    }
    for (int64_t d = dims; d % 4 != 0; ++d) out[d / 4 * 4 * kLanes + d % 4] = 128;
    scales[p * kLanes + lane] = scale;
    return lengths;
  });
}

void screen_bf16(const float* items, int64_t n, int64_t dims, uint16_t* codes, float* scales, float* errors,
                 int threads) {
  const int64_t size = (dims + 1) / 2 * 2 * kLanes, n_panels = (n + kLanes - 1) / kLanes;
  std::fill(scales, scales + n_panels * kLanes, 1.0f);
  if (n_panels > 0) std::fill_n(codes + (n_panels - 1) * size, size, uint16_t{0});
  for_items(items, n, dims, errors, threads, [&](const float* item, int64_t p, int64_t lane) {
    uint16_t* out = codes + p * size + 2 * lane;
    Lengths lengths;
    for (int64_t d = 0; d < dims; ++d) {
      const uint16_t code = to_bf16(item[d]);
      const double rounded = from_bf16(code), rest = static_cast<double>(item[d]) - rounded;
      lengths.off += rest * rest;
      lengths.square += rounded * rounded;
      out[d / 2 * 2 * kLanes + d % 2] = code;
    }
    if (dims % 2 != 0) out[dims / 2 * 2 * kLanes + 1] = 0;
    return lengths;
  });
}

}  // namespace fastrec

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "ops.h"

namespace fastrec {
namespace {

// The nearest IEEE half of a float64, ties to even: by way of float32 it would be rounded twice.
uint16_t to_half(double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, 8);
  const uint16_t sign = static_cast<uint16_t>(bits >> 48 & 0x8000u);
  const double size = std::fabs(x);
  if (std::isnan(x)) return sign | 0x7e00u;
  if (size >= 65520.0) return sign | 0x7c00u;
  if (size < std::ldexp(1.0, -14)) {
    const uint16_t steps = static_cast<uint16_t>(std::nearbyint(std::ldexp(size, 24)));
    return steps == 0 ? 0 : sign | steps;  // no negative zero
  }
  const int exponent = static_cast<int>(bits >> 52 & 0x7ff) - 1023;
  // A mantissa that is rounded up to 2^10 carries into the exponent, as it should.
  const double mantissa = std::nearbyint(std::ldexp(size, 10 - exponent)) - 1024.0;
  return sign | static_cast<uint16_t>(((exponent + 15) << 10) + static_cast<int>(mantissa));
}

}  // namespace

void fuse_features(const std::vector<FeaturePart>& parts, int64_t B, bool normalize, bool half, int threads, void* out,
                   Stop& stop) {
  constexpr int64_t kPerTask = 256;
  int64_t dims = 0;
  for (const FeaturePart& part : parts) dims += part.dims;
  parallel_for((B + kPerTask - 1) / kPerTask, threads, [&](int64_t task) {
    stop.check();
    std::vector<double> fused(dims);
    for (int64_t b = task * kPerTask; b < std::min(B, (task + 1) * kPerTask); ++b) {
      double* to = fused.data();
      for (const FeaturePart& part : parts) {
        const float* row = part.values + (part.rows == nullptr ? b : part.rows[b]) * part.dims;
        const double scale = part.scales == nullptr ? 1.0 : part.scales[b];
        for (int64_t d = 0; d < part.dims; ++d) to[d] = scale * static_cast<double>(row[d]);
        to += part.dims;
      }
      if (normalize) {
        double square = 0.0;
        for (int64_t d = 0; d < dims; ++d) square += fused[d] * fused[d];
        const double norm = std::sqrt(square);
        for (int64_t d = 0; d < dims && norm > 0.0; ++d) fused[d] /= norm;
      }
      if (half) {
        uint16_t* row = static_cast<uint16_t*>(out) + b * dims;
        for (int64_t d = 0; d < dims; ++d) row[d] = to_half(fused[d]);
      } else {
        float* row = static_cast<float*>(out) + b * dims;
        for (int64_t d = 0; d < dims; ++d) row[d] = static_cast<float>(fused[d]) + 0.0f;
      }
    }
  });
}

}  // namespace fastrec

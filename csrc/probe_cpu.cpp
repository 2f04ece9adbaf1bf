#include <chrono>

#include "ops.h"

namespace fastrec {

std::pair<double, double> probe(const float* values, int64_t n, int64_t rounds, int threads, const Kernel& level) {
  using Clock = std::chrono::steady_clock;
  std::atomic<int> sink{0};
  const auto seconds = [&](const std::function<float(int64_t)>& body) {
    const auto start = Clock::now();
    parallel_for(threads, threads, [&](int64_t t) {
      if (body(t) == 1.25f) sink.fetch_add(1);
    });
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  const int64_t part = n / threads / 64 * 64;
  const double flops = 2.0 * 24 * kLanes * static_cast<double>(rounds) * threads;
  const double bytes = 4.0 * static_cast<double>(part) * threads;
  return {flops / seconds([&](int64_t) { return level.probe_fma(rounds); }),
          bytes / seconds([&](int64_t t) { return level.probe_read(values + t * part, part); })};
}

}  // namespace fastrec

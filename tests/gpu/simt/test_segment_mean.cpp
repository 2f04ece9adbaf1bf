// segment_mean against its definition in float64; without normalisation the same bits.
#include <sys/mman.h>

#include "support.h"

namespace {

using namespace fastrec::cuda;

void run(int64_t B, int64_t N, int64_t D, int most, bool normalize, int levels) {
  ++cases;
  Dice dice(static_cast<unsigned>(B + D));
  std::vector<float> values(static_cast<size_t>(N * D));
  for (float& v : values) v = draw(dice, levels);
  const HostLists segments(dice, B, N, most, levels, true);
  const Device<float> d_values(values), out(static_cast<size_t>(B * D));
  const DeviceLists d_segments(segments);
  ok(segment_mean(d_values.p, D, d_segments.view(), B, normalize, out.p, nullptr));
  const std::vector<float> got = out.host();
  for (int64_t b = 0; b < B; ++b) {
    std::vector<double> total(D, 0.0);
    double weights = 0.0, square = 0.0;
    for (int64_t e = segments.indptr[b]; e < segments.indptr[b + 1]; ++e) {
      for (int64_t d = 0; d < D; ++d)
        total[d] += double{segments.values[e]} * double{values[segments.rows[e] * D + d]};
      weights += double{segments.values[e]};
    }
    for (double t : total) square += t * t;
    const double divisor = normalize ? std::sqrt(square) : weights;
    for (int64_t d = 0; d < D; ++d) {
      const float want = divisor == 0.0 ? 0.0f : static_cast<float>(total[d] / divisor) + 0.0f;
      const float v = got[b * D + d];
      const float tolerance = normalize ? 1e-6f : 0.0f;  // squares are summed in another order
      CHECK(std::fabs(v - want) <= tolerance && !(v == 0.0f && std::signbit(v)), "B=%d D=%d segment %d column %d: %g, expected %g", static_cast<int>(B),
            static_cast<int>(D), static_cast<int>(b), static_cast<int>(d), double{v}, double{want});
    }
  }
}

// A row that lies beyond 2^31 elements.
void run_far_rows() {
  ++cases;
  HostLists one;
  const int64_t D = 1 << 10, row = (int64_t{1} << 21) + 5;
  const size_t bytes = static_cast<size_t>((row + 1) * D) * sizeof(float);
#ifndef __CUDACC__
  // Reserved, not filled: only the pages that are touched come to exist.
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(p != MAP_FAILED, "no address space for the far row");
  float* values = static_cast<float*>(p);
  std::fill(values + row * D, values + (row + 1) * D, 2.0f);
  one.indptr = {0, 1}, one.rows = {static_cast<int32_t>(row)}, one.values = {3.0f};
  const DeviceLists segments(one);
  const Device<float> out(D);
  ok(segment_mean(values, D, segments.view(), 1, false, out.p, nullptr));
  for (float v : out.host()) CHECK(v == 2.0f, "%g", double{v});
  munmap(p, bytes);
#else
  static_cast<void>(bytes);
#endif
}

void run_all() {
  run(0, 3, 2, 2, true, 0);
  run(1, 1, 1, 1, false, 0);
  run(9, 17, 5, 12, true, 0);
  run(9, 17, 5, 12, false, 0);
  run(7, 31, 130, 6, true, 1);
  run(7, 31, 300, 6, false, 1);  // weights that add up to 0
  run_far_rows();
  {
    ++cases;
    const cudaError_t e = segment_mean(nullptr, kMostDims + 1, {}, 1, true, nullptr, nullptr);
    CHECK(e == cudaErrorInvalidValue, "too wide");
  }
}

}  // namespace

int main(int argc, char** argv) { return over_seeds(argc, argv, run_all); }

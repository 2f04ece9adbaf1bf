// What the tests of the CUDA kernels share: device buffers, random data, and the loop over scheduling seeds.
//
//   test_NAME [first_seed last_seed]
// Built by g++ against the emulator a test runs once per seed; built by nvcc it runs on a GPU, or ends with 77 (skipped)
// where there is none.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <vector>

#include "ops_cuda.h"

#define CHECK(condition, ...)                         \
  do {                                                \
    if (!(condition)) {                               \
      std::printf("FAILED %s: ", #condition);         \
      std::printf(__VA_ARGS__);                       \
      std::printf(" (%s:%d)\n", __FILE__, __LINE__);  \
      std::exit(1);                                   \
    }                                                 \
  } while (0)

inline void ok(cudaError_t e) { CHECK(e == cudaSuccess, "%s", cudaGetErrorString(e)); }

// A device buffer of exactly n elements. Fresh memory is all 0xFF: NaN as a float, -1 as an integer.
template <class T>
struct Device {
  T* p = nullptr;
  size_t n;
  explicit Device(size_t n_) : n(n_) {
    ok(cudaMalloc(reinterpret_cast<void**>(&p), n * sizeof(T)));
    ok(cudaMemset(p, 0xFF, n * sizeof(T)));
  }
  explicit Device(const std::vector<T>& host) : Device(host.size()) {
    ok(cudaMemcpy(p, host.data(), n * sizeof(T), cudaMemcpyHostToDevice));
  }
  Device(const Device&) = delete;
  ~Device() { cudaFree(p); }
  std::vector<T> host() const {
    ok(cudaDeviceSynchronize());
    std::vector<T> out(n);
    ok(cudaMemcpy(out.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost));
    return out;
  }
};

inline float widen(float v) { return v; }
inline float widen(__half v) { return __half2float(v); }
inline float widen(__nv_bfloat16 v) { return __bfloat162float(v); }
inline void narrow(float f, float& out) { out = f; }
inline void narrow(float f, __half& out) { out = __float2half(f); }
inline void narrow(float f, __nv_bfloat16& out) { out = __float2bfloat16(f); }

using Dice = std::mt19937;

// Reals in [-1, 1], or with levels > 0 whole numbers in [-levels, levels]: then ties abound.
inline float draw(Dice& dice, int levels) {
  if (levels > 0) return static_cast<float>(std::uniform_int_distribution<int>(-levels, levels)(dice));
  return std::uniform_real_distribution<float>(-1.0f, 1.0f)(dice);
}

// Ascending rows for each of n_rows; their number is random up to `most`.
struct HostLists {
  std::vector<int64_t> indptr{0};
  std::vector<int32_t> rows;
  std::vector<float> values;
  HostLists() = default;
  HostLists(Dice& dice, int64_t n_rows, int64_t n_cols, int most, int levels, bool repeats = false) {
    for (int64_t r = 0; r < n_rows; ++r) {
      const int n = n_cols == 0 ? 0 : std::uniform_int_distribution<int>(0, most)(dice);
      std::vector<int32_t> own;
      for (int i = 0; i < n; ++i)
        own.push_back(static_cast<int32_t>(std::uniform_int_distribution<int64_t>(0, n_cols - 1)(dice)));
      std::sort(own.begin(), own.end());
      if (!repeats) own.erase(std::unique(own.begin(), own.end()), own.end());
      rows.insert(rows.end(), own.begin(), own.end());
      indptr.push_back(static_cast<int64_t>(rows.size()));
    }
    for (size_t i = 0; i < rows.size(); ++i) values.push_back(draw(dice, levels));
  }
  bool contains(int64_t r, int32_t row) const {
    return std::binary_search(rows.begin() + indptr[r], rows.begin() + indptr[r + 1], row);
  }
};

struct DeviceLists {
  Device<int64_t> indptr;
  Device<int32_t> rows;
  Device<float> values;
  explicit DeviceLists(const HostLists& lists) : indptr(lists.indptr), rows(lists.rows), values(lists.values) {}
  fastrec::cuda::Lists view() const { return {indptr.p, rows.p, values.p}; }
};

// Cases that passed; whoever runs one counts it.
inline int cases = 0;

// `run` runs all cases.
template <class Run>
int over_seeds(int argc, char** argv, const Run& run) {
  const int first = argc > 2 ? std::atoi(argv[1]) : 0;
  const int last = argc > 2 ? std::atoi(argv[2]) : 0;
#ifdef __CUDACC__
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device\n");
    return 77;
  }
#endif
  for (int seed = first; seed <= last; ++seed) {
#ifndef __CUDACC__
    simt::set_seed(static_cast<uint64_t>(seed));
#endif
    run();
  }
  std::printf("%d cases passed, seeds %d to %d\n", cases, first, last);
  return 0;
}

// NH, the universal hash of UMAC (Black, Halevi, Krawczyk, Krovetz and Rogaway 1999, RFC 4418): words and key are added
// by 32 bits, multiplied in pairs and summed up by 64. Two blocks that differ have equal sums with a chance of 2^-32 a
// pass, whatever the difference is; the second pass takes the key from four words further on (the Toeplitz construction).
#include <algorithm>
#include <cstring>

#include "ops.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fastrec {

namespace {

constexpr int64_t kWords = kSumBlock / 4;
constexpr int kShift = 4;
using Sums = void (*)(const uint8_t* block, const uint32_t* key, uint64_t* out);

void sums_scalar(const uint8_t* block, const uint32_t* key, uint64_t* out) {
  uint64_t first = 0, second = 0;
  for (int64_t i = 0; i < kWords; i += 2) {
    uint32_t m[2];
    std::memcpy(m, block + 4 * i, 8);
    first += uint64_t{m[0] + key[i]} * uint64_t{m[1] + key[i + 1]};
    second += uint64_t{m[0] + key[i + kShift]} * uint64_t{m[1] + key[i + kShift + 1]};
  }
  out[0] = first, out[1] = second;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) __m256i product(__m256i m, const uint32_t* key) {
  const __m256i t = _mm256_add_epi32(m, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(key)));
  return _mm256_mul_epu32(t, _mm256_srli_epi64(t, 32));
}

__attribute__((target("avx2"))) uint64_t lanes(__m256i sum) {
  alignas(32) uint64_t part[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(part), sum);
  return part[0] + part[1] + part[2] + part[3];
}

__attribute__((target("avx2"))) void sums_avx2(const uint8_t* block, const uint32_t* key, uint64_t* out) {
  __m256i first = _mm256_setzero_si256(), second = first;
  for (int64_t i = 0; i < kWords; i += 8) {
    const __m256i m = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + 4 * i));
    first = _mm256_add_epi64(first, product(m, key + i));
    second = _mm256_add_epi64(second, product(m, key + i + kShift));
  }
  out[0] = lanes(first), out[1] = lanes(second);
}
#endif

Sums best() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return sums_avx2;
#endif
  return sums_scalar;
}

}  // namespace

void block_sums(const uint8_t* data, int64_t bytes, const uint32_t* key, int threads, bool simd, uint64_t* out,
                Stop& stop) {
  constexpr int64_t kPerTask = 512;  // blocks: 2 MB
  const Sums sums = simd ? best() : sums_scalar;
  const int64_t n = (bytes + kSumBlock - 1) / kSumBlock;
  parallel_for((n + kPerTask - 1) / kPerTask, threads, [&](int64_t task) {
    stop.check();
    for (int64_t b = task * kPerTask; b < std::min(n, (task + 1) * kPerTask); ++b) {
      const int64_t left = bytes - b * kSumBlock;
      if (left >= kSumBlock) {
        sums(data + b * kSumBlock, key, out + 2 * b);
      } else {
        uint8_t padded[kSumBlock] = {};
        std::memcpy(padded, data + b * kSumBlock, left);
        sums(padded, key, out + 2 * b);
      }
    }
  });
}

}  // namespace fastrec

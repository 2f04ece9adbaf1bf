// simt.hpp -- CUDA on a CPU, for tests: the kernels of csrc/*.cu under g++ and its sanitizers.
//
// Every thread of a block is a fiber, blocks run one after the other, and the order in which fibers run between two
// synchronisation points is drawn from a seed. csrc/cuda_utils.cuh has the few macros that let one source be compiled
// by nvcc and by g++; it includes this file under g++ only.
// Not offered on purpose: __activemask() (no kernel may depend on it), inline PTX, textures, and threads that return
// before a barrier that the others reach.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
// Inlined for certain, as nvcc does: TSan sees no read of a struct passed by value to a real call.
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// ---- the runtime API, as far as a launcher and its test need it
using cudaStream_t = struct CUstream_st*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
cudaError_t cudaMalloc(void** p, size_t bytes);  // exact size, filled with 0xFF (NaN, -1)
cudaError_t cudaFree(void* p);
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind);
cudaError_t cudaMemset(void* p, int byte, size_t bytes);
cudaError_t cudaGetLastError();
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaGetDeviceCount(int* count);
const char* cudaGetErrorString(cudaError_t);

namespace simt {

struct Coordinates {
  dim3 thread, block, block_dim, grid_dim;
};
extern Coordinates* here;  // of the fiber that runs now

// Order of fibers and blocks: 0 ascending, 1 descending, other values random.
void set_seed(uint64_t seed);
void launch(dim3 grid, dim3 block, size_t dynamic_bytes, const std::function<void()>& body);
void* shared_array(const void* key, size_t bytes);  // one per block and declaration
void* dynamic_shared();
void block_barrier(const char* file, int line);
void maybe_yield();  // a point where another thread may run, used by the atomics
void device_fence();

// Every warp-wide operation is one call: all lanes of `mask` bring a value and are given the
// values of all 32 lanes. Lanes outside the mask read as 0xFF..FF, so that a kernel which uses
// them is seen to do so.
enum class Memory { unordered, ordered };  // only __syncwarp orders memory, a shuffle does not
const uint64_t* warp_exchange(unsigned mask, uint64_t value, Memory, const char* what,
                              const char* file, int line);
unsigned lane();

template <class T>
uint64_t to_bits(T v) {
  static_assert(sizeof(T) <= 8, "a shuffle moves 1, 2, 4 or 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &v, sizeof v);
  return bits;
}
template <class T>
T from_bits(uint64_t bits) {
  T v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}
// `from` is a lane relative to this lane's group of `width`; out of the group means "own value".
template <class T>
T shuffle(unsigned mask, T v, int from, int width, const char* what, const char* file, int line) {
  const int base = static_cast<int>(lane()) / width * width;
  const uint64_t own = to_bits(v);
  const uint64_t* all = warp_exchange(mask, own, Memory::unordered, what, file, line);
  return from_bits<T>(from < 0 || from >= width ? own : all[base + from]);
}

}  // namespace simt

#define threadIdx (simt::here->thread)
#define blockIdx (simt::here->block)
#define blockDim (simt::here->block_dim)
#define gridDim (simt::here->grid_dim)

#define SHARED(T, name, n)                \
  static const char simt_key_##name = 0;  \
  T(&name)[n] = *static_cast<T(*)[n]>(simt::shared_array(&simt_key_##name, sizeof(T) * (n)))
#define DYNAMIC_SHARED(T, name) T* name = static_cast<T*>(simt::dynamic_shared())
#define LAUNCH(kernel, grid, block, bytes, stream, ...) \
  ((void)(stream), simt::launch((grid), (block), (bytes), [=] { kernel(__VA_ARGS__); }))

// ---- synchronisation and warp operations; the call site names itself in every message
#define SIMT_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(SIMT_SITE) { simt::block_barrier(file, line); }
inline void __syncwarp(unsigned mask = ~0u, SIMT_SITE) {
  simt::warp_exchange(mask, 0, simt::Memory::ordered, "__syncwarp", file, line);
}
inline unsigned __ballot_sync(unsigned mask, int yes, SIMT_SITE) {
  const uint64_t* all =
      simt::warp_exchange(mask, yes != 0, simt::Memory::unordered, "__ballot_sync", file, line);
  unsigned bits = 0;
  for (int i = 0; i < 32; ++i) bits |= (mask >> i & 1u && all[i]) ? 1u << i : 0u;
  return bits;
}
inline int __any_sync(unsigned mask, int yes, SIMT_SITE) {
  return __ballot_sync(mask, yes, file, line) != 0;
}
inline int __all_sync(unsigned mask, int yes, SIMT_SITE) {
  return __ballot_sync(mask, yes, file, line) == mask;
}
template <class T>
T __shfl_sync(unsigned mask, T v, int from, int width = 32, SIMT_SITE) {
  return simt::shuffle(mask, v, from & (width - 1), width, "__shfl_sync", file, line);
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned d, int width = 32, SIMT_SITE) {
  const int at = static_cast<int>(simt::lane() % width);
  return simt::shuffle(mask, v, at - static_cast<int>(d), width, "__shfl_up_sync", file, line);
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned d, int width = 32, SIMT_SITE) {
  const int at = static_cast<int>(simt::lane() % width);
  return simt::shuffle(mask, v, at + static_cast<int>(d), width, "__shfl_down_sync", file, line);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32, SIMT_SITE) {
  const int at = static_cast<int>(simt::lane() % width);
  return simt::shuffle(mask, v, at ^ bits, width, "__shfl_xor_sync", file, line);
}
inline void __threadfence() { simt::device_fence(); }
#undef SIMT_SITE

// ---- atomics: relaxed, as on the device, so they order nothing but themselves
template <class T, class F>
T simt_atomic(T* p, F next) {
  simt::maybe_yield();
  T old, want;
  __atomic_load(p, &old, __ATOMIC_RELAXED);
  do want = next(old);
  while (!__atomic_compare_exchange(p, &old, &want, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}
template <class T>
T atomicAdd(T* p, T v) { return simt_atomic(p, [v](T old) { return old + v; }); }
template <class T>
T atomicMax(T* p, T v) { return simt_atomic(p, [v](T old) { return old < v ? v : old; }); }
template <class T>
T atomicMin(T* p, T v) { return simt_atomic(p, [v](T old) { return v < old ? v : old; }); }
template <class T>
T atomicExch(T* p, T v) { return simt_atomic(p, [v](T) { return v; }); }
template <class T>
T atomicCAS(T* p, T expected, T v) {
  return simt_atomic(p, [=](T old) { return old == expected ? v : old; });
}

// ---- scalar intrinsics
template <class T>
T __ldg(const T* p) { return *p; }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(static_cast<unsigned>(v)); }
inline int __float_as_int(float v) { return simt::from_bits<int>(simt::to_bits(v)); }
inline unsigned __float_as_uint(float v) { return simt::from_bits<unsigned>(simt::to_bits(v)); }
inline float __int_as_float(int v) { return simt::from_bits<float>(simt::to_bits(v)); }
inline float __uint_as_float(unsigned v) { return simt::from_bits<float>(simt::to_bits(v)); }
template <class T>
T min(T a, T b) { return b < a ? b : a; }
template <class T>
T max(T a, T b) { return a < b ? b : a; }

// ---- 16-bit floats: storage and conversion only; kernels accumulate in fp32
struct __half { _Float16 v; };
inline float __half2float(__half h) { return static_cast<float>(h.v); }
inline __half __float2half(float f) { return {static_cast<_Float16>(f)}; }
struct __nv_bfloat16 { uint16_t v; };
inline float __bfloat162float(__nv_bfloat16 b) { return __uint_as_float(unsigned{b.v} << 16); }
inline __nv_bfloat16 __float2bfloat16(float f) {  // round to nearest, ties to even
  if (f != f) return {0x7FFF};
  const unsigned bits = __float_as_uint(f);
  return {static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16)};
}


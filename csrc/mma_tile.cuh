// c[16 x 8] += a[16 x kDepth] * b[8 x kDepth]' for one warp, operands in shared memory, sums in float32.
//
// Two twins stand behind this one interface: tensor cores (mma.sync) where nvcc compiles a type that has them for an
// architecture that has them (8.0), plain loops elsewhere. Both give lane l the entries (l / 4, l % 4 * 2 + {0, 1}) and
// (l / 4 + 8, the same) of c, so all that surrounds a tile is the same code. The emulator runs the plain twin; the mma
// twin is compiled only.
#pragma once

#include <type_traits>

#include "cuda_utils.cuh"

namespace fastrec::cuda {

constexpr int kDepth = 32;  // dimensions that are staged at once

// A float32 whose low 13 bits are zero: to nearest, halves away from zero, as cvt.rna.tf32 does.
__device__ __forceinline__ float round_to_tf32(float v) {
  return __uint_as_float((__float_as_uint(v) + 0x1000u) & 0xFFFFE000u);
}

// How an item type is staged, and where its rows start in shared memory so that lanes meet no bank twice.
template <class Number, bool kCores, int kPad>
struct Staging {
  using Item = Number;
  using Staged = Number;
  static constexpr int kStride = kDepth + kPad;
  static constexpr bool kTensorCores = kCores;
};
struct Float32 : Staging<float, false, 4> {
  static __device__ __forceinline__ float stage(float v) { return v; }
};
struct Tf32 : Staging<float, true, 4> {
  static __device__ __forceinline__ float stage(float v) { return round_to_tf32(v); }
};
struct Half : Staging<__half, true, 8> {
  static __device__ __forceinline__ __half stage(float v) { return __float2half(v); }
  static __device__ __forceinline__ __half stage(__half v) { return v; }
};
struct Bfloat16 : Staging<__nv_bfloat16, true, 8> {
  static __device__ __forceinline__ __nv_bfloat16 stage(float v) { return __float2bfloat16(v); }
  static __device__ __forceinline__ __nv_bfloat16 stage(__nv_bfloat16 v) { return v; }
};

template <class Type>
__device__ __forceinline__ void plain_tile(const typename Type::Staged* a, const typename Type::Staged* b, float (&c)[4],
                                           int lane) {
  const typename Type::Staged* low = a + lane / 4 * Type::kStride;
  const typename Type::Staged* high = low + 8 * Type::kStride;
  const typename Type::Staged* left = b + lane % 4 * 2 * Type::kStride;
  const typename Type::Staged* right = left + Type::kStride;
#pragma unroll
  for (int d = 0; d < kDepth; ++d) {
    c[0] += to_float(low[d]) * to_float(left[d]);
    c[1] += to_float(low[d]) * to_float(right[d]);
    c[2] += to_float(high[d]) * to_float(left[d]);
    c[3] += to_float(high[d]) * to_float(right[d]);
  }
}

#if defined(__CUDACC__) && (!defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800)
#define FASTREC_MMA
__device__ __forceinline__ uint32_t word(const void* at) { return *static_cast<const uint32_t*>(at); }

// c += a b by the instruction mma.sync.aligned.`kind`, whose fragments are the same but for the type of their numbers.
#define FASTREC_MMA_SYNC(kind)                                                                      \
  asm("mma.sync.aligned." kind " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"             \
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                              \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

template <class Type>
__device__ __forceinline__ void mma_step(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  using Staged = typename Type::Staged;
  if constexpr (std::is_same<Staged, float>::value)
    FASTREC_MMA_SYNC("m16n8k8.row.col.f32.tf32.tf32.f32");
  else if constexpr (std::is_same<Staged, __half>::value)
    FASTREC_MMA_SYNC("m16n8k16.row.col.f32.f16.f16.f32");
  else
    FASTREC_MMA_SYNC("m16n8k16.row.col.f32.bf16.bf16.f32");
}
#undef FASTREC_MMA_SYNC

// A fragment register holds 32 bits: one tf32, or two neighbours of 16 bits (PTX ISA, "Matrix fragments for mma").
template <class Type>
__device__ __forceinline__ void mma_tile(const typename Type::Staged* a, const typename Type::Staged* b, float (&c)[4],
                                         int lane) {
  constexpr int kEach = 4 / static_cast<int>(sizeof(typename Type::Staged));
  constexpr int kStep = 8 * kEach;
  const typename Type::Staged* low = a + lane / 4 * Type::kStride + lane % 4 * kEach;
  const typename Type::Staged* high = low + 8 * Type::kStride;
  const typename Type::Staged* column = b + lane / 4 * Type::kStride + lane % 4 * kEach;
#pragma unroll
  for (int d = 0; d < kDepth; d += kStep) {
    const uint32_t rows[4] = {word(low + d), word(high + d), word(low + d + 4 * kEach), word(high + d + 4 * kEach)};
    const uint32_t columns[2] = {word(column + d), word(column + d + 4 * kEach)};
    mma_step<Type>(c, rows, columns);
  }
}
#endif

template <class Type>
__device__ __forceinline__ void multiply_tile(const typename Type::Staged* a, const typename Type::Staged* b,
                                              float (&c)[4], int lane) {
#if defined(FASTREC_MMA)
  if constexpr (Type::kTensorCores) {
    mma_tile<Type>(a, b, c, lane);
    return;
  }
#endif
  plain_tile<Type>(a, b, c, lane);
}

}  // namespace fastrec::cuda

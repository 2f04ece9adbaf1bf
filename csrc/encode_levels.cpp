#include <cstring>
#include <stdexcept>
#include <string>

#include "encode_ops.h"

namespace fastrec {
namespace {

std::vector<EncodeKernel> find_levels() {
  std::vector<EncodeKernel> levels = {encode_scalar};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) levels.push_back(encode_avx2);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    levels.push_back(encode_avx512);
    if (__builtin_cpu_supports("avx512vnni")) {
      EncodeKernel vnni = encode_avx512;
      vnni.name = "avx512_vnni";
      vnni.code_max = 255;
      vnni.linear_int8 = linear_int8_vnni;
      vnni.linear_int16 = linear_int16_vnni;
      levels.push_back(vnni);
      if (__builtin_cpu_supports("avx512bf16")) {
        vnni.name = "avx512_bf16";
        vnni.linear_bf16 = linear_bf16_avx512;
        vnni.attention_bf16 = attention_bf16_avx512;
        levels.push_back(vnni);
      }
      if (__builtin_cpu_supports("amx-int8") && __builtin_cpu_supports("amx-bf16") && vnni.linear_bf16 &&
          amx_allowed()) {
        vnni.name = "amx";
        vnni.tiled = true;
        vnni.linear_int8 = linear_int8_amx;
        vnni.linear_bf16 = linear_bf16_amx;
        vnni.linear_split = linear_split_amx;
        vnni.attention_bf16 = attention_bf16_amx;
        vnni.attention_split = attention_split_amx;
        levels.push_back(vnni);
      }
    }
  }
#endif
  return levels;
}

}  // namespace

const EncodeKernel& encode_level(const char* name) {
  static const std::vector<EncodeKernel> levels = find_levels();
  if (*name == '\0') return levels.back();
  for (const EncodeKernel& level : levels)
    if (std::strcmp(level.name, name) == 0) return level;
  throw std::logic_error(std::string("[fastrec._C] no SIMD level ") + name);
}

}  // namespace fastrec

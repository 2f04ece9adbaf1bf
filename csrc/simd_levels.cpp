#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cstring>
#include <string>

#include "check.h"
#include "encode.h"
#include "ops.h"

namespace fastrec {

#if defined(__x86_64__)
namespace {

// GCC 12 has no name for it.
bool zen5() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool known = __get_cpuid(1, &a, &b, &c, &d) != 0;
  return known && __builtin_cpu_is("amd") && (a >> 8 & 0xf) + (a >> 20 & 0xff) >= 0x1a;
}

}  // namespace
#endif

std::vector<const Kernel*> simd_levels() {
  std::vector<const Kernel*> levels = {&kernel_scalar};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("popcnt"))
    levels.push_back(&kernel_avx2);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    levels.push_back(&kernel_avx512);
    if (__builtin_cpu_supports("avx512vnni")) {
      static const Kernel vnni = [] {
        Kernel kernel = kernel_avx512;
        kernel.name = "avx512_vnni";
        kernel.query_max = 127;
        kernel.int8 = kernel.int8_few = {scan_int8_avx512_vnni, 8};
        if (zen5()) kernel.few = kFewUsers, kernel.int8_few = {scan_int8_avx512_vnni_l1, kFewUsers};
        return kernel;
      }();
      levels.push_back(&vnni);
      if (__builtin_cpu_supports("avx512bf16")) {
        static const Kernel bf16 = [] {
          Kernel kernel = vnni;
          kernel.name = "avx512_bf16";
          kernel.bf16 = kernel.bf16_few = {scan_bf16_avx512_bf16, 8, true};
          if (zen5()) kernel.bf16_few = {scan_bf16_avx512_bf16_l1, kFewUsers, true};
          return kernel;
        }();
        // Intel's multiply-adds of float32 are the faster ones (Sapphire Rapids: by half), AMD's the slower ones.
        levels.insert(__builtin_cpu_is("intel") ? levels.end() - 1 : levels.end(), &bf16);
      }
      if (__builtin_cpu_supports("amx-int8") && __builtin_cpu_supports("amx-bf16") && amx_allowed()) {
        static const Kernel amx = [] {
          Kernel kernel = vnni;
          kernel.name = "amx";
          kernel.few = 4;
          kernel.bf16 = {scan_bf16_amx, 32, true, true};
          kernel.int8 = {scan_int8_amx, 32, true, true};
          return kernel;
        }();
        levels.push_back(&amx);
      }
    }
  }
#endif
  return levels;
}

const Kernel& simd_level(const char* name) {
  static const std::vector<const Kernel*> levels = simd_levels();
  if (*name == '\0') return *levels.back();
  for (const Kernel* level : levels)
    if (std::strcmp(level->name, name) == 0) return *level;
  throw std::logic_error(std::string("[fastrec._C] no SIMD level ") + name);
}

}  // namespace fastrec

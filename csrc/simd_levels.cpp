#include <cstring>
#include <string>

#include "check.h"
#include "ops.h"

namespace fastrec {

std::vector<const Kernel*> simd_levels() {
  std::vector<const Kernel*> levels = {&kernel_scalar};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) levels.push_back(&kernel_avx2);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    levels.push_back(&kernel_avx512);
    if (__builtin_cpu_supports("avx512vnni")) {
      static const Kernel vnni = [] {
        Kernel kernel = kernel_avx512;
        kernel.name = "avx512_vnni";
        kernel.query_max = 127;
        kernel.cost.int8 = 4.5;
        kernel.scan_int8 = scan_int8_avx512_vnni;
        return kernel;
      }();
      levels.push_back(&vnni);
    }
  }
#endif
  return levels;
}

const Kernel& simd_level(const char* name) {
  const std::vector<const Kernel*> levels = simd_levels();
  if (*name == '\0') return *levels.back();
  for (const Kernel* level : levels)
    if (std::strcmp(level->name, name) == 0) return *level;
  throw std::logic_error(std::string("[fastrec._C] no SIMD level ") + name);
}

}  // namespace fastrec

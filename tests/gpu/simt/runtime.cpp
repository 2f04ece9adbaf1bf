// The runtime API of the emulator: the memory of a device is that of the host.
#include "runtime.hpp"

#include <cstdlib>
#include <cstring>

namespace simt {

cudaError_t last_error = cudaSuccess;

void* poisoned(size_t bytes) {
  void* p = std::malloc(bytes == 0 ? 1 : bytes);
  if (p != nullptr) std::memset(p, 0xFF, bytes);
  return p;
}

}  // namespace simt

cudaError_t cudaMalloc(void** p, size_t bytes) {
  *p = simt::poisoned(bytes);
  return *p == nullptr ? cudaErrorInvalidValue : cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  std::free(p);
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  if (bytes > 0) std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemset(void* p, int byte, size_t bytes) {
  if (bytes > 0) std::memset(p, byte, bytes);
  return cudaSuccess;
}
cudaError_t cudaGetLastError() {
  const cudaError_t e = simt::last_error;
  simt::last_error = cudaSuccess;
  return e;
}
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t e) {
  return e == cudaSuccess ? "no error" : "invalid launch or argument";
}

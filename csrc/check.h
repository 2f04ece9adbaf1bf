// Checks of our own invariants. What callers hand in is checked in Python, at the public function.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace fastrec {

// Throws when a promise between Python and C++ is broken; becomes a RuntimeError.
inline void require(bool holds, const char* promise) {
  if (!holds) throw std::logic_error(std::string("[fastrec._C] broken promise: ") + promise);
}

// a * b for two sizes, refused where the product does not fit.
inline int64_t mul_no_overflow(int64_t a, int64_t b) {
  int64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) throw std::overflow_error("[fastrec._C] a size overflows int64");
  return product;
}

}  // namespace fastrec

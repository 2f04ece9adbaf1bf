// Memory that a thread keeps from one call to the next: pages fresh from the system cost more than the work on them.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

namespace fastrec {

// At least n elements that hold anything, as long as this lives; of a trivial type. Owner: whose kept memory it is.
template <typename T, typename Owner>
class Scratch {
 public:
  explicit Scratch(size_t n = 0) { grow(n); }
  ~Scratch() {
    if (size_ > kMostKept / sizeof(T) || size_ <= kept().size) return;
    std::swap(data_, kept().data);
    std::swap(size_, kept().size);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // Loses what was there.
  void grow(size_t n) {
    if (n <= size_) return;
    if (kept().size >= n) {
      data_ = std::move(kept().data);
      size_ = std::exchange(kept().size, 0);
    } else {
      data_.reset(new T[n]);
      size_ = n;
    }
  }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }

 private:
  static constexpr size_t kMostKept = 8 << 20;  // bytes

  struct Kept {
    std::unique_ptr<T[]> data;
    size_t size = 0;
  };
  static Kept& kept() {
    thread_local Kept kept;
    return kept;
  }

  std::unique_ptr<T[]> data_;
  size_t size_ = 0;
};

}  // namespace fastrec

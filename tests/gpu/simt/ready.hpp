// ready.hpp -- which fibers of a block can run, as a set of places.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace simt {

class Ready {
 public:
  explicit Ready(size_t places = 0) : words_((places + 63) / 64, 0) {}

  void set(unsigned place, bool can_run) {
    const uint64_t bit = uint64_t{1} << place % 64;
    if (can_run)
      words_[place / 64] |= bit;
    else
      words_[place / 64] &= ~bit;
  }

  // The first place of the set from `start` on, round the end; -1: none.
  int first(unsigned start) const {
    for (size_t i = 0; i <= words_.size(); ++i) {
      const size_t at = (start / 64 + i) % words_.size();
      uint64_t bits = words_[at];
      if (i == 0) bits &= ~uint64_t{0} << start % 64;
      if (i == words_.size()) bits &= ~(~uint64_t{0} << start % 64);
      if (bits != 0) return static_cast<int>(at * 64) + __builtin_ctzll(bits);
    }
    return -1;
  }

 private:
  std::vector<uint64_t> words_;
};

}  // namespace simt

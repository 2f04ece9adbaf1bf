// One persistent pool of threads for all operators.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <thread>

namespace fastrec {

// Runs body(0) .. body(n_tasks - 1), each once, on at most `threads` threads with the caller among them.
//
// Tasks are taken in order, but end in any order: a body writes only what belongs to its own task. The
// first exception is thrown again here, after all threads have left. The pool survives fork (the child
// starts its own). Where another caller holds the pool, this one does all of its tasks itself: two Python
// threads that call at once then use a core each, instead of fighting for the pool.
void parallel_for(int64_t n_tasks, int threads, const std::function<void(int64_t)>& body);

// The processors that the scheduler may give this process.
int usable_cpus();

// Thrown out of an operator after Ctrl-C; the Python error is already set then.
struct Interrupted : std::runtime_error {
  Interrupted() : std::runtime_error("interrupted") {}
};

// Long loops call check() between blocks. The thread that made the object asks `poll` (it may need the
// GIL), at most every 50 ms; the others only read the flag.
class Stop {
 public:
  explicit Stop(std::function<bool()> poll) : poll_(std::move(poll)) {}

  void check() {
    if (poll_ && std::this_thread::get_id() == owner_) {
      const auto now = std::chrono::steady_clock::now();
      if (now - last_ > std::chrono::milliseconds(50)) {
        last_ = now;
        if (poll_()) stopped_.store(true, std::memory_order_relaxed);
      }
    }
    if (stopped_.load(std::memory_order_relaxed)) throw Interrupted();
  }

 private:
  std::function<bool()> poll_;
  std::thread::id owner_ = std::this_thread::get_id();
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
  std::atomic<bool> stopped_{false};
};

}  // namespace fastrec

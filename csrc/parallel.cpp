#include "parallel.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <vector>

namespace fastrec {
namespace {

struct Job {
  const std::function<void(int64_t)>* body;
  int64_t n_tasks;
  std::atomic<int64_t> next{0};
  std::mutex error_lock;
  std::exception_ptr error;

  void work() {
    for (int64_t task; (task = next.fetch_add(1)) < n_tasks;) {
      try {
        (*body)(task);
      } catch (...) {
        std::lock_guard<std::mutex> hold(error_lock);
        if (!error) error = std::current_exception();
        next.store(n_tasks);  // the remaining tasks would be thrown away
      }
    }
  }
};

// So long a thread looks for the next job, or for the end of this one, before it sleeps: to wake one takes as long.
constexpr std::chrono::microseconds kSpin{40};

// Whether it became true before the time was up.
template <typename Test>
bool spin_until(const Test& test) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (test()) return true;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
  } while (std::chrono::steady_clock::now() < end);
  return test();
}

// Whoever comes to a job takes its next tasks, and a helper that wakes up after the last was taken is not waited for:
// a short job never takes longer than the caller alone would need.
class Pool {
 public:
  std::mutex busy;  // held by the one caller that uses the pool

  void run(Job& job, int helpers) {
    bool wake = false;
    {
      std::lock_guard<std::mutex> hold(lock_);
      for (; workers_ < helpers; ++workers_) {
        // Detached: the pool is never destroyed, and at exit the threads end with the process.
        std::thread(&Pool::serve, this, workers_, generation_.load()).detach();
      }
      job_ = &job;
      wanted_ = helpers;
      ++generation_;
      wake = sleeping_ > 0;
    }
    if (wake) wake_.notify_all();
    job.work();
    {
      std::lock_guard<std::mutex> hold(lock_);
      job_ = nullptr;  // nobody enters any more
    }
    if (spin_until([&] { return active_.load() == 0; })) return;
    std::unique_lock<std::mutex> hold(lock_);
    done_.wait(hold, [&] { return active_.load() == 0; });
  }

 private:
  void serve(int index, uint64_t seen) {
    for (;;) {
      const auto is_new = [&] { return generation_.load() != seen; };
      const bool soon = spin_until(is_new);
      std::unique_lock<std::mutex> hold(lock_);
      if (!soon) {
        ++sleeping_;
        wake_.wait(hold, is_new);
        --sleeping_;
      }
      seen = generation_.load();
      if (index >= wanted_ || job_ == nullptr) continue;
      Job* job = job_;
      ++active_;
      hold.unlock();
      job->work();
      hold.lock();
      if (--active_ == 0) done_.notify_all();
    }
  }

  std::mutex lock_;
  std::condition_variable wake_, done_;
  Job* job_ = nullptr;
  int workers_ = 0, wanted_ = 0, sleeping_ = 0;
  std::atomic<int> active_{0};  // helpers at work; changed under the lock
  std::atomic<uint64_t> generation_{0};
};

Pool* pool = nullptr;

// A child has none of the threads and perhaps locked mutexes: it leaves the parent's pool alone.
void after_fork_in_child() { pool = new Pool; }

Pool& the_pool() {
  static const bool ready = [] {
    pool = new Pool;
    pthread_atfork(nullptr, nullptr, after_fork_in_child);
    return true;
  }();
  (void)ready;
  return *pool;
}

}  // namespace

int usable_cpus() {
#if defined(__linux__)
  cpu_set_t cpus;
  if (sched_getaffinity(0, sizeof cpus, &cpus) == 0) return std::max(CPU_COUNT(&cpus), 1);
#endif
  return std::max(static_cast<int>(std::thread::hardware_concurrency()), 1);
}

void parallel_for(int64_t n_tasks, int threads, const std::function<void(int64_t)>& body) {
  const int helpers = static_cast<int>(std::min<int64_t>(threads, n_tasks)) - 1;
  Job job;
  job.body = &body;
  job.n_tasks = n_tasks;
  std::unique_lock<std::mutex> hold;
  if (helpers > 0) hold = std::unique_lock<std::mutex>(the_pool().busy, std::try_to_lock);
  if (hold.owns_lock()) {
    pool->run(job, helpers);
  } else {
    job.work();
  }
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace fastrec

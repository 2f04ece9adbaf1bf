#include "parallel.h"

#include <pthread.h>

#include <algorithm>
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

class Pool {
 public:
  std::mutex busy;  // held by the one caller that uses the pool

  void run(Job& job, int helpers) {
    {
      std::lock_guard<std::mutex> hold(lock_);
      while (static_cast<int>(workers_) < helpers) {
        // Detached: the pool is never destroyed, and at exit the threads end with the process.
        std::thread(&Pool::serve, this, workers_, generation_).detach();
        ++workers_;
      }
      job_ = &job;
      wanted_ = helpers;
      running_ = helpers;
      ++generation_;
    }
    wake_.notify_all();
    job.work();
    std::unique_lock<std::mutex> hold(lock_);
    done_.wait(hold, [&] { return running_ == 0; });
    job_ = nullptr;
  }

 private:
  void serve(int index, uint64_t seen) {
    std::unique_lock<std::mutex> hold(lock_);
    for (;;) {
      wake_.wait(hold, [&] { return generation_ != seen; });
      seen = generation_;
      if (index >= wanted_) continue;
      Job* job = job_;
      hold.unlock();
      job->work();
      hold.lock();
      if (--running_ == 0) done_.notify_all();
    }
  }

  std::mutex lock_;
  std::condition_variable wake_, done_;
  Job* job_ = nullptr;
  int workers_ = 0, wanted_ = 0, running_ = 0;
  uint64_t generation_ = 0;
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

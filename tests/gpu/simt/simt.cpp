// simt.cpp -- the emulator behind simt.hpp. Build it with -DSIMT_ASAN or -DSIMT_TSAN to match the
// sanitizer of the rest, and never itself with -fsanitize=thread: its bookkeeping is not the
// kernel's memory.
//
// A fiber runs until it reaches a barrier, a warp operation or (at random) an atomic; then the
// scheduler picks the first in the order of this block that can run. Under TSan each fiber is a
// thread of its own and a switch orders nothing: only the launch, __syncthreads, __syncwarp and
// __threadfence do. A race is thus reported in whatever order the fibers happened to run, between
// blocks too, as far as the compiler instruments the access (docs/gpu.md, "What the emulator does not see").
#include "simt.hpp"
#include "runtime.hpp"

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <random>
#include <vector>

#ifdef SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef SIMT_TSAN
extern "C" {
void* __tsan_create_fiber(unsigned);
void __tsan_destroy_fiber(void*);
void* __tsan_get_current_fiber();
void __tsan_switch_to_fiber(void*, unsigned flags);  // flag 1: the switch orders nothing
void __tsan_acquire(void*);
void __tsan_release(void*);
}
#endif

namespace simt {

Coordinates* here = nullptr;

namespace {

constexpr size_t kStackBytes = 128 * 1024;
constexpr unsigned kWarp = 32;

struct Fiber {
  Coordinates at;
  unsigned index = 0;  // within the block
  bool done = false;
  const char* waiting = nullptr;  // the operation it waits in; nullptr: it can run
  const char* file = nullptr;
  int line = 0;
  unsigned mask = 0;  // of that operation; 0: the whole block
  uint64_t value = 0;
  uint64_t received[kWarp];
  char outbox = 0, inbox = 0;  // addresses only: ends of the happens-before edges
  ucontext_t context;
  void* asan_stack = nullptr;
  void* tsan_fiber = nullptr;
};

uint64_t seed = 0;
std::mt19937_64 dice;
std::vector<Fiber> fibers;  // of the block that runs now
Fiber* running = nullptr;
const std::function<void()>* body = nullptr;
struct Shared {
  const void* key;  // names the declaration
  void* buffer;
} shared[64];  // of the block that runs now; no std::map: a fiber must not allocate
size_t n_shared = 0;
std::vector<void*> garbage;  // freed when the launch ends
// TSan gives the identity of a destroyed fiber to the next one, and a thread does not race with
// itself: destroyed block by block, two blocks that write one address would go unseen.
std::vector<void*> finished;
void* dynamic = nullptr;
char launch_begins, launch_ends, shared_edge, fence_edge;

ucontext_t scheduler;
[[maybe_unused]] void* scheduler_asan_stack = nullptr;
[[maybe_unused]] const void* scheduler_stack = nullptr;
[[maybe_unused]] size_t scheduler_stack_bytes = 0;
void* scheduler_tsan_fiber = nullptr;

[[noreturn]] void fail(const char* format, ...) {
  va_list args;
  va_start(args, format);
  std::fputs("simt: ", stderr);
  std::vfprintf(stderr, format, args);
  std::fputs("\n", stderr);
  va_end(args);
  std::abort();
}

// ---- what the sanitizers must be told

#ifdef SIMT_TSAN
void release(void* at) { __tsan_release(at); }
void acquire(void* at) { __tsan_acquire(at); }
void tsan_switch(void* fiber) { __tsan_switch_to_fiber(fiber, 1); }
#else
void release(void*) {}
void acquire(void*) {}
void tsan_switch(void*) {}
#endif

void to_fiber(Fiber& f) {
  running = &f;
  here = &f.at;
  tsan_switch(f.tsan_fiber);
#ifdef SIMT_ASAN
  __sanitizer_start_switch_fiber(&scheduler_asan_stack, f.context.uc_stack.ss_sp, kStackBytes);
#endif
  swapcontext(&scheduler, &f.context);
#ifdef SIMT_ASAN
  __sanitizer_finish_switch_fiber(scheduler_asan_stack, nullptr, nullptr);
#endif
}

void to_scheduler(Fiber& f) {
  tsan_switch(scheduler_tsan_fiber);
#ifdef SIMT_ASAN
  __sanitizer_start_switch_fiber(f.done ? nullptr : &f.asan_stack, scheduler_stack,
                                 scheduler_stack_bytes);
#endif
  swapcontext(&f.context, &scheduler);
#ifdef SIMT_ASAN
  __sanitizer_finish_switch_fiber(f.asan_stack, &scheduler_stack, &scheduler_stack_bytes);
#endif
}

// ---- one block

void fiber_main() {
#ifdef SIMT_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
  acquire(&launch_begins);
  (*body)();
  release(&launch_ends);
  running->done = true;
  to_scheduler(*running);
}

void wait_in(const char* what, unsigned mask, const char* file, int line) {
  Fiber& f = *running;
  f.waiting = what;
  f.mask = mask;
  f.file = file;
  f.line = line;
}

bool same_place(const Fiber& a, const Fiber& b) {
  return a.line == b.line && a.mask == b.mask && std::strcmp(a.file, b.file) == 0 &&
         std::strcmp(a.waiting, b.waiting) == 0;
}

// The last to arrive passes everything that was released to everyone.
void join(Fiber* first, unsigned count, unsigned mask) {
  for (unsigned i = 0; i < count; ++i)
    if (mask == 0 || (mask >> i & 1u) != 0) acquire(&first[i].outbox);
  for (unsigned i = 0; i < count; ++i)
    if (mask == 0 || (mask >> i & 1u) != 0) release(&first[i].inbox);
}

[[noreturn]] void report_deadlock() {
  for (const Fiber& f : fibers)
    if (f.done)
      std::fprintf(stderr, "simt:   thread %u has returned\n", f.index);
    else
      std::fprintf(stderr, "simt:   thread %u waits in %s (mask %08x) at %s:%d\n", f.index,
                   f.waiting, f.mask, f.file, f.line);
  fail("deadlock in block %u: no thread can run", fibers[0].at.block.x);
}

// The first fiber of the order that can run does. So one warp may run far ahead of the others;
// now and then the search starts elsewhere, which breaks up the lanes of a warp as well.
void run_block() {
  std::vector<unsigned> order(fibers.size());
  for (unsigned i = 0; i < order.size(); ++i) order[i] = i;
  if (seed == 1) std::reverse(order.begin(), order.end());
  if (seed > 1) std::shuffle(order.begin(), order.end(), dice);
  if (seed > 1 && seed % 2 == 0) {  // half of the seeds keep the lanes of a warp together
    std::vector<uint64_t> rank(order.size() / kWarp + 1);
    for (uint64_t& r : rank) r = dice();
    std::stable_sort(order.begin(), order.end(),
                     [&](unsigned a, unsigned b) { return rank[a / kWarp] < rank[b / kWarp]; });
  }
  for (size_t left = fibers.size(); left > 0;) {
    const size_t start = seed > 1 && dice() % 8 == 0 ? dice() % order.size() : 0;
    Fiber* next = nullptr;
    for (size_t i = 0; i < order.size() && next == nullptr; ++i) {
      Fiber& f = fibers[order[(start + i) % order.size()]];
      if (!f.done && f.waiting == nullptr) next = &f;
    }
    if (next == nullptr) report_deadlock();
    to_fiber(*next);
    if (next->done) --left;
  }
}

void make_context(Fiber& f, char* stack) {
  getcontext(&f.context);
  f.context.uc_stack.ss_sp = stack;
  f.context.uc_stack.ss_size = kStackBytes;
  f.context.uc_link = nullptr;
  makecontext(&f.context, fiber_main, 0);
}

void prepare_fibers(dim3 grid, dim3 block, size_t b, char* stacks) {
  for (unsigned t = 0; t < fibers.size(); ++t) {
    Fiber& f = fibers[t];
    f.at.thread = dim3(t % block.x, t / block.x % block.y, t / (block.x * block.y));
    f.at.block = dim3(static_cast<unsigned>(b % grid.x),
                      static_cast<unsigned>(b / grid.x % grid.y),
                      static_cast<unsigned>(b / (size_t{grid.x} * grid.y)));
    f.at.block_dim = block;
    f.at.grid_dim = grid;
    f.index = t;
    f.done = false;
    f.waiting = nullptr;
    make_context(f, stacks + t * kStackBytes);
#ifdef SIMT_TSAN
    f.tsan_fiber = __tsan_create_fiber(0);
#endif
  }
}

}  // namespace

// ---- called by the test and by the launcher

void set_seed(uint64_t s) {
  seed = s;
  dice.seed(s);
}

void launch(dim3 grid, dim3 block, size_t dynamic_bytes, const std::function<void()>& kernel) {
  const size_t threads = size_t{block.x} * block.y * block.z;
  const size_t blocks = size_t{grid.x} * grid.y * grid.z;
  if (threads == 0 || threads > 1024 || block.z > 64 || blocks == 0 || grid.x > 0x7FFFFFFFu ||
      grid.y > 65535 || grid.z > 65535 || dynamic_bytes > 48 * 1024) {
    last_error = cudaErrorInvalidConfiguration;  // as a device answers
    return;
  }
  std::vector<size_t> order(blocks);
  for (size_t i = 0; i < blocks; ++i) order[i] = i;
  if (seed == 1) std::reverse(order.begin(), order.end());
  if (seed > 1) std::shuffle(order.begin(), order.end(), dice);

  body = &kernel;
  fibers = std::vector<Fiber>(threads);
  garbage.reserve(blocks * (1 + std::size(shared)));
  release(&launch_begins);
#ifdef SIMT_TSAN
  scheduler_tsan_fiber = __tsan_get_current_fiber();
#endif
  for (size_t b : order) {
    // Mapped anew for each block: TSan then forgets what the last block did on these stacks.
    void* stacks = mmap(nullptr, threads * kStackBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stacks == MAP_FAILED) fail("no memory for %zu stacks", threads);
#ifdef SIMT_ASAN
    __asan_unpoison_memory_region(stacks, threads * kStackBytes);
#endif
    prepare_fibers(grid, block, b, static_cast<char*>(stacks));
    garbage.push_back(dynamic = poisoned(dynamic_bytes));
    release(&shared_edge);
    n_shared = 0;
    run_block();
    for (Fiber& f : fibers) finished.push_back(f.tsan_fiber);
    munmap(stacks, threads * kStackBytes);
  }
  acquire(&launch_ends);
#ifdef SIMT_TSAN
  for (void* f : finished) __tsan_destroy_fiber(f);
#endif
  finished.clear();
  for (void* p : garbage) std::free(p);
  garbage.clear();
}

// ---- called by the kernel

void* shared_array(const void* key, size_t bytes) {
  acquire(&shared_edge);
  for (size_t i = 0; i < n_shared; ++i)
    if (shared[i].key == key) return shared[i].buffer;
  if (n_shared == std::size(shared)) fail("more than %zu SHARED arrays", n_shared);
  // Filled in the name of the scheduler, which every fiber of the block comes after: then it is
  // no race, and nothing that this fiber did is passed on by it.
  tsan_switch(scheduler_tsan_fiber);
  void* buffer = poisoned(bytes);
  garbage.push_back(buffer);
  release(&shared_edge);
  tsan_switch(running->tsan_fiber);
  acquire(&shared_edge);
  shared[n_shared++] = {key, buffer};
  return buffer;
}

void* dynamic_shared() {
  acquire(&shared_edge);
  return dynamic;
}

unsigned lane() { return running->index % kWarp; }

void maybe_yield() {
  if (seed > 1 && dice() % 2 == 0) to_scheduler(*running);
}

void device_fence() {  // coarser than the device: all fences order each other
  release(&fence_edge);
  acquire(&fence_edge);
}

void block_barrier(const char* file, int line) {
  Fiber& self = *running;
  wait_in("__syncthreads", 0, file, line);
  release(&self.outbox);
  bool complete = true;
  for (const Fiber& f : fibers) {
    if (f.done)
      fail("thread %u has returned, thread %u waits in __syncthreads at %s:%d", f.index,
           self.index, file, line);
    const bool arrived = f.waiting != nullptr && f.mask == 0;
    if (arrived && !same_place(f, self))
      fail("threads %u and %u wait in different __syncthreads, at %s:%d and %s:%d", f.index,
           self.index, f.file, f.line, file, line);
    complete = complete && arrived;
  }
  if (complete) {
    join(fibers.data(), static_cast<unsigned>(fibers.size()), 0);
    for (Fiber& f : fibers) f.waiting = nullptr;
  } else {
    to_scheduler(self);
  }
  acquire(&self.inbox);
}

const uint64_t* warp_exchange(unsigned mask, uint64_t value, Memory memory, const char* what,
                              const char* file, int line) {
  Fiber& self = *running;
  Fiber* warp = &fibers[self.index / kWarp * kWarp];
  const unsigned lanes = std::min<size_t>(kWarp, fibers.size() - warp->index);
  if ((mask >> lane() & 1u) == 0)
    fail("thread %u is not in the mask %08x of its own %s at %s:%d", self.index, mask, what, file,
         line);
  wait_in(what, mask, file, line);
  self.value = value;
  if (memory == Memory::ordered) release(&self.outbox);

  bool complete = true;
  for (unsigned i = 0; i < kWarp; ++i) {
    if ((mask >> i & 1u) == 0) continue;
    if (i >= lanes || warp[i].done)
      fail("thread %u waits in %s at %s:%d for lane %u, which has returned or never was",
           self.index, what, file, line, i);
    const bool arrived = warp[i].waiting != nullptr && warp[i].mask != 0;
    if (arrived && !same_place(warp[i], self))
      fail("a warp diverged: thread %u in %s(%08x) at %s:%d, thread %u in %s(%08x) at %s:%d",
           warp[i].index, warp[i].waiting, warp[i].mask, warp[i].file, warp[i].line, self.index,
           what, mask, file, line);
    complete = complete && arrived;
  }
  if (complete) {
    if (memory == Memory::ordered) join(warp, lanes, mask);
    for (unsigned i = 0; i < lanes; ++i) {
      if ((mask >> i & 1u) == 0) continue;
      for (unsigned j = 0; j < kWarp; ++j)
        warp[i].received[j] = (mask >> j & 1u) != 0 ? warp[j].value : ~uint64_t{0};
      warp[i].waiting = nullptr;
    }
  } else {
    to_scheduler(self);
  }
  if (memory == Memory::ordered) acquire(&self.inbox);
  return self.received;
}

}  // namespace simt

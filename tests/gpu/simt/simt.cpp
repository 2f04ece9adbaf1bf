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
#include "ready.hpp"
#include "sanitizers.hpp"
#include "switch.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <random>
#include <vector>

namespace simt {

Coordinates* here = nullptr;

namespace {

constexpr size_t kStackBytes = 128 * 1024;
constexpr unsigned kWarp = 32;
constexpr unsigned kAll = ~0u;

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
  unsigned barriers = 0, warp_barriers = 0;  // it has come to, of all its threads
  unsigned place = 0;                       // in the order of the block
  char* stack = nullptr;
  void* top = nullptr;  // of the stack while it does not run
  void* asan_stack = nullptr;
  void* tsan_fiber = nullptr;
};

uint64_t seed = 0;
std::mt19937_64 dice;
std::vector<Fiber> fibers;  // of the block that runs now
Ready ready;  // by place in the order of the block
size_t n_done = 0, n_in_barrier = 0;
Fiber* first_in_barrier = nullptr;
// Ends of the happens-before edges of a block; addresses only. New ones for each block, or one would come after another.
// A barrier of everyone is one edge that all release and then acquire. Two take turns: who leaves a barrier has acquired
// its edge before anybody can come to the barrier after the next, so that no more is ordered than the barrier orders.
struct Edges {
  char barrier[2], warp[1024 / kWarp][2];
  char outbox[1024], inbox[1024];  // of a thread, for barriers of some lanes
}* edges = nullptr;
Fiber* running = nullptr;
const std::function<void()>* body = nullptr;
struct Shared {
  const void* key;  // names the declaration
  void* buffer;
} shared[64];  // of the block that runs now; no std::map: a fiber must not allocate
size_t n_shared = 0;
std::vector<void*> garbage;  // freed when the launch ends
// Identities and stacks of fibers, kept from launch to launch. Under TSan the threads of a launch have one each: with one
// of an earlier block a thread would race with itself, which is no race, and two blocks that write one address would go
// unseen. Launches come one after the other in any case.
struct Place {
  char* stack;
  void* tsan_fiber;
};
std::vector<Place> places;
void* dynamic = nullptr;
char launch_begins, launch_ends, shared_edge, fence_edge;

void* scheduler_top = nullptr;
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

// ---- from fiber to fiber and back

void to_fiber(Fiber& f) {
  running = &f;
  here = &f.at;
  tsan_switch(f.tsan_fiber);
#ifdef SIMT_ASAN
  __sanitizer_start_switch_fiber(&scheduler_asan_stack, f.stack, kStackBytes);
#endif
  switch_stack(&scheduler_top, f.top);
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
  switch_stack(&f.top, scheduler_top);
#ifdef SIMT_ASAN
  __sanitizer_finish_switch_fiber(f.asan_stack, &scheduler_stack, &scheduler_stack_bytes);
#endif
}

// ---- one block

void let_run(Fiber& f) {
  f.waiting = nullptr;
  ready.set(f.place, true);
}

void fiber_main() {
#ifdef SIMT_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
  acquire(&launch_begins);
  (*body)();
  release(&launch_ends);
  running->done = true;
  ++n_done;
  ready.set(running->place, false);
  to_scheduler(*running);
}

void wait_in(const char* what, unsigned mask, const char* file, int line) {
  Fiber& f = *running;
  f.waiting = what;
  f.mask = mask;
  f.file = file;
  f.line = line;
  ready.set(f.place, false);
}

bool same_text(const char* a, const char* b) { return a == b || std::strcmp(a, b) == 0; }

bool same_place(const Fiber& a, const Fiber& b) {
  return a.line == b.line && a.mask == b.mask && same_text(a.file, b.file) && same_text(a.waiting, b.waiting);
}

// Of some lanes of a warp the last to arrive passes everything that was released to everyone.
void join(unsigned first, unsigned count, unsigned mask) {
  for (unsigned i = 0; i < count; ++i)
    if ((mask >> i & 1u) != 0) acquire(&edges->outbox[first + i]);
  for (unsigned i = 0; i < count; ++i)
    if ((mask >> i & 1u) != 0) release(&edges->inbox[first + i]);
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
  for (unsigned i = 0; i < order.size(); ++i) {
    fibers[order[i]].place = i;
    ready.set(i, true);
  }
  while (n_done < fibers.size()) {
    const size_t start = seed > 1 && dice() % 8 == 0 ? dice() % order.size() : 0;
    const int next = ready.first(static_cast<unsigned>(start));
    if (next < 0) report_deadlock();
    to_fiber(fibers[order[next]]);
  }
}

// The place of thread t of the block that runs as the nth.
Place& place_of(size_t nth, size_t t) {
#ifdef SIMT_TSAN
  const size_t at = nth * fibers.size() + t;
#else
  static_cast<void>(nth);
  const size_t at = t;
#endif
  while (places.size() <= at) {
    void* stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) fail("no memory for %zu stacks", at + 1);
    places.push_back({static_cast<char*>(stack), nullptr});
#ifdef SIMT_TSAN
    places.back().tsan_fiber = __tsan_create_fiber(0);
#endif
  }
  return places[at];
}

void prepare_fibers(dim3 grid, dim3 block, size_t b, size_t nth) {
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
    f.barriers = f.warp_barriers = 0;
    const Place& place = place_of(nth, t);
    f.stack = place.stack;
    f.tsan_fiber = place.tsan_fiber;
#ifdef SIMT_ASAN
    __asan_unpoison_memory_region(f.stack, kStackBytes);  // a fiber that ended has left its frames poisoned
#endif
    f.top = first_top(f.stack, kStackBytes, fiber_main);
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
  ready = Ready(threads);
  garbage.reserve(blocks * (2 + std::size(shared)));
  release(&launch_begins);
#ifdef SIMT_TSAN
  scheduler_tsan_fiber = __tsan_get_current_fiber();
#endif
  for (size_t nth = 0; nth < blocks; ++nth) {
    prepare_fibers(grid, block, order[nth], nth);
    garbage.push_back(dynamic = poisoned(dynamic_bytes));
    garbage.push_back(edges = static_cast<Edges*>(poisoned(sizeof(Edges))));
    release(&shared_edge);
    n_shared = n_done = n_in_barrier = 0;
    run_block();
  }
  acquire(&launch_ends);
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
  if (n_done > 0)
    fail("a thread of the block has returned, thread %u waits in __syncthreads at %s:%d", self.index, file, line);
  wait_in("__syncthreads", 0, file, line);
  char* edge = &edges->barrier[self.barriers++ % 2];
  release(edge);
  if (n_in_barrier++ == 0) first_in_barrier = &self;
  if (!same_place(*first_in_barrier, self))
    fail("threads %u and %u wait in different __syncthreads, at %s:%d and %s:%d", first_in_barrier->index, self.index,
         first_in_barrier->file, first_in_barrier->line, file, line);
  if (n_in_barrier == fibers.size()) {
    n_in_barrier = 0;
    for (Fiber& f : fibers) let_run(f);
  } else {
    to_scheduler(self);
  }
  acquire(edge);
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
  const bool ordered = memory == Memory::ordered;
  const bool everyone = mask == kAll;
  char* edge = &edges->warp[self.index / kWarp][everyone && ordered ? self.warp_barriers++ % 2 : 0];
  if (ordered) release(everyone ? edge : &edges->outbox[self.index]);

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
    if (ordered && !everyone) join(warp->index, lanes, mask);
    uint64_t values[kWarp];
    for (unsigned j = 0; j < kWarp; ++j) values[j] = (mask >> j & 1u) != 0 ? warp[j].value : ~uint64_t{0};
    for (unsigned i = 0; i < lanes; ++i) {
      if ((mask >> i & 1u) == 0) continue;
      std::copy(values, values + kWarp, warp[i].received);
      let_run(warp[i]);
    }
  } else {
    to_scheduler(self);
  }
  if (ordered) acquire(everyone ? edge : &edges->inbox[self.index]);
  return self.received;
}

}  // namespace simt

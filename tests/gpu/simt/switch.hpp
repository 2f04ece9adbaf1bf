// switch.hpp -- from the stack of one fiber to that of another.
//
//   void* top = first_top(stack, bytes, entry);   // the first switch there calls entry, which never returns
//   switch_stack(&own, top);                      // comes back when somebody switches to `own`
#pragma once

#include <algorithm>
#include <cstddef>

#if defined(__x86_64__) && !defined(SIMT_UCONTEXT)
// swapcontext asks the system for the signal mask at every call, and ASan clears the shadow of a whole stack there: most
// of the time of a run. This keeps what the calling convention says that a call keeps, and nothing else.
extern "C" void simt_switch(void** own_top, void* to_top) __attribute__((visibility("hidden")));
asm(R"(
  .pushsection .text
  .globl simt_switch
  .hidden simt_switch
  .type simt_switch, @function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size simt_switch, .-simt_switch
  .popsection
)");

namespace simt {

inline void switch_stack(void** own_top, void* to_top) { simt_switch(own_top, to_top); }

inline void* first_top(char* stack, size_t bytes, void (*entry)()) {
  void** at = reinterpret_cast<void**>(stack + bytes) - 8;  // aligned at entry as after a call
  std::fill(at, at + 8, nullptr);
  at[6] = reinterpret_cast<void*>(entry);
  return at;
}

}  // namespace simt
#else
#include <ucontext.h>

namespace simt {

inline void switch_stack(void** own_top, void* to_top) {
  ucontext_t own;
  *own_top = &own;
  swapcontext(&own, static_cast<ucontext_t*>(to_top));
}

inline void* first_top(char* stack, size_t bytes, void (*entry)()) {
  ucontext_t* context = reinterpret_cast<ucontext_t*>(stack);
  getcontext(context);
  context->uc_stack.ss_sp = stack + sizeof(ucontext_t);
  context->uc_stack.ss_size = bytes - sizeof(ucontext_t);
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
  return context;
}

}  // namespace simt
#endif

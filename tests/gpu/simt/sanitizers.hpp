// sanitizers.hpp -- what the sanitizers must be told about fibers: -DSIMT_ASAN or -DSIMT_TSAN say which one looks on.
//
//   release(at), acquire(at)   ends of a happens-before edge named by an address
//   tsan_switch(fiber)         the thread that runs from now on; the switch itself orders nothing
#pragma once

#ifdef SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef SIMT_TSAN
extern "C" {
void* __tsan_create_fiber(unsigned);
void* __tsan_get_current_fiber();
void __tsan_switch_to_fiber(void*, unsigned flags);  // flag 1: the switch orders nothing
void __tsan_acquire(void*);
void __tsan_release(void*);
}
#endif

namespace simt {

#ifdef SIMT_TSAN
inline void release(void* at) { __tsan_release(at); }
inline void acquire(void* at) { __tsan_acquire(at); }
inline void tsan_switch(void* fiber) { __tsan_switch_to_fiber(fiber, 1); }
#else
inline void release(void*) {}
inline void acquire(void*) {}
inline void tsan_switch(void*) {}
#endif

}  // namespace simt

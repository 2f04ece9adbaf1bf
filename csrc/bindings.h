// Long native calls for Python: the GIL is released, and Ctrl-C ends them.
#pragma once

#include <pybind11/pybind11.h>

#include "ops.h"

// The error that the signal handler raised stays set.
inline bool ctrl_c() {
  pybind11::gil_scoped_acquire gil;
  return PyErr_CheckSignals() != 0;
}

template <typename Run>
void interruptible(const Run& run) {
  bool interrupted = false;
  {
    pybind11::gil_scoped_release release;
    fastrec::Stop stop(ctrl_c);
    try {
      run(stop);
    } catch (const fastrec::Interrupted&) {
      interrupted = true;
    }
  }
  if (interrupted) throw pybind11::error_already_set();
}

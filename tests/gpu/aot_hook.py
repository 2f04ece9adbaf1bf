"""Compile Triton kernels for a GPU that is not there, through the wrappers that launch them.

    with aot(90) as launches:                # compute capability 9.0
        attention_varlen(q, k, v, ...)       # meta or CPU tensors; nothing is executed
    launches[0].compiled.asm["ptx"]

The wrapper runs as it is: its grid, its block sizes and Triton's own specialisation of the
arguments (dtype, divisibility by 16, equality to 1, constexprs) decide what is compiled, so
what is checked here is what a user's GPU would be given. Only the driver is replaced; it refuses
what a device would refuse: too much shared memory, too many threads, a grid out of range.
"""

import contextlib
import dataclasses
import os

from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.compiler.compiler import max_shared_mem
from triton.runtime import driver
from triton.runtime.jit import JITFunction

# Shared memory a block may opt in to, in bytes (CUDA programming guide, compute capabilities).
SHARED_LIMIT = {80: 166912, 86: 101376, 89: 101376, 90: 232448, 100: 232448, 120: 101376}
GRID_LIMIT = (2**31 - 1, 65535, 65535)


@dataclasses.dataclass
class Launch:
    name: str
    grid: tuple
    args: tuple
    compiled: object  # triton's CompiledKernel: .asm["ptx"], .asm["cubin"], .metadata


class _CompileOnlyDriver(DriverBase):
    """What JITFunction.run and CompiledKernel ask of a driver, answered for one GPU model."""

    def __init__(self, cc, launches):
        self.cc = cc
        self.launches = launches
        self.utils = self  # triton reads driver.utils.get_device_properties and .load_binary
        self._compiled = None

    @classmethod
    def is_active(cls):
        return True

    def get_current_target(self):
        return GPUTarget("cuda", self.cc, 32)

    def get_current_device(self):
        # A kernel caches what it compiled by device number. The capability as the number keeps
        # two capabilities in one process apart.
        return self.cc

    def get_current_stream(self, device=None):
        return 0

    def get_device_properties(self, device=None):
        return {
            "max_shared_mem": SHARED_LIMIT[self.cc],
            "max_num_regs": 65536,
            "multiprocessor_count": 108,
            "warpSize": 32,
        }

    def load_binary(self, name, cubin, shared, device):
        assert cubin[:4] == b"\x7fELF", f"{name}: ptxas gave no cubin"
        n_regs = n_spills = 0  # not known here: ptxas_budget.py reads them
        return None, name, n_regs, n_spills, 1024

    def launcher_cls(self, src, metadata):
        def launch(x, y, z, stream, function, packed, launch_metadata, enter, exit, *args):
            grid = (x, y, z)
            for size, limit in zip(grid, GRID_LIMIT, strict=True):
                if not 0 < size <= limit:
                    raise ValueError(f"{metadata.name}: grid {grid} is outside {GRID_LIMIT}")
            self.launches.append(Launch(metadata.name, grid, args, None))

        return launch

    def get_active_torch_device(self):
        raise NotImplementedError("nothing is executed here")

    get_benchmarker = map_python_to_cpp_type = get_active_torch_device


@contextlib.contextmanager
def aot(cc):
    """Within, `kernel[grid](...)` compiles for compute capability `cc` and is recorded."""
    assert os.environ.get("TRITON_INTERPRET") != "1", "the interpreter compiles nothing"
    launches = []
    previous, run = driver._active, JITFunction.run

    def recorded_run(self, *args, **kwargs):
        n = len(launches)
        compiled = run(self, *args, **kwargs)
        for launch in launches[n:]:
            launch.compiled = compiled
        return compiled

    max_shared_mem.cache_clear()  # triton asks once per device number and keeps the answer
    driver.set_active(_CompileOnlyDriver(cc, launches))
    JITFunction.run = recorded_run
    try:
        yield launches
    finally:
        JITFunction.run = run
        driver._active = previous

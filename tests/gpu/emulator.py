"""The CUDA module compiled for the CPU, in the place of a device: the kernels that ship, run by tests/gpu/simt.

The module is built once per state of its sources, into build/simt of the checkout.
"""

import contextlib
import hashlib
import importlib.util
import subprocess
import sys
import sysconfig
from pathlib import Path

import torch

from fastrec.ops import _arrays, _cuda

ROOT = Path(__file__).resolve().parents[2]
SIMT = Path(__file__).resolve().parent / "simt"
FLAGS = ["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Wshadow", "-Werror", "-Wno-unknown-pragmas"]
FLAGS += ["-ffp-contract=off", "-fno-omit-frame-pointer", "-DFASTREC_SIMT", f"-I{ROOT / 'csrc'}", f"-I{SIMT}"]
KERNELS = ("score_topk", "fuse_features", "segment_mean", "mmr")


def digest(paths, *more):
    """A name for a state of these files."""
    state = hashlib.sha256(repr(more).encode())
    for path in sorted(paths):
        state.update(path.read_bytes())
    return state.hexdigest()[:16]


def sources():
    return [*(ROOT / "csrc").glob("*cuda*"), *(ROOT / "csrc").glob("*.cuh"), *SIMT.iterdir()]


def build():
    """Path of the module."""
    import pybind11

    folder = ROOT / "build" / "simt"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{digest(sources(), sys.version)}._C_cuda.so"
    if not path.exists():
        include = ["-isystem", pybind11.get_include(), "-isystem", sysconfig.get_paths()["include"]]
        kernels = [x for name in KERNELS for x in ("-x", "c++", str(ROOT / "csrc" / f"{name}_cuda.cu"))]
        plain = [
            "-x",
            "c++",
            str(ROOT / "csrc" / "bindings_cuda.cpp"),
            *(str(SIMT / name) for name in ("simt.cpp", "runtime.cpp")),
        ]
        command = ["g++", *FLAGS, "-fPIC", "-shared", "-fvisibility=hidden", '-DFASTREC_CUDA_ARCHITECTURES="emulated"']
        part = path.with_suffix(".part")
        subprocess.run([*command, *include, *kernels, *plain, "-o", part], check=True)
        part.rename(path)
    return path


def load():
    """The module; the name in its init function is fixed, so that the file name must not matter."""
    spec = importlib.util.spec_from_file_location("_C_cuda", build())
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Emulated(_cuda.Runtime):
    """Memory of the CPU stands for that of a device."""

    dlpack_type = 1

    def __init__(self, module):
        self.module = module

    def native(self):
        return self.module

    def device_gap(self):
        return None

    def is_on(self, x):
        return isinstance(x, OnDevice)

    def device(self):
        return torch.device("cpu")

    def stream(self, device):
        return 0

    def has_tf32(self, device):
        return True

    def processors(self, device):
        return 3


class OnDevice(torch.Tensor):
    """A tensor that the operators take to lie on a device; torch computes on it as on any other."""


def on_device(array):
    """array as such a tensor"""
    return torch.as_tensor(array).as_subclass(OnDevice)


@contextlib.contextmanager
def poisoned(monkeypatch):
    """Every output starts as NaN, or as a number that stands for nothing."""

    def garbage(shape, dtype, device):
        value = float("nan") if dtype.is_floating_point else -7
        return torch.full(shape, value, dtype=dtype, device=device)

    monkeypatch.setattr(_cuda, "empty", garbage)
    monkeypatch.setattr(_arrays, "empty", _arrays.empty)
    yield

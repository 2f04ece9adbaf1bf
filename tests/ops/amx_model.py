"""The native module with the tiles of AMX in software (amx_model.h), in the place of the installed one.

    PYTHONPATH=tests/ops python -m pytest -p amx_model tests/ops tests/encode
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "amx-model"
#: With the tools of the virtual environment.
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def missing(levels):
    """Why the model cannot be built or run where the installed module has these levels; "" where it can."""
    tools = [name for name in ("cmake", "ninja", "c++") if not shutil.which(name, path=PATH)]
    if tools:
        return f"{', '.join(tools)} not found"
    return "" if {"avx512_vnni", "avx512_bf16"} <= set(levels) else "a CPU without AVX-512 VNNI and BF16"


def build():
    """Path of the module, which is compiled unless it is there."""
    import pybind11

    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "FASTREC_AMX_MODEL": "ON",
        "FASTREC_CUDA": "OFF",
        "pybind11_DIR": pybind11.get_cmake_dir(),
        "Python_EXECUTABLE": sys.executable,
    }
    configure = ["cmake", "-S", ROOT, "-B", BUILD, "-G", "Ninja", *(f"-D{k}={v}" for k, v in options.items())]
    for command in (configure, ["cmake", "--build", BUILD, "--target", "_C"]):
        done = subprocess.run(command, env=os.environ | {"PATH": PATH}, text=True, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr
    (path,) = BUILD.glob("_C*.so")
    return path


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests():
    """As a plugin (-p), before a conftest.py imports fastrec."""
    from fuzz_topk import load

    load(build())

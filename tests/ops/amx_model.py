"""The native module with the tiles of AMX in software (amx_model.h), in the place of the installed one.

    PYTHONPATH=tests/ops python -m pytest -p amx_model tests/ops tests/encode

Alone it builds the module and prints its path: amx_model.py [SANITIZERS]
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TARGET = "_C_amx_model"
#: With the tools of the virtual environment.
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def missing(levels):
    """Why the model cannot be built or run where the installed module has these levels; "" where it can."""
    tools = [name for name in ("cmake", "ninja", "c++") if not shutil.which(name, path=PATH)]
    if tools:
        return f"{', '.join(tools)} not found"
    return "" if {"avx512_vnni", "avx512_bf16"} <= set(levels) else "a CPU without AVX-512 VNNI and BF16"


def run(*command):
    """The output of a command where it fails, else ""."""
    done = subprocess.run(command, env=os.environ | {"PATH": PATH}, text=True, capture_output=True)
    return (done.stdout + done.stderr or "failed") if done.returncode else ""


def build(sanitizers=""):
    """Path of the module. Most of its objects are those of the installed one, where that was built in this checkout."""
    import pybind11

    for folder in ROOT.glob(f"build/cp{sys.version_info[0]}{sys.version_info[1]}-*") if not sanitizers else ():
        if not run("cmake", "--build", folder, "--target", TARGET):
            return next(folder.glob(f"{TARGET}*.so"))
    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "FASTREC_CUDA": "OFF",
        "FASTREC_SANITIZE": sanitizers,
        "pybind11_DIR": pybind11.get_cmake_dir(),
        "Python_EXECUTABLE": sys.executable,
    }
    folder = ROOT / "build" / "-".join(["amx-model", *sanitizers.split(",")]).rstrip("-")
    error = run("cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", *(f"-D{k}={v}" for k, v in options.items()))
    error = error or run("cmake", "--build", folder, "--target", TARGET)
    assert not error, error
    return next(folder.glob(f"{TARGET}*.so"))


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests():
    """As a plugin (-p), before a conftest.py imports fastrec."""
    from fuzz_topk import load

    load(build())


if __name__ == "__main__":
    print(build(*sys.argv[1:]))

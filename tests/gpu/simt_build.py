"""The tests of the CUDA kernels as programs, one for each sanitizer."""

import os
import subprocess
import threading
from pathlib import Path

from emulator import FLAGS, KERNELS, ROOT, SIMT, digest

#: Flags of kernel and test, and of the emulator, which is built without: its bookkeeping is not the kernel's memory.
SANITIZERS = {
    "asan": (["-fsanitize=address,undefined", "-fno-sanitize-recover=all"], ["-DSIMT_ASAN"]),
    "tsan": (["-fsanitize=thread"], ["-DSIMT_TSAN"]),
}
FOLDER = ROOT / "build" / "simt"
#: What every kernel and every test includes.
HEADERS = [*(ROOT / "csrc").glob("*.cuh"), ROOT / "csrc" / "ops_cuda.h", *SIMT.glob("*.h*")]


def compile_once(path, command):
    """Run a compiler unless its result is there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.part")
        done = subprocess.run([*command, "-o", part], text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
        part.rename(path)
    return path


def emulator_objects(sanitizer):
    flags = ["-O2", *SANITIZERS[sanitizer][1]]
    paths = [SIMT / "simt.cpp", SIMT / "runtime.cpp"]
    name = digest([*paths, *SIMT.glob("*.hpp")], FLAGS, flags)
    return [compile_once(FOLDER / f"{p.stem}.{name}.o", ["g++", *FLAGS, *flags, "-c", p]) for p in paths]


def test_object(kernel, sanitizer):
    flags, _ = SANITIZERS[sanitizer]
    source = SIMT / f"test_{kernel}.cpp"
    path = FOLDER / f"{source.stem}.{digest([source, *HEADERS], FLAGS, flags)}.o"
    return compile_once(path, ["g++", *FLAGS, *flags, "-c", source])


def emulator(parallel):
    """Build what all share."""
    parallel([lambda s=s: emulator_objects(s) for s in SANITIZERS])


def binary(kernel, sanitizer, source=None, path=None):
    """The program that tests a kernel, or the mutant of it in ``source``."""
    flags, _ = SANITIZERS[sanitizer]
    source = Path(source or ROOT / "csrc" / f"{kernel}_cuda.cu")
    objects = [*emulator_objects(sanitizer), test_object(kernel, sanitizer)]
    if path is None:
        path = FOLDER / f"{kernel}.{digest([source, *objects])}"
    return compile_once(path, ["g++", *FLAGS, *flags, "-x", "c++", source, "-x", "none", *objects])


__all__ = ["FOLDER", "KERNELS", "SANITIZERS", "binary", "emulator", "emulator_objects", "test_object"]

"""Break a kernel on purpose, many ways, and see that the tests notice every one.

    python tests/gpu/mutate.py [KERNEL ...]

A mutant is one text replacement that matches exactly once. It is killed when an engine fails: a wrong value, a NaN that
was left in an output, a sanitizer's report, a fault of the emulator, an end that does not come. What computes the same
is no mutant (a looser bound where a mask does the work): it teaches nothing and never dies. Tables: mutants_cuda.py,
mutants_triton.py.
"""

import concurrent.futures
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import simt_build
from mutants_cuda import CUDA
from mutants_triton import TESTS, TRITON

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
#: CPU seconds after which a mutant counts as one that does not end. The wall clock decides nothing: a run may wait.
CPU_S = 150
#: Small arrays: more threads only wait for each other.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
#: What says why a run failed, in the words of the tool that noticed.
REASON = re.compile(
    r"simt: (?!  ).*|FAILED .*\(\S+:\d+\)|SUMMARY: .*|.*runtime error: .*|E  +\S.*|Fatal Python error.*"
)
TEST = re.compile(r"^FAILED tests/[^:\s]+::(\S+)", re.M)
OFF = re.compile(r"^E +Greatest absolute difference: (\S+)", re.M)
#: First sanitizer, and seeds; the second sees what the first lets pass.
ENGINES = {"asan": "0 5", "tsan": "0 3"}


def limit_cpu():
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 5))


def reason_in(text, status):
    """The first line that says why. AssertionError where pytest did not come to run its tests: that kills nothing."""
    assert status not in (2, 3, 4, 5), f"no verdict, exit status {status}: {text[-1000:]}"
    if status == -signal.SIGXCPU:
        return f"does not end within {CPU_S} s of CPU time"
    found = REASON.search(text)
    reason = found[0].removeprefix("E").strip() if found else f"exit status {status}: {text[-200:]}"
    # Of a test of pytest its name, and by how much the result is off.
    test, off = TEST.search(text), OFF.search(text)
    return (f"{test[1]}: " if test else "") + reason + (f" Off by {off[1]}." if off else "")


def why_fails(command, **options):
    """None when the command passes, else the first line that gives a reason."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT, preexec_fn=limit_cpu, **options
    )
    return None if done.returncode == 0 else reason_in(done.stdout.decode(errors="replace"), done.returncode)


class Forks:
    """A process that has imported what the tests need, and forks for each mutant; one for each thread that asks."""

    def __init__(self):
        self.own = threading.local()
        self.all = []

    def why_fails(self, mutant, tests, output):
        process = getattr(self.own, "process", None)
        if process is None:
            env = os.environ | ONE_THREAD | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(HERE)}
            command = [sys.executable, HERE / "mutant_forks.py"]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            process = self.own.process = subprocess.Popen(command, text=True, env=env, cwd=ROOT, **pipes)
            self.all.append(process)
        process.stdin.write(json.dumps([str(mutant), tests, str(output)]) + "\n")
        process.stdin.flush()
        status = int(process.stdout.readline() or 71)
        return None if status == 0 else reason_in(output.read_text(errors="replace"), status)

    def close(self):
        for process in self.all:
            process.stdin.close()
            process.wait()


FORKS = Forks()


def sources_of(kernel):
    """Files that the mutants of a kernel change."""
    if kernel in CUDA:
        return [
            ROOT / "csrc" / name for name in (f"{kernel}_cuda.cu", "topk_keys.cuh", "mma_tile.cuh", "cuda_utils.cuh")
        ]
    if kernel == "attention_varlen":
        return sorted((ROOT / "kernels").glob("attention_*.py"))
    return [ROOT / "kernels" / f"{kernel}.py"]


def mutated(kernel, old, new):
    """(file, its text with the replacement)"""
    matches = [(path, path.read_text()) for path in sources_of(kernel)]
    matches = [(path, text) for path, text in matches if old in text]
    assert len(matches) == 1 and matches[0][1].count(old) == 1, f"{kernel}: {old!r} does not match exactly once"
    path, text = matches[0]
    return path, text.replace(old, new)


def run_cuda(kernel, old, new, folder):
    path, text = mutated(kernel, old, new)
    source = ROOT / "csrc" / f"{kernel}_cuda.cu"
    for needed in (source, *simt_build.HEADERS):  # all of them: a header is looked for beside the one that includes it
        if needed.parent == source.parent:
            shutil.copy(needed, folder)
    (folder / path.name).write_text(text)
    source = folder / source.name
    for sanitizer, seeds in ENGINES.items():
        program = simt_build.binary(kernel, sanitizer, source, folder / sanitizer)
        # halt at the first report: a run with a thousand races would take minutes to print them
        env = os.environ | {"TSAN_OPTIONS": "halt_on_error=1"}
        reason = why_fails([program, *seeds.split()], env=env)
        if reason:
            return sanitizer, reason
    return None


def tests_of(kernel):
    """Arguments of pytest. Its own time limit is off: it goes by the clock."""
    options = ["-x", "-q", "--timeout=0", "-p", "no:cacheprovider", "-p", "mutant_plugin"]
    return [*options, "tests/gpu/test_triton_kernels.py", "-k", TESTS[kernel]]


def unchanged_passes(kernel, folder):
    """The same command on the kernel as it is must pass, or every mutant would seem to die."""
    path = sources_of(kernel)[-1]
    reason = FORKS.why_fails(path, tests_of(kernel), folder / f"{kernel}.unchanged")
    assert reason is None, f"{path.name} fails without any change: {reason}"


def run_triton(kernel, old, new, folder):
    path, text = mutated(kernel, old, new)
    mutant = folder / path.name
    mutant.write_text(text)
    reason = FORKS.why_fails(mutant, tests_of(kernel), folder / "log")
    if reason:
        return "interpreter", reason
    env = os.environ | ONE_THREAD | {"MUTANT_FILE": str(mutant), "PYTHONPATH": str(HERE)}
    reason = why_fails([sys.executable, "-m", "ttsem.sanitize", "pytest", *tests_of(kernel)], env=env)
    return ("ttsem", reason) if reason else None


def main(jobs, wanted=()):
    """(killed, made, fewest of a kernel); prints why each died."""
    todo = [(k, *m, run_cuda) for k, ms in CUDA.items() for m in ms]
    todo += [(k, *m, run_triton) for k, ms in TRITON.items() for m in ms]
    todo = [t for t in todo if not wanted or t[0] in wanted]
    for kernel, _, old, new, _ in todo:
        mutated(kernel, old, new)
    killed = 0
    with tempfile.TemporaryDirectory() as scratch, concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        simt_build.emulator(lambda parts: [part() for part in parts])
        for kernel in {t[0] for t in todo} & {*CUDA}:
            for sanitizer in ENGINES:
                simt_build.test_object(kernel, sanitizer)

        list(pool.map(lambda kernel: unchanged_passes(kernel, Path(scratch)), {t[0] for t in todo} & {*TRITON}))

        def one(number):
            kernel, _, old, new, run = todo[number]
            folder = Path(scratch) / str(number)
            folder.mkdir()
            return run(kernel, old, new, folder)

        for (kernel, name, *_), result in zip(todo, pool.map(one, range(len(todo))), strict=True):
            killed += result is not None
            said = "SURVIVED" if result is None else f"killed by {result[0]}: {result[1][:150]}"
            print(f"  {kernel}: {name}: {said}", flush=True)
    FORKS.close()
    kernels = [t[0] for t in todo]
    return killed, len(todo), min((kernels.count(k) for k in set(kernels)), default=0)


if __name__ == "__main__":
    counts = main(os.cpu_count() or 1, sys.argv[1:])
    print(f"{counts[0]} of {counts[1]} mutants killed")
    sys.exit(counts[0] != counts[1])

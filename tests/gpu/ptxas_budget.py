"""Registers, shared memory and spills of every kernel, as ptxas reports them, and the occupancy that follows.

python tests/gpu/ptxas_budget.py --arch 80,90 csrc/score_topk_cuda.cu          # one line of JSON per kernel
"""

import argparse
import json
import re
import subprocess
import tempfile

STRICT = ["-Werror=all-warnings", "-Xptxas", "-warn-spills,-warn-lmem-usage,-Werror"]
_KERNEL = re.compile(
    r"Compiling entry function '(?P<name>[^']+)' for '(?P<arch>\w+)'"
    r".*?(?P<stack>\d+) bytes stack frame, (?P<spill_stores>\d+) bytes spill stores, "
    r"(?P<spill_loads>\d+) bytes spill loads"
    r".*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.S,
)
#: Shared memory of a multiprocessor in bytes, and its warps (CUDA programming guide, compute capabilities).
SMEM = {80: 167936, 86: 102400, 89: 102400, 90: 233472, 100: 233472}
WARPS = {80: 64, 86: 48, 89: 48, 90: 64, 100: 64}


def parse(log):
    """ptxas -v output -> one dict per kernel. Dynamic shared memory is not known to ptxas."""
    kernels = []
    for match in _KERNEL.finditer(log):
        row = match.groupdict()
        smem = re.search(r"(\d+) bytes smem", row.pop("rest"))
        row = {k: int(v) if v.isdigit() else v for k, v in row.items()}
        kernels.append(row | {"static_smem": int(smem[1]) if smem else 0})
    assert kernels, f"no kernel in the output of ptxas:\n{log}"
    return kernels


def occupancy(registers, smem, threads, arch):
    """Share of a multiprocessor's warps that fit; registers come in units of 8 a thread."""
    warps = -(-threads // 32)
    by_registers = 65536 // (-(-registers // 8) * 8 * 32 * warps)
    by_smem = SMEM[arch] // (smem + 1024)  # the system takes 1 KiB a block
    most_blocks = 32 if WARPS[arch] == 64 else 16
    return min(by_registers, by_smem, WARPS[arch] // warps, most_blocks) * warps / WARPS[arch]


def _run(command):
    done = subprocess.run(command, text=True, capture_output=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def version():
    """Release of nvcc, on which the numbers depend."""
    return re.search(r"release (\S+),", _run(["nvcc", "--version"]))[1]


def budget_of_cu(path, archs):
    """Rows of all architectures; the newest stays in as PTX."""
    with tempfile.NamedTemporaryFile(suffix=".fatbin") as out:
        targets = [f"-gencode=arch=compute_{cc},code=sm_{cc}" for cc in archs]
        targets.append(f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}")
        flags = ["-std=c++17", "-O3", "-fatbin", "-Xptxas", "-v", *STRICT]
        return parse(_run(["nvcc", *flags, *targets, path, "-o", out.name]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--arch", default="80,90")
    parser.add_argument("sources", nargs="+")
    args = parser.parse_args()
    for source in args.sources:
        for row in budget_of_cu(source, [int(a) for a in args.arch.split(",")]):
            print(json.dumps(row))

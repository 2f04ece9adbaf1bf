"""The rungs of scripts/check-gpu, and the line that says what was proven.

    python tests/gpu/ladder.py [RUNG ...] [--update-budgets] [--full]

cuda      nvcc with all warnings and spills as errors, for every architecture and PTX; budgets
triton    Triton kernels ahead of time through their wrappers, for the same; budgets
simt      CUDA kernels in the emulator: ASan and UBSan, TSan, over scheduling seeds
engines   Triton kernels on ttsem and on the interpreter, there through the operators too
mutants   broken kernels, which the tests must notice
"""

import argparse
import concurrent.futures
import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import mutate
import ptxas_budget
import simt_build

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ARCHS = (80, 86, 89, 90, 100)
BUDGETS = HERE / "budgets.json"
SEEDS = 20
JOBS = os.cpu_count() or 1


class Failed(Exception):
    """A rung does not hold."""


def run(command, **options):
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT, **options)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}")
    return done.stdout


def parallel(jobs):
    """The results of functions without arguments, in their order."""
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        return [f.result() for f in [pool.submit(job) for job in jobs]]


def cuda(budgets):
    sources = sorted((ROOT / "csrc").glob("*_cuda.cu"), key=lambda path: -path.stat().st_size)  # the longest first
    jobs = [lambda s=s, a=archs: ptxas_budget.budget_of_cu(s, a) for s in sources for archs in (ARCHS[:3], ARCHS[3:])]
    found = [row for part in parallel(jobs) for row in part]
    assert len({row["name"] for row in found}) * len(ARCHS) == len(found), "ptxas did not report every kernel"
    for row in found:
        key, arch = f"cuda {row['name']}", row["arch"].removeprefix("sm_")
        budgets[key] = budgets.get(key, {}) | {arch: limits(row, int(arch), 128)}
    return len({row["name"] for row in found}), len(found)


def limits(row, arch, threads):
    smem = row["static_smem"] + row.get("dynamic_smem", 0)
    return {
        "registers": row["registers"],
        "smem": smem,
        "spills": row["spill_stores"] + row["spill_loads"] + row["stack"],
        "occupancy": round(ptxas_budget.occupancy(row["registers"], smem, threads, arch), 3),
    }


def triton(budgets, full=False):
    def one(part):
        command = [sys.executable, HERE / "triton_aot.py", str(part), str(JOBS), ",".join(map(str, ARCHS))]
        return json.loads(run([*command, *(["--full"] if full else [])]).splitlines()[-1])

    rows = [row for part in parallel([lambda p=p: one(p) for p in range(JOBS)]) for row in part]
    for row in rows:
        key = f"triton {row['name']} {row['variant']}"
        budgets[key] = budgets.get(key, {}) | {str(row["arch"]): limits(row, row["arch"], row["threads"])}
    return len({row["name"] for row in rows}), len(rows)


def compare(found, update, full):
    """Budgets against those of the repository, which hold what covers: of ``full`` the rest must not spill, no more."""
    spilling = [f"{k} sm_{a}" for k, archs in found.items() for a, row in archs.items() if row["spills"]]
    if spilling:
        raise Failed("spills: " + ", ".join(spilling))
    version = ptxas_budget.version()
    if update:
        kept = json.loads(BUDGETS.read_text())["kernels"] if BUDGETS.exists() else {}
        kinds = {k.split()[0] for k in found}
        kept = {k: v for k, v in kept.items() if k.split()[0] not in kinds} | found
        lines = ",\n".join(f" {json.dumps(k)}: {json.dumps(kept[k], sort_keys=True)}" for k in sorted(kept))
        BUDGETS.write_text(f'{{"ptxas": {json.dumps(version)}, "kernels": {{\n{lines}\n}}}}\n')
        return
    known = json.loads(BUDGETS.read_text())
    # Another release of ptxas allocates a little differently.
    slack = 0 if known["ptxas"] == version else 16
    wrong = []
    for kernel, archs in found.items():
        for arch, row in archs.items():
            was = known["kernels"].get(kernel, {}).get(arch)
            if was is None and full:
                continue
            if was is None:
                wrong.append(f"{kernel} sm_{arch} is not in the budgets")
            elif row["registers"] > was["registers"] + slack or row["smem"] > was["smem"]:
                wrong.append(f"{kernel} sm_{arch}: {row}, budget {was}")
            elif slack == 0 and row["occupancy"] < was["occupancy"]:
                wrong.append(f"{kernel} sm_{arch}: occupancy {row['occupancy']}, budget {was['occupancy']}")
    kinds = {k.split()[0] for k in found}
    wrong += [f"{k} is gone" for k in known["kernels"] if k.split()[0] in kinds and k not in found]
    if wrong:
        raise Failed("budgets (scripts/check-gpu cuda triton --update-budgets sets them anew):\n" + "\n".join(wrong))


def simt():
    """Cases of all kernels; every seed ran each of them under both sets of sanitizers."""
    simt_build.emulator(parallel)
    names = [(k, s) for s in simt_build.SANITIZERS for k in simt_build.KERNELS]
    binaries = parallel([lambda k=k, s=s: simt_build.binary(k, s) for k, s in names])

    def one(path, first, last):
        out = run([path, str(first), str(last)], env=os.environ | {"TSAN_OPTIONS": "halt_on_error=1"})
        return int(re.search(r"(\d+) cases passed", out)[1])

    jobs = [lambda p=p, a=a: one(p, a, min(a + 4, SEEDS - 1)) for p in binaries for a in range(0, SEEDS, 5)]
    every = sum(parallel(jobs))
    assert every % (SEEDS * len(simt_build.SANITIZERS)) == 0, "some seeds ran other cases than others"
    return every // (SEEDS * len(simt_build.SANITIZERS))


def engines():
    """Tests that passed on each engine."""
    tests = ["pytest", "-q", "-p", "no:cacheprovider", "tests/gpu/test_triton_kernels.py"]
    commands = [
        ([sys.executable, "-m", "ttsem.sanitize", *tests], {}),
        (
            [sys.executable, "-m", *tests, "tests/gpu/test_triton_ops.py", "tests/gpu/test_benchmark.py"],
            {"TRITON_INTERPRET": "1"},
        ),
    ]
    outputs = parallel([lambda c=c, e=e: run(c, env=os.environ | e | mutate.ONE_THREAD) for c, e in commands])
    counts = []
    for out in outputs:
        if re.search(r"\d+ (failed|skipped|error)", out):
            raise Failed(out[-4000:])
        counts.append(int(re.search(r"(\d+) passed", out)[1]))
    return counts


def cpu_seconds():
    """Of all processes so far: what the clock shows depends on who else runs."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rungs", nargs="*", choices=["cuda", "triton", "simt", "engines", "mutants", []])
    parser.add_argument("--update-budgets", action="store_true")
    parser.add_argument("--full", action="store_true", help="all Triton variants, not only those that cover; slow")
    args = parser.parse_args()
    rungs = args.rungs or ["cuda", "triton", "simt", "engines", "mutants"]
    said, begin = [], time.monotonic()
    budgets = {}
    try:
        for rung in rungs:
            start, used = time.monotonic(), cpu_seconds()
            if rung in ("cuda", "triton"):
                n_kernels, n = cuda(budgets) if rung == "cuda" else triton(budgets, args.full)
                text = f"{rung}: {n_kernels} kernels, {n} variants x architectures ({len(ARCHS)}) compiled"
            elif rung == "simt":
                text = f"simt: {simt()} cases x {SEEDS} seeds emulated, under ASan with UBSan and under TSan"
            elif rung == "engines":
                text = "engines: {} tests on ttsem, {} on the interpreter".format(*engines())
            else:
                killed, made, least = mutate.main(JOBS)
                text = f"mutants: {killed} / {made} killed / made, at least {least} a kernel"
                if killed != made:
                    raise Failed(text)
            said.append(text)
            took = f"{time.monotonic() - start:.0f} s, {cpu_seconds() - used:.0f} s of CPU"
            print(f"{text} ({took})", flush=True)
            if budgets and rung == [r for r in rungs if r in ("cuda", "triton")][-1]:
                compare(budgets, args.update_budgets, args.full)
                said.append(f"budgets: {sum(map(len, budgets.values()))} held, spills = 0")
    except (Failed, AssertionError) as error:
        print(f"check-gpu: FAILED\n{error}", file=sys.stderr)
        return 1
    took = f"{time.monotonic() - begin:.0f} s, {cpu_seconds():.0f} s of CPU"
    print(f"check-gpu: ok in {took}\n  " + "\n  ".join(said))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""score_topk against its peers and against the machine: verified, then timed in interleaved rounds.

    python benchmarks/topk.py                   ours alone: times and shares of the machine's limits
    python benchmarks/topk.py --peers           and torch, numpy, implicit and faiss, each in a process of its own
    python benchmarks/topk.py --quick           N = 1e5 and few rows
    python benchmarks/topk.py --json FILE --plot FILE

Ratios are medians over the rounds of (time of the peer / ours) of one round, for two cores that others use too.
Limits: FMA peak of the machine, measured just before and after ours, and for one user the read bandwidth, whose passes
take turns with the calls: of the memory, by passes over 256 MB, where the screen is larger than 32 MB, else of the
cache, by passes over as much as the screen has. It is judged in the first case; up to 128 MB the cache still helps the
calls, and a share may be above 100 %. The last line says which target was missed; exit 1 then.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

WORKER = Path(__file__).parent / "peers" / "topk.py"
OURS = ["fastrec-float32", "fastrec-int8"]
PEERS = ["torch", "numpy", "implicit", "faiss"]
Case = dict[str, Any]

#: (name, engine of ours, which rows, least ratio to the best peer)
RATIOS = [
    ("fp32 B=1 D>=256", "fastrec-float32", lambda c: c["B"] == 1 and c["D"] >= 256 and c["k"] == 10, 1.3),
    ("fp32 B=64", "fastrec-float32", lambda c: c["B"] == 64 and c["k"] == 10, 1.8),
    ("fp32 B=1024", "fastrec-float32", lambda c: c["B"] == 1024 and c["k"] == 10, 1.7),
    ("fp32 B=1024 k=100", "fastrec-float32", lambda c: c["B"] == 1024 and c["k"] == 100, 2.0),
    ("int8 B=1 D>=256", "fastrec-int8", lambda c: c["B"] == 1 and c["D"] >= 256 and c["k"] == 10, 3.0),
    ("int8 B=64 D=256", "fastrec-int8", lambda c: c["B"] == 64 and c["D"] == 256 and c["k"] == 10, 3.0),
    ("int8 B=1024 D=256", "fastrec-int8", lambda c: c["B"] == 1024 and c["D"] == 256 and c["k"] == 10, None),
]
LEAST_SHARE = 0.85
BEYOND_CACHE = 1 << 25  # bytes of a screen that memory has to give; below it the call itself counts for more
#: Floats that memory gives. Of 64 MB read again and again an L3 cache of 32 MB still gives a third, of 120 MB a tenth.
FROM_MEMORY = 1 << 26


def grid(quick: bool) -> list[Case]:
    """The rows: N over 1e4..1e6 at D = 256, D over 64..384 at N = 1e5, each with every B; k = 100 where it counts."""
    shapes = [(100_000, 256)] if quick else [(10_000, 256), (100_000, 64), (100_000, 128), (100_000, 256)]
    shapes += [] if quick else [(100_000, 384), (1_000_000, 64), (1_000_000, 256)]
    cases = [{"N": n, "D": d, "B": b, "k": 10} for n, d in shapes for b in (1, 64, 1024)]
    return cases + [{"N": n, "D": d, "B": 1024, "k": 100} for n, d in shapes if n <= 100_000]


def make(case: Case, folder: Path) -> Path:
    """Normal vectors, and about 100 seen items a user; for a sparse case a similarity with 50 entries a row."""
    rng = np.random.default_rng(0)
    n, d, b = case["N"], case["D"], case["B"]
    data = {
        "items": rng.standard_normal((n, d), np.float32),
        "queries": rng.standard_normal((b, d), np.float32),
        "indptr": np.concatenate([[0], np.cumsum(rng.integers(80, 121, b))]),
    }
    data["rows"] = np.concatenate([np.sort(rng.choice(n, m, replace=False)) for m in np.diff(data["indptr"])])
    data["rows"] = data["rows"].astype(np.int32)
    if "sparse" in case:
        data["history_indptr"] = data["indptr"].astype(np.int64)
        data["history_rows"] = data["rows"]
        data["history_values"] = rng.random(len(data["rows"]), np.float32)
        data["similarity_indptr"] = np.arange(n + 1) * 50
        columns = rng.integers(0, n, (n, 50)).astype(np.int32)
        data["similarity_rows"] = np.sort(columns, axis=1).ravel()
        data["similarity_values"] = rng.random(n * 50, np.float32)
    file = folder / "case.npz"
    np.savez(file, **data)
    return file


class Engine:
    """A worker process; it sleeps while others are timed."""

    def __init__(self, name: str) -> None:
        self.name = name
        command = [sys.executable, "-W", "ignore", str(WORKER), name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the process of {self.name} ended; see its error above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def agreement(rows: Any, reference: Any) -> float:
    """The share of a user's items that both have; float32 sums of the peers differ about near ties."""
    pairs = [len(set(a) & set(b)) / max(len(b), 1) for a, b in zip(rows, reference, strict=True)]
    return float(np.mean(pairs))


def measure(case: Case, names: list[str], rounds: int, seconds: float) -> dict[str, Any]:
    """Percentiles of the time of every engine, ratios of a round, and the limits."""
    engines = {name: Engine(name) for name in names}
    probe = engines[names[0]]
    with tempfile.TemporaryDirectory() as folder:
        file = make(case, Path(folder))
        for engine in engines.values():
            engine.ask("prepare", file=str(file), **case)
    found = {name: engine.ask("answer")["rows"] for name, engine in engines.items()}
    worst = min(agreement(found[name], found[names[0]]) for name in names)
    if worst < 0.98:
        raise SystemExit(f"the engines disagree on {case}: {worst:.3f} of the items are common")
    times: dict[str, list[float]] = {name: [] for name in names}
    limits: dict[str, list[dict[str, float]]] = {name: [] for name in names if name.startswith("fastrec")}
    reading: dict[str, list[float]] = {name: [] for name in limits}
    size = probe_size(case, names[0])
    for _ in range(rounds):
        for name, engine in engines.items():
            before = probe.ask("probe", size=size) if name in limits else {}
            times[name].append(engine.ask("time", seconds=seconds)["seconds"])
            if name in limits:  # neighbours change what the machine can do: the better of just before and just after
                after = probe.ask("probe", size=size)
                limits[name].append({limit: max(before[limit], after[limit]) for limit in before})
                if case["B"] == 1:
                    work = screen_bytes(case, name)
                    floats = probe_size(case, name)
                    reading[name].append(engine.ask("share", size=floats, bytes=work, seconds=seconds)["share"])
    for engine in engines.values():
        engine.close()
    return {
        **case,
        "ms": {name: [float(x) * 1e3 for x in np.percentile(t, [20, 50, 80])] for name, t in times.items()},
        "ratios": {
            ours: {
                peer: float(np.median(np.divide(times[peer], times[ours]))) for peer in names if "fastrec" not in peer
            }
            for ours in names
            if ours.startswith("fastrec")
        },
        "limits": limits,
        "shares": {
            name: float(np.median(reading[name] if case["B"] == 1 else multiplying(case, times[name], limits[name])))
            for name in limits
            if "sparse" not in case
        },
    }


def screen_bytes(case: Case, engine: str) -> int:
    """What is read of the items: codes, scales, and for each 16 of them two errors."""
    n, d = case["N"], case["D"]
    return int(n * (d + 4 if engine == "fastrec-int8" else 2 * d) + n // 2)


def probe_size(case: Case, engine: str) -> int:
    """Floats of a pass of the probe: as many bytes as the screen has, or what memory has to give."""
    work = screen_bytes(case, engine)
    return FROM_MEMORY if work > BEYOND_CACHE else max(work // 4, 1 << 20) // 64 * 64


def multiplying(case: Case, times: list[float], limits: list[dict[str, float]]) -> Any:
    """The share of the FMA peak of float32 in every round, by 2 B N D; AMX and VNNI are beyond it."""
    return 2 * case["B"] * case["N"] * case["D"] / np.array(times) / np.array([x["flops"] for x in limits])


def line(row: dict[str, Any]) -> str:
    shape = f"N={row['N']:<8} D={row['D']:<4} B={row['B']:<5} k={row['k']:<4}" + row.get("sparse", "")
    parts = [f"{name} {t[1]:.3f} ms" for name, t in row["ms"].items()]
    parts += [f"{name} {share:.0%} of limit" for name, share in row["shares"].items()]
    for ours, ratios in row["ratios"].items():
        if ratios:
            best = min(ratios, key=lambda peer: ratios[peer])
            parts.append(f"{ours.removeprefix('fastrec-')} {ratios[best]:.2f} x {best}")
    return shape + "  " + "; ".join(parts)


def missed(rows: list[dict[str, Any]], vnni: bool) -> list[str]:
    """What a target asks for and a row does not give."""
    out = []
    for name, ours, applies, least in RATIOS:
        least = least if least is not None else 4.0 if vnni else 2.5
        for row in rows:
            ratios = row["ratios"].get(ours, {})
            if "sparse" not in row and ratios and applies(row) and min(ratios.values()) < least:
                out.append(f"{name} at N={row['N']} D={row['D']}: {min(ratios.values()):.2f} < {least}")
    for row in rows:
        for engine, share in row["shares"].items():
            reads = row["B"] == 1 and screen_bytes(row, engine) > BEYOND_CACHE
            multiplies = row["B"] == 1024 and row["D"] == 256 and row["k"] == 10 and engine == "fastrec-float32"
            if (reads or multiplies) and share < LEAST_SHARE:
                out.append(f"{engine}: {share:.0%} < 85% of the limit at N={row['N']} D={row['D']} B={row['B']}")
    return out + missed_sparse(rows)


def missed_sparse(rows: list[dict[str, Any]]) -> list[str]:
    sparse = {row["sparse"]: row for row in rows if "sparse" in row}
    out = []
    if "only" in sparse and sparse["only"]["ratios"]["fastrec-float32"]:
        ratio = min(sparse["only"]["ratios"]["fastrec-float32"].values())
        if ratio < 2.5:
            out.append(f"sparse term: {ratio:.2f} < 2.5 x implicit")
    if "both" in sparse:
        cost = sparse["both"]["ms"]["fastrec-float32"][0] / sparse["none"]["ms"]["fastrec-float32"][0]
        if cost > 1.6:
            out.append(f"dense and sparse: {cost:.2f} > 1.6 x dense")
    return out


def plot(rows: list[dict[str, Any]], file: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in rows if "sparse" not in row]
    names = list(dict.fromkeys(name for row in rows for name in row["ms"]))
    figure, axes = plt.subplots(figsize=(0.5 * len(rows) + 4, 5), layout="constrained")
    for name in names:
        at = [i for i, row in enumerate(rows) if name in row["ms"]]
        axes.plot(at, [rows[i]["ms"][name][1] / rows[i]["B"] for i in at], "o-", label=name)
    labels = [f"N={row['N']:.0e} D={row['D']}\nB={row['B']} k={row['k']}" for row in rows]
    axes.set_xticks(range(len(rows)), labels, rotation=90, fontsize=7)
    axes.set(yscale="log", ylabel="ms per user", title="score_topk: time per user, median of the rounds")
    axes.legend()
    figure.savefig(file)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.1, help="least time of an engine in a round")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot")
    args = parser.parse_args()
    from fastrec import _native

    level = os.environ.get("FASTREC_SIMD") or _native.module("bench").simd_levels()[-1]
    packages = ["fastrec-engine", "numpy", *(["torch", "implicit", "faiss-cpu"] if args.peers else [])]
    about = {"machine": platform.processor() or platform.machine(), "cpus": os.cpu_count(), "level": level}
    about["versions"] = {name: version(name) for name in packages}
    print(json.dumps(about))
    rows = []
    for case in grid(args.quick):
        peers = PEERS + (["faiss-selector"] if case["B"] == 1 else [])
        rows.append(measure(case, OURS + (peers if args.peers else []), args.rounds, args.seconds))
        print(line(rows[-1]), flush=True)
    for kind in ("only", "both", "none"):
        case = {"N": 100_000, "D": 256, "B": 64, "k": 10, "sparse": kind}
        names = OURS[:1] + (["implicit-sparse"] if args.peers and kind == "only" else [])
        rows.append(measure(case, names, args.rounds, args.seconds))
        print(line(rows[-1]), flush=True)
    misses = missed(rows, "vnni" in level)
    if args.json:
        args.json.write_text(json.dumps({**about, "rows": rows, "missed": misses}, indent=1) + "\n")
    if args.plot:
        plot(rows, args.plot)
    print("missed: " + "; ".join(misses) if misses else "missed: nothing")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())

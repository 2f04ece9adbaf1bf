"""Ray beside the embedded path on one machine: the same results, and what the actors cost.

    python benchmarks/distributed.py [--users 65536] [--items 300000] [--dims 128] [--texts 0] [--json FILE]

A made model (``benchmarks/live.py``) is saved; ``recommend_all`` of this process and of ``--workers`` actors of a local
Ray write fresh folders in turns, which are compared byte by byte. The overhead is the median over the rounds of the
ratio, less 1; starting Ray is timed apart, starting the actors counts. Choose sizes at which a job takes over a minute.
With --texts N also N generated titles through MiniLM, embedded and by actors. The last line says which target was
missed; exit 1 then.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from live import model

from fastrec import load
from fastrec.distributed import RayEncoder, recommend_all
from fastrec.distributed.pool import ray
from fastrec.encode import Encoder

OVERHEAD = 0.15


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def turns(rounds: int, embedded: Callable[[int], Any], actors: Callable[[int], Any]) -> dict[str, Any]:
    """Seconds of both, alternating, and the overhead."""
    times: dict[str, list[float]] = {"embedded": [], "actors": []}
    for turn in range(rounds):
        pair = [("embedded", embedded), ("actors", actors)]
        for name, call in pair if turn % 2 == 0 else reversed(pair):
            times[name].append(seconds(lambda call=call, turn=turn: call(turn)))
            print(f"  {name} {times[name][-1]:.1f} s", flush=True)
    ratio = float(np.median(np.divide(times["actors"], times["embedded"])))
    return {**{f"{name}_s": t for name, t in times.items()}, "overhead": ratio - 1}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=65536)
    parser.add_argument("--items", type=int, default=300_000)
    parser.add_argument("--dims", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--per-part", type=int, default=8192)
    parser.add_argument("--texts", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp())
    row: dict[str, Any] = {"users": options.users, "items": options.items, "workers": options.workers}
    checks = {}
    try:
        model(options.items, options.users, options.dims, 0, None, None).save(work / "model")
        row["start_of_ray_s"] = seconds(lambda: ray("bench"))
        parts = {"users_per_part": options.per_part}
        rec = load(work / "model")
        found = turns(
            options.rounds,
            lambda turn: rec.recommend_all(work / f"one-{turn}", **parts),
            lambda turn: recommend_all(
                work / "model", work / f"ray-{turn}", workers=options.workers, progress=False, **parts
            ),
        )
        files = [{p.name: p.read_bytes() for p in (work / f"{kind}-0").iterdir()} for kind in ("one", "ray")]
        row["all users"] = {**found, "identical": files[0] == files[1], "parts": len(files[0]) - 1}
        if options.texts:
            rng = np.random.default_rng(0)
            texts = [
                " ".join(f"word{w}" for w in rng.zipf(1.3, rng.integers(3, 20)) % 5000) for _ in range(options.texts)
            ]
            results: dict[str, Any] = {}

            def by_actors(turn: int) -> None:
                encoder = RayEncoder("minilm", workers=options.workers, cache_dir=work / f"cache-ray-{turn}")
                results["ray"] = encoder.encode(texts)
                encoder.close()

            def by_one(turn: int) -> None:
                results["one"] = Encoder(cache_dir=work / f"cache-one-{turn}").encode(texts)

            found = turns(options.rounds, by_one, by_actors)
            row["texts"] = {**found, "identical": bool((results["one"] == results["ray"]).all()), "n": options.texts}
    finally:
        shutil.rmtree(work)
    for name in ("all users", "texts"):
        if name in row:
            checks[f"{name}: identical"] = row[name]["identical"]
            checks[f"{name}: overhead under {OVERHEAD:.0%}"] = row[name]["overhead"] < OVERHEAD
    print(json.dumps(row, indent=1))
    if options.json:
        Path(options.json).write_text(json.dumps(row, indent=1))
    missed = [name for name, holds in checks.items() if not holds]
    print("missed:", "; ".join(missed) or "nothing")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Recommendations for all users in files beside the search alone: what queries, ids, parquet and the disk cost.

    python benchmarks/recommend_all.py [--users 16384] [--items 1000000] [--dims 128] [--rounds 5] [--json FILE]

The model is made, not fitted: random factors of a matrix factorisation, popularity and histories of the size asked for
(``benchmarks/live.py``). In each round ``recommend_all`` writes a fresh folder, and ``score_topk`` answers the same
queries with the same seen lists in blocks of the same size, in turns; the ratio is the median over the rounds. What a
call does once (the fingerprint of the model) is timed apart, for it does not grow with the users, and taken off the
first; ``cpu_ratio`` is the same of the seconds of CPU, which a shared machine leaves alone. The last line says which
target was missed; exit 1 then.
"""

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from live import model

from fastrec import cold, inside, ops, pipeline
from fastrec.persist import fingerprint

TARGET = 1.2


def seconds(call: Any) -> tuple[float, float]:
    """(seconds by the clock, seconds of CPU of this process)."""
    start, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start, time.process_time() - cpu


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=16384)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dims", type=int, default=128)
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where the files go; default: the system's folder for temporary files")
    parser.add_argument("--json")
    options = parser.parse_args()
    rec = model(options.items, options.users, options.dims, 0, None, None)
    state = inside.state_of(rec, "bench")
    blocks = []
    for start in range(0, options.users, pipeline.USERS_AT_ONCE):
        histories, seen = state.histories.take(np.arange(start, min(start + pipeline.USERS_AT_ONCE, options.users)))
        blocks.append((cold.queries(state.features, histories).vectors, seen))

    def search() -> None:
        for vectors, seen in blocks:
            ops.score_topk(vectors, state.features.items, options.k, bias=state.features.bias, seen=seen)

    work = Path(tempfile.mkdtemp(dir=options.folder))
    once = min(seconds(lambda: fingerprint(state, inside.settings_of(rec))) for _ in range(3))
    whole: list[tuple[float, float]] = []
    alone: list[tuple[float, float]] = []
    try:
        for turn in range(options.rounds):
            calls = [(alone, search), (whole, lambda turn=turn: rec.recommend_all(work / str(turn), options.k))]
            for times, call in calls if turn % 2 == 0 else reversed(calls):
                times.append(seconds(call))
        size = sum(p.stat().st_size for p in (work / "0").iterdir())
    finally:
        shutil.rmtree(work)
    ratios = [(w - once[0]) / a for (w, _), (a, _) in zip(whole, alone, strict=True)]
    of_cpu = [(w - once[1]) / a for (_, w), (_, a) in zip(whole, alone, strict=True)]
    took, search_s = (float(np.median([t for t, _ in times])) for times in (whole, alone))
    row = {
        "users": options.users,
        "items": options.items,
        "dims": options.dims,
        "k": options.k,
        "once_s": once[0],
        "recommend_all_s": took,
        "score_topk_s": search_s,
        "ratio": float(np.median(ratios)),
        "ratios": ratios,
        "cpu_ratio": float(np.median(of_cpu)),
        "users_per_s": options.users / (took - once[0]),
        "bytes_per_user": size / options.users,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    print(json.dumps(row, indent=1))
    if options.json:
        Path(options.json).write_text(json.dumps(row, indent=1))
    missed = [] if row["ratio"] <= TARGET else [f"recommend_all within {TARGET} of score_topk alone"]
    print("missed:", "; ".join(missed) or "nothing")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""End to end: how long reading, cleaning and fitting take, and how much memory at the most.

    python benchmarks/pipeline.py clean [--events 10000000] [--ids int|str]
    python benchmarks/pipeline.py fit [--data ../shared/data/ml-1m]

Each run is a process of its own, so that its peak memory is its own; the last line is JSON.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl


def generated(n: int, ids: str) -> pl.DataFrame:
    """n events of n / 100 users over n / 500 items with Zipf popularity, in random order of users."""
    rng = np.random.default_rng(0)
    users = rng.integers(0, max(n // 100, 1), n)
    items = np.minimum(rng.zipf(1.3, n), max(n // 500, 1))
    frame = pl.DataFrame({"user_id": users, "item_id": items, "timestamp": np.sort(rng.integers(1.5e9, 1.6e9, n))})
    if ids == "str":
        frame = frame.with_columns(pl.format("user-{}", "user_id"), pl.format("item-{}", "item_id"))
    return frame


def bench_clean(args: argparse.Namespace) -> dict[str, float]:
    from fastrec import data

    start = time.perf_counter()
    cleaned = data.clean(args.file)
    seconds = time.perf_counter() - start
    print(cleaned.report)
    return {"events": cleaned.report.rows_read, "clean_s": seconds}


def bench_fit(args: argparse.Namespace) -> dict[str, float]:
    from fastrec import Recommender, encode

    spent = 0.0
    embed = encode.embed_items

    def timed(*a, **k):
        nonlocal spent
        start = time.perf_counter()
        result = embed(*a, **k)
        spent += time.perf_counter() - start
        return result

    encode.embed_items = timed
    with tempfile.TemporaryDirectory() as cache:  # an empty cache: the texts are encoded for certain
        start = time.perf_counter()
        rec = Recommender(cache_dir=cache).fit(
            args.data / "interactions.parquet", args.data / "items.parquet", goal=args.goal
        )
        seconds = time.perf_counter() - start
    start = time.perf_counter()
    rec.recommend(rec.user_ids, 10)
    everyone = time.perf_counter() - start
    print(rec.report, rec.weights, sep="\n")
    return {"fit_beyond_encoding_s": seconds - spent, "encoding_s": spent, "recommend_all_s": everyone}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("clean", "fit", "generate"))
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--ids", choices=("int", "str"), default="int")
    parser.add_argument("--file", type=Path, help="parquet file of events; for generate: where it goes")
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared/data/ml-1m")
    parser.add_argument("--goal", choices=("next", "period"), default="next")
    args = parser.parse_args()
    if args.what == "generate":
        generated(args.events, args.ids).write_parquet(args.file)
        return
    numbers = bench_fit(args) if args.what == "fit" else bench_clean(args)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps({name: round(value, 2) for name, value in numbers.items()} | {"peak_gb": round(peak, 2)}))


if __name__ == "__main__":
    main()

"""Training against peers: Sequential beside RecTools' SASRec, at the same width, layers and tokens of a batch, by the
seconds of an epoch; Als beside implicit's at the same factors, steps and threads, by the seconds of an iteration;
ItemItem beside implicit's CosineRecommender, with the same number of neighbours.

    python benchmarks/train.py                                   Als and implicit, and Sequential alone
    python benchmarks/train.py --peer-python VENV/bin/python     and RecTools' SASRec, from an environment that has it
    python benchmarks/train.py --data FOLDER --length 100 --width 64 --layers 2 --backbone sasrec

An epoch is the mean of some steps times the number of steps. RecTools pads every history to the length and leaves out
what is older; ours computes every event once. "us_per_event" compares what an event costs. Each engine is a process of
its own. Als is measured with the NDCG@10 on each user's last event, after 12 iterations. The last line is JSON; exit 1
where an epoch takes more than half of the faster loss of RecTools, or an iteration or the neighbours longer than with
implicit.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import polars as pl

PEER = Path(__file__).parent / "peers" / "train.py"
MOST = 0.5
_WARM = 2


def ours(args: argparse.Namespace) -> dict[str, Any]:
    """Steps as ``Sequential.fit`` does them."""
    import numpy as np

    from fastrec import Sequential, data
    from fastrec.models import _training

    settings = Sequential(
        backbone=args.backbone, width=args.width, layers=args.layers, heads=args.heads, length=args.length,
        batch_tokens=args.batch * args.length, negatives=256,
    )  # fmt: skip
    interactions = data.clean(args.data / "interactions.parquet").interactions
    sequences = _training.Sequences(interactions, settings.length)
    with _training._threads() as pool:
        run = _training._Run(settings, sequences, interactions, None, None, 0, pool)
        plan = sequences.epoch(np.random.default_rng(0), settings.batch_tokens)
        seconds = []
        for number, part in enumerate(plan[: args.steps + _WARM]):
            start = time.perf_counter()
            run._step(sequences.batch(*part), (0, 0, number))
            seconds.append(time.perf_counter() - start)
    step = float(np.mean(seconds[_WARM:]))
    return {"step_s": step, "epoch_s": step * len(plan), "events": sequences.tokens, "steps": len(plan)}


def peer(args: argparse.Namespace, loss: str) -> dict[str, Any]:
    """The same in the environment that has RecTools; the last line that it prints is JSON."""
    given = {name: getattr(args, name) for name in ("width", "layers", "heads", "length", "batch", "steps")}
    with tempfile.TemporaryDirectory() as folder:  # csv: the other environment need not have pyarrow
        file = Path(folder) / "events.csv"
        pl.read_parquet(args.data / "interactions.parquet").write_csv(file)
        given |= {"data": str(file), "loss": loss, "warm": _WARM}
        call = [args.peer_python, "-W", "ignore", PEER, json.dumps(given)]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"RecTools with {loss} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def als(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Seconds of an iteration and NDCG@10 of both, at ``args.factors``."""
    import numpy as np
    import scipy.sparse as sp
    from implicit.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    from fastrec import Als, config, data, learn, metrics
    from fastrec.profiles import profiles

    train, held = learn.holdout(data.clean(args.data / "interactions.parquet").interactions, "next")
    likes = train.select(train.weights > 0)
    shape = (likes.n_users, likes.n_items)
    confidence = sp.csr_matrix((1 + 4.0 * likes.weights, likes.items, likes.indptr), shape).astype(np.float32)
    rows = np.flatnonzero(np.diff(held.indptr))

    def ndcg(users: Any, items: Any) -> float:
        scores = users[rows] @ items.T
        mine = train.take(rows)
        scores[mine.users, mine.items] = -np.inf
        best = np.argsort(-scores, axis=1)[:, :10]
        return float(metrics.by_user(best, held.take(rows), 10)["ndcg"].mean())

    def ours(iterations: int) -> tuple[Any, Any]:
        source = Als(args.factors, alpha=4.0, regularization=10.0, iterations=iterations, decay=None, seed=0).fit(
            train, None, "next"
        )
        return profiles(source, likes), source.vectors

    def theirs(iterations: int) -> tuple[Any, Any]:
        # Its confidence is alpha times the entry.
        model = AlternatingLeastSquares(
            args.factors, 10.0, 1.0, iterations=iterations, num_threads=config.threads(), random_state=0
        )
        model.fit(confidence, show_progress=False)
        return model.user_factors, model.item_factors

    found = {}
    with threadpool_limits(1, "blas"):  # implicit asks for it
        for name, fit in (("fastrec als", ours), ("implicit ALS", theirs)):
            fit(1)
            seconds = []
            for iterations in (2, 12, 2, 12):
                start = time.perf_counter()
                factors = fit(iterations)
                seconds.append(time.perf_counter() - start)
            each = (min(seconds[1::2]) - min(seconds[::2])) / 10
            found[name] = {"iteration_s": each, "ndcg": ndcg(*factors)}
    return found


def neighbors(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Seconds of the neighbours of all items, the best of three turns."""
    import scipy.sparse as sp
    from implicit.nearest_neighbours import CosineRecommender

    from fastrec import ItemItem, config, data

    train = data.clean(args.data / "interactions.parquet").interactions
    likes = train.select(train.weights > 0)
    matrix = sp.csr_matrix((likes.weights, likes.items, likes.indptr), (likes.n_users, likes.n_items))

    def ours() -> None:
        ItemItem(neighbors=200, shrinkage=0.0).fit(train, None, "next")

    def theirs() -> None:
        CosineRecommender(K=200, num_threads=config.threads()).fit(matrix.copy(), show_progress=False)

    warnings.filterwarnings("ignore", "Method expects CSR")  # implicit's own, of its weighted copy
    seconds: dict[str, list[float]] = {}
    for _ in range(3):
        for name, fit in (("fastrec item_item", ours), ("implicit cosine", theirs)):
            start = time.perf_counter()
            fit()
            seconds.setdefault(name, []).append(time.perf_counter() - start)
    return {name: {"fit_s": min(times)} for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared/data/ml-1m")
    parser.add_argument("--backbone", choices=("ligr", "sasrec", "gpt2"), default="sasrec")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--length", type=int, default=200)
    parser.add_argument("--batch", type=int, default=64, help="histories of a step of RecTools; tokens = this x length")
    parser.add_argument("--steps", type=int, default=12, help="steps that are timed")
    parser.add_argument("--factors", type=int, default=128, help="of als")
    parser.add_argument("--peer-python", help="python of an environment with rectools[torch]")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = {f"fastrec {args.backbone}": ours(args)}
    if args.peer_python:
        for loss in ("softmax", "sampled_softmax"):
            rows[f"RecTools SASRec {loss}"] = peer(args, loss)
    for name, row in rows.items():
        row["us_per_event"] = 1e6 * row["epoch_s"] / row["events"]
        print(
            f"{name:32} {row['epoch_s']:8.1f} s an epoch {row['us_per_event']:8.1f} us an event {row['steps']:5} steps"
        )
    result: dict[str, Any] = {"rows": rows, "als": als(args)}
    for name, row in result["als"].items():
        print(f"{name:32} {row['iteration_s']:8.3f} s an iteration    NDCG@10 {row['ndcg']:.4f}")
    mine_s, other_s = (row["iteration_s"] for row in result["als"].values())
    result["als_ratio"] = mine_s / other_s
    result["neighbors"] = neighbors(args)
    for name, row in result["neighbors"].items():
        print(f"{name:32} {row['fit_s']:8.3f} s for all items")
    mine_s, other_s = (row["fit_s"] for row in result["neighbors"].values())
    result["neighbors_ratio"] = mine_s / other_s
    if args.peer_python:
        mine, *others = (row["epoch_s"] for row in rows.values())
        result["ratio"] = mine / min(others)
    print(json.dumps(result))
    missed = []
    if result.get("ratio", 0.0) > MOST:
        missed.append(f"an epoch takes {result['ratio']:.2f} of RecTools', expected at most {MOST}")
    if result["als_ratio"] > 1:
        missed.append(f"an iteration takes {result['als_ratio']:.2f} of implicit's, expected at most 1")
    if result["neighbors_ratio"] > 1:
        missed.append(f"the neighbours take {result['neighbors_ratio']:.2f} of implicit's, expected at most 1")
    if args.json:
        args.json.write_text(json.dumps({**result, "missed": missed}, indent=1) + "\n")
    if missed:
        sys.exit("; ".join(missed))


if __name__ == "__main__":
    main()

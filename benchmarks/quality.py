"""Recommendation quality: FastRec beside popularity, implicit and RecTools, on the same split, by the same evaluator.

    python benchmarks/quality.py [--data ../shared/data] [--sets "ml-100k;ml-1m;amazon-beauty"] [--protocols P,G]
        [--models fast,best] [--no-peers] [--peer-python VENV/bin/python] [--json FILE]

It all takes hours: any part can be run by itself, and what FILE holds of other parts stays there. With --checkpoint
FOLDER a run of "best" that was cut off goes on with the transformer where it was.

P: each user's last event is hidden; HR@10 / NDCG@10. G: all events after the 0.9 quantile of time are hidden;
recall@10 / NDCG@10. The whole catalogue is ranked, without what the user had before. FastRec runs with its defaults;
a peer's settings are chosen on a split of the same kind inside the training part, then it is fitted on all of that,
and it gives users without history the most popular items. Amazon's stamps are whole days: Beauty is measured with tied
rows in the order of the file and shuffled (seed 1). Intervals are the middle 95 % of a bootstrap over the users.
Models by name stand with a + between: "gan" is that source alone, "fast,popularity+gan" two rows.
"best" fits "sequential" too, of which the table also says what it reaches alone. RecTools' SASRec runs in an
environment of its own, with usual settings and no others tried.

The last line says what missed its target; exit 1 then.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp

from fastrec import Recommender, Sequential, data, datasets, learn, metrics, split
from fastrec.models import resolve
from fastrec.types import F32, I64, Interactions

K = 10
GOALS = {"P": "next", "G": "period"}
SPLITS = {"P": split.leave_one_out, "G": split.global_time}
SHUFFLED = "amazon-beauty, ties shuffled"
ALONE = "its sequential alone"
#: Least NDCG@10 of FastRec with its defaults, where this file knows one.
TARGETS = {
    ("ml-100k", "P", "FastRec fast"): 0.120,
    ("ml-1m", "P", "FastRec fast"): 0.163,
    ("ml-1m", "G", "FastRec fast"): 0.290,
    ("amazon-beauty", "P", "FastRec fast"): 0.064,
    (SHUFFLED, "P", "FastRec fast"): 0.060,
    ("amazon-beauty", "G", "FastRec fast"): 0.037,
    ("ml-1m", "P", "FastRec best"): 0.185,
    ("amazon-beauty", "P", "FastRec best"): 0.068,
    ("ml-1m", "P", ALONE): 0.160,
    ("amazon-beauty", "P", ALONE): 0.054,
    ("ml-100k", "P", "FastRec gan"): 0.066,
}
PEER = Path(__file__).parent / "peers" / "quality.py"
#: Users scored at once, and users that choose the settings of a peer.
_BLOCK, _CHOOSING = 1000, 3000

#: (rows of the users in training, -1 for none, their histories) -> scores [B, N]
Scorer = Callable[[I64, Interactions], F32]
Fit = Callable[[Interactions], Scorer]


def matrix(events: Interactions) -> "sp.csr_matrix":
    shape = (events.n_users, events.n_items)
    return sp.csr_matrix((np.ones(len(events.items), np.float32), events.items, events.indptr), shape)


def popular(half_life: float) -> Fit:
    """Counts in which an event loses half its weight every half-life, in days."""

    def fit(train: Interactions) -> Scorer:
        age = (train.times.max() - train.times) / 86400
        counts = np.bincount(train.items, np.exp2(-age / half_life), train.n_items).astype(np.float32)
        return lambda rows, histories: np.tile(counts, (len(rows), 1))

    return fit


def item_item(name: str, **settings: float) -> Fit:
    """A nearest-neighbour model of implicit."""

    def fit(train: Interactions) -> Scorer:
        from implicit import nearest_neighbours

        model = getattr(nearest_neighbours, name)(K=200, **settings)
        model.fit(matrix(train), show_progress=False)
        return lambda rows, histories: (matrix(histories) @ model.similarity).toarray()

    return fit


def factors(name: str, **settings: Any) -> Fit:
    """A factorisation of implicit."""

    def fit(train: Interactions) -> Scorer:
        from implicit import als, bpr

        kind = {"als": als.AlternatingLeastSquares, "bpr": bpr.BayesianPersonalizedRanking}[name]
        model = kind(random_state=0, **settings)
        model.fit(matrix(train), show_progress=False)
        return lambda rows, histories: np.asarray(model.user_factors)[rows] @ np.asarray(model.item_factors).T

    return fit


def peers() -> dict[str, list[Fit]]:
    """What each peer's settings are chosen from."""
    return {
        "popularity": [popular(np.inf)],
        "recent popularity": [popular(days) for days in (1.0, 3.0, 7.0, 30.0, 90.0, 365.0)],
        "implicit item-item": [
            item_item("CosineRecommender"),
            item_item("TFIDFRecommender"),
            item_item("BM25Recommender", K1=1.2, B=0.75),
            item_item("BM25Recommender", K1=100, B=0.8),
        ],
        "implicit ALS": [
            factors("als", factors=128, alpha=alpha, regularization=reg) for alpha, reg in ((1, 0.01), (2, 5), (10, 10))
        ],
        "implicit BPR": [factors("bpr", factors=64, learning_rate=0.05, regularization=0.01, iterations=100)],
    }


def ranking(scorer: Scorer, fallback: F32, rows: I64, histories: Interactions) -> I64:
    """The best K rows of every user without those of the history; the fallback for users without any."""
    out = np.empty((len(rows), K), np.int64)
    for start in range(0, len(rows), _BLOCK):
        part = np.arange(start, min(start + _BLOCK, len(rows)))
        mine = histories.take(part)
        scores = np.array(scorer(rows[part], mine), np.float32)
        scores[np.diff(mine.indptr) == 0] = fallback
        scores[mine.users, mine.items] = -np.inf
        best = np.argpartition(-scores, K, axis=1)[:, :K]
        order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1)
        out[part] = np.take_along_axis(best, order, 1)
    return out


def counts(train: Interactions) -> F32:
    return np.bincount(train.items, minlength=train.n_items).astype(np.float32)


def chosen(fits: Sequence[Fit], train: Interactions, goal: str) -> Fit:
    """The settings that are best on a split inside the training part."""
    if len(fits) == 1:
        return fits[0]
    past, held = learn.holdout(train, goal)
    rows = np.random.default_rng(0).permutation(np.flatnonzero(np.diff(held.indptr)))[:_CHOOSING]
    histories, targets, fallback = past.take(rows), held.take(rows), counts(past)
    gains = [metrics.by_user(ranking(fit(past), fallback, rows, histories), targets, K)["ndcg"].mean() for fit in fits]
    return fits[int(np.argmax(gains))]


def summary(found: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Means of metrics per user, and the interval of the NDCG."""
    ndcg, rng = found["ndcg"], np.random.default_rng(0)
    means = [ndcg[rng.integers(0, len(ndcg), len(ndcg))].mean() for _ in range(1000)]
    low, high = np.quantile(means, [0.025, 0.975])
    return {name: float(v.mean()) for name, v in found.items()} | {
        "ndcg_interval": [float(low), float(high)],
        "seconds": seconds,
    }


def ours(
    train: pl.DataFrame, test: pl.DataFrame, items: pl.DataFrame, goal: str, models: str, kept: str | None
) -> dict[str, Any]:
    """{row: metrics} of FastRec with these models, and of the transformer alone where it is one of them."""
    start = time.perf_counter()
    named: str | list[str] = models if models in ("fast", "best", "auto") else models.split("+")
    settings = [dataclasses.replace(m, checkpoint=kept) if isinstance(m, Sequential) else m for m in resolve(named)]
    rec = Recommender(models=settings, progress=False).fit(train, items, goal=goal)
    fitted = time.perf_counter() - start
    result = rec.evaluate(test, k=K, per_model=models != "fast")
    rows = {}
    for name, of in ((f"FastRec {models}", "fastrec"), (ALONE, "sequential")):
        for row in (r for r in result.rows if r["model"] == of):
            rows[name] = {metric: value for metric, value in row.items() if metric not in ("model", "coverage")}
            rows[name] |= {"ndcg_interval": result.intervals[of]["ndcg"], "fit_seconds": fitted}
            rows[name] |= {"seconds": time.perf_counter() - start, "weights": rec.weights}
            rows[name] |= {"users": result.users, "events": result.events}
    return rows


def rectools(train: pl.DataFrame, users: Sequence[Any], ids: Sequence[Any], args: Any) -> I64:
    """The best K of RecTools' SASRec for each user without what he had, rows in ``ids``; -1 where there are fewer."""
    with tempfile.TemporaryDirectory() as folder:  # csv: the other environment need not have pyarrow
        train.select("user_id", "item_id", "timestamp").write_csv(Path(folder) / "train.csv")
        pl.DataFrame({"user_id": users}).write_csv(Path(folder) / "users.csv")
        asked = {"folder": folder, "k": K, "epochs": args.peer_epochs, "length": args.peer_length}
        call = [args.peer_python, "-W", "ignore", PEER, json.dumps(asked)]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"RecTools failed:\n{done.stderr[-2000:]}")
        found = pl.read_csv(Path(folder) / "found.csv", schema_overrides={"user_id": pl.String, "item_id": pl.String})
    row_of_user = {str(user): row for row, user in enumerate(users)}
    row_of_item = {str(item): row for row, item in enumerate(ids)}
    out = np.full((len(users), K), -1, np.int64)
    for user, item, rank in found.select("user_id", "item_id", "rank").iter_rows():
        out[row_of_user[user], rank - 1] = row_of_item[item]
    return out


def measure(train: pl.DataFrame, test: pl.DataFrame, items: pl.DataFrame, goal: str, args: Any) -> dict[str, Any]:
    """{model: metrics} on one split."""
    rows: dict[str, Any] = {}
    for models in filter(None, args.models.split(",")):
        rows |= ours(train, test, items, goal, models, args.checkpoint)
    if args.peers or args.peer_python:
        past = data.clean(train, items)
        future = data.clean(test)
        users = past.users.rows(future.users.ids(np.arange(len(future.users))).tolist())
        of_items = past.items.rows(future.items.ids(np.arange(len(future.items))).tolist())
        f, n = future.interactions, len(past.items)
        histories = past.interactions.take(users)
        # As Recommender.evaluate: what the model does not know or the user had before cannot be found.
        held = Interactions(f.indptr, of_items[f.items].astype(np.int32), f.times, f.weights, n)
        old = np.isin(held.users * n + held.items, histories.users * n + histories.items)
        held = held.select((held.items >= 0) & ~old)
        asked = np.flatnonzero(np.diff(held.indptr))
        for name, row in rows.items():
            if (len(asked), len(held.items)) != (row["users"], row["events"]):
                raise AssertionError(
                    f"{len(asked)} users, {len(held.items)} events; {name} had {row['users']}, {row['events']}"
                )
        users, histories, held = users[asked], histories.take(asked), held.take(asked)
        if args.peer_python:
            start = time.perf_counter()
            ids = past.items.ids(np.arange(n)).tolist()
            known = np.flatnonzero(users >= 0)
            ranked = ranking(
                lambda rows, _: np.zeros((len(rows), n), np.float32), counts(past.interactions), users, histories
            )
            ranked[known] = rectools(train, past.users.ids(users[known]).tolist(), ids, args)
            rows["RecTools SASRec"] = summary(metrics.by_user(ranked, held, K), time.perf_counter() - start)
        for name, fits in peers().items() if args.peers else ():
            start = time.perf_counter()
            scorer = chosen(fits, past.interactions, goal)(past.interactions)
            found = metrics.by_user(ranking(scorer, counts(past.interactions), users, histories), held, K)
            rows[name] = summary(found, time.perf_counter() - start)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared/data")
    parser.add_argument(
        "--sets", default=f"ml-100k;ml-1m;amazon-beauty;{SHUFFLED}", help="names with semicolons between"
    )
    parser.add_argument("--protocols", default="P,G")
    parser.add_argument("--models", default="fast,best", help='presets, or names with + between; commas; "" for none')
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    parser.add_argument("--checkpoint", help="folder for the state of trainings")
    parser.add_argument("--peer-python", help="python of an environment with rectools[torch]")
    parser.add_argument("--peer-epochs", type=int, default=18, help="passes of RecTools' SASRec")
    parser.add_argument("--peer-length", type=int, default=50, help="newest entries that it looks at")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module="implicit")
    results: dict[str, dict[str, Any]] = {}
    if args.json and args.json.exists():
        results = json.loads(args.json.read_text())["results"]
    versions = {p: importlib.metadata.version(p) for p in ("fastrec-engine", "implicit", "numpy", "torch")}
    missed: list[str] = []
    for name in args.sets.split(";"):
        folder = args.data / name.split(",")[0]
        if name == "ml-100k":
            public = datasets.load(name)
            events, items = public.interactions, public.items
        else:
            events, items = pl.read_parquet(folder / "interactions.parquet"), pl.read_parquet(folder / "items.parquet")
        if name == SHUFFLED:
            events = events.sample(fraction=1.0, shuffle=True, seed=1)
        for protocol in args.protocols.split(","):
            train, test = SPLITS[protocol](events)
            rows = measure(train, test, items, GOALS[protocol], args)
            first = "hit_rate" if protocol == "P" else "recall"
            print(f"\n{name}, {protocol}\n\n| model | {first}@10 | NDCG@10 | 95 % | fit and rank, s |")
            print("|---|---|---|---|---|")
            for model, r in rows.items():
                low, high = r["ndcg_interval"]
                print(
                    f"| {model} | {r[first]:.4f} | {r['ndcg']:.4f} | {low:.4f} to {high:.4f} | {r['seconds']:.0f} |",
                    flush=True,
                )
                target = TARGETS.get((name, protocol, model))
                if target and r["ndcg"] < target:
                    missed.append(f"{name} {protocol} {model}: {r['ndcg']:.4f} < {target:.3f}")
            results.setdefault(f"{name}, {protocol}", {}).update(rows)
            if args.json:
                found = {"versions": versions, "results": results, "missed": missed}
                args.json.write_text(json.dumps(found, indent=2) + "\n")
    print("\nmissed: " + ("; ".join(missed) or "nothing"))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

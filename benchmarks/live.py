"""What living on costs: update, add_items, save and load, at a size that one chooses.

    python benchmarks/live.py [--items 1000000] [--users 100000] [--factors 64] [--peers] [--json FILE]

With --peers also one event and the list after it, in turns with implicit's ``recommend(recalculate_user=True)``.
The model is made, not fitted: random factors and histories of the size asked for, so that a million items take seconds.
The last line says which target was missed; the exit code is 1 then.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fastrec import Recommender, fuse, load
from fastrec.data import Columns, Vocab
from fastrec.encode import Encoder
from fastrec.histories import Histories
from fastrec.live import Live
from fastrec.state import State
from fastrec.store import open_store
from fastrec.types import BiasSource, Catalog, DenseSource, Embeddings, FoldInSource, Interactions, Report

UPDATE_MS, ADD_SHARE, LOAD_S = 1.0, 0.10, 1.0
PEER = Path(__file__).parent / "peers" / "live.py"


def model(n_items: int, n_users: int, factors: int, content: int, encoder: Any, store: Any) -> Recommender:
    """A recommender over random factors, and content vectors of ``content`` dimensions where that is not 0."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 50, n_users)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = (rng.integers(0, n_items, indptr[-1])).astype(np.int32)
    times = np.sort(rng.random(indptr[-1]) * 1e8 + 1e9)
    owner = np.repeat(np.arange(n_users), lengths)
    _, first = np.unique(owner * n_items + items, return_index=True)
    first.sort()
    indptr = np.concatenate([[0], np.cumsum(np.bincount(owner[first], minlength=n_users))]).astype(np.int64)
    histories = Interactions(indptr, items[first], times[first], np.ones(len(first), np.float32), n_items)
    counts = np.bincount(histories.items, minlength=n_items)
    popular = BiasSource("popularity", np.log1p(counts).astype(np.float32), 30.0)
    vectors = rng.standard_normal((n_items, factors), np.float32) / np.float32(factors**0.5)
    gram = (vectors.T @ vectors).astype(np.float64) + np.eye(factors)
    sources: list[Any] = [popular, FoldInSource("als", vectors, 3.0, gram, 4.0)]
    embeddings = None
    if content:
        unit = rng.standard_normal((n_items, content), np.float32)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        embeddings = Embeddings(unit, np.ones(n_items, np.bool_))
        sources.append(DenseSource("content", unit, 1.0))
    ids = Vocab.from_ids([f"item-{i}" for i in range(n_items)])
    table = pa.table({"item_id": ids.to_arrow()["id"], "title": pa.nulls(n_items, pa.string())})
    state = State(
        users=Vocab.from_ids([f"user-{i}" for i in range(n_users)]),
        items=ids,
        histories=Histories.of(histories),
        catalog=Catalog(table, ("title",)),
        embeddings=embeddings,
        features=fuse.fuse(sources, {s.name: 1.0 for s in sources}, n_items),
        sources=tuple(sources),
        popular=popular,
        report=Report(users=n_users, items=n_items, events=len(histories.items)),
        goal="next",
        columns=Columns(),
        landmarks=np.sort(np.argsort(-counts, kind="stable")[:4096]).astype(np.int64)
        if content
        else np.empty(0, np.int64),
    )
    rec = Recommender(encoder=encoder, models=["popularity", "als"])
    rec._store = None if store is None else open_store(store)
    rec._live = Live(state, rec._settings, rec._encoder, rec._store)
    return rec


def quantiles(seconds: list[float]) -> dict[str, float]:
    """20, 50, 80 and 99 per cent, in ms."""
    return {f"p{q}": round(float(np.percentile(seconds, q)) * 1e3, 4) for q in (20, 50, 80, 99)}


def one_by_one(rec: Recommender, n: int, n_items: int, n_users: int) -> list[float]:
    """Seconds of each update of one event; every tenth is of a new user."""
    rng = np.random.default_rng(1)
    took = []
    for i in range(n):
        user = f"new-{i}" if i % 10 == 0 else f"user-{rng.integers(n_users)}"
        event = {"user_id": user, "item_id": f"item-{rng.integers(n_items)}", "timestamp": 1.1e9 + i}
        start = time.perf_counter()
        rec.update(event)
        took.append(time.perf_counter() - start)
    return took


def beside_implicit(rec: Recommender, args: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of one event and the list after it, ours and implicit's, and the median ratio of a round."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-W", "ignore", str(PEER), str(args.items), str(args.factors)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as peer:
        assert peer.stdin is not None
        assert peer.stdout is not None
        found: dict[str, list[list[float]]] = {"fastrec": [], "implicit": []}
        for turn in range(8):
            took = []
            for i in range(args.reads):
                user = f"user-{(turn * args.reads + i) % args.users}"
                start = time.perf_counter()
                rec.update({"user_id": user, "item_id": f"item-{i % args.items}", "timestamp": 1.4e9 + i})
                rec.recommend(user, 10)
                took.append(time.perf_counter() - start)
            found["fastrec"].append(took)
            peer.stdin.write(f"{args.reads}\n")
            peer.stdin.flush()
            found["implicit"].append(json.loads(peer.stdout.readline()))
        peer.stdin.close()
    warm = {name: rounds[1:] for name, rounds in found.items()}
    ratios = [np.median(b) / np.median(a) for a, b in zip(warm["fastrec"], warm["implicit"], strict=True)]
    return {name: quantiles([s for took in rounds for s in took]) for name, rounds in warm.items()} | {
        "ratio": round(float(np.median(ratios)), 2)
    }


def bench(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures of one size."""
    result: dict[str, Any] = {"items": args.items, "users": args.users, "factors": args.factors}
    rec = model(args.items, args.users, args.factors, 0, None, None)
    start = time.perf_counter()
    rec.update({"user_id": "user-0", "item_id": "item-0"})
    result["first update, s (counts are made)"] = round(time.perf_counter() - start, 3)
    result["update of one event, ms"] = quantiles(one_by_one(rec, args.updates, args.items, args.users))
    rng = np.random.default_rng(2)
    many = {
        "user_id": [f"user-{u}" for u in rng.integers(0, args.users, 20000)],
        "item_id": [f"item-{i}" for i in rng.integers(0, args.items, 20000)],
        "timestamp": [1.2e9 + i for i in range(20000)],
    }
    start = time.perf_counter()
    rec.update(many)
    result["update of 20,000 events, events/s"] = round(20000 / (time.perf_counter() - start))

    took: list[float] = []
    alone = []
    for i in range(args.reads):
        start = time.perf_counter()
        rec.recommend(f"user-{i}", 10)
        alone.append(time.perf_counter() - start)
    stop = threading.Event()

    def write() -> None:
        i = 0
        while not stop.is_set():
            rec.update({"user_id": f"user-{i % 1000}", "item_id": f"item-{i % args.items}", "timestamp": 1.3e9 + i})
            i += 1
            time.sleep(0.001)

    writer = threading.Thread(target=write)
    writer.start()
    for i in range(args.reads):
        start = time.perf_counter()
        rec.recommend(f"user-{i}", 10)
        took.append(time.perf_counter() - start)
    stop.set()
    writer.join()
    result["recommend, ms"], result["recommend beside 1,000 updates/s, ms"] = quantiles(alone), quantiles(took)

    if args.peers:
        result["one event and the list after it, ms"] = beside_implicit(rec, args)
    start = time.perf_counter()
    rec.save(folder / "m")
    result["save, s"] = round(time.perf_counter() - start, 3)
    size = sum(p.stat().st_size for p in (folder / "m").iterdir())
    result["artifact, MB"] = round(size / 1e6)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        again = load(folder / "m")
        times.append(time.perf_counter() - start)
    result["load, s"] = round(min(times), 3)
    same = again.recommend([f"user-{i}" for i in range(8)], 10), rec.recommend([f"user-{i}" for i in range(8)], 10)
    assert (same[0].items == same[1].items).all() and (same[0].scores == same[1].scores).all()

    durable = model(1000, 1000, 8, 0, None, folder / "log.sqlite")
    result["update of one event, SQLite synced, ms"] = quantiles(one_by_one(durable, 200, 1000, 1000))
    threads = [
        threading.Thread(
            target=lambda t=t: [durable.update({"user_id": f"t{t}", "item_id": f"item-{i}"}) for i in range(100)]
        )
        for t in range(8)
    ]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result["8 threads, SQLite synced, events/s"] = round(800 / (time.perf_counter() - start))

    encoder = Encoder(cache=False)
    cold = model(args.cold_items, 1000, args.factors, encoder.dimension, encoder, None)
    words = ["red", "steel", "apple", "hammer", "garden", "light", "winter", "music", "paper", "river"]

    def texts(batch: int) -> list[str]:
        rng = np.random.default_rng(batch)
        return [" ".join(rng.choice(words, 15)) + f" {batch} {i}" for i in range(1000)]

    encoder.encode(texts(99))
    encoding, adding = [], []
    for batch in range(args.batches):
        start = time.perf_counter()
        encoder.encode(texts(batch))
        encoding.append(time.perf_counter() - start)
        start = time.perf_counter()
        cold.add_items({"item_id": [f"new-{batch}-{i}" for i in range(1000)], "title": texts(batch)})
        adding.append(time.perf_counter() - start)
    result["add_items: fitted items with content"] = args.cold_items
    result["encode 1,000 texts, s"] = round(float(np.median(encoding)), 4)
    result["add_items of 1,000 texts, s"] = round(float(np.median(adding)), 4)
    result["add_items over encoding"] = round(float(np.median(adding) / np.median(encoding)) - 1, 4)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, default in (
        ("items", 1_000_000), ("users", 100_000), ("factors", 64), ("updates", 2000), ("reads", 30),
        ("cold-items", 100_000), ("batches", 5),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--peers", action="store_true", help="also implicit, in a process of its own")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fastrec-live-"))
    try:
        result = bench(args, folder)
    finally:
        shutil.rmtree(folder)
    result["machine"] = f"{platform.machine()}, Python {platform.python_version()}"
    for name, value in result.items():
        print(f"{name:>45}: {value}")
    missed = [
        name
        for name, good in (
            (f"update under {UPDATE_MS} ms", result["update of one event, ms"]["p50"] < UPDATE_MS),
            (f"add_items under {ADD_SHARE:.0%} over encoding", result["add_items over encoding"] < ADD_SHARE),
            (f"load under {LOAD_S} s", result["load, s"] < LOAD_S),
        )
        if not good
    ]
    if args.json:
        args.json.write_text(json.dumps({**result, "missed": missed}, indent=2) + "\n")
    print("missed: " + (", ".join(missed) or "nothing"))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

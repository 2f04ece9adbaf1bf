"""Generated events of the shape that real ones have, written as a folder of parquet parts in bounded memory.

    python benchmarks/generate.py FOLDER --events 10000000 [--texts]

Users come in sessions. The items follow Zipf's law of exponent 1 within a taste, and users have one or two of 16
tastes. Of n events there are n / 40 users, whose numbers of events are log-normal (sigma 1.1), and 20 sqrt(n) items
(Heaps' law). A session has a geometric number of events (mean 5), minutes apart, and the events of all users stand by
time, as in a log. Of a hundred events two repeat the item before (views again), and one is written twice (an exact
duplicate); kinds are view, cart and purchase. With --texts an items table is written too: titles of log-normally many
words of a vocabulary by Zipf's law, and a category. The same arguments give the same files.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import polars as pl

TASTES = 16
#: Seconds of the log, and where it begins.
SPAN, BEGIN = 365 * 86400, 1_700_000_000
#: Users whose events are drawn at once.
BLOCK = 1 << 16


def sizes(events: int) -> tuple[int, int]:
    """(users, items) of so many events."""
    return max(events // 40, 10), max(int(20 * math.sqrt(events)), 2 * TASTES)


def generate(folder: Path, events: int, *, parts: int = 0, seed: int = 0, texts: bool = False) -> int:
    """Write about ``events`` events to parts in the order of time; returns how many."""
    users, items = sizes(events)
    parts = parts or max(1, events // 2_000_000)
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    activity = rng.lognormal(0, 1.1, users)
    counts = np.maximum(2, rng.poisson(activity * (events / 1.03) / activity.sum())).astype(np.int64)
    tastes = rng.integers(0, TASTES, (users, 2))
    members = items // TASTES
    # The rank of an item within its taste; the inverse of the distribution, drawn by a uniform number.
    zipf = np.cumsum(1 / np.arange(1, members + 1))
    zipf /= zipf[-1]
    scatter = rng.permutation(TASTES * members).astype(np.int32)
    edges = np.linspace(BEGIN, BEGIN + SPAN, parts + 1)
    spill = [[] for _ in range(parts)]
    total = 0
    # A user lives in one part of the log for each session: blocks of users are dealt out to the parts by time.
    for first in range(0, users, BLOCK):
        count = counts[first : first + BLOCK]
        owner = np.repeat(np.arange(first, first + len(count), dtype=np.int32), count)
        n = len(owner)
        begins = rng.random(n) < 0.2
        begins[np.concatenate([[0], np.cumsum(count)[:-1]])] = True
        session = np.cumsum(begins) - 1
        start = rng.integers(0, SPAN - 86400, session[-1] + 1)
        time = BEGIN + start[session] + np.cumsum(rng.integers(20, 300, n)) % 43200
        taste = tastes[owner, (rng.random(n) < 0.25).astype(np.int64)]
        rank = np.searchsorted(zipf, rng.random(n))
        item = scatter[taste * members + rank]
        again = (rng.random(n) < 0.02) & ~begins
        item[again] = item[np.flatnonzero(again) - 1]
        kind = rng.choice(3, n, p=[0.85, 0.1, 0.05]).astype(np.int8)
        twice = rng.random(n) < 0.01
        columns = [np.concatenate([c, c[twice]]) for c in (owner, item, time, kind)]
        place = np.minimum(np.searchsorted(edges, columns[2], side="right") - 1, parts - 1)
        order = np.argsort(place, kind="stable")
        cuts = np.searchsorted(place[order], np.arange(parts + 1))
        for part in range(parts):
            at = order[cuts[part] : cuts[part + 1]]
            path = folder / f".{part:05d}-{first}.npz"
            np.savez(path, *[c[at] for c in columns])
            spill[part].append(path)
        total += len(columns[0])
    for part, paths in enumerate(spill):
        loaded = [np.load(path) for path in paths]
        owner, item, time, kind = (np.concatenate([one[f"arr_{i}"] for one in loaded]) for i in range(4))
        frame = pl.DataFrame({"user_id": owner, "item_id": item, "timestamp": time, "event": kind})
        kinds = pl.Series(["view", "cart", "purchase"])
        frame = frame.sort("timestamp", maintain_order=True).select(
            pl.format("user-{}", "user_id").alias("user_id"),
            pl.format("item-{}", "item_id").alias("item_id"),
            "timestamp",
            kinds.gather(pl.Series(frame["event"])).alias("event"),
        )
        frame.write_parquet(folder / f"part-{part:05d}.parquet", row_group_size=1 << 18)
        for path in paths:
            path.unlink()
    if texts:
        _texts(rng, TASTES * members).write_parquet(folder.with_name(folder.name + "-items.parquet"))
    return total


def _texts(rng: np.random.Generator, items: int) -> pl.DataFrame:
    """Titles of 1 to some 30 words (median 6), and the category of each item."""
    lengths = np.clip(rng.lognormal(1.8, 0.5, items), 1, 30).astype(np.int64)
    weight = 1 / np.arange(1, 20001)
    words = rng.choice(20000, lengths.sum(), p=weight / weight.sum())
    owner = np.repeat(np.arange(items), lengths)
    frame = pl.DataFrame({"item": owner, "word": words}).with_columns(pl.format("word{}", "word").alias("word"))
    titles = frame.group_by("item", maintain_order=True).agg(pl.col("word").str.join(" "))["word"]
    category = pl.Series(rng.integers(0, TASTES, items))
    return pl.DataFrame({"item_id": [f"item-{i}" for i in range(items)], "title": titles}).with_columns(
        pl.format("category{}", category).alias("category")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--parts", type=int, default=0, help="files; default: one for two million events")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--texts", action="store_true", help="also FOLDER-items.parquet")
    options = parser.parse_args()
    total = generate(options.folder, options.events, parts=options.parts, seed=options.seed, texts=options.texts)
    print(f"{total} events of {sizes(options.events)} users and items in {options.folder}")


if __name__ == "__main__":
    main()

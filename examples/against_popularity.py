"""What the four recipes measure themselves by: the most popular items of the last days, less what one has had.

How many days is chosen by the result on the test itself, which no one could do in practice: in favour of popularity.
Both sides see the same events and the same candidates, and both are asked for the same users.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import polars as pl

from fastrec import metrics

DAY = 86400
K = 10


def targets(past: pl.DataFrame, future: pl.DataFrame, candidates: Collection[Any]) -> dict[Any, set[Any]]:
    """{user: items to find}: what is new for the user in ``future`` and could have been recommended."""
    new = future.join(past, on=["user_id", "item_id"], how="anti").filter(pl.col("item_id").is_in(list(candidates)))
    found = new.group_by("user_id", maintain_order=True).agg("item_id")
    return {user: set(items) for user, items in found.iter_rows()}


def popular(past: pl.DataFrame, now: float, days: float, candidates: Collection[Any] | None = None) -> list[Any]:
    """Items by the number of their events in the days before ``now``, most of all first."""
    recent = past.filter((pl.col("timestamp") > now - days * DAY) & (pl.col("timestamp") <= now))
    if candidates is not None:
        recent = recent.filter(pl.col("item_id").is_in(list(candidates)))
    counts = recent.group_by("item_id", maintain_order=True).len().sort("len", descending=True, maintain_order=True)
    return counts["item_id"].to_list()


def without(items: Sequence[Any], had: Collection[Any], k: int = K) -> list[Any]:
    """The first k items that are not among ``had``."""
    kept = []
    for item in items:
        if item not in had:
            kept.append(item)
            if len(kept) == k:
                break
    return kept


def by_popularity(
    past: pl.DataFrame,
    wanted: Mapping[Any, set[Any]],
    now: float,
    windows: Sequence[float],
    candidates: Collection[Any],
) -> dict[float, float]:
    """{days: NDCG@10} of popularity over every window of days."""
    mine = past.filter(pl.col("user_id").is_in(list(wanted)))
    had = {user: set(items) for user, items in mine.group_by("user_id").agg("item_id").iter_rows()}
    found = {}
    for days in windows:
        order = popular(past, now, days, candidates)
        rankings = [without(order, had.get(user, ())) for user in wanted]
        found[days] = metrics.ndcg(rankings, list(wanted.values()), K)
    return found


def verdict(what: str, ours: float, popularity: Mapping[float, float], n: int) -> int:
    """Print both figures; 0 where ours is the larger one, else 1: the exit code of a recipe."""
    days = max(popularity, key=lambda d: popularity[d])
    best, won = popularity[days], ours > popularity[days]
    print(f"{what}: NDCG@{K} over {n:,} rankings")
    print(f"  FastRec            {ours:.4f}")
    print(
        f"  recent popularity  {best:.4f}   (last {days:g} days, the best of {', '.join(f'{d:g}' for d in popularity)})"
    )
    print(f"  {ours / best:.2f} times recent popularity" if won and best else "  " + ("won" if won else "LOST"))
    return 0 if won else 1

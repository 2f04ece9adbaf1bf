"""``fastrec demo``: from raw ratings and film titles to explained recommendations, on MovieLens 100K."""

import time
from pathlib import Path
from typing import Any

import polars as pl

from fastrec import datasets
from fastrec.recommender import Recommender

_USERS = 5


def run(out: Path) -> None:
    """Fit, evaluate, show five users, write the recommendations of all users to ``out`` (parquet)."""
    start = time.perf_counter()

    def step(text: str) -> None:
        print(f"\n== {text}   [{time.perf_counter() - start:.0f} s]", flush=True)

    step("MovieLens 100K: ratings with seconds, titles and genres")
    films = datasets.load("ml-100k")
    rec = Recommender()

    step("read, clean, encode the texts, fit every model, learn decay and weights")
    rec.fit(films.interactions, films.items, goal="period")
    print(rec.report)
    print("weights:", ", ".join(f"{name} {weight:.2f}" for name, weight in rec.weights.items()))

    step("evaluate: the last tenth of the time is hidden, fitted on the rest, all films ranked")
    print(rec.evaluate(split="time", k=10))

    step("five users, now with the model of all the data")
    rec.fit(films.interactions, films.items, goal="next")
    titles = dict(films.items.select("item_id", "title").iter_rows())
    users = films.interactions.get_column("user_id").unique(maintain_order=True).head(_USERS).to_list()
    for user, result in zip(users, _explained(rec, users), strict=True):
        last = _last(films.interactions, user)
        print(f"\nuser {user}, chose lately: " + "; ".join(titles.get(i, str(i)) for i in last))
        for item, score, why in result:
            shares = ", ".join(f"{name} {share:.2f}" for name, share in why["sources"].items())
            because = "; ".join(titles.get(i, str(i)) for i, _ in why["history"][:2])
            print(f"  {score:6.2f}  {titles.get(item, item)}   ({shares}; because of {because or 'its popularity'})")

    step("a sentence instead of a history")
    text = "a space adventure with robots and a dark villain"
    print(f"{text!r}: " + "; ".join(titles.get(i, str(i)) for i in rec.recommend_for_text(text, 5)))

    step(f"all users, to {out}")
    table = rec.recommend(rec.user_ids, 10).to_polars()
    table.write_parquet(out)
    print(f"{table.height:,} rows for {table['user_id'].n_unique():,} users in {out}")


def _explained(rec: Recommender, users: list[int]) -> list[list[tuple[int, float, dict[str, Any]]]]:
    """(item, score, explanation) of the best five of each user."""
    found = rec.recommend(users, 5, explain=True)
    return [
        list(zip(items, scores.tolist(), why, strict=True))
        for items, scores, why in zip(found.items, found.scores, found.explanations, strict=True)
    ]


def _last(interactions: pl.DataFrame, user: int) -> list[int]:
    """The three newest items of a user, newest first."""
    mine = interactions.filter(pl.col("user_id") == user).sort("timestamp", maintain_order=True)
    return mine.get_column("item_id").tail(3).reverse().to_list()

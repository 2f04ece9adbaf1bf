"""Knowledge on items without events: ml-100k with its triples, hidden items, with the source and without it.

    python benchmarks/knowledge.py [--data ../shared/data] [--seeds 3] [--json FILE]

RecBole's package ships triples with ml-100k, and they name items by the ids of MovieLens 1M (item:260 is Star Wars
there, item:50 in ml-100k); titles bring the one to the other, with ../shared/data/ml-1m. A fifth of the items, drawn
anew for each seed, loses its events, and is ranked among itself for the users who chose it, without any text: NDCG@10
of popularity, item_item and directed, of the same with `knowledge`, and of `knowledge` alone. One path of an
explanation is printed for each seed. The last line says what missed its target: better with `knowledge` than without it
by two standard errors, paired by user; exit 1 then.
"""

import argparse
import importlib.metadata
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fastrec import Recommender, datasets, metrics

WITHOUT = ["popularity", "item_item", "directed"]
K = 10


def corrected(knowledge: pl.DataFrame, items: pl.DataFrame, theirs: pl.DataFrame) -> pl.DataFrame:
    """The triples with the ids of ``items`` in place of those of ``theirs``, by title."""
    same = items.select("item_id", "title").join(theirs.select(pl.col("item_id").alias("other"), "title"), on="title")
    names = {f"item:{other}": f"item:{own}" for own, other in same.select("item_id", "other").iter_rows()}
    ends = {
        end: pl.col(end).replace_strict(names, default=pl.col(end).str.replace("^item:", "film "))
        for end in ("head", "tail")
    }
    return knowledge.with_columns(**ends)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared/data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    public = datasets.load("ml-100k")
    if public.knowledge is None:
        print("this copy of ml-100k has no triples: it is not that of RecBole")
        return 1
    triples = corrected(public.knowledge, public.items, pl.read_parquet(args.data / "ml-1m" / "items.parquet"))
    ids = public.items["item_id"].to_list()
    title = dict(public.items.select("item_id", "title").iter_rows())
    plan = {"without": WITHOUT, "with knowledge": [*WITHOUT, "knowledge"], "knowledge alone": ["knowledge"]}
    rows: list[dict[str, Any]] = []
    missed = []
    for seed in range(args.seeds):
        cold = np.random.default_rng(seed).permutation(ids)[: len(ids) // 5].tolist()
        hidden = pl.col("item_id").is_in(cold)
        train, test = public.interactions.filter(~hidden), public.interactions.filter(hidden)
        known = set(train["user_id"].to_list())
        wanted = {
            u: w for u, w in test.group_by("user_id", maintain_order=True).agg("item_id").iter_rows() if u in known
        }
        # The ids of the set begin with well-known films: in their order ties would be broken by popularity.
        items = public.items.select("item_id", "title").sample(fraction=1.0, shuffle=True, seed=seed)
        found: dict[str, Any] = {}
        row: dict[str, Any] = {"seed": seed, "cold_items": len(cold), "users": len(wanted)}
        for name, models in plan.items():
            start = time.perf_counter()
            rec = Recommender(encoder=None, models=models, seed=seed, progress=False).fit(
                train, items, knowledge=triples
            )
            ranked = rec.recommend(list(wanted), K, allow=cold).items
            pairs = zip(ranked, wanted.values(), strict=True)
            found[name] = np.array([metrics.ndcg([r], [w], K) for r, w in pairs])
            row[name] = float(found[name].mean())
            row[f"{name}, seconds"] = time.perf_counter() - start
            if name == "with knowledge":
                why = rec.recommend(list(wanted)[:20], 1, allow=cold, explain=True)
                ways = [e["paths"][0] for row_of in why.explanations for e in row_of if e["paths"]]
                row["path"] = (
                    [title.get(part, part) if isinstance(part, int) else part for part in ways[0]] if ways else None
                )
        gain = found["with knowledge"] - found["without"]
        error = float(gain.std() / np.sqrt(len(gain)))
        row |= {"gain": float(gain.mean()), "standard_error": error}
        rows.append(row)
        print(
            f"seed {seed}: {len(wanted)} users, {len(cold)} items without events: without {row['without']:.4f}, with "
            f"knowledge {row['with knowledge']:.4f} (gain {gain.mean():+.4f}, standard error {error:.4f}), alone "
            f"{row['knowledge alone']:.4f}\n  {row['path']}",
            flush=True,
        )
        if gain.mean() <= 2 * error:
            missed.append(f"seed {seed}: {gain.mean():+.4f}")
    versions = {p: importlib.metadata.version(p) for p in ("fastrec-engine", "numpy", "scipy")}
    if args.json:
        args.json.write_text(json.dumps({"versions": versions, "rows": rows, "missed": missed}, indent=2) + "\n")
    print("\nmissed: " + ("; ".join(missed) or "nothing"))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

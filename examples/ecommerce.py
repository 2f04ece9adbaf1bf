"""E-commerce: what will customers buy in the coming months? Real data: Amazon reviews of beauty products, 2014.

    python examples/ecommerce.py [FOLDER]

FOLDER has interactions.parquet and items.parquet; without it ../shared/data/amazon-beauty beside the checkout.

The recipe: events with times and the titles of the products, goal="period" because a shop asks for what is bought next
month rather than next minute, and a language model over titles for what nobody has bought yet. The last tenth of the
time is hidden; customers without a history are among those who are asked for.
"""

import sys
import time
from pathlib import Path

import polars as pl
from against_popularity import K, by_popularity, targets, verdict

import fastrec
from fastrec import metrics, split

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "amazon-beauty"


def main(folder: Path = DATA) -> int:
    begun = time.perf_counter()
    events = pl.read_parquet(folder / "interactions.parquet")
    products = pl.read_parquet(folder / "items.parquet").select("item_id", "title")
    train, test = split.global_time(events, 0.9)
    now = train["timestamp"].max()
    print(f"Amazon Beauty (real): {train.height:,} events to learn from, {test.height:,} later ones hidden")

    rec = fastrec.Recommender(progress=False).fit(train, products, goal="period")
    wanted = targets(train, test, rec.item_ids)
    found = rec.recommend(list(wanted), K)
    ours = metrics.ndcg(found.items, list(wanted.values()), K)
    others = by_popularity(train, wanted, now, (7, 30, 90, 365), rec.item_ids)
    code = verdict("purchases of the last tenth of the time", ours, others, len(wanted))

    titles = dict(products.iter_rows())
    bought = set(train["item_id"])
    unsold = [item for item in rec.item_ids if item not in bought]
    print(f"\n{len(unsold):,} products without any sale can be recommended; the nearest ones to a sentence:")
    for item in rec.recommend_for_text("organic shampoo for dry hair", 3, allow=unsold):
        print("  ", titles[item][:90])
    regular = train.filter(pl.col("user_id").is_in(list(wanted)))["user_id"].mode().sort()[0]
    why = rec.recommend(regular, 1, explain=True)
    shares = ", ".join(f"{name} {share:.2f}" for name, share in why.explanations[0]["sources"].items())
    print(f"{regular} first gets {titles[why.items[0]][:60]!r} ({shares})")
    print(f"{time.perf_counter() - begun:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))

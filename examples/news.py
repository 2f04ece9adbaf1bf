"""News: what does a nameless reader click on next, among articles of the last days? Made-up data (generated.py).

    python examples/news.py

The recipe: a session is a user, ``recommend_for_history`` answers for the clicks of the running one, articles are added
when they appear and are recommendable by their text at once, events of the running hour are added every hour without
training, and a filter keeps yesterday's news out. Two days are replayed hour by hour, as they would be served: what
is known at the full hour answers for the clicks of that hour. Popularity is counted anew every hour as well.
"""

import sys
import time

import polars as pl
from against_popularity import K, popular, verdict, without
from generated import DAY, HOUR, START, news

import fastrec
from fastrec import metrics

DAYS, REPLAYED = 10, 2
WINDOWS = (0.125, 0.25, 0.5, 1, 2)


def main() -> int:
    begun = time.perf_counter()
    world = news(days=DAYS)
    cut = START + (DAYS - REPLAYED) * DAY
    clicks, articles = world.events, world.items
    past = clicks.filter(pl.col("timestamp") <= cut)
    print(f"a news site (generated): {past.height:,} clicks to learn from, {REPLAYED} days replayed hour by hour")
    rec = fastrec.Recommender(progress=False)
    rec.fit(past, articles.filter(pl.col("published") <= cut), goal="next")

    ours, wanted, cold = [], [], 0
    theirs: dict[float, list[list[str]]] = {days: [] for days in WINDOWS}
    for now in range(cut, cut + REPLAYED * DAY, HOUR):
        published = articles.filter(pl.col("published").is_between(now - HOUR, now, closed="right"))
        if now > cut and published.height:
            rec.add_items(published)
        fresh = set(articles.filter(pl.col("published").is_between(now - 2 * DAY, now))["item_id"])
        known = clicks.filter(pl.col("timestamp") <= now)
        read = set(known["item_id"])
        hour = clicks.filter(pl.col("timestamp").is_between(now, now + HOUR, closed="right"))
        begins, nexts = [], []
        for session in hour.partition_by("user_id", maintain_order=True):
            row = session["item_id"].to_list()
            for place in range(1, len(row)):
                if row[place] in fresh:
                    begins.append([item for item in row[:place] if item in fresh])
                    nexts.append({row[place]})
                    cold += row[place] not in read
        if begins:
            found = rec.recommend_for_history(begins, K, where={"published": (now - 2 * DAY, None)})
            ours += found.items.tolist()
            wanted += nexts
            for days in WINDOWS:
                order = popular(known, now, days, fresh)
                theirs[days] += [without(order, begin) for begin in begins]
        rec.update(hour)
    others = {days: metrics.ndcg(rankings, wanted, K) for days, rankings in theirs.items()}
    code = verdict("the next click of a session", metrics.ndcg(ours, wanted, K), others, len(wanted))
    print(f"\n{cold:,} of these clicks were on articles that nobody had read before the hour")
    print(f"{time.perf_counter() - begun:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main())

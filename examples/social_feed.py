"""Social feed: which posts will a member react to? Made-up data (generated.py): no feed with texts ships here.

    python examples/social_feed.py

The recipe: kinds of event that say more or less (a comment more than a view), popularity that halves every six hours
because posts do not live longer (learned half-lives begin at a day), what was commented beside what was posted as the
text of a post, goal="period" for all of a day rather than the next click, and a filter that keeps old posts out. The
last day is hidden; asked for are the reactions to posts that were there when it began.
"""

import sys
import time

import polars as pl
from against_popularity import K, by_popularity, targets, verdict
from generated import DAY, START, feed

import fastrec
from fastrec import metrics

DAYS = 14


def main() -> int:
    begun = time.perf_counter()
    world = feed(days=DAYS)
    now = START + (DAYS - 1) * DAY
    train = world.events.filter(pl.col("timestamp") <= now)
    test = world.events.filter(pl.col("timestamp") > now)
    posts = world.items.filter(pl.col("posted") <= now)
    print(
        f"a feed (generated): {train.height:,} events on {posts.height:,} posts, {test.height:,} events of the next day"
    )

    # What people said below a post, up to now: often it tells more of the matter than the post does.
    said = train.drop_nulls("text").group_by("item_id", maintain_order=True).agg(pl.col("text").str.join(" "))
    posts = posts.join(said.rename({"text": "comments"}), on="item_id", how="left")
    kinds = {"view": 1.0, "like": 3.0, "comment": 4.0}
    models = [fastrec.Popularity(half_life=0.25), "item_item", "directed", "als", "content"]
    rec = fastrec.Recommender(models=models, event_weights=kinds, progress=False)
    rec.fit(train, posts, goal="period")

    fresh = {"posted": (now - 3 * DAY, None)}
    recent = posts.filter(pl.col("posted") >= now - 3 * DAY)["item_id"].to_list()
    wanted = targets(train, test, recent)
    found = rec.recommend(list(wanted), K, where=fresh)
    ours = metrics.ndcg(found.items, list(wanted.values()), K)
    others = by_popularity(train, wanted, now, (0.25, 0.5, 1, 3), recent)
    code = verdict("reactions of the next day", ours, others, len(wanted))

    # A post of this minute: recommendable before anybody has seen it.
    rec.add_items({"item_id": ["post-new"], "text": ["rocket launch: satellite in orbit"], "posted": [now]})
    for_space = rec.recommend_for_text("astronaut on a rocket", 3, where=fresh)
    print(f"\nfor 'astronaut on a rocket': {', '.join(map(str, for_space))}")
    print(f"{time.perf_counter() - begun:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main())

"""Music and video: what is played next, and how does a playlist go on? Made-up data (generated.py): no plays ship here.

    python examples/music_video.py

The recipe: the seconds that somebody heard or watched are the ``value`` of the event, so that what was skipped weighs
next to nothing; goal="next" for what is put on tonight; the half-life of popularity is learned, because what came out
lately draws a crowd for a while; and ``recommend_for_history`` goes on with a playlist that belongs to nobody. The last
five days are hidden. Two figures, and each has to win.
"""

import sys
import time

import polars as pl
from against_popularity import K, by_popularity, popular, targets, verdict, without
from generated import DAY, START, music

import fastrec
from fastrec import metrics

DAYS, HIDDEN = 60, 5


def main() -> int:
    begun = time.perf_counter()
    world = music(days=DAYS)
    now = START + (DAYS - HIDDEN) * DAY
    train = world.events.filter(pl.col("timestamp") <= now)
    # Who heard less than a minute did not like it: that is nothing to find.
    test = world.events.filter((pl.col("timestamp") > now) & (pl.col("value") >= 60))
    known = world.items.filter(pl.col("released") <= now)
    print(f"music (generated): {train.height:,} plays to learn from, {test.height:,} long ones of {HIDDEN} days hidden")
    rec = fastrec.Recommender(encoder=None, progress=False)
    rec.fit(train, known, goal="next")
    wanted = targets(train, test, rec.item_ids)
    found = rec.recommend(list(wanted), K)
    ours = metrics.ndcg(found.items, list(wanted.values()), K)
    windows = (1, 3, 7, 14, 60)
    others = by_popularity(train, wanted, now, windows, rec.item_ids)
    code = verdict("tracks heard for a minute or more", ours, others, len(wanted))

    lists = world.playlists.filter(pl.col("item_id").is_in(rec.item_ids)).sort("playlist_id", "place")
    begins, rests = [], []
    for items in lists.group_by("playlist_id", maintain_order=True).agg("item_id")["item_id"].to_list():
        if len(items) >= 6:
            begins.append(items[:3])
            rests.append(set(items[3:]))
    ours = metrics.ndcg(rec.recommend_for_history(begins, K).items, rests, K)
    others = {}
    for days in windows:
        order = popular(train, now, days)
        others[days] = metrics.ndcg([without(order, begin) for begin in begins], rests, K)
    code = max(code, verdict("the rest of a playlist, from its first three", ours, others, len(rests)))
    print(f"\n{time.perf_counter() - begun:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main())

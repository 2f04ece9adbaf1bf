"""Made-up events for the recipes that have no real data here: a news site, a feed of posts, a music service.

Nothing in them is measured; they are worlds with known rules, to show a recipe at work. The rules are those that
make the domains what they are, and each leaves room for popularity to be right:

news     An article is read for a day or two: its draw halves every 10 hours. Readers are nameless sessions of 3 to 8
         clicks. Two clicks of three go to the topic of the session, one to whatever draws most.
feed     Members read posts of about two days, like some and comment on some. Each has three topics; one event in
         four goes to what draws most. A post says its topic only now and then, its comments say it more often.
music    Listeners play tracks for some seconds: a track of a genre of theirs mostly to the end, another one mostly not.
         New tracks come out all the time and draw a crowd for a while. Playlists hold tracks of one mood.

The same seed gives the same tables. Titles are words of the topic between words of no topic, so that a language model
has something to read and no id to copy.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

HOUR, DAY = 3600, 86400
#: When every world begins: 2026-01-05, a Monday.
START = 1_767_571_200

TOPICS = {
    "football": "striker goal league referee penalty stadium coach transfer",
    "elections": "ballot senator coalition campaign poll minister vote parliament",
    "markets": "shares inflation bond investor bank dividend tariff currency",
    "space": "rocket orbit telescope astronaut lunar satellite launch probe",
    "cooking": "recipe oven garlic pastry chef roast sauce flour",
    "cinema": "director premiere actress film sequel festival screenplay trailer",
    "health": "vaccine clinic diet surgeon sleep therapy virus hospital",
    "travel": "island airline hostel itinerary beach passport railway summit",
    "gardening": "tulip compost pruning seedling greenhouse lawn orchard soil",
    "computing": "compiler kernel database processor browser encryption server code",
    "motoring": "engine hybrid sedan garage horsepower brake rally battery",
    "books": "novel author publisher memoir poet library chapter bestseller",
}
#: Words that say nothing of a topic.
FILLER = [
    *("today", "after", "new", "says", "why", "how", "more", "first", "week"),
    *("people", "under", "again", "about", "city", "report", "question", "long", "best"),
]


@dataclass(frozen=True)
class World:
    """items: item_id, the text columns, time (seconds); events: user_id, item_id, timestamp, event[, value, text]."""

    items: pl.DataFrame
    events: pl.DataFrame
    playlists: pl.DataFrame | None = None


def _text(rng: np.random.Generator, topic: int, words: int, share: float) -> str:
    """So many words, each of the topic with this probability."""
    own = list(TOPICS.values())[topic].split()
    return " ".join(str(rng.choice(own if rng.random() < share else FILLER)) for _ in range(words))


def _pick(rng: np.random.Generator, draw: np.ndarray) -> int:
    """A row by its draw; -1 where nothing draws."""
    total = np.cumsum(draw)
    return int(np.searchsorted(total, rng.random() * total[-1], "right")) if len(total) and total[-1] > 0 else -1


def news(seed: int = 0, days: int = 10, articles: int = 70, sessions: int = 350) -> World:
    """A news site: so many articles and sessions a day."""
    rng = np.random.default_rng(seed)
    n = days * articles
    topic, born = rng.integers(0, len(TOPICS), n), np.sort(rng.random(n)) * days * DAY
    charm = rng.lognormal(0.0, 0.8, n)
    items = pl.DataFrame(
        {
            "item_id": [f"article-{i}" for i in range(n)],
            "title": [_text(rng, t, 8, 0.5) for t in topic],
            "published": (START + born).astype(np.int64),
        }
    )
    rows = []
    for session in range(days * sessions):
        now = rng.random() * days * DAY
        mine = rng.integers(0, len(TOPICS))
        had: set[int] = set()
        for _ in range(rng.integers(3, 9)):
            age = now - born
            draw = np.where((age >= 0) & (age < 3 * DAY), charm * np.exp2(-np.maximum(age, 0) / (10 * HOUR)), 0.0)
            draw[list(had)] = 0.0
            row = _pick(rng, draw * (topic == mine) if rng.random() < 2 / 3 else draw)
            if row >= 0:
                rows.append((f"session-{session}", f"article-{row}", int(START + now), "click"))
                had.add(row)
            now += rng.exponential(90)
    return World(items, _events(rows))


def feed(seed: int = 0, days: int = 14, posts: int = 90, members: int = 500) -> World:
    """A feed: so many posts a day, and members who look in once a day and react to three posts or so."""
    rng = np.random.default_rng(seed)
    n = days * posts
    topic, born = rng.integers(0, len(TOPICS), n), np.sort(rng.random(n)) * days * DAY
    charm = rng.lognormal(0.0, 0.8, n)
    items = pl.DataFrame(
        {
            "item_id": [f"post-{i}" for i in range(n)],
            "text": [_text(rng, t, 9, 0.2) for t in topic],
            "posted": (START + born).astype(np.int64),
        }
    )
    likes = np.array([rng.permutation(len(TOPICS))[:3] for _ in range(members)])
    rows = []
    for member in range(members):
        had: set[int] = set()
        for day in range(days):
            if rng.random() < 0.25:
                continue  # not every day
            now = (day + rng.random()) * DAY
            for _ in range(rng.integers(1, 6)):
                age = now - born
                draw = np.where((age >= 0) & (age < 3 * DAY), charm * np.exp2(-np.maximum(age, 0) / (16 * HOUR)), 0.0)
                draw[list(had)] = 0.0
                if rng.random() < 0.75:
                    draw = draw * (topic == likes[member, rng.choice(3, p=[0.5, 0.3, 0.2])])
                row = _pick(rng, draw)
                if row < 0:
                    continue
                had.add(row)
                kind = str(rng.choice(["view", "like", "comment"], p=[0.5, 0.3, 0.2]))
                said = _text(rng, topic[row], 8, 0.4) if kind == "comment" else None
                rows.append((f"member-{member}", f"post-{row}", int(START + now), kind, said))
                now += rng.exponential(120)
    events = pl.DataFrame(rows, ["user_id", "item_id", "timestamp", "event", "text"], orient="row")
    return World(items, events.sort("timestamp", maintain_order=True))


def music(seed: int = 0, days: int = 60, tracks: int = 1500, listeners: int = 400, playlists: int = 400) -> World:
    """Tracks of 24 moods in 8 genres, plays with the seconds that were heard, and playlists of one mood."""
    rng = np.random.default_rng(seed)
    moods, seconds = 24, 210
    mood = rng.integers(0, moods, tracks)
    # Half of the catalogue was there before, the rest comes out one by one.
    born = np.where(rng.random(tracks) < 0.5, -1000 * DAY, rng.random(tracks) * days * DAY)
    charm = rng.lognormal(0.0, 1.0, tracks)
    items = pl.DataFrame(
        {
            "item_id": [f"track-{i}" for i in range(tracks)],
            "genre": [f"genre {m % 8}" for m in mood],
            "released": (START + born).astype(np.int64),
        }
    )
    rows = []
    for listener in range(listeners):
        mine = rng.choice(moods, 3, replace=False)
        for day in np.flatnonzero(rng.random(days) < 0.2):
            now = (day + rng.random()) * DAY
            here = rng.choice(mine, p=[0.5, 0.3, 0.2])  # one mood an evening
            for _ in range(rng.integers(3, 9)):
                age = now - born
                hype = 1 + 6 * np.exp2(-np.maximum(age, 0) / (5 * DAY))
                draw = np.where(age >= 0, charm * hype, 0.0)
                near = rng.random() < 0.7
                row = _pick(rng, draw * (mood == here) if near else draw)
                liked = mood[row] in mine
                heard = seconds * (rng.beta(6, 1.5) if liked else rng.beta(1, 5))
                rows.append((f"listener-{listener}", f"track-{row}", int(START + now), "play", round(float(heard), 1)))
                now += heard
    plays = pl.DataFrame(rows, ["user_id", "item_id", "timestamp", "event", "value"], orient="row")
    old = np.flatnonzero(born < 0)
    listed = []
    for number in range(playlists):
        one = old[mood[old] == rng.integers(0, moods)]
        chosen = rng.choice(one, min(len(one), 10), replace=False, p=charm[one] / charm[one].sum())
        listed += [(f"playlist-{number}", f"track-{row}", place) for place, row in enumerate(chosen)]
    lists = pl.DataFrame(listed, ["playlist_id", "item_id", "place"], orient="row")
    return World(items, plays.sort("timestamp", maintain_order=True), lists)


def _events(rows: list[tuple[str, str, int, str]]) -> pl.DataFrame:
    events = pl.DataFrame(rows, ["user_id", "item_id", "timestamp", "event"], orient="row")
    return events.sort("timestamp", maintain_order=True)

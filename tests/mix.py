"""Eight threads that update, recommend, add, remove and erase at once, under a checker.

    python tests/mix.py [SECONDS]

What the checker knows at the start of a call must hold of its answer: an item that was removed does not come, one that
the user has had does not come, and of two events of one call both are there or neither.
"""

import sys
import threading
import time
from collections import Counter

import numpy as np
import polars as pl
from helpers import hash_encoder

from fastrec import Recommender
from fastrec.models import Als

USERS, ITEMS = 200, 120
WORDS = ("red apple fruit", "steel hammer tool", "green garden chair")


class Mix:
    """One model, what is known of it, and what went wrong."""

    def __init__(self, store=None, seed=0):
        rng = np.random.default_rng(seed)
        rows = [
            (f"u{u}", f"i{i}", float(t))
            for u in range(USERS)
            # Items 0 to 59 come in pairs, and only from the updates of this test.
            for t, i in enumerate(60 + rng.permutation(ITEMS - 60)[:8])
        ]
        events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
        items = {"item_id": [f"i{i}" for i in range(ITEMS)], "title": [f"{WORDS[i % 3]} {i}" for i in range(ITEMS)]}
        models = ["popularity", "item_item", "directed", Als(factors=8), "content"]
        rec = Recommender(encoder=hash_encoder, models=models, weights="equal", store=store, progress=False)
        self.rec = rec.fit(events, items)
        self.stop = threading.Event()
        self.removed, self.lock = set(), threading.Lock()
        self.had = [set() for _ in range(USERS)]  # pairs whose update was acknowledged
        self.epoch = [0] * USERS  # odd while the user is being erased
        self.calls, self.wrong = Counter(), []

    def note(self, what):
        with self.lock:
            self.wrong.append(what)
        self.stop.set()

    def forever(self, work, number):
        rng = np.random.default_rng(number)
        try:
            while not self.stop.is_set():
                work(rng, number)
                self.calls[work.__name__] += 1
        except BaseException as error:
            self.note(f"{work.__name__}: {error!r}")
            raise

    def update(self, rng, number):
        """Both items of a pair in one call; a user belongs to one thread."""
        u, pair = int(rng.integers(USERS // 2)) * 2 + number, int(rng.integers(30))
        when = 100.0 + self.calls["update"]
        both = [{"user_id": f"u{u}", "item_id": f"i{2 * pair + j}", "timestamp": when} for j in (0, 1)]
        epoch = self.epoch[u]
        self.rec.update(both)
        with self.lock:
            if epoch == self.epoch[u] and epoch % 2 == 0:
                self.had[u].add(pair)
        time.sleep(0.001)

    def recommend(self, rng, number):
        u = int(rng.integers(USERS))
        with self.lock:
            removed, had, epoch = set(self.removed), set(self.had[u]), self.epoch[u]
        found = self.rec.recommend(f"u{u}", 10_000).items
        got = {i for i in found.tolist() if i is not None}
        if removed & got:
            self.note(f"u{u} got {sorted(removed & got)[:3]}, which was removed before")
        torn = [p for p in range(30) if (f"i{2 * p}" in got) != (f"i{2 * p + 1}" in got)]
        if torn:
            self.note(f"u{u} is torn at {torn}")
        again = {p for p in had if f"i{2 * p}" in got}
        with self.lock:
            erased = epoch % 2 or epoch != self.epoch[u]
        if again and not erased:
            self.note(f"u{u} got {sorted(again)[:3]}, which he has had")

    def several(self, rng, number):
        """All kinds of reading at once; users of one call are whole each."""
        users = [f"u{u}" for u in rng.integers(0, USERS, 6)]
        with self.lock:
            removed = set(self.removed)
        found = [self.rec.recommend(users, 8, explain=bool(rng.integers(2)), diversity=float(rng.integers(2)) / 2)]
        found += [self.rec.similar_items("i70", 20), self.rec.recommend_for_text("steel hammer", 20)]
        found += [self.rec.recommend_for_history(["i70", "i71"], 20)]
        got = {i for f in found for i in np.ravel(f.items).tolist()}
        if removed & got:
            self.note(f"{sorted(removed & got)[:3]} came after their removal")

    def items(self, rng, number):
        """A new item is there at once, and gone at once."""
        name = f"n{number}-{self.calls['items']}"
        self.rec.add_items({"item_id": [name], "title": [f"{WORDS[int(rng.integers(3))]} {name}"]})
        if self.rec.recommend("u1", 1, allow=[name], filter_seen=False).items.tolist() != [name]:
            self.note(f"{name} is not there")
        self.rec.update({"user_id": f"visitor-{number}", "item_id": name})
        self.rec.remove_items([name])
        with self.lock:
            self.removed.add(name)
        if self.rec.recommend("u1", 1, allow=[name], filter_seen=False).items.tolist() != [None]:
            self.note(f"{name} is still there")
        time.sleep(0.02)

    def erase(self, rng, number):
        u = int(rng.integers(USERS))
        with self.lock:
            self.epoch[u] += 1
            self.had[u].clear()
        self.rec.erase_users([f"u{u}"])
        with self.lock:
            self.epoch[u] += 1
        time.sleep(0.05)


def run(seconds, store=None):
    """(calls of each kind, what went wrong)."""
    mix = Mix(store)
    works = [(mix.update, 0), (mix.update, 1), (mix.recommend, 0), (mix.recommend, 1), (mix.recommend, 2)]
    works += [(mix.several, 0), (mix.items, 0), (mix.erase, 0)]
    threads = [threading.Thread(target=mix.forever, args=work) for work in works]
    for thread in threads:
        thread.start()
    mix.stop.wait(seconds)
    mix.stop.set()
    for thread in threads:
        thread.join()
    return dict(mix.calls), mix.wrong, mix


if __name__ == "__main__":
    calls, wrong, _ = run(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
    print(f"calls: {calls}")
    print("\n".join(wrong) or "nothing went wrong")
    sys.exit(bool(wrong))

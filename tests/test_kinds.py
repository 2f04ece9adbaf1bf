"""Kinds of event from the table to the model: cleaned, kept with the histories, moved by new events, saved."""

import dataclasses

import numpy as np
import polars as pl
from helpers import hash_encoder

from fastrec import Recommender, Sequential, data, kinds, load
from fastrec.data.clean import DEFAULT_EVENT_WEIGHTS

ROWS = [
    ("a", "p", 1, "view"),
    ("a", "q", 2, " Purchase "),
    ("a", "p", 3, "cart"),
    ("b", "q", 1, None),
    ("b", "r", 2, "wishlist"),
    ("b", "p", 3, "view"),
]
EVENTS = pl.DataFrame(ROWS, schema=["user_id", "item_id", "timestamp", "event"], orient="row")


def names(history):
    known = ["", *kinds.KINDS, "other"]
    return [known[k] for k in history.kinds]


def test_every_kind_with_a_weight_has_a_number():
    assert set(kinds.KINDS) == set(DEFAULT_EVENT_WEIGHTS)
    given = pl.Series([*kinds.KINDS, None, "wishlist"], dtype=pl.String)
    assert kinds.numbers(given).tolist() == [kinds.number(k) for k in given] == [*range(1, 11), 0, 11]
    assert kinds.COUNT == 12


def test_a_merged_entry_has_the_kind_of_its_last_event():
    cleaned = data.clean(EVENTS).interactions
    assert names(cleaned) == ["purchase", "cart", "", "other", "view"]
    assert names(cleaned.take([1, -1, 0])) == ["", "other", "view", "purchase", "cart"]
    assert names(cleaned.select(cleaned.items == 0)) == ["cart", "view"]
    assert data.clean(EVENTS.drop("event")).interactions.kinds is None


def fitted(events, **settings):
    model = Sequential(width=8, length=4, epochs=2, stop=2, kinds=True)
    return Recommender(encoder=hash_encoder, models=["popularity", model], weights="equal", **settings).fit(events)


def test_new_events_bring_their_kinds_along(tmp_path):
    rec = fitted(EVENTS)
    rec.update({"user_id": "a", "item_id": "r", "timestamp": 5, "event": "Like"})
    rec.update({"user_id": "a", "item_id": "q", "timestamp": 6, "event": "view"})
    rec.update({"user_id": "a", "item_id": "p", "timestamp": 1, "event": "dislike"})  # before what is known: no news
    rec.update({"user_id": "c", "item_id": "p", "timestamp": 7})
    state = rec._live.state
    assert names(state.histories.user(0)) == ["cart", "like", "view"]
    assert names(state.histories.take([2, 0, 1])[0])[:4] == ["", "cart", "like", "view"]
    assert names(state.interactions) == ["cart", "like", "view", "", "other", "view", ""]
    rec.save(tmp_path / "m")
    again = load(tmp_path / "m", encoder=hash_encoder)
    assert names(again._live.state.interactions) == names(state.interactions)
    assert again.recommend("a", 3, filter_seen=False).scores.tolist() == (
        rec.recommend("a", 3, filter_seen=False).scores.tolist()
    )


def test_events_with_kinds_after_events_without():
    rec = fitted(EVENTS.drop("event"))
    assert rec._live.state.interactions.kinds is None
    rec.update({"user_id": "b", "item_id": "q", "timestamp": 9, "event": "like"})
    assert names(rec._live.state.interactions) == ["", "", "", "", "like"]


def test_the_kind_of_a_history_from_outside_counts():
    rec = fitted(EVENTS)
    table = pl.DataFrame({"user_id": "x", "item_id": ["p", "q"], "timestamp": [1, 2], "event": ["view", "purchase"]})
    one = rec.recommend_for_history(table, 3, filter_seen=False).scores
    other = rec.recommend_for_history(table.with_columns(event=pl.lit("view")), 3, filter_seen=False).scores
    assert np.abs(one - other).max() > 1e-6


def test_an_array_of_the_wrong_kind_is_an_error():
    cleaned = data.clean(EVENTS).interactions
    with np.testing.assert_raises_regex(AssertionError, "Interactions.kinds has dtype"):
        dataclasses.replace(cleaned, kinds=cleaned.kinds.astype(np.int64))

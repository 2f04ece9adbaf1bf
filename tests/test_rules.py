"""What limits, shifts and explains a recommendation."""

import datetime

import numpy as np
import polars as pl
import pyarrow.compute as pc
import pytest
from helpers import hash_encoder, history_of

from fastrec import ConfigError, ItemItem, Recommender


def test_filter_seen(rec, events):
    seen = set(history_of(events, "u1"))
    assert seen <= set(rec.recommend("u1", 42, filter_seen=False))
    assert not seen & set(rec.recommend("u1", 42))


def test_allow_and_deny(rec):
    assert set(rec.recommend("u1", 42, allow=["i2", "i4", "unheard of"])) <= {"i2", "i4"}
    assert "i41" not in set(rec.recommend("u1", 42, deny=["i41"]))
    found = rec.recommend(["u1", "u2"], 42, allow={"u1": ["i40", "i41"]}, deny={"u2": ["i41"]})
    lists = dict(found)
    assert set(lists["u1"]) == {"i40", "i41"}
    assert "i41" not in lists["u2"] and len(lists["u2"]) == 42 - 12 - 1
    assert list(rec.recommend("u1", 5, allow=[])) == []


@pytest.mark.parametrize(
    ("where", "keep"),
    [
        ({"category": "food"}, lambda i: i % 2 == 0),
        ({"category": ["tools", "other"]}, lambda i: i % 2 == 1),
        ({"price": (None, 10)}, lambda i: i <= 10 and i != 5),
        ({"price": (4, 6.5)}, lambda i: i in (4, 6)),
        ({"price": None}, lambda i: i == 5),
        ({"tags": "t1"}, lambda i: i % 3 == 1),
        ({"tags": ["t0", "t1"], "category": "food"}, lambda i: i % 3 < 2 and i % 2 == 0),
        (pc.field("price") > 38, lambda i: i > 38),
        ({}, lambda i: True),
    ],
)
def test_where(rec, where, keep):
    found = set(rec.recommend("nobody", 42, where=where))
    assert found == {f"i{i}" for i in range(42) if keep(i)}


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"colour": "red"}, r"where names column 'colour', the items have \['item_id', 'title'"),
        ({"price": "cheap"}, "does not fit the item columns"),
        ({"price": (1, 2, 3)}, "has 3 ends"),
        ("category = food", "where is str, expected a dict or a pyarrow expression"),
    ],
)
def test_where_that_makes_no_sense(rec, where, message):
    with pytest.raises(ConfigError, match=message):
        rec.recommend("u1", where=where)


def test_boost(rec):
    plain = rec.recommend("u1", 42, filter_seen=False)
    last = list(plain)[-1]
    assert next(iter(rec.recommend("u1", 3, filter_seen=False, boost={last: 1e9}))) == last
    assert list(plain)[0] not in set(rec.recommend("u1", 42, filter_seen=False, boost={list(plain)[0]: 0}))
    assert rec.recommend("u1", 5, boost={"unheard of": 3}).items.tolist() == rec.recommend("u1", 5).items.tolist()
    assert rec.recommend("nobody", 1, boost="price").items.tolist() != [None]
    for bad in ({"i1": -1}, {"i1": float("nan")}, {"i1": "much"}, 3, "title", "colour"):
        with pytest.raises(ConfigError, match=r"\[recommend\] boost"):
            rec.recommend("u1", boost=bad)


def test_diversity(rec):
    plain, varied = rec.recommend("u1", 6), rec.recommend("u1", 6, diversity=0.8)
    assert plain.items[0] == varied.items[0]
    assert len(set(varied)) == 6

    def spread(found):
        v = rec.item_vectors(list(found)).astype(float)
        v /= np.linalg.norm(v, axis=1, keepdims=True)
        return (v @ v.T)[np.triu_indices(6, 1)].mean()

    assert spread(varied) < spread(plain)
    assert rec.recommend("u1", 6, diversity=0.0).items.tolist() == plain.items.tolist()
    with pytest.raises(ConfigError, match="diversity=2"):
        rec.recommend("u1", diversity=2)


def test_at_sees_only_the_past(rec, events):
    mine = events.filter(pl.col("user_id") == "u1").sort("timestamp")
    cut = mine["timestamp"][4]
    past = mine["item_id"].to_list()[:5]
    found = rec.recommend("u1", 42, at=cut)
    assert set(found) == {f"i{i}" for i in range(42)} - set(past)
    by_date = rec.recommend("u1", 42, at=datetime.datetime.fromtimestamp(cut, datetime.UTC))
    assert by_date.items.tolist() == found.items.tolist()
    assert rec.recommend("u1", 5, at=-1).items.tolist() == rec.recommend("nobody", 5).items.tolist()
    with pytest.raises(ConfigError, match="at='noon'"):
        rec.recommend("u1", at="noon")


# ---- explanations


def test_explanations_sum_to_the_score(rec, events):
    found = rec.recommend(["u1", "u2", "nobody"], 5, explain=True, boost={"i40": 3.0})
    for user, scores, why in zip(found.users, found.scores, found.explanations, strict=True):
        for score, one in zip(scores, why, strict=True):
            assert sum(one["sources"].values()) == pytest.approx(float(score), rel=1e-5, abs=1e-6)
            assert {i for i, _ in one["history"]} <= set(history_of(events, user))
            weights = [w for _, w in one["history"]]
            assert weights == sorted(weights, reverse=True)
    assert rec.recommend("u1").explanations is None
    assert len(rec.recommend("u1", 3, explain=True).explanations) == 3


def test_history_weights_of_an_explanation_add_up(events, items):
    rec = Recommender(encoder=hash_encoder, models=[ItemItem(decay=2.0), "content"], weights="equal").fit(events, items)
    one = rec.recommend("u1", 1, explain=True)
    assert sum(w for _, w in one.explanations[0]["history"]) <= float(one.scores[0]) * (1 + 1e-5)

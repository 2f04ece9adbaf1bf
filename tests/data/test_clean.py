"""Cleaning: each rule by itself, and all of them against a slow definition."""

import datetime as dt
import math

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrec.data import DEFAULT_EVENT_WEIGHTS, Columns, clean
from fastrec.errors import ConfigError, DataError


def history(cleaned, user):
    """[(item, time, weight)] of a user id."""
    (row,) = cleaned.users.rows([user])
    one = cleaned.interactions.take([row])
    return list(zip(cleaned.items.ids(one.items), one.times.tolist(), one.weights.tolist(), strict=True))


# ---- the definition

EVENT = st.tuples(
    st.sampled_from(["u1", "u2", "u3", None, ""]),
    st.sampled_from(["i1", "i2", "i3", None]),
    st.sampled_from([1.0, 2.0, 3.0, -1.0, float("nan"), 1e12]),
    st.sampled_from(["view", "purchase", "dislike", None]),
)


def reference(rows):
    """The docstring of ``clean`` in plain Python: (histories by user, item order, counts)."""
    counts = dict.fromkeys(("missing_ids_dropped", "bad_timestamps_dropped", "duplicates_dropped", "repeats_merged"), 0)
    kept, seen = [], set()
    for row in rows:
        if not row[0] or not row[1]:
            counts["missing_ids_dropped"] += 1
        elif not 0 <= row[2] <= 4102444800:
            counts["bad_timestamps_dropped"] += 1
        elif row in seen:
            counts["duplicates_dropped"] += 1
        else:
            seen.add(row)
            kept.append(row)
    users = list(dict.fromkeys(r[0] for r in kept))
    items = list(dict.fromkeys(r[1] for r in kept))
    histories = {}
    for user in users:
        mine = sorted((r for r in kept if r[0] == user), key=lambda r: r[2])  # stable in the order of the input
        merged = {}
        for _, item, time, kind in mine:
            weight = DEFAULT_EVENT_WEIGHTS[kind] if kind else 1.0
            _, before = merged.pop(item, (0, 0.0))  # to the end: the last event is the one that counts
            merged[item] = (time, before + weight)
        counts["repeats_merged"] += len(mine) - len(merged)
        histories[user] = [(item, time, min(weight, 10.0)) for item, (time, weight) in merged.items()]
    return histories, items, counts


@given(st.lists(EVENT, min_size=1, max_size=25))
def test_against_the_definition(rows):
    histories, items, counts = reference(rows)
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "event"], orient="row").cast(
        {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Float64, "event": pl.String}
    )
    late = sum(row[2] > 4102444800 for row in rows)
    if not histories or 2 * late > sum(not math.isnan(row[2]) for row in rows):
        with pytest.raises(DataError):  # nothing left, or mostly in another unit
            clean(table)
        return
    cleaned = clean(table)
    assert cleaned.items.ids(range(len(cleaned.items))).tolist() == items
    assert cleaned.users.ids(range(len(cleaned.users))).tolist() == list(histories)
    for user, want in histories.items():
        assert history(cleaned, user) == want
    assert {name: getattr(cleaned.report, name) for name in counts} == counts
    assert cleaned.report.rows_read == len(rows)
    assert cleaned.report.events == sum(map(len, histories.values()))


# ---- ids


def test_float_ids_that_are_whole_become_ints():
    cleaned = clean(pd.DataFrame({"user_id": [1.0, np.nan, 3.0], "item_id": [7, 8, 9]}))
    assert cleaned.users.ids([0, 1]).tolist() == [1, 3]
    assert cleaned.report.missing_ids_dropped == 1


@pytest.mark.parametrize(
    ("ids", "message", "row"),
    [
        ([1.0, 2.5], "'user_id' row 1: id 2.5 is no whole number", 1),
        ([True, False], "ids are Boolean, expected str or int", 0),
        ([dt.date(2020, 1, 1), dt.date(2020, 1, 2)], "ids are Date", 0),
        (np.array([1, 2**64 - 1], np.uint64), "row 1: id 18446744073709551615 does not fit into 64 bits", 1),
    ],
)
def test_ids_that_are_none(ids, message, row):
    with pytest.raises(DataError, match=message) as caught:
        clean({"user_id": ids, "item_id": [1, 2]})
    assert caught.value.column == "user_id" and caught.value.row == row


def test_negative_and_large_ints_and_odd_strings():
    ids = [-5, 2**62, 0]
    assert clean({"user_id": ids, "item_id": ids}).users.ids(range(3)).tolist() == ids
    words = [" ", "é😀", "a" * 10_000]
    assert clean({"user_id": words, "item_id": words}).items.ids(range(3)).tolist() == words


# ---- times


@pytest.mark.parametrize(
    "times",
    [
        [0, 86400, 172800],
        [0.0, 86400.0, 172800.0],
        ["0", "86400", "172800"],
        ["1970-01-01 00:00:00", "1970-01-02 00:00:00", "1970-01-03 00:00:00"],
        [dt.datetime(1970, 1, d) for d in (1, 2, 3)],
        [dt.datetime(1970, 1, d, tzinfo=dt.UTC) for d in (1, 2, 3)],
        [dt.date(1970, 1, d) for d in (1, 2, 3)],
        pd.to_datetime(["1970-01-01", "1970-01-02", "1970-01-03"]).as_unit("ns").to_series(),
        pd.to_datetime(["1970-01-01 02:00+02:00", "1970-01-02 02:00+02:00", "1970-01-03 02:00+02:00"]).to_series(),
    ],
)
def test_every_kind_of_time(times):
    cleaned = clean({"user_id": ["a"] * 3, "item_id": ["x", "y", "z"], "timestamp": times})
    assert cleaned.interactions.times.tolist() == [0.0, 86400.0, 172800.0]


@pytest.mark.parametrize(("factor", "unit"), [(1e3, "milliseconds"), (1e6, "microseconds"), (1e9, "nanoseconds")])
def test_times_of_another_unit(factor, unit):
    times = [int(1.6e9 * factor) + i for i in range(3)]
    with pytest.raises(DataError, match=f"looks like {unit}; expected seconds: divide by"):
        clean({"user_id": ["a"] * 3, "item_id": ["x", "y", "z"], "timestamp": times})


def test_without_times_the_order_of_the_input_is_the_order_of_time():
    cleaned = clean({"user_id": ["a", "b", "a", "a"], "item_id": ["x", "x", "y", "x"]})
    assert [item for item, *_ in history(cleaned, "a")] == ["x", "y"]  # the second x is an exact duplicate
    with pytest.raises(ConfigError, match="half_life=3 needs the column 'timestamp'"):
        clean({"user_id": ["a"], "item_id": ["x"]}, half_life=3)


# ---- weights


def test_weights_of_kinds_and_values():
    cleaned = clean(
        {
            "user_id": ["a"] * 6,
            "item_id": ["p", "q", "r", "s", "t", "o"],
            "event": ["purchase", "Dislike ", "play", "play", "sung", None],
            "value": [None, None, 10.0, 30.0, 1.0, 2.0],
        }
    )
    weights = {item: weight for item, _, weight in history(cleaned, "a")}
    assert weights == pytest.approx({"p": 4.0, "q": 0.0, "r": 0.5, "s": 1.5, "t": 1.0, "o": 1.0})
    assert any("sung" in note for note in cleaned.report.notes)


def test_rating_is_read_as_value_and_is_clipped():
    cleaned = clean({"user_id": ["a"] * 10, "item_id": list("abcdefghij"), "rating": [1.0] * 9 + [-3.0]})
    assert history(cleaned, "a")[-1][2] == 0.0
    with pytest.raises(DataError, match="'rating' row 1: inf is not finite"):
        clean({"user_id": ["a"] * 2, "item_id": ["x", "y"], "rating": [1.0, float("inf")]})


def test_event_weights_of_ones_own():
    rows = {"user_id": ["a", "a"], "item_id": ["x", "y"], "event": ["view", "sung"]}
    cleaned = clean(rows, event_weights={"view": 3, "Sung": 7.0})
    assert [w for *_, w in history(cleaned, "a")] == [3.0, 7.0]
    for bad in ({"view": -1}, {"view": float("nan")}, {"view": "much"}, {3: 1.0}, {"view": True}):
        with pytest.raises(ConfigError, match="event_weights"):
            clean(rows, event_weights=bad)


def test_half_life_counts_back_from_the_newest_event():
    rows = {"user_id": ["a", "a"], "item_id": ["x", "y"], "timestamp": [0, 2 * 86400]}
    assert [w for *_, w in history(clean(rows, half_life=1), "a")] == [0.25, 1.0]
    for bad in (0, -1, float("nan"), "long"):
        with pytest.raises(ConfigError, match="half_life"):
            clean(rows, half_life=bad)


def test_merged_weights_are_capped():
    rows = {"user_id": ["a"] * 30, "item_id": ["x"] * 30, "timestamp": list(range(30))}
    cleaned = clean(rows)
    assert history(cleaned, "a") == [("x", 29.0, 10.0)]
    assert cleaned.report.repeats_merged == 29


# ---- columns and strictness


def test_other_names():
    rows = {"uid": ["a"], "sku": ["x"], "when": [5], "kind": ["cart"], "stars": [2.0]}
    columns = Columns(user_id="uid", item_id="sku", timestamp="when", event="kind", value="stars")
    assert history(clean(rows, columns=columns), "a") == [("x", 5.0, 3.0)]
    with pytest.raises(DataError, match=r"no column 'user_id', found \['uid'.*pass user_id="):
        clean(rows)
    with pytest.raises(ConfigError, match="repeat"):
        Columns(user_id="item_id")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_id": ["a", None]}, "'user_id' row 1: the id is missing"),
        ({"item_id": ["x", ""]}, "'item_id' row 1: the id is missing"),
        ({"timestamp": [1.0, -1.0]}, "'timestamp' row 1: -1.0 is missing or outside"),
    ],
)
def test_strict_raises_where_the_default_drops(change, message):
    rows = {"user_id": ["a", "a"], "item_id": ["x", "y"], "timestamp": [1.0, 2.0]} | change
    assert clean(rows).report.events == 1
    with pytest.raises(DataError, match=message):
        clean(rows, strict=True)


def test_the_report_can_be_read():
    text = str(clean({"user_id": ["a", None], "item_id": ["x", "y"]}).report)
    assert "rows read: 2" in text and "missing ids dropped: 1" in text

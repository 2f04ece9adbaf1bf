"""Cleaning: each rule by itself, and all of them against a slow definition."""

import math

import numpy as np
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
    st.sampled_from([1.0, 2.0, 9.0, 100.0, -2.0, 0.0, None]),
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
    values = {kind: [r[4] for r in kept if r[3] == kind and r[4] is not None] for _, _, _, kind, _ in kept}
    means = {kind: sum(v) / len(v) if v else 0.0 for kind, v in values.items()}
    histories = {}
    for user in users:
        mine = sorted((r for r in kept if r[0] == user), key=lambda r: r[2])  # stable in the order of the input
        merged = {}
        for _, item, time, kind, value in mine:
            strength = value / means[kind] if value is not None and means[kind] > 0 else 1.0
            weight = (DEFAULT_EVENT_WEIGHTS[kind] if kind else 1.0) * min(max(strength, 0.0), 5.0)
            _, before = merged.pop(item, (0, 0.0))  # to the end: the last event is the one that counts
            merged[item] = (time, before + weight)
        counts["repeats_merged"] += len(mine) - len(merged)
        histories[user] = [(item, time, min(weight, 10.0)) for item, (time, weight) in merged.items()]
    return histories, items, counts


@given(st.lists(EVENT, min_size=1, max_size=25))
def test_against_the_definition(rows):
    histories, items, counts = reference(rows)
    text, number = pl.String, pl.Float64
    schema = {"user_id": text, "item_id": text, "timestamp": number, "event": text, "value": number}
    table = pl.DataFrame(rows, schema=schema, orient="row")
    late = sum(row[2] > 4102444800 for row in rows)
    if not histories or 2 * late > sum(not math.isnan(row[2]) for row in rows):
        with pytest.raises(DataError):  # nothing left, or mostly in another unit
            clean(table)
        return
    cleaned = clean(table)
    assert cleaned.items.ids(range(len(cleaned.items))).tolist() == items
    assert cleaned.users.ids(range(len(cleaned.users))).tolist() == list(histories)
    for user, want in histories.items():
        got = history(cleaned, user)
        assert [e[:2] for e in got] == [e[:2] for e in want]
        assert [e[2] for e in got] == pytest.approx([e[2] for e in want], rel=1e-6)
    assert {name: getattr(cleaned.report, name) for name in counts} == counts
    assert cleaned.report.rows_read == len(rows)
    assert cleaned.report.events == sum(map(len, histories.values()))


# ---- order and weights


def test_without_times_the_order_of_the_input_is_the_order_of_time():
    cleaned = clean({"user_id": ["a", "b", "a", "a"], "item_id": ["x", "x", "y", "x"]})
    assert [item for item, *_ in history(cleaned, "a")] == ["x", "y"]  # the second x is an exact duplicate
    with pytest.raises(ConfigError, match="half_life=3 needs the column 'timestamp'"):
        clean({"user_id": ["a"], "item_id": ["x"]}, half_life=3)


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


@pytest.mark.parametrize("weights", [[("view", 1)], "view", 3, {"view": 10**400}, {"view": None}])
def test_event_weights_that_are_none(weights):
    with pytest.raises(ConfigError, match=r"\[fit\] event_weights"):
        clean({"user_id": ["a"], "item_id": ["x"]}, event_weights=weights)


def test_settings_of_numpy():
    rows = {"user_id": ["a"] * 2, "item_id": ["x", "y"], "timestamp": [0, 86400], "event": ["view"] * 2}
    cleaned = clean(rows, half_life=np.int64(1), event_weights={" VIEW ": np.float32(2)})
    assert [w for *_, w in history(cleaned, "a")] == [1.0, 2.0]
    for bad in (True, 10**400, float("inf"), [1]):
        with pytest.raises(ConfigError, match="half_life"):
            clean(rows, half_life=bad)


# ---- columns and strictness


@pytest.mark.parametrize("name", ["timestamp", "event", "value"])
def test_a_column_asked_for_must_be_there(name):
    with pytest.raises(DataError, match=f"interactions: no column 'stars', found .*{name}=..."):
        clean({"user_id": ["a"], "item_id": ["x"]}, columns=Columns(**{name: "stars"}))


@pytest.mark.parametrize("name", ["", None, 3])
def test_names_that_are_none(name):
    with pytest.raises(ConfigError, match=r"user_id=.*, expected the name of a column"):
        Columns(user_id=name)


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

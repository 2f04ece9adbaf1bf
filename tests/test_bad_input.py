"""Bad input through the front door: a typed error that names column and row, or the documented default."""

import contextlib

import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers import hash_encoder

from fastrec import DataError, FastRecError, Recommender

GOOD = {
    "user_id": ["a", "a", "b", "b", "c"],
    "item_id": ["x", "y", "x", "z", "y"],
    "timestamp": [1, 2, 3, 4, 5],
}


def fit(events, items=None, **keywords):
    return Recommender(encoder=hash_encoder).fit(events, items, **keywords)


def changed(**columns):
    return {**GOOD, **columns}


@pytest.mark.parametrize(
    ("events", "parts"),
    [
        ({"item_id": ["x"]}, ["user_id"]),
        ({"user_id": ["x"]}, ["item_id"]),
        (changed(user_id=["a", 1, "b", "b", "c"]), ["user_id", "row 1"]),
        (changed(item_id=["x", "y", 3, "z", "y"]), ["item_id", "row 2"]),
        (changed(user_id=[1.5, 2, 3, 4, 5]), ["user_id", "row 0", "1.5"]),
        (changed(user_id=[True, False, True, True, True]), ["user_id"]),
        (changed(item_id=[["x"]] * 5), ["item_id"]),
        (changed(timestamp=["soon", "now", "then", "x", "y"]), ["timestamp", "row 0", "soon"]),
        (changed(value=["good", "bad", "good", "bad", "good"]), ["value", "row 0", "good"]),
        (changed(timestamp=[1_600_000_000_000 + i for i in range(5)]), ["timestamp", "milliseconds"]),
        ({name: [] for name in GOOD}, ["no row"]),
        (changed(user_id=[None] * 5), ["user_id"]),
        ({"user_id": ["a", "b"], "item_id": ["x"]}, ["item_id"]),
        (42, ["int"]),
        (None, ["NoneType"]),
        ("no/such/file.parquet", ["no/such/file.parquet"]),
    ],
)
def test_events_that_cannot_be_understood(events, parts):
    with pytest.raises(DataError, match=r"\[fit\]") as caught:
        fit(events)
    for part in parts:
        assert part in str(caught.value), str(caught.value)


@pytest.mark.parametrize("null", [None, float("nan"), pd.NA])
@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_null_ids_are_dropped_and_counted(null, column):
    values = [*GOOD[column]]
    values[1] = null
    rec = fit(pd.DataFrame(changed(**{column: values})))
    assert rec.report.missing_ids_dropped == 1 and rec.report.events == 4
    with pytest.raises(DataError, match=f"{column}.*row 1"):
        fit(pd.DataFrame(changed(**{column: values})), strict=True)


@pytest.mark.parametrize("time", [-5.0, 1e18, float("nan"), float("inf"), None])
def test_absurd_times_are_dropped_and_counted(time):
    rec = fit(changed(timestamp=[1.0, time, 3.0, 4.0, 5.0]))
    assert rec.report.bad_timestamps_dropped == 1 and rec.report.events == 4
    with pytest.raises(DataError, match=r"timestamp.*row 1"):
        fit(changed(timestamp=[1.0, time, 3.0, 4.0, 5.0]), strict=True)


def test_one_event():
    rec = fit({"user_id": ["a"], "item_id": ["x"]})
    assert list(rec.recommend("a")) == []
    assert list(rec.recommend("b", 3)) == ["x"]
    assert list(rec.recommend("a", 3, filter_seen=False)) == ["x"]


def test_one_user_and_one_item():
    one_user = fit({"user_id": ["a"] * 3, "item_id": ["x", "y", "z"]}, {"item_id": ["x", "w"], "title": ["red", "red"]})
    assert list(one_user.recommend("a", 5)) == ["w"]
    one_item = fit({"user_id": ["a", "b", "c"], "item_id": ["x"] * 3}, {"item_id": ["x"], "title": ["red"]})
    assert list(one_item.recommend("new", 5)) == ["x"]
    assert list(one_item.similar_items("x", 5)) == []


@pytest.mark.parametrize("text", [None, "", " \t\n ", "😀" * 50, "نص", "a" * 1_000_000, "red \ud800 apple"])
def test_any_text_of_an_item(text):
    items = {"item_id": ["x", "y"], "title": [text, "red apple"]}
    rec = fit(GOOD, items)
    assert rec.report.empty_texts == (0 if text and text.strip() else 1) + 1  # z has no text at all
    assert set(rec.recommend("new", 5)) == {"x", "y", "z"}
    assert np.isfinite(rec.recommend("a", 1).scores).all()


def test_items_in_events_without_text_are_counted_and_kept():
    rec = fit(GOOD, {"item_id": ["x"], "title": ["red apple"]})
    assert rec.report.unknown_items == 2
    assert set(rec.recommend("new", 5)) == {"x", "y", "z"}


def test_duplicated_item_ids():
    items = {"item_id": ["x", "x", "y"], "title": ["red apple", "steel", "hammer"]}
    rec = fit(GOOD, items)
    assert rec.report.duplicate_items_dropped == 1
    assert next(iter(rec.recommend_for_text("red apple", 1))) == "x"
    with pytest.raises(DataError, match=r"item_id.*row 1"):
        fit(GOOD, items, strict=True)


def test_items_of_the_other_id_kind():
    with pytest.raises(DataError, match="item_id"):
        fit(GOOD, {"item_id": [1, 2], "title": ["a", "b"]})


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("damage", ["empty", "noise", "truncated"])
def test_damaged_files(tmp_path, suffix, damage):
    path = tmp_path / f"events.{suffix}"
    frame = pl.DataFrame(GOOD)
    {"parquet": frame.write_parquet, "csv": frame.write_csv, "jsonl": frame.write_ndjson}[suffix](path)
    raw = path.read_bytes()
    path.write_bytes({"empty": b"", "noise": b"\x00\xff\x13" * 100, "truncated": raw[: len(raw) // 2]}[damage])
    if damage == "truncated" and suffix == "csv":
        with contextlib.suppress(DataError):  # half a csv may be a shorter csv
            fit(str(path))
        return
    with pytest.raises(DataError, match="events"):
        fit(str(path))


@pytest.mark.parametrize("ask", [1.5, None, True, b"a", {"a": 1}, [["a"]], [None], [1.5]])
def test_ids_that_are_no_ids(ask):
    rec = fit(GOOD)
    with pytest.raises(DataError, match=r"\[recommend\] users"):
        rec.recommend(ask)


def test_every_error_is_ours():
    for error in (DataError, FastRecError):
        assert issubclass(DataError, error)
    assert issubclass(DataError, ValueError)

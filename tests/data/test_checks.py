"""Columns as callers have them: what is understood, and what is refused by column and row."""

import datetime as dt
import decimal
import uuid

import numpy as np
import pandas as pd
import pytest

from fastrec.data import clean
from fastrec.errors import DataError


def history(cleaned, user):
    """[(item, time, weight)] of a user id."""
    (row,) = cleaned.users.rows([user])
    one = cleaned.interactions.take([row])
    return list(zip(cleaned.items.ids(one.items), one.times.tolist(), one.weights.tolist(), strict=True))


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


@pytest.mark.parametrize(
    ("ids", "message", "row"),
    [
        (np.array([1, 2**24 + 2], np.float32), r"row 1: id 16777218.0 is too large for Float32, which rounds it", 1),
        ([2.0**60, 1.0], "row 0: id 1.15.* is too large for Float64", 0),
        ([1.0, float("-inf")], "row 1: id -inf is too large", 1),
        ([decimal.Decimal("1"), decimal.Decimal("1.5")], "row 1: id 1.5 is no whole number", 1),
        ([10**30, 1], "row 0: id 1000.* does not fit into 64 bits", 0),
        ([None, b"a"], "row 1: ids are Binary", 1),
        ([None, ["a"]], r"row 1: ids are List\(String\)", 1),
        ([uuid.UUID(int=1)] * 2, "row 0: ids are Object", 0),
    ],
)
def test_ids_that_would_be_changed(ids, message, row):
    with pytest.raises(DataError, match=f"interactions: column 'user_id' {message}") as caught:
        clean({"user_id": ids, "item_id": [1, 2]})
    assert caught.value.row == row


def test_decimals_that_are_whole_become_ints():
    assert clean({"user_id": [decimal.Decimal("7.00")], "item_id": ["x"]}).users.series.to_list() == [7]


def test_white_space_and_case_tell_ids_apart():
    words = [" a", "a", "A", "a\0", "e\u0301", "\u00e9"]
    assert clean({"user_id": words, "item_id": words}).report.users == len(words)


def test_nothing_left():
    with pytest.raises(
        DataError, match="none of the 2 rows is left: 1 lack 'user_id' or 'item_id', 1 have no 'timestamp'"
    ):
        clean({"user_id": [None, "a"], "item_id": ["x", "y"], "timestamp": [1, -1]})


# ---- times


def times_of(values):
    n = len(values)
    return clean({"user_id": ["a"] * n, "item_id": list(range(n)), "timestamp": values})


def test_dates_in_several_formats():
    times = [
        "1970-01-02",
        " 1970/01/03 ",
        "1970-01-04T00:00",
        "1970-01-05T00:00:00.5Z",
        "1970-01-06T02:00:00+02:00",
        "",
    ]
    cleaned = times_of(times)
    assert cleaned.interactions.times.tolist() == [86400.0, 172800.0, 259200.0, 345600.5, 432000.0]
    assert cleaned.report.bad_timestamps_dropped == 1


def test_numbers_as_text():
    assert times_of([" 1 ", "2.5", "", None, "1e3", "nan"]).interactions.times.tolist() == [1.0, 2.5, 1000.0]


@pytest.mark.parametrize(
    ("times", "row"),
    [
        (["1970-01-02", "1970-13-02"], 1),
        (["01/02/2020", "13/02/2020"], 0),  # which is the month?
        (["1", "2020-01-01"], 0),
        ([None, "soon"], 1),
        (["2020-01-01 01:00:00 PM"] * 2, 0),
    ],
)
def test_text_that_is_no_time(times, row):
    with pytest.raises(
        DataError, match=f"'timestamp' row {row}: .* is no time; expected seconds, or dates like"
    ) as caught:
        times_of(times)
    assert caught.value.row == row


@pytest.mark.parametrize("times", [[True], [dt.time(1)], [dt.timedelta(1)], [[1]], [b"1"]])
def test_kinds_that_are_no_times(times):
    with pytest.raises(DataError, match=r"'timestamp' row 0: times are .*, expected seconds or datetimes"):
        times_of(times)


@pytest.mark.parametrize("year", [1, 1969, 9999])
def test_datetimes_out_of_range_are_no_other_unit(year):
    assert times_of([dt.datetime(year, 1, 1), dt.datetime(2000, 1, 1)]).report.bad_timestamps_dropped == 1
    with pytest.raises(DataError, match="1 have no 'timestamp' between the years 1970 and 2100"):
        times_of([dt.datetime(year, 1, 1)])


def test_equal_times_keep_the_order_of_the_input():
    rows = {"user_id": ["a", "b", "a", "b", "a"], "item_id": ["z", "z", "y", "x", "x"], "timestamp": [7] * 5}
    assert [item for item, *_ in history(clean(rows), "a")] == ["z", "y", "x"]


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


# ---- values and kinds


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1]], "row 0: values are List"),
        ([dt.date(2020, 1, 1)], "row 0: values are Date"),
        (["5 stars"], "row 0: '5 stars' is no number"),
        ([float("-inf")], "row 0: -inf is not finite"),
    ],
)
def test_values_that_are_no_numbers(values, message):
    with pytest.raises(DataError, match=f"column 'value' {message}"):
        clean({"user_id": ["a"], "item_id": ["x"], "value": values})


@pytest.mark.parametrize("values", [[" 1 ", "", "3"], pd.Categorical(["1", None, "3"]), [1, float("nan"), 3]])
def test_values_as_text_and_missing(values):
    cleaned = clean({"user_id": ["a"] * 3, "item_id": ["x", "y", "z"], "value": values})
    assert [w for *_, w in history(cleaned, "a")] == [0.5, 1.0, 1.5]


@pytest.mark.parametrize("values", [[0, 0], [-5, 1], [None, None]])
def test_values_without_a_positive_mean_count_one(values):
    cleaned = clean({"user_id": ["a"] * 2, "item_id": ["x", "y"], "value": values})
    assert [w for *_, w in history(cleaned, "a")] == [1.0, 1.0]


def test_kinds_of_event_that_are_none():
    for kinds in ([1], [True], [b"view"], [["view"]]):
        with pytest.raises(DataError, match=r"column 'event' row 0: kinds of event are .*, expected str"):
            clean({"user_id": ["a"], "item_id": ["x"], "event": kinds})
    assert clean({"user_id": ["a"], "item_id": ["x"], "event": [" "]}).report.notes == ()


# ---- texts


@pytest.mark.parametrize(
    ("texts", "duplicates"),
    [
        (["good", "good"], 1),
        (["good", "bad"], 0),
        ([["a", None], ["a"]], 1),
        ([["a"], ["b"]], 0),
        ([1, 2], 0),
        ([None, None], 1),
        (pd.Categorical(["good", "good"]), 1),
    ],
)
def test_texts_tell_events_apart(texts, duplicates):
    cleaned = clean({"user_id": ["a"] * 2, "item_id": ["x"] * 2, "timestamp": [1, 1], "text": texts})
    assert cleaned.report.duplicates_dropped == duplicates
    assert history(cleaned, "a") == [("x", 1.0, 2.0 - duplicates)]


def test_texts_that_are_none():
    with pytest.raises(DataError, match="column 'text' row 1: texts are Binary, expected str"):
        clean({"user_id": ["a"] * 2, "item_id": ["x"] * 2, "text": [None, b"good"]})

"""Splits keep the kind of the table, the order of the rows, and time."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrec import split
from fastrec.errors import ConfigError, DataError

FRAME = pl.DataFrame(
    {
        "user_id": ["a", "b", "a", "c", "a", None, "b"],
        "item_id": list("tuvwxyz"),
        "timestamp": [1.0, 5.0, 3.0, 4.0, 3.0, 9.0, None],
    }
)


def items(table):
    return list(table["item_id"].to_pylist() if isinstance(table, pa.Table) else table["item_id"])


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda f, p: f, pl.DataFrame),
        (lambda f, p: f.to_pandas(), pd.DataFrame),
        (lambda f, p: f.to_arrow(), pa.Table),
        (lambda f, p: f.to_dict(as_series=False), dict),
        (lambda f, p: (f.write_parquet(p / "t.parquet"), p / "t.parquet")[1], pl.DataFrame),
    ],
)
def test_kinds_and_rows(make, kind, tmp_path):
    train, test = split.leave_one_out(make(FRAME, tmp_path))
    assert isinstance(train, kind) and isinstance(test, kind)
    # At equal times the later row is the last; a lone event, and rows without id or time, are train.
    assert items(test) == ["x"]
    assert items(train) == list("tuvwyz")
    train, test = split.global_time(make(FRAME, tmp_path), 0.5)
    assert isinstance(train, kind) and isinstance(test, kind)
    assert items(test) == ["u", "w"]
    assert items(train) == ["t", "v", "x", "y", "z"]


def test_lazy_and_list_of_dicts():
    train, test = split.leave_one_out(FRAME.lazy())
    assert isinstance(train, pl.LazyFrame) and test.collect()["item_id"].to_list() == ["x"]
    train, test = split.leave_one_out(FRAME.to_dicts())
    assert [row["item_id"] for row in test] == ["x"] and len(train) == 6


def test_without_times_the_last_row_is_the_last():
    _, test = split.leave_one_out({"user_id": ["a", "a", "b"], "item_id": ["x", "y", "z"]})
    assert test["item_id"].tolist() == ["y"]


def test_other_names_and_the_pandas_index():
    frame = pd.DataFrame({"uid": [1, 1, 2], "item_id": [5, 6, 7], "t": [2, 1, 0]}, index=[9, 4, 7])
    train, test = split.leave_one_out(frame, user_id="uid", timestamp="t")
    assert test.index.tolist() == [9] and train.index.tolist() == [4, 7]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=20), st.floats(0.05, 0.95))
def test_rows_are_divided_by_time(rows, quantile):
    frame = pl.DataFrame(rows, schema=["user_id", "timestamp"], orient="row").with_row_index("item_id")
    for train, test in (split.global_time(frame, quantile), split.leave_one_out(frame)):
        assert sorted([*train["item_id"], *test["item_id"]]) == list(range(len(rows)))
        assert train["item_id"].is_sorted() and test["item_id"].is_sorted()
    train, test = split.global_time(frame, quantile)
    if test.height:
        assert train["timestamp"].max() < test["timestamp"].min()
    assert train.height >= quantile * len(rows) - 1
    train, test = split.leave_one_out(frame)
    for user in range(4):
        mine = [(t, i) for i, (u, t) in enumerate(rows) if u == user]
        want = [max(mine)[1]] if len(mine) >= 2 else []
        assert test.filter(pl.col("user_id") == user)["item_id"].to_list() == want


@pytest.mark.parametrize("quantile", [0, 1, -0.1, "half", True, np.nan])
def test_quantile_out_of_range(quantile):
    with pytest.raises(ConfigError, match=r"\[global_time\] quantile="):
        split.global_time(FRAME, quantile)


def test_bad_input():
    with pytest.raises(DataError, match=r"\[global_time\] interactions: no column 'timestamp'"):
        split.global_time(FRAME.drop("timestamp"))
    with pytest.raises(DataError, match=r"\[leave_one_out\] interactions: no column 'user_id'"):
        split.leave_one_out(FRAME.drop("user_id"))
    with pytest.raises(DataError, match="has no valid time"):
        split.global_time({"user_id": ["a"], "item_id": ["x"], "timestamp": [-1.0]})
    with pytest.raises(DataError, match="'soon' is no time"):
        split.global_time({"timestamp": ["soon"]})
    with pytest.raises(DataError, match=r"\[leave_one_out\] interactions is int"):
        split.leave_one_out(7)


@pytest.mark.parametrize("make", [list, tuple, pd.DataFrame, pl.DataFrame])
def test_rows_come_back_as_they_were(make):
    rows = [{"user_id": "a", "timestamp": 2, "x": ["odd"]}, {"user_id": "a", "timestamp": 1, "x": ["even"]}]
    train, test = split.leave_one_out(make(rows))
    if make in (list, tuple):
        assert test[0] is rows[0] and train[0] is rows[1]
    else:
        assert list(test["x"][test.index[0]] if make is pd.DataFrame else test["x"][0]) == ["odd"]


def test_columns_that_no_split_needs():
    frame = pd.DataFrame({"user_id": ["a", "a"], "timestamp": [1, 2], "x": ["mixed", 3]})
    assert split.global_time(frame, np.float32(0.5))[1]["x"].tolist() == [3]
    rows = frame.to_dict("records")
    assert split.leave_one_out(rows)[1] == rows[1:]


def test_whole_numbers_beside_nulls_are_not_rounded():
    train, test = split.leave_one_out({"user_id": [2**60 + 1, None, 2**60 + 1], "timestamp": [1, 2, 3]})
    assert train["user_id"].tolist() == [2**60 + 1, None] and test["user_id"].tolist() == [2**60 + 1]


def test_a_record_batch():
    train, test = split.global_time(pa.RecordBatch.from_pydict({"timestamp": [1, 3, 2]}), 0.5)
    assert isinstance(test, pa.RecordBatch) and test["timestamp"].to_pylist() == [3]
    assert train["timestamp"].to_pylist() == [1, 2]


def test_all_times_equal_leave_nothing_to_test():
    train, test = split.global_time({"timestamp": [5, 5, 5]})
    assert train["timestamp"].tolist() == [5, 5, 5] and len(test["timestamp"]) == 0


def test_leave_one_out_wants_the_times_it_is_told_of():
    with pytest.raises(DataError, match=r"\[leave_one_out\] interactions: no column 'ts'"):
        split.leave_one_out({"user_id": ["a", "a"]}, timestamp="ts")
    with pytest.raises(DataError, match="column 'timestamp' has no valid time"):
        split.leave_one_out({"user_id": ["a", "a"], "timestamp": [None, -1]})


@pytest.mark.parametrize("call", [split.global_time, split.leave_one_out])
def test_a_column_that_stands_there_twice(call):
    twice = pd.DataFrame([["a", 1, 2]], columns=["user_id", "timestamp", "timestamp"])
    with pytest.raises(DataError, match=rf"\[{call.__name__}\] interactions: column 'timestamp' stands there twice"):
        call(twice)


@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_rows_without_an_id_are_train(column):
    rows = {"user_id": ["a", "a", "b", "b"], "item_id": ["x", "y", "x", "y"], "timestamp": [1, 2, 3, 4]}
    train, test = split.global_time(rows | {column: [*rows[column][:3], None]}, 0.5)
    assert test["timestamp"].tolist() == [3] and train["timestamp"].tolist() == [1, 2, 4]
    train, test = split.leave_one_out(rows | {column: [*rows[column][:3], None]})
    assert test["timestamp"].tolist() == [2] and train["timestamp"].tolist() == [1, 3, 4]
    with pytest.raises(DataError, match="no row has both ids and a valid time"):
        split.global_time({column: [None], "timestamp": [1]})


@pytest.mark.parametrize("call", [split.global_time, split.leave_one_out])
def test_ids_under_other_names(call):
    rows = {"uid": ["a", "a", "a"], "sku": ["x", "y", ""], "timestamp": [1, 2, 3]}
    _, test = call(rows, user_id="uid", item_id="sku")
    assert test["sku"].tolist() == ["y"]
    with pytest.raises(DataError, match=r"no column 'item', found .* pass item_id="):
        call(rows, user_id="uid", item_id="item")

"""Splits of raw event tables into train and test, by time; no sampling, no shuffling.

A table of any kind that ``Recommender.fit`` takes gives two tables of the same kind (a path gives polars,
a dict numpy arrays), rows in the order of the input. Rows without an id or a time go to train, where
cleaning counts them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from fastrec.data import read
from fastrec.data.checks import Place, column, ids, times
from fastrec.errors import ConfigError, DataError
from fastrec.types import F64, Bool

__all__ = ["global_time", "leave_one_out"]

_DIVISIBLE = (pd.DataFrame, pa.Table, pa.RecordBatch, list, tuple)


def global_time(
    interactions: Any,
    quantile: float = 0.9,
    *,
    user_id: str = "user_id",
    item_id: str = "item_id",
    timestamp: str = "timestamp",
) -> tuple[Any, Any]:
    """(train, test): test is every event later than the quantile of all times, train the others.

    The cut is np.quantile(times, quantile), linear between two events; events at the very cut stay in train,
    so that no instant is in both. The columns of ids may be absent; rows that lack one are train.
    Raises ConfigError unless 0 < quantile < 1, DataError for a missing or senseless column.
    """
    if isinstance(quantile, bool) or not isinstance(quantile, (int, float, np.floating)) or not 0 < quantile < 1:
        raise ConfigError(f"[global_time] quantile={quantile!r}, expected a number between 0 and 1")
    frame = _read(interactions, "global_time", (user_id, item_id, timestamp))
    lacking = _lacking(frame, "global_time", user_id=user_id, item_id=item_id)
    when = np.where(lacking, np.nan, _times(frame, timestamp, "global_time"))
    if np.isnan(when).all():
        raise DataError("[global_time] interactions: no row has both ids and a valid time")
    return _divide(interactions, frame, when > np.nanquantile(when, float(quantile)))


def leave_one_out(
    interactions: Any,
    *,
    user_id: str = "user_id",
    item_id: str = "item_id",
    timestamp: str = "timestamp",
) -> tuple[Any, Any]:
    """(train, test): test is the last event of each user with at least two.

    At equal times the later row of the input is the last. Without a column "timestamp", and if no other name
    is given, the order of the input is the order of time. Raises DataError for a missing or senseless column.
    """
    frame = _read(interactions, "leave_one_out", (user_id, item_id, timestamp))
    place = Place("leave_one_out", "interactions", user_id)
    users = ids(column(frame, user_id, "user_id", "leave_one_out", "interactions"), place)
    if timestamp in frame.columns or timestamp != "timestamp":
        when = _times(frame, timestamp, "leave_one_out")
    else:
        when = np.arange(frame.height, dtype=np.float64)
    events = pl.DataFrame({"user": users, "time": when}).with_row_index("row")
    lacking = _lacking(frame, "leave_one_out", item_id=item_id) | users.is_null().to_numpy()
    events = events.filter(pl.Series(~lacking) & events["time"].is_not_nan())
    last = (
        events.sort("time", maintain_order=True)
        .group_by("user")
        .agg(pl.col("row").last(), pl.len().alias("n"))
        .filter(pl.col("n") >= 2)["row"]
    )
    test = np.zeros(frame.height, np.bool_)
    test[last.to_numpy()] = True
    return _divide(interactions, frame, test)


def _read(given: Any, call: str, only: tuple[str, ...]) -> pl.DataFrame:
    """The table; of the kinds that are divided themselves, no more than the columns ``only``."""
    return read(given, where=call, only=only if isinstance(given, _DIVISIBLE) else None)


def _lacking(frame: pl.DataFrame, call: str, **names: str) -> Bool:
    """Which rows lack an id, bool [n]; a column under FastRec's own name may be absent, one asked for may not."""
    lacking = np.zeros(frame.height, np.bool_)
    for keyword, name in names.items():
        if name in frame.columns or name != keyword:
            values = ids(column(frame, name, keyword, call, "interactions"), Place(call, "interactions", name))
            lacking |= values.is_null().to_numpy()
    return lacking


def _times(frame: pl.DataFrame, name: str, call: str) -> F64:
    """Seconds, NaN where missing or out of range; DataError where there is none."""
    values = column(frame, name, "timestamp", call, "interactions")
    when = times(values, Place(call, "interactions", name))
    if when.null_count() == len(when):
        raise DataError(f"[{call}] interactions: column {name!r} has no valid time", column=name)
    return when.fill_null(float("nan")).to_numpy()


def _divide(given: Any, frame: pl.DataFrame, test: Bool) -> tuple[Any, Any]:
    """The rows outside and inside ``test``, in the kind of ``given``."""
    if isinstance(given, pd.DataFrame):
        return given[~test], given[test]
    if isinstance(given, (pa.Table, pa.RecordBatch)):
        return given.filter(pa.array(~test)), given.filter(pa.array(test))
    if isinstance(given, (list, tuple)):
        return [r for r, t in zip(given, test, strict=True) if not t], [
            r for r, t in zip(given, test, strict=True) if t
        ]
    train, held = frame.filter(pl.Series(~test)), frame.filter(pl.Series(test))
    if isinstance(given, pl.LazyFrame):
        return train.lazy(), held.lazy()
    if isinstance(given, Mapping):
        return {s.name: _array(s) for s in train}, {s.name: _array(s) for s in held}
    return train, held


def _array(series: pl.Series) -> np.ndarray:
    """As numpy; with nulls as objects, because as floats whole numbers would be rounded."""
    return np.array(series.to_list(), object) if series.null_count() else series.to_numpy()

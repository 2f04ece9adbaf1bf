"""Splits of raw event tables into train and test, by time; no sampling, no shuffling.

A table of any kind that ``Recommender.fit`` takes gives two tables of the same kind (a path gives polars,
a dict numpy arrays), rows in the order of the input. Rows without an id or a time go to train, where
cleaning counts them.
"""

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from fastrec.data import read
from fastrec.data.checks import Place, column, ids, times
from fastrec.errors import ConfigError, DataError
from fastrec.types import Bool

__all__ = ["global_time", "leave_one_out"]


def global_time(
    interactions: Any,
    quantile: float = 0.9,
    *,
    timestamp: str = "timestamp",
) -> tuple[Any, Any]:
    """(train, test): test is every event later than the quantile of all times.

    Events at the very cut stay in train, so that no instant is in both.
    Raises ConfigError unless 0 < quantile < 1, DataError for a missing or senseless column.
    """
    if isinstance(quantile, bool) or not isinstance(quantile, (int, float)) or not 0 < quantile < 1:
        raise ConfigError(f"[global_time] quantile={quantile!r}, expected a number between 0 and 1")
    frame = read(interactions, where="global_time")
    when = _times(frame, timestamp, "global_time")
    if not np.isfinite(when).any():
        raise DataError(f"[global_time] interactions: column {timestamp!r} has no valid time", column=timestamp)
    with np.errstate(invalid="ignore"):
        return _divide(interactions, frame, when > np.nanquantile(when, quantile))


def leave_one_out(
    interactions: Any,
    *,
    user_id: str = "user_id",
    timestamp: str = "timestamp",
) -> tuple[Any, Any]:
    """(train, test): test is the last event of each user with at least two.

    At equal times the later row of the input is the last. Without a column ``timestamp`` the order of the
    input is the order of time. Raises DataError for a missing or senseless column.
    """
    frame = read(interactions, where="leave_one_out")
    place = Place("leave_one_out", "interactions", user_id)
    users = ids(column(frame, user_id, "user_id", "leave_one_out", "interactions"), place)
    if timestamp in frame.columns:
        when = _times(frame, timestamp, "leave_one_out")
    else:
        when = np.arange(frame.height, dtype=np.float64)
    events = pl.DataFrame({"user": users, "time": when}).with_row_index("row")
    events = events.filter(pl.col("user").is_not_null() & pl.col("time").is_not_nan())
    last = (
        events.sort("time", maintain_order=True)
        .group_by("user")
        .agg(pl.col("row").last(), pl.len().alias("n"))
        .filter(pl.col("n") >= 2)["row"]
    )
    test = np.zeros(frame.height, np.bool_)
    test[last.to_numpy()] = True
    return _divide(interactions, frame, test)


def _times(frame: pl.DataFrame, name: str, call: str) -> np.ndarray:
    """Seconds, NaN where missing or out of range."""
    values = column(frame, name, "timestamp", call, "interactions")
    return times(values, Place(call, "interactions", name)).fill_null(float("nan")).to_numpy()


def _divide(given: Any, frame: pl.DataFrame, test: Bool) -> tuple[Any, Any]:
    """The rows outside and inside ``test``, in the kind of ``given``."""
    if isinstance(given, pd.DataFrame):
        return given[~test], given[test]
    if isinstance(given, (pa.Table, pa.RecordBatch)):
        return given.filter(pa.array(~test)), given.filter(pa.array(test))
    train, held = frame.filter(pl.Series(~test)), frame.filter(pl.Series(test))
    if isinstance(given, pl.LazyFrame):
        return train.lazy(), held.lazy()
    if isinstance(given, dict):
        return tuple({s.name: s.to_numpy() for s in part} for part in (train, held))  # type: ignore[return-value]
    if isinstance(given, (list, tuple)):
        return train.to_dicts(), held.to_dicts()
    return train, held

"""Columns as callers have them -> columns of one meaning; every refusal names column and row."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from fastrec.errors import DataError
from fastrec.types import Bool

#: Seconds of the year 2100: what is later is in another unit or wrong.
LATEST = 4_102_444_800.0
_UNITS = (("milliseconds", 1e3), ("microseconds", 1e6), ("nanoseconds", 1e9))


@dataclass(frozen=True)
class Place:
    """Where a column stands, for messages."""

    call: str
    table: str
    column: str

    def error(self, message: str, row: int | None = None) -> DataError:
        at = "" if row is None else f" row {row}:"
        return DataError(
            f"[{self.call}] {self.table}: column {self.column!r}{at} {message}", column=self.column, row=row
        )


def first(mask: pl.Series | Bool) -> int | None:
    """Place of the first true, None where there is none."""
    array = mask.fill_null(False).to_numpy() if isinstance(mask, pl.Series) else mask
    return int(array.argmax()) if len(array) and array.any() else None


def ids(series: pl.Series, place: Place) -> pl.Series:
    """Ids as Int64 or String, null where missing (null, NaN, empty string)."""
    dtype = series.dtype
    if dtype == pl.Null:
        return series.cast(pl.String)
    if dtype.is_integer():
        row = first(series.is_not_null() & series.cast(pl.Int64, strict=False).is_null())
        if row is not None:
            raise place.error(f"id {series[row]} does not fit into 64 bits with sign", row)
        return series.cast(pl.Int64)
    if dtype.is_float():
        clean = series.fill_nan(None)
        whole = clean.cast(pl.Int64, strict=False)
        row = first(clean.is_not_null() & (whole.is_null() | (whole.cast(pl.Float64) != clean)))
        if row is not None:
            raise place.error(f"id {clean[row]} is no whole number; expected str or int", row)
        return whole
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        text = series.cast(pl.String)
        return text.set(text == "", None) if (text == "").any() else text
    raise place.error(f"ids are {dtype}, expected str or int", first(series.is_not_null()))


def times(series: pl.Series, place: Place) -> pl.Series:
    """Seconds since 1970 as Float64; null where missing or out of range."""
    dtype = series.dtype
    if dtype.is_temporal() and dtype in (pl.Date, pl.Datetime):
        seconds = series.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64) / 1e6
    elif dtype == pl.String:
        seconds = _times_of_text(series, place)
    elif dtype.is_numeric() or dtype == pl.Null:
        seconds = series.cast(pl.Float64)
    else:
        raise place.error(f"times are {dtype}, expected seconds or datetimes", first(series.is_not_null()))
    seconds = seconds.fill_nan(None)
    late = (seconds > LATEST).fill_null(False)
    if 2 * int(late.sum()) > len(seconds) - seconds.null_count() > 0:
        middle = float(seconds.filter(late).median())  # type: ignore[arg-type]
        for unit, factor in _UNITS:
            if np.isfinite(middle) and LATEST / 50 <= middle / factor <= LATEST:
                raise place.error(
                    f"{series[first(late) or 0]} looks like {unit}; expected seconds: divide by {factor:.0e}",
                    first(late),
                )
    good = seconds.is_between(0.0, LATEST).fill_null(False)
    return seconds.set(~good, None)


def _times_of_text(series: pl.Series, place: Place) -> pl.Series:
    numbers = series.cast(pl.Float64, strict=False)
    if numbers.null_count() == series.null_count():
        return numbers
    try:
        dates = series.str.to_datetime(strict=False, time_zone="UTC", time_unit="us")
    except pl.exceptions.PolarsError:  # no format fits the first value
        dates = pl.Series(series.name, [None] * len(series), dtype=pl.Datetime("us", "UTC"))
    row = first(series.is_not_null() & dates.is_null())
    if row is not None:
        raise place.error(f"{series[row]!r} is no time; expected seconds or datetimes", row)
    return dates.dt.epoch("us").cast(pl.Float64) / 1e6


def numbers(series: pl.Series, place: Place) -> pl.Series:
    """Strengths as Float64, null where missing."""
    if series.dtype == pl.String:
        result = series.cast(pl.Float64, strict=False)
        row = first(series.is_not_null() & result.is_null())
        if row is not None:
            raise place.error(f"{series[row]!r} is no number", row)
    elif series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.Null):
        result = series.cast(pl.Float64)
    else:
        raise place.error(f"values are {series.dtype}, expected numbers", first(series.is_not_null()))
    result = result.fill_nan(None)
    row = first(result.is_infinite())
    if row is not None:
        raise place.error(f"{result[row]} is not finite", row)
    return result


def kinds(series: pl.Series, place: Place) -> pl.Series:
    """Kinds of event as lower-case String."""
    if series.dtype not in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        raise place.error(f"kinds of event are {series.dtype}, expected str", first(series.is_not_null()))
    return series.cast(pl.String).str.strip_chars().str.to_lowercase()


def column(frame: pl.DataFrame, name: str, keyword: str, call: str, table: str) -> Any:
    """A required column; DataError names those that are there and the keyword that renames it."""
    if name not in frame.columns:
        raise DataError(
            f"[{call}] {table}: no column {name!r}, found {frame.columns}; if it has another name pass {keyword}=...",
            column=name,
        )
    return frame[name]

"""Columns as callers have them -> columns of one meaning; every refusal names column and row."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from fastrec.data.vocab import Vocab
from fastrec.errors import DataError
from fastrec.types import Bool

#: Seconds of the year 2100: what is later is in another unit or wrong.
LATEST = 4_102_444_800.0
#: Whole numbers up to 2 to this power are exact in a float.
_DIGITS: dict[Any, int] = {pl.Float16: 11, pl.Float32: 24, pl.Float64: 53}
_UNITS = (("milliseconds", 1e3), ("microseconds", 1e6), ("nanoseconds", 1e9))


@dataclass(frozen=True)
class Place:
    """Where a column stands, for messages; ``start``: rows of the table before those that are looked at."""

    call: str
    table: str
    column: str
    start: int = 0

    def error(self, message: str, row: int | None = None) -> DataError:
        row = None if row is None else row + self.start
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
    if dtype.is_float() or dtype.is_decimal():
        clean = series.fill_nan(None) if dtype.is_float() else series
        whole = clean.cast(pl.Int64, strict=False)
        row = first(clean.abs() > 2 ** _DIGITS[dtype]) if dtype.is_float() else None
        if row is not None:
            raise place.error(f"id {clean[row]} is too large for {dtype}, which rounds it; expected str or int", row)
        row = first(clean.is_not_null() & (whole.is_null() | (whole.cast(dtype) != clean)))
        if row is not None:
            raise place.error(f"id {clean[row]} is no whole number; expected str or int", row)
        return whole
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        text = series.cast(pl.String)
        return text.set(text == "", None) if (text == "").any() else text
    raise place.error(f"ids are {dtype}, expected str or int", first(series.is_not_null()))


class Late:
    """Whether most times of a table that is read bit by bit are in another unit: only the whole can say."""

    def __init__(self) -> None:
        self.late = self.known = 0
        self.error: DataError | None = None

    def judge(self) -> None:
        """Raise what ``times`` raises for the whole table."""
        if self.error is not None and 2 * self.late > self.known:
            raise self.error


def times(series: pl.Series, place: Place, part_of: Late | None = None) -> pl.Series:
    """Seconds since 1970 as Float64; null where missing or out of range.

    part_of: what gathers the evidence of a table of which ``series`` is a part
    """
    dtype = series.dtype
    if dtype in (pl.Date, pl.Datetime):
        seconds = series.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64) / 1e6
    elif dtype in (pl.String, pl.Categorical, pl.Enum):
        seconds = _times_of_text(_stripped(series), place)
    elif dtype.is_numeric() or dtype == pl.Null:
        seconds = series.cast(pl.Float64)
    else:
        raise place.error(f"times are {dtype}, expected seconds or datetimes", first(series.is_not_null()))
    seconds = seconds.fill_nan(None)
    late = (seconds > LATEST).fill_null(False)
    n_late, n_known = int(late.sum()), len(seconds) - seconds.null_count()
    if part_of is not None:
        part_of.late, part_of.known = part_of.late + n_late, part_of.known + n_known
    if not dtype.is_temporal() and 2 * n_late > n_known > 0:
        middle = float(seconds.filter(late).median())  # type: ignore[arg-type]
        for unit, factor in _UNITS:
            if np.isfinite(middle) and LATEST / 50 <= middle / factor <= LATEST:
                message = f"{series[first(late) or 0]} looks like {unit}; expected seconds: divide by {factor:,.0f}"
                error = place.error(message, first(late))
                if part_of is None:
                    raise error
                part_of.error = part_of.error or error
    good = seconds.is_between(0.0, LATEST).fill_null(False)
    return seconds.set(~good, None)


def _times_of_text(series: pl.Series, place: Place) -> pl.Series:
    """Numbers, or dates in as many formats as there are; the year must come first, or 01/02 could be either month."""
    numbers = series.cast(pl.Float64, strict=False)
    if numbers.null_count() == series.null_count():
        return numbers
    others = series.is_not_null() & numbers.is_null()
    mostly_numbers = 2 * int(others.sum()) < len(series) - series.null_count()  # then it is not they that are wrong
    row = first(others if mostly_numbers else ~series.str.contains(r"^\d{4}[-/.]\d"))
    dates = pl.Series(series.name, [None], dtype=pl.Datetime("us", "UTC")).new_from_index(0, len(series))
    while row is None and dates.null_count() > series.null_count():
        left = series.set(dates.is_not_null(), None)
        try:  # polars takes the format of the first value and gives null where it does not fit
            found = left.str.to_datetime(strict=False, time_zone="UTC", time_unit="us")
        except pl.exceptions.PolarsError:
            found = dates.clear().extend_constant(None, len(series))
        dates = dates.zip_with(dates.is_not_null(), found)
        if found.null_count() == len(found):
            row = first(left.is_not_null())
    if row is not None:
        raise place.error(f"{series[row]!r} is no time; expected seconds, or dates like 2024-01-31T12:00:00Z", row)
    return dates.dt.epoch("us").cast(pl.Float64) / 1e6


def _stripped(series: pl.Series) -> pl.Series:
    """As String without white space at the ends, null where nothing is left."""
    text = series.cast(pl.String).str.strip_chars()
    return text.set(text == "", None)


def numbers(series: pl.Series, place: Place) -> pl.Series:
    """Strengths as Float64, null where missing."""
    if series.dtype in (pl.String, pl.Categorical, pl.Enum):
        text = _stripped(series)
        result = text.cast(pl.Float64, strict=False)
        row = first(text.is_not_null() & result.is_null())
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
    """Kinds of event as lower-case String, null where missing."""
    if series.dtype not in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        raise place.error(f"kinds of event are {series.dtype}, expected str", first(series.is_not_null()))
    return _stripped(series).str.to_lowercase()


def texts(series: pl.Series, place: Place) -> pl.Series:
    """Texts of events as String; the parts of a list are joined."""
    if series.dtype == pl.List(pl.String):
        return series.list.join(" ", ignore_nulls=True)
    if series.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null) or series.dtype.is_numeric():
        return series.cast(pl.String)
    raise place.error(f"texts are {series.dtype}, expected str", first(series.is_not_null()))


def column(frame: pl.DataFrame, name: str, keyword: str, call: str, table: str) -> Any:
    """A required column; DataError names those that are there and the keyword that renames it."""
    if name not in frame.columns:
        raise DataError(
            f"[{call}] {table}: no column {name!r}, found {frame.columns}; if it has another name pass {keyword}=...",
            column=name,
        )
    return frame[name]


def same_kind(series: pl.Series, events: Vocab, place: Place) -> pl.Series:
    """Ids of a second table, of the kind that the events have; DataError where they are of the other one."""
    known = series.drop_nulls()
    if not len(known):
        return series.clear().cast(events.series.dtype).extend_constant(None, len(series))
    if (series.dtype == pl.Int64) != events.is_int:
        ours, theirs = ("str", "int") if events.is_int else ("int", "str")
        message = f"ids are {ours} here but {theirs} in interactions; expected one kind"
        raise place.error(message, first(series.is_not_null()))
    return series

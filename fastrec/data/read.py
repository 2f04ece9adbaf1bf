"""Reading: any table that callers have -> one polars DataFrame, columns as they came."""

import datetime
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from fastrec.data import files
from fastrec.data.files import FOREIGN, first_line
from fastrec.data.media import MEDIA
from fastrec.errors import DataError

_KINDS = "a pandas, polars or pyarrow table, a dict of arrays, a list of dicts, or a path"


def read(
    source: Any, *, where: str = "fit", what: str = "interactions", only: Collection[str] | None = None
) -> pl.DataFrame:
    """The table as polars, rows in the order of the input (files of a folder in the order of their names).

    source: pandas, polars (eager or lazy) or pyarrow table, dict of arrays, list of dicts, or path to a
        parquet, csv, tsv, jsonl file, a folder of them or a glob
    only: the columns that matter; others keep their name, and may hold nulls instead of what was there
    Raises DataError for any other type, a file that is missing or cannot be read, values that make no column,
    and unequal lengths.
    """
    if isinstance(source, pl.DataFrame):
        objects = pl.Object in source.dtypes
        return _from_columns(source.to_dict().items(), where, what, only) if objects else source
    if isinstance(source, pl.LazyFrame):
        try:
            return read(source.collect(), where=where, what=what, only=only)
        except FOREIGN as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"[{where}] {what}: the lazy frame cannot be collected: {first_line(error)}") from error
    if isinstance(source, (str, os.PathLike)):
        return _read_path(os.fspath(source), where, what, only)
    if isinstance(source, pd.DataFrame):  # by place: a name may stand there twice
        columns = ((name, source.iloc[:, i]) for i, name in enumerate(source.columns))
        return _from_columns(columns, where, what, only)
    if isinstance(source, (pa.Table, pa.RecordBatch)):
        return _from_columns(zip(source.schema.names, source.columns, strict=True), where, what, only)
    if isinstance(source, Mapping):
        return _from_columns(source.items(), where, what, only)
    if isinstance(source, Sequence) and not isinstance(source, bytes) and all(isinstance(r, Mapping) for r in source):
        names = dict.fromkeys(name for row in source for name in row)
        return _from_columns(((name, [row.get(name) for row in source]) for name in names), where, what, only)
    raise DataError(f"[{where}] {what} is {type(source).__name__}, expected {_KINDS}")


def _read_path(path: str, where: str, what: str, only: Collection[str] | None) -> pl.DataFrame:
    frames: dict[str, pl.DataFrame] = {}
    for file in files.find(path, where, what):
        table = files.load(file, where, what, only)
        frames[file] = read(table, where=where, what=f"{what}: {file}", only=only)
    frames = _as_one_text(frames)
    check_alike({file: frame.schema for file, frame in frames.items()}, only, path, where, what)
    head = next(iter(frames.values()))
    try:
        return pl.concat(frames.values(), how="diagonal_relaxed") if len(frames) > 1 else head
    except FOREIGN as error:
        raise DataError(f"[{where}] {what}: the files at {path} do not fit together: {first_line(error)}") from error


def check_alike(
    schemas: Mapping[str, pl.Schema], only: Collection[str] | None, path: str, where: str, what: str
) -> None:
    """DataError unless the files, by name, have the same columns, and each column is of one kind."""
    first, head = next(iter(schemas.items()))
    for file, schema in schemas.items():
        ours, theirs = ({n for n in f if only is None or n in only} for f in (schema, head))
        if ours != theirs:
            name = min(ours ^ theirs)
            raise DataError(
                f"[{where}] {what}: the {len(schemas)} files at {path} have different columns: {name!r} is only in "
                f"{Path(file if name in ours else first).name}, not in {Path(first if name in ours else file).name}",
                column=name,
            )
        for name in sorted(ours):
            if len({"any", _kind(schema[name]), _kind(head[name])}) > 2:
                raise DataError(
                    f"[{where}] {what}: column {name!r} is {schema[name]} in {Path(file).name}, "
                    f"{head[name]} in {Path(first).name}; expected one kind",
                    column=name,
                )


def _as_one_text(frames: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Whole numbers of a csv file as text where another csv file has text: in a csv both are text, part by part."""
    untyped = {f: t for f, t in frames.items() if Path(f).suffix.lower() in (".csv", ".tsv")}
    words = {n for frame in untyped.values() for n, t in frame.schema.items() if t == pl.String}
    for file, frame in untyped.items():
        numbers = [n for n, t in frame.schema.items() if n in words and t == pl.Int64]
        frames[file] = frame.cast(dict.fromkeys(numbers, pl.String)) if numbers else frame
    return frames


def _kind(dtype: pl.DataType) -> str:
    """What a column must be in all files; "any" fits everything."""
    if dtype == pl.Null:
        return "any"
    if dtype.is_numeric():
        return "number"
    return "text" if dtype in (pl.String, pl.Categorical, pl.Enum) else str(dtype.base_type())


def _from_columns(
    columns: Iterable[tuple[Any, Any]], where: str, what: str, only: Collection[str] | None
) -> pl.DataFrame:
    series: list[pl.Series] = []
    for key, values in columns:
        name = str(key)
        scalar = isinstance(values, np.ndarray) and values.ndim == 0
        if scalar or isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
            raise DataError(
                f"[{where}] {what}: column {name!r} is {type(values).__name__}, expected an array or a list",
                column=name,
            )
        if any(s.name == name for s in series):
            raise DataError(f"[{where}] {what}: column {name!r} stands there twice", column=name)
        if only is not None and name not in only:
            series.append(pl.Series(name, [None]).new_from_index(0, len(values)))
            continue
        try:
            series.append(_series(name, values, where, what))
        except FOREIGN as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"[{where}] {what}: column {name!r} holds values that make no column: {first_line(error)}",
                column=name,
            ) from error
    lengths = {s.name: len(s) for s in series}
    if len(set(lengths.values())) > 1:
        raise DataError(f"[{where}] {what}: columns have different lengths: {lengths}")
    return pl.DataFrame(series)


def _series(name: str, values: Any, where: str, what: str) -> pl.Series:
    """One column; DataError names the first row whose kind differs from the first value's."""
    if isinstance(values, pl.Series) and values.dtype != pl.Object:
        return values.alias(name)
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return pl.Series(name, values)
    if isinstance(values, (pd.Series, pd.Index, pd.api.extensions.ExtensionArray)) and values.dtype != object:
        try:
            return pl.Series(name, pa.Array.from_pandas(values))
        except (pa.ArrowException, TypeError):  # sparse, complex, categories of several kinds: value by value
            pass
    if isinstance(values, np.ndarray) and values.dtype.kind not in "OV":
        odd = values.dtype.kind == "M" and np.datetime_data(values.dtype)[0] not in ("D", "ms", "us", "ns")
        return pl.Series(name, values.astype("datetime64[us]") if odd else values)
    words = _words(name, values)
    if words is not None:
        return words
    given = values.tolist() if hasattr(values, "tolist") else values
    media = what == "items" and name.lower() in MEDIA  # as lists of numbers they would take many times the memory
    listed = [v if media and isinstance(v, np.ndarray) else _plain(v) for v in given]
    _check_one_kind(name, listed, where, what)
    missing = [v is None for v in listed]
    if media and any(isinstance(v, np.ndarray) for v in listed):
        return pl.Series(name, listed, pl.Object)
    if any(isinstance(v, np.ndarray) for v in listed):
        return pl.Series(name, pa.array(listed, from_pandas=True))
    series = pl.Series(name, listed, strict=False)
    lost = series.is_null().to_numpy() & ~np.array(missing, np.bool_)
    if lost.any():
        row = int(lost.argmax())
        raise DataError(
            f"[{where}] {what}: column {name!r} row {row}: {listed[row]!r} does not fit into {series.dtype}",
            column=name,
            row=row,
        )
    return series


def _words(name: str, values: Any) -> pl.Series | None:
    """Objects that are all str or missing, the common case, ten times as fast as value by value; else None."""
    try:
        found = pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError):
        return None
    return pl.Series(name, found) if isinstance(found, (pa.StringArray, pa.ChunkedArray)) and _is_words(found) else None


def _is_words(found: Any) -> bool:
    return bool(pa.types.is_string(found.type) or pa.types.is_large_string(found.type))


def _plain(value: Any) -> Any:
    """Numpy scalars as Python's own, every kind of missing value as None, lone surrogates as U+FFFD."""
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, np.ndarray):
        return value if value.ndim == 1 else value.tolist()
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return value.astype(f"{'datetime' if isinstance(value, np.datetime64) else 'timedelta'}64[us]").item()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


def _kind_of_value(value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "number"
    if isinstance(value, str):
        return "str"
    if isinstance(value, datetime.datetime):
        return "datetime" if value.tzinfo is None else "datetime with a zone"
    if hasattr(value, "getexif"):  # Pillow has a class for every format
        return "image"
    return "list" if isinstance(value, (list, tuple, np.ndarray)) else type(value).__name__


def _check_one_kind(name: str, values: list[Any], where: str, what: str) -> None:
    first = None
    for row, value in enumerate(values):
        if value is None:
            continue
        kind = _kind_of_value(value)
        if first is None:
            first = (kind, row)
        elif kind != first[0]:
            one, other = (f"{values[at]!r:.80} ({type(values[at]).__name__})" for at in (row, first[1]))
            raise DataError(
                f"[{where}] {what}: column {name!r} mixes kinds: row {row} holds {one}, row {first[1]} {other}; "
                "expected one kind",
                column=name,
                row=row,
            )

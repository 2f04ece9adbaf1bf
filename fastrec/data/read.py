"""Reading: any table that callers have -> one polars DataFrame, columns as they came."""

import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from fastrec.errors import DataError

_READERS = {
    ".parquet": pl.read_parquet,
    ".csv": lambda path: pl.read_csv(path, infer_schema_length=10_000, raise_if_empty=True),
    ".tsv": lambda path: pl.read_csv(path, separator="\t", infer_schema_length=10_000, raise_if_empty=True),
    ".jsonl": lambda path: pl.read_ndjson(path, infer_schema_length=10_000),
    ".ndjson": lambda path: pl.read_ndjson(path, infer_schema_length=10_000),
}
_KINDS = "a pandas, polars or pyarrow table, a dict of arrays, a list of dicts, or a path"


def read(source: Any, *, where: str = "fit", what: str = "interactions") -> pl.DataFrame:
    """The table as polars, rows in the order of the input (files of a folder in the order of their names).

    source: pandas, polars (eager or lazy) or pyarrow table, dict of arrays, list of dicts, or path to a
        parquet, csv, tsv, jsonl file, a folder of them or a glob
    Raises DataError for any other type, a file that is missing or cannot be read, and unequal lengths.
    """
    if isinstance(source, pl.DataFrame):
        return source
    if isinstance(source, pl.LazyFrame):
        return source.collect()
    if isinstance(source, (str, os.PathLike)):
        return _read_path(os.fspath(source), where, what)
    if isinstance(source, pd.DataFrame):
        return _from_columns({str(name): source[name] for name in source.columns}, where, what)
    if isinstance(source, (pa.Table, pa.RecordBatch)):
        frame = pl.from_arrow(source)
        assert isinstance(frame, pl.DataFrame)
        return frame
    if isinstance(source, Mapping):
        return _from_columns(source, where, what)
    if isinstance(source, Sequence) and not isinstance(source, bytes) and all(isinstance(r, Mapping) for r in source):
        names = dict.fromkeys(str(name) for row in source for name in row)
        return _from_columns({name: [row.get(name) for row in source] for name in names}, where, what)
    raise DataError(f"[{where}] {what} is {type(source).__name__}, expected {_KINDS}")


def _read_path(path: str, where: str, what: str) -> pl.DataFrame:
    if os.path.isdir(path):
        files = sorted(str(p) for p in Path(path).iterdir() if p.suffix.lower() in _READERS)
    elif glob.has_magic(path) and not os.path.exists(path):
        files = sorted(glob.glob(path, recursive=True))
    else:
        files = [path]
    if not files:
        raise DataError(f"[{where}] {what}: no {', '.join(_READERS)} file at {path}")
    frames = [_read_file(file, where, what) for file in files]
    if len(frames) == 1:
        return frames[0]
    try:
        return pl.concat(frames, how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"[{where}] {what}: the {len(files)} files at {path} have different columns: {error}"
        ) from error


def _read_file(path: str, where: str, what: str) -> pl.DataFrame:
    suffix = Path(path).suffix.lower()
    if not os.path.exists(path):
        raise DataError(f"[{where}] {what}: {path} does not exist")
    if suffix not in _READERS:
        raise DataError(f"[{where}] {what}: {path} ends in {suffix!r}, expected one of {', '.join(_READERS)}")
    try:
        frame: pl.DataFrame = _READERS[suffix](path)  # type: ignore[no-untyped-call]
        return frame
    # Arrow and polars report damage by many types, the Rust side as a panic that is no Exception.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        raise DataError(f"[{where}] {what}: {path} cannot be read as {suffix[1:]}: {_first_line(error)}") from error


def _from_columns(columns: Mapping[Any, Any], where: str, what: str) -> pl.DataFrame:
    series = []
    for name, values in columns.items():
        series.append(_series(str(name), values, where, what))
    lengths = {s.name: len(s) for s in series}
    if len(set(lengths.values())) > 1:
        raise DataError(f"[{where}] {what}: columns have different lengths: {lengths}")
    return pl.DataFrame(series)


def _series(name: str, values: Any, where: str, what: str) -> pl.Series:
    """One column; DataError names the first row whose kind differs from the first value's."""
    if isinstance(values, pl.Series):
        return values.alias(name)
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return pl.Series(name, values)
    if isinstance(values, pd.Series):
        if values.dtype != object:
            return pl.Series(name, pa.Array.from_pandas(values))
        values = values.tolist()
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "OV":
            return pl.Series(name, values)
        values = values.tolist()
    if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
        raise DataError(f"[{where}] {what}: column {name!r} is {type(values).__name__}, expected an array or a list")
    listed = [_plain(v) for v in values]
    _check_one_kind(name, listed, where, what)
    try:
        return pl.Series(name, listed, strict=False)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"[{where}] {what}: column {name!r} holds values that make no column: {_first_line(error)}",
            column=name,
        ) from error


def _plain(value: Any) -> Any:
    """Numpy scalars as Python's own, every kind of missing value as None, lone surrogates as U+FFFD."""
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


def _check_one_kind(name: str, values: list[Any], where: str, what: str) -> None:
    first = None
    for row, value in enumerate(values):
        if value is None:
            continue
        kind = "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__
        if first is None:
            first = (kind, row)
        elif kind != first[0]:
            raise DataError(
                f"[{where}] {what}: column {name!r} mixes kinds: row {row} holds {value!r} ({type(value).__name__}), "
                f"row {first[1]} {values[first[1]]!r} ({type(values[first[1]]).__name__}); expected one kind",
                column=name,
                row=row,
            )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

"""Files on disk -> tables; every refusal names the file, and the row where the format knows it."""

import glob
import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json

from fastrec.errors import DataError

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")
#: What polars and Arrow raise over foreign or damaged data; the Rust side panics with what is no Exception.
FOREIGN = (
    *(pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException),
    *(OSError, ValueError, TypeError, OverflowError, AttributeError),
)
#: Bytes that Arrow parses at once; a longer line is read by the second try.
_BLOCK = 1 << 25


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def find(path: str, where: str, what: str) -> list[str]:
    """The files that a path means: itself, what a glob matches, and all in a folder, by the order of names.

    Hidden files, and those that begin with an underscore as Spark's markers do, are passed over.
    """
    path = os.path.expanduser(path)
    matches = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) and not os.path.exists(path) else [path]
    files: list[str] = []
    for match in matches:
        if os.path.isdir(match):
            files += _inside(match, where, what)
        elif os.path.exists(match) or not glob.has_magic(path):
            files.append(match)
    if not files:
        raise DataError(f"[{where}] {what}: no {', '.join(SUFFIXES)} file at {path}")
    return list(dict.fromkeys(files))


def _inside(folder: str, where: str, what: str) -> list[str]:
    def stop(error: OSError) -> None:
        raise DataError(f"[{where}] {what}: {error.filename} cannot be read: {error.strerror}") from error

    found = []
    for root, folders, names in os.walk(folder, onerror=stop):
        folders[:] = sorted(f for f in folders if f[0] not in "._")
        found += [os.path.join(root, n) for n in names if n[0] not in "._" and Path(n).suffix.lower() in SUFFIXES]
    return sorted(found)


def load(path: str, where: str, what: str, only: Collection[str] | None) -> Any:
    """One file as a polars or pyarrow table; of parquet only the columns ``only`` are read, the others hold nulls."""
    suffix = Path(path).suffix.lower()
    if not os.path.exists(path):
        raise DataError(f"[{where}] {what}: {path} does not exist")
    if suffix not in SUFFIXES:
        raise DataError(f"[{where}] {what}: {path} ends in {suffix!r}, expected one of {', '.join(SUFFIXES)}")
    try:
        if suffix == ".parquet":
            return _parquet(path, only)
        if suffix in (".csv", ".tsv"):
            return _csv(path, "," if suffix == ".csv" else "\t")
        return _json(path)
    except FOREIGN as error:
        message = first_line(error)
        column, row = _place(message)
        shown = message if row is None else f"row {row}: {re.sub(r'Row #[0-9]+: | in row [0-9]+', '', message)}"
        raise DataError(
            f"[{where}] {what}: {path} cannot be read as {suffix[1:]}: {shown}", column=column, row=row
        ) from error


def _place(message: str) -> tuple[str | None, int | None]:
    """(column, row from 0) that a message of Arrow names."""
    column = re.search(r"Column\(/([^/)]+)", message)
    json_row, csv_row = re.search(r"in row (\d+)", message), re.search(r"Row #(\d+)", message)
    row = int(json_row[1]) if json_row else max(int(csv_row[1]) - 2, 0) if csv_row else None  # a header, and from 1
    return column[1] if column else None, row


def _parquet(path: str, only: Collection[str] | None) -> pl.DataFrame:
    if only is None:
        return pl.read_parquet(path, glob=False, hive_partitioning=False)
    names = pl.scan_parquet(path, glob=False, hive_partitioning=False).collect_schema().names()
    wanted = [n for n in names if n in only]
    frame = pl.read_parquet(path, columns=wanted, glob=False, hive_partitioning=False)
    return frame.with_columns(pl.lit(None).alias(n) for n in names if n not in only).select(names)


def _csv(path: str, separator: str) -> Any:
    def parse(threads: bool, block: int, **convert: Any) -> Any:
        return pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(use_threads=threads, block_size=block),
            parse_options=pyarrow.csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(**convert),
        )

    def read(**convert: Any) -> Any:
        try:
            return parse(True, _BLOCK, **convert)
        except pa.ArrowInvalid:  # once more: alone it can say which row, and a line may be longer than a block
            return parse(False, _whole(path), **convert)

    table = read()
    for name, values in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_binary(values.type):
            raise ValueError(f"column {name!r} is not in UTF-8")
    return _keep_leading_zeros(table, read)


def _keep_leading_zeros(table: Any, read: Callable[..., Any]) -> Any:
    """Columns of whole numbers as strings where one begins with 0: an ISBN 007 is not 7, nor the same as 07."""
    names = table.column_names
    whole = [n for n, t in zip(names, table.schema.types, strict=True) if t == pa.int64() and names.count(n) == 1]
    if not whole:
        return table
    texts = read(include_columns=whole, column_types=dict.fromkeys(whole, pa.string()), strings_can_be_null=True)
    for name in whole:
        column = texts[name]
        if pc.any(pc.match_substring_regex(column, r"^[ \t]*[+-]?0[0-9]")).as_py():
            table = table.set_column(names.index(name), name, column)
    return table


def _json(path: str) -> Any:
    def parse(block: int) -> Any:
        return pyarrow.json.read_json(path, read_options=pyarrow.json.ReadOptions(block_size=block))

    try:
        table = parse(_BLOCK)
    except pa.ArrowException:  # once more as one block: rows are counted, and types found, in each block alone
        table = parse(_whole(path))
    table.validate(full=True)  # Arrow does not look whether JSON is UTF-8, and polars relies on it
    return table.rename_columns(table.column_names)


def _whole(path: str) -> int:
    return min(max(os.path.getsize(path), _BLOCK) + 1, 2**31 - 1)

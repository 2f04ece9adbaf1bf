"""Large parquet files -> Events, a few million rows at a time: no column of strings is ever whole in memory.

Ids become rows as they come: those of a part are looked up among the ids so far, and new ones get the next rows, which
is the order of their first appearance. Parts grow with the vocabulary, so that looking up takes time in proportion to
the rows. What exact duplicates are told by is kept as numbers; of texts two hashes of 64 bits.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from fastrec.data import checks, files
from fastrec.data.columns import Columns
from fastrec.data.events import Events, coded, recognised
from fastrec.data.files import FOREIGN, first_line
from fastrec.data.read import check_alike
from fastrec.data.spill import Column
from fastrec.data.vocab import Vocab, encode
from fastrec.errors import DataError
from fastrec.types import I32

#: Rows of files from which they are read bit by bit.
_FROM = 1 << 22
#: Rows of a part, at least and at most.
_LEAST, _MOST = 1 << 20, 1 << 23
_SEEDS = (1, 2)


def events(source: Any, c: Columns, strict: bool, where: str, counts: dict[str, Any]) -> Events | None:
    """The events of parquet files of many rows, as ``pack(recognised(read(source)))`` gives them; None for any other
    source. ``counts`` gets the rows that were read and dropped."""
    if not isinstance(source, (str, os.PathLike)):
        return None
    found = files.find(os.fspath(source), where, "interactions")
    if any(Path(file).suffix.lower() != ".parquet" for file in found):
        return None
    try:
        schemas = {file: pl.Schema(pl.read_parquet_schema(file)) for file in found}
        n = sum(pq.read_metadata(file).num_rows for file in found)
    except FOREIGN:
        return None  # reading it whole says what is wrong
    schema = next(iter(schemas.values()))
    times = {s[c.timestamp] for s in schemas.values() if c.timestamp in s}
    # Texts are dates in whatever format most of them have: that takes all of them.
    if n <= _FROM or any(not (t.is_numeric() or t.is_temporal() or t == pl.Null) for t in times):
        return None
    check_alike(schemas, c.all, os.fspath(source), where, "interactions")
    wanted = [name for name in schema.names() if name in c.all]
    try:
        together = pl.concat((pl.DataFrame(schema=s).select(wanted) for s in schemas.values()), how="vertical_relaxed")
    except FOREIGN:
        return None
    recognised(together, c, strict, where, {})  # lacks of columns, and types of no use
    return _Reader(c, strict, where, counts, together.schema).read(found)


class _Growing:
    """A vocabulary that grows part by part."""

    def __init__(self) -> None:
        self._ids: pl.Series | None = None

    def __len__(self) -> int:
        return 0 if self._ids is None else len(self._ids)

    def rows(self, ids: pl.Series) -> I32:
        """Row of every id, without nulls, int32 [n]; new ones get the next rows."""
        some, codes = encode(ids)
        if self._ids is None:
            self._ids = some.series
            return codes
        known = pl.DataFrame({"id": self._ids}).with_row_index("row")
        asked = pl.DataFrame({"id": some.series})
        row = asked.join(known, on="id", how="left", maintain_order="left")["row"]
        new = row.is_null()
        table = row.fill_null(0).to_numpy().astype(np.int32)
        fresh = new.to_numpy()
        table[fresh] = np.arange(len(self._ids), len(self._ids) + int(fresh.sum()), dtype=np.int32)
        if fresh.any():
            self._ids = pl.concat([self._ids, some.series.filter(new)], rechunk=True)
        found: I32 = table[codes]
        return found

    def vocab(self) -> Vocab:
        return Vocab(pl.Series("id", [], dtype=pl.String) if self._ids is None else self._ids)


class _Reader:
    """What grows while files are read."""

    def __init__(self, c: Columns, strict: bool, where: str, counts: dict[str, Any], schema: pl.Schema) -> None:
        self._c, self._strict, self._where, self._counts = c, strict, where, counts
        self._schema = schema
        counts["rows_read"] = 0
        self._users, self._items = _Growing(), _Growing()
        self._kinds: tuple[str | None, ...] = ()
        self._late = checks.Late()
        # Half of what will be needed at once later is in these columns: they are the first to give way to it.
        self._columns = {"user": Column(np.int32, True), "item": Column(np.int32, True)}

    def read(self, found: list[str]) -> Events:
        for table in self._parts(found):
            frame = pl.from_arrow(table)
            assert isinstance(frame, pl.DataFrame)
            frame = frame.cast(self._schema)  # what the files have in common: a part is as the whole would be
            start = self._counts["rows_read"]
            self._counts["rows_read"] += frame.height
            part, _ = recognised(frame, self._c, self._strict, self._where, self._counts, start, self._late)
            self._take(part)
        self._late.judge()
        columns = {name: column.array() for name, column in self._columns.items()}
        user, item = columns.pop("user"), columns.pop("item")
        time, kind, value = (columns.pop(name, None) for name in ("time", "kind", "value"))
        users, items = self._users.vocab(), self._items.vocab()
        return Events(user, item, time, kind, self._kinds, value, users, items, columns)

    def _take(self, part: pl.DataFrame) -> None:
        if not part.height:
            return
        columns: dict[str, Any] = {"user": self._users.rows(part["user"]), "item": self._items.rows(part["item"])}
        if "kind" in part.columns:
            self._kinds, columns["kind"] = coded(part["kind"], self._kinds)
        if "value" in part.columns:
            columns["value"] = part["value"].fill_null(float("nan")).to_numpy()
        if "time" in part.columns:
            columns["time"] = part["time"].to_numpy()
        if "text" in part.columns:
            columns |= {f"text{seed}": part["text"].hash(seed).to_numpy() for seed in _SEEDS}
        for name, array in columns.items():
            if name not in self._columns:
                self._columns[name] = Column(array.dtype, True)
            self._columns[name].append(array)

    def _parts(self, found: list[str]) -> Iterator[Any]:
        """pyarrow.Tables of about so many rows as the vocabulary is long, over the borders of files."""
        wanted = self._schema.names()
        held: list[Any] = []
        rows, schema = 0, None
        for file in found:
            try:
                # Not pre-buffered: that would hold a whole row group beside what it becomes.
                with pq.ParquetFile(file, pre_buffer=False) as parquet:
                    for batch in parquet.iter_batches(_LEAST, columns=wanted):
                        table = pa.Table.from_batches([batch]).select(wanted)
                        if held and (table.schema != schema or rows + table.num_rows > self._target()):
                            yield pa.concat_tables(held)
                            held, rows = [], 0
                        held.append(table)
                        rows, schema = rows + table.num_rows, table.schema
            except FOREIGN as error:
                if isinstance(error, DataError):
                    raise
                raise DataError(
                    f"[{self._where}] interactions: {file} cannot be read as parquet: {first_line(error)}"
                ) from error
        if held:
            yield pa.concat_tables(held)

    def _target(self) -> int:
        return min(max(_LEAST, 2 * max(len(self._users), len(self._items))), _MOST)

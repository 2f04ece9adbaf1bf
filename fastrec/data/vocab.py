"""Ids and rows: the only place where one becomes the other."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from fastrec.data.files import FOREIGN, first_line
from fastrec.errors import DataError
from fastrec.types import I64

#: More ids than this are looked up by a join instead of one by one.
_BULK = 10_000


class Vocab:
    """Ids of one kind, all str or all int; the row of an id is its place."""

    def __init__(self, ids: pl.Series) -> None:
        """ids: String or Int64, each once."""
        self._ids = ids.alias("id")
        self._rows: dict[Any, int] | None = None

    @classmethod
    def from_ids(cls, ids: Sequence[Any]) -> "Vocab":
        """From str or int, all of one kind and each once; DataError where they are not."""
        kind = pl.Int64 if len(ids) and isinstance(ids[0], (int, np.integer)) else pl.String
        try:
            series = pl.Series("id", ids, dtype=kind)
        except FOREIGN as error:
            raise DataError(
                f"[vocab] ids are not all {'int' if kind == pl.Int64 else 'str'}: {first_line(error)}"
            ) from error
        if series.null_count() or series.n_unique() != len(series):
            raise DataError("[vocab] ids are missing or repeat, expected each once")
        return cls(series)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def series(self) -> pl.Series:
        """The ids, String or Int64 [n]."""
        return self._ids

    @property
    def is_int(self) -> bool:
        """Whether the ids are whole numbers."""
        return self._ids.dtype == pl.Int64

    def rows(self, ids: Sequence[Any]) -> I64:
        """Row of each id, int64 [n]; -1 for one that is unknown or of the other kind."""
        kind: Any = (int, np.integer) if self.is_int else str
        if len(ids) > _BULK:
            plain = [i if isinstance(i, kind) and not isinstance(i, bool) and _is_text(i) else None for i in ids]
            asked = pl.DataFrame({"id": pl.Series(plain, dtype=self._ids.dtype, strict=False)})
            known = pl.DataFrame({"id": self._ids}).with_row_index("row")
            joined = asked.join(known, on="id", how="left", maintain_order="left")["row"]
            return joined.cast(pl.Int64).fill_null(-1).to_numpy().astype(np.int64)
        if self._rows is None:
            self._rows = dict(zip(self._ids.to_list(), range(len(self)), strict=True))
        found = self._rows
        # True is an int to Python, and would be found as 1.
        return np.array(
            [found.get(i, -1) if isinstance(i, kind) and not isinstance(i, bool) else -1 for i in ids], np.int64
        )

    def ids(self, rows: npt.ArrayLike) -> npt.NDArray[np.object_]:
        """Id of each row as Python str or int, object [n]; None for row -1."""
        wanted = np.asarray(rows, np.int64)
        out = np.empty(len(wanted), object)
        if len(self):
            # Only what is asked for becomes Python objects: the vocabulary may hold millions.
            out[:] = self._ids.gather(np.maximum(wanted, 0)).to_list()
        out[wanted < 0] = None
        return out

    def all_ids(self) -> list[Any]:
        """All ids in the order of their rows, without those that are gone."""
        return self._ids.to_list()

    def to_arrow(self) -> Any:
        """pyarrow.Table with the column ``id``."""
        return pl.DataFrame({"id": self._ids}).to_arrow(compat_level=pl.CompatLevel.oldest())

    @classmethod
    def from_arrow(cls, table: Any) -> "Vocab":
        """The vocabulary that ``to_arrow`` gave."""
        series = pl.from_arrow(table["id"].combine_chunks())
        assert isinstance(series, pl.Series)
        return cls(series)


class GrownVocab(Vocab):
    """A vocabulary to which ids were added, and of which some are gone; the rows of the others stay.

    Adding shares the list and the dict with the vocabulary before: it takes no time that grows with the size, and the
    one before still knows only its own, since it passes over rows beyond its length. One thread adds at a time.
    """

    def __init__(self, base: Vocab, added: list[Any], found: dict[Any, int], n: int, gone: frozenset[int]) -> None:
        self._base, self._added, self._found, self._n, self.gone = base, added, found, n, gone
        self._all: pl.Series | None = None

    @classmethod
    def of(cls, vocab: Vocab) -> "GrownVocab":
        """The vocabulary itself where it can grow already, else one around it."""
        return vocab if isinstance(vocab, GrownVocab) else cls(vocab, [], {}, len(vocab), frozenset())

    def __len__(self) -> int:
        return self._n

    @property
    def is_int(self) -> bool:
        if len(self._base) or not self._added:
            return self._base.is_int
        return isinstance(self._added[0], int)

    @property
    def series(self) -> pl.Series:
        """The ids, String or Int64 [n], gone ones too."""
        if self._all is None:
            more = self._added[: self._n - len(self._base)]
            kind = pl.Int64 if self.is_int else pl.String
            self._all = pl.concat([self._base.series.cast(kind), pl.Series("id", more, dtype=kind)])
        return self._all

    def with_added(self, ids: Sequence[Any]) -> "GrownVocab":
        """With these ids behind the others; an id that is gone may come again, with a new row."""
        for row, one in enumerate(ids, self._n):
            self._added.append(one)
            self._found[one] = row
        return GrownVocab(self._base, self._added, self._found, self._n + len(ids), self.gone)

    def old_rows(self, ids: Sequence[Any]) -> I64:
        """The row that each id had before it was gone, int64 [n]; -1 for one that never was or is still there."""
        rows = GrownVocab(self._base, self._added, self._found, self._n, frozenset()).rows(ids)
        return np.array([row if row in self.gone else -1 for row in rows.tolist()], np.int64)

    def without(self, rows: Sequence[int]) -> "GrownVocab":
        """Without the ids of these rows."""
        return GrownVocab(self._base, self._added, self._found, self._n, self.gone | frozenset(rows))

    def rows(self, ids: Sequence[Any]) -> I64:
        """Row of each id, int64 [n]; -1 for one that is unknown, gone or of the other kind."""
        rows = self._base.rows(ids)
        if not self._found and not self.gone:
            return rows
        for i, (one, row) in enumerate(zip(ids, rows.tolist(), strict=True)):
            later = self._found.get(one, -1) if not isinstance(one, bool) else -1
            if 0 <= later < self._n:
                row = later
            rows[i] = -1 if row in self.gone else row
        return rows

    def ids(self, rows: npt.ArrayLike) -> npt.NDArray[np.object_]:
        """Id of each row as Python str or int, object [n]; None for row -1."""
        wanted = np.asarray(rows, np.int64)
        size = len(self._base)
        out = self._base.ids(np.where(wanted < size, wanted, -1))
        for i in np.flatnonzero(wanted >= size).tolist():
            out[i] = self._added[wanted[i] - size]
        return out

    def all_ids(self) -> list[Any]:
        listed = self.series.to_list()
        return [one for row, one in enumerate(listed) if row not in self.gone] if self.gone else listed

    def to_arrow(self) -> Any:
        return Vocab(self.series).to_arrow()


def _is_text(value: Any) -> bool:
    """Whether a str can be written as UTF-8; with lone surrogates it is no id that was ever read."""
    return not isinstance(value, str) or value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value)


def encode(ids: pl.Series) -> tuple[Vocab, npt.NDArray[np.int32]]:
    """(vocabulary in order of first appearance, row of every id int32 [n]); ids without nulls."""
    encoded = pa.array(ids.to_arrow(compat_level=pl.CompatLevel.oldest())).dictionary_encode()
    values = pl.from_arrow(encoded.dictionary)
    assert isinstance(values, pl.Series)
    return Vocab(values), encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32, copy=False)

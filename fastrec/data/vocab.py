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

    def to_arrow(self) -> Any:
        """pyarrow.Table with the column ``id``."""
        return pl.DataFrame({"id": self._ids}).to_arrow(compat_level=pl.CompatLevel.oldest())

    @classmethod
    def from_arrow(cls, table: Any) -> "Vocab":
        """The vocabulary that ``to_arrow`` gave."""
        series = pl.from_arrow(table["id"].combine_chunks())
        assert isinstance(series, pl.Series)
        return cls(series)


def _is_text(value: Any) -> bool:
    """Whether a str can be written as UTF-8; with lone surrogates it is no id that was ever read."""
    return not isinstance(value, str) or value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value)


def encode(ids: pl.Series) -> tuple[Vocab, npt.NDArray[np.int32]]:
    """(vocabulary in order of first appearance, row of every id int32 [n]); ids without nulls."""
    encoded = pa.array(ids.to_arrow(compat_level=pl.CompatLevel.oldest())).dictionary_encode()
    values = pl.from_arrow(encoded.dictionary)
    assert isinstance(values, pl.Series)
    return Vocab(values), encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32, copy=False)

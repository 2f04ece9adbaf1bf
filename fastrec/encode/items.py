"""Catalogue to Embeddings: texts and precomputed vectors of the items in one vector each."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from fastrec.encode.adapters import TextEncoder
from fastrec.encode.encoder import unit_rows
from fastrec.encode.text import item_texts
from fastrec.errors import DataError
from fastrec.side import Links, Media, Texts
from fastrec.types import F32, Catalog, Embeddings


def embed_items(
    catalog: Catalog, encoder: TextEncoder | None, links: Links | None = None, media: dict[str, Media] | None = None
) -> Embeddings | None:
    """One vector per item, float32 [N, D]; None where no item has content and there are neither links nor media.

    The parts are the text vector (where there is an encoder and the catalogue has text or label columns)
    and each precomputed vector column. Each part is L2-normalised; several are put behind one another,
    scaled by 1 / sqrt(parts), and the whole is normalised again, so that an item that lacks a part still
    has length 1. An item without any part, or with zero vectors only, has the zero vector and is not
    known. D depends on the columns and the encoder, never on the values.

    Raises DataError, naming column and row, for a precomputed vector that is not finite or for a column
    that is no fixed-size list of numbers; what the encoder raises is passed on.
    """
    parts: list[F32] = []
    if encoder is not None and (catalog.text_columns or catalog.label_columns):
        parts.append(unit_rows(encoder.encode(item_texts(catalog))))
    parts += [_column(catalog.table, name) for name in catalog.vector_columns]
    vectors = parts[0] if parts else np.zeros((catalog.n_items, 0), np.float32)
    if len(parts) > 1:
        vectors = unit_rows(np.concatenate(parts, axis=1) / np.float32(np.sqrt(len(parts))))
    known = np.any(vectors != 0, axis=1)
    if not known.any() and links is None and not media:
        return None
    return Embeddings(vectors, known, texts_of(catalog, encoder), links, media or {})


def texts_of(catalog: Catalog, encoder: TextEncoder | None) -> Texts | None:
    """How the items read and what reads like that; None without an encoder or without texts."""
    if encoder is None or not (catalog.text_columns or catalog.label_columns):
        return None
    return Texts(partial(item_texts, catalog), partial(_unit_vectors, encoder), not catalog.vector_columns)


def _unit_vectors(encoder: TextEncoder, texts: Sequence[str]) -> F32:
    return unit_rows(encoder.encode(texts))


def _column(table: Any, name: str) -> F32:
    """A vector column, each row of length 1; zero where it is null. float32 [N, D]."""
    import pyarrow as pa

    column = table.column(name)
    if not pa.types.is_fixed_size_list(column.type):
        message = f"[encode] column {name!r} is {column.type}, expected a fixed-size list of numbers"
        raise DataError(message, column=name)
    out = np.zeros((len(column), column.type.list_size), np.float32)
    begin = 0
    for chunk in column.chunks:
        rows = begin + np.flatnonzero(chunk.is_valid().to_numpy(zero_copy_only=False))
        # flatten leaves the null rows out and minds the offset of a slice; a null inside becomes NaN.
        flat = chunk.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
        values = flat.reshape(len(rows), out.shape[1])
        bad = rows[~np.isfinite(values).all(axis=1)]
        if len(bad):
            raise DataError(
                f"[encode] column {name!r}, row {bad[0]}: the vector holds NaN, infinity or null",
                column=name,
                row=int(bad[0]),
            )
        out[rows] = unit_rows(values)
        begin += len(chunk)
    return out

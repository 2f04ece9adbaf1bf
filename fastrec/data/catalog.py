"""The items table: columns classified and aligned with the item rows."""

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from fastrec.data import checks
from fastrec.data.checks import Place
from fastrec.data.read import read
from fastrec.data.vocab import Vocab
from fastrec.types import Catalog

#: Names of columns that hold running text, in the order in which they are read.
_TEXT_NAMES = ("title", "name", "headline", "text", "description", "summary", "abstract", "body", "content")
#: Columns that are not for reading.
_NOT_TEXT = ("image", "audio", "url", "link")


def read_items(
    source: Any, item_id: str, events: Vocab, strict: bool, where: str, counts: dict[str, Any]
) -> pl.DataFrame:
    """The items table with clean, unique ids in the column "item_id"; what was dropped goes to ``counts``."""
    frame = read(source, where=where, what="items")
    place = Place(where, "items", item_id)
    ids = checks.ids(checks.column(frame, item_id, "item_id", where, "items"), place)
    if len(ids) and ids.null_count() < len(ids) and (ids.dtype == pl.Int64) != events.is_int:
        kinds = ("int", "str") if events.is_int else ("str", "int")
        raise place.error(f"ids are {kinds[1]} here but {kinds[0]} in interactions; expected one kind", 0)
    missing = ids.is_null()
    repeated = ~ids.is_first_distinct() & ~missing
    if strict:
        if (row := checks.first(missing)) is not None:
            raise place.error("the id is missing", row)
        if (row := checks.first(repeated)) is not None:
            raise place.error(f"the id {ids[row]!r} stands there twice", row)
    counts["missing_item_ids_dropped"] = int(missing.sum())
    counts["duplicate_items_dropped"] = int(repeated.sum())
    others = frame.drop(item_id)
    return others.with_columns(ids.alias("item_id")).select("item_id", *others.columns).filter(~(missing | repeated))


def align(table: pl.DataFrame | None, events: Vocab, item_id: str, counts: dict[str, Any]) -> tuple[Catalog, Vocab]:
    """(catalog of all items, their vocabulary): first those of the events, then the others of the table."""
    known = pl.DataFrame({"item_id": events.series})
    if table is None:
        return Catalog(known.to_arrow(compat_level=pl.CompatLevel.oldest())), events
    cold = table["item_id"].filter(~table["item_id"].is_in(events.series.implode()))
    vocab = Vocab(pl.concat([events.series, cold.cast(events.series.dtype).alias("id")]))
    counts["unknown_items"] = len(events) - (table.height - len(cold))
    aligned = pl.DataFrame({"item_id": vocab.series}).join(table, on="item_id", how="left", maintain_order="left")
    text, labels, vectors = _classify(aligned)
    for name in vectors:
        aligned = aligned.with_columns(_fixed_width(aligned[name]))
    readable = [_blank(aligned[name]) for name in (*text, *labels)]
    if readable:
        counts["empty_texts"] = int(np.logical_and.reduce([b.to_numpy() for b in readable]).sum())
    arrow = aligned.to_arrow(compat_level=pl.CompatLevel.oldest())
    return Catalog(pa.table(arrow), tuple(text), tuple(labels), tuple(vectors)), vocab


def _classify(table: pl.DataFrame) -> tuple[list[str], list[str], list[str]]:
    """(text, label, vector) columns."""
    text: list[str] = []
    labels: list[str] = []
    vectors: list[str] = []
    for name, dtype in table.schema.items():
        if name == "item_id" or name.lower() in _NOT_TEXT:
            continue
        if dtype in (pl.Categorical, pl.Enum) or dtype == pl.List(pl.String):
            labels.append(name)
        elif dtype == pl.String:
            (text if name.lower() in _TEXT_NAMES or _is_prose(table[name]) else labels).append(name)
        elif isinstance(dtype, (pl.List, pl.Array)) and dtype.inner is not None and _is_vector(table[name]):
            vectors.append(name)
    place = {name: i for i, name in enumerate(_TEXT_NAMES)}
    text.sort(key=lambda name: place.get(name.lower(), len(place)))  # stable: others keep their order
    return text, labels, vectors


def _is_prose(series: pl.Series) -> bool:
    """Whether values look like sentences: more than six words on average."""
    words = series.drop_nulls().head(1000).str.count_matches(r"\s+").mean()
    return isinstance(words, float) and words > 5


def _is_vector(series: pl.Series) -> bool:
    """Whether a list column holds float vectors of one width."""
    if not series.dtype.inner.is_float():  # type: ignore[attr-defined]
        return False
    return isinstance(series.dtype, pl.Array) or series.drop_nulls().list.len().n_unique() == 1


def _fixed_width(series: pl.Series) -> pl.Series:
    if isinstance(series.dtype, pl.Array):
        return series
    width = int(series.drop_nulls().list.len()[0])
    return series.cast(pl.Array(series.dtype.inner, width))  # type: ignore[attr-defined]


def _blank(series: pl.Series) -> pl.Series:
    """Which values have no character but white space."""
    if series.dtype == pl.List(pl.String):
        series = series.list.join(" ")
    return (series.cast(pl.String).str.strip_chars().str.len_bytes() == 0).fill_null(True)

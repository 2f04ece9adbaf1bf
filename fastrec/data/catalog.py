"""The items table: columns classified and aligned with the item rows."""

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from fastrec.data import checks
from fastrec.data.checks import Place
from fastrec.data.files import FOREIGN
from fastrec.data.media import MEDIA, files
from fastrec.data.read import read
from fastrec.data.vocab import Vocab
from fastrec.errors import DataError
from fastrec.types import Catalog

#: Names of columns that hold running text, in the order in which they are read.
_TEXT_NAMES = ("title", "name", "headline", "text", "description", "summary", "abstract", "body", "content")
#: Columns that are not for reading.
_NOT_TEXT = (*MEDIA, "url", "link")


def read_items(
    source: Any,
    item_id: str,
    events: Vocab,
    strict: bool,
    where: str,
    counts: dict[str, Any],
    notes: list[str],
) -> pl.DataFrame:
    """The items with clean, unique ids in the column "item_id"; ``counts`` and ``notes`` tell what was dropped."""
    table, missing, repeated = _read("items", source, "item_id", item_id, events, strict, where, notes)
    counts["missing_item_ids_dropped"] = missing
    counts["duplicate_items_dropped"] = repeated
    return table


def read_users(source: Any, user_id: str, events: Vocab, strict: bool, where: str, notes: list[str]) -> Any:
    """pyarrow.Table of the U users of the events, in the order of their rows; nulls for a user without a row.

    Users without events are left out: there is nothing to tell their taste by. ``notes`` counts what was dropped.
    """
    table, missing, repeated = _read("users", source, "user_id", user_id, events, strict, where, notes)
    notes.append(
        f"users table: {table.height + missing + repeated:,} rows, {missing + repeated:,} without an id or with a "
        "repeated one; no model of this version reads it"
    )
    known = pl.DataFrame({"user_id": events.series})
    aligned = known.join(table, on="user_id", how="left", maintain_order="left")
    return pa.table(aligned.to_arrow(compat_level=pl.CompatLevel.oldest()))


def _read(
    what: str, source: Any, key: str, name: str, events: Vocab, strict: bool, where: str, notes: list[str]
) -> tuple[pl.DataFrame, int, int]:
    """(a table about users or items with clean, unique ids in the column ``key``, rows without id, repeated ids)."""
    frame = read(source, where=where, what=what)
    place = Place(where, what, name)
    ids = checks.ids(checks.column(frame, name, key, where, what), place)
    ids = checks.same_kind(ids, events, place)
    missing = ids.is_null()
    repeated = ~ids.is_first_distinct() & ~missing
    if strict:
        if (row := checks.first(missing)) is not None:
            raise place.error("the id is missing", row)
        if (row := checks.first(repeated)) is not None:
            raise place.error(f"the id {ids[row]!r} stands there twice", row)
    columns = [ids.alias(key)]
    for series in frame.drop(name).get_columns():
        at = Place(where, what, series.name)
        media = what == "items" and series.name.lower() in MEDIA
        usual = files(series, at) if media else _usual(series, at, notes)
        if usual is not None and series.name == key:
            notes.append(f"{what}: column {key!r} is left out: {name!r} holds the ids")
        elif usual is not None:
            columns.append(usual)
    return pl.DataFrame(columns).filter(~(missing | repeated)), int(missing.sum()), int(repeated.sum())


def align(table: pl.DataFrame | None, events: Vocab, counts: dict[str, Any]) -> tuple[Catalog, Vocab]:
    """(catalog of all items, their vocabulary): first those of the events, then the others of the table."""
    known = pl.DataFrame({"item_id": events.series})
    if table is None:
        return Catalog(known.to_arrow(compat_level=pl.CompatLevel.oldest())), events
    cold = table["item_id"].filter(~table["item_id"].is_in(events.series.implode()))
    vocab = Vocab(pl.concat([events.series, cold.alias("id")]))
    counts["unknown_items"] = len(events) - (table.height - len(cold))
    aligned = pl.DataFrame({"item_id": vocab.series}).join(table, on="item_id", how="left", maintain_order="left")
    text, labels, vectors = _classify(aligned)
    readable = [_blank(aligned[name]) for name in (*text, *labels)]
    if readable:
        counts["empty_texts"] = int(np.logical_and.reduce([b.to_numpy() for b in readable]).sum())
    arrow = aligned.to_arrow(compat_level=pl.CompatLevel.oldest())
    return Catalog(pa.table(arrow), tuple(text), tuple(labels), tuple(vectors)), vocab


def new_items(source: Any, known: Catalog, items: Vocab, where: str) -> tuple[Any, dict[str, int]]:
    """(pyarrow.Table in the columns of ``known`` of the items that are not among ``items``, counts).

    Columns that the catalogue does not have are left out, those that the table does not have are null. Raises DataError
    for a table that cannot be understood and for a column of another type than the catalogue has.
    """
    counts: dict[str, Any] = {}
    notes: list[str] = []
    table = read_items(source, "item_id", items, False, where, counts, notes)
    ids = table["item_id"].to_list()
    cold = items.rows(ids) < 0
    arrow = pa.table(table.filter(pl.Series(cold)).to_arrow(compat_level=pl.CompatLevel.oldest()))
    columns = []
    for field in known.table.schema:
        if field.name not in arrow.column_names:
            columns.append(pa.nulls(arrow.num_rows, field.type))
            continue
        try:
            columns.append(arrow[field.name].combine_chunks().cast(field.type))
        except pa.ArrowException as error:
            got = arrow.schema.field(field.name).type
            message = f"[{where}] items: column {field.name!r} is {got}, expected {field.type} as in fit"
            raise DataError(message, column=field.name) from error
    dropped = counts["missing_item_ids_dropped"] + counts["duplicate_items_dropped"]
    aligned = pa.table(columns, schema=known.table.schema)
    return aligned, {"already_known": int((~cold).sum()), "dropped": dropped}


def _usual(series: pl.Series, place: Place, notes: list[str]) -> pl.Series | None:
    """A column in the one form that later stages know: labels as List(String), vectors as Array of float.

    None, with a note, for what no file could keep. Raises DataError for a vector that is not finite.
    """
    dtype = series.dtype
    if isinstance(dtype, (pl.List, pl.Array)) and dtype.inner in (pl.String, pl.Categorical, pl.Enum):
        return series.cast(pl.List(pl.String))
    if isinstance(dtype, pl.List) and dtype.inner is not None and dtype.inner.is_float():
        widths = series.drop_nulls().list.len().unique().to_list()
        if len(widths) == 1 and widths[0]:
            series = series.cast(pl.Array(dtype.inner, widths[0]))
        elif len(widths):
            lengths = f"{min(widths)} to {max(widths)}"
            notes.append(f"{place.table}: column {series.name!r} holds lists of {lengths} numbers: no vectors")
    if _is_vector(series.dtype):
        values = series.drop_nulls().explode()
        finite = values.is_finite().fill_null(False).to_numpy().reshape(-1, series.dtype.size).all(axis=1)  # type: ignore[attr-defined]
        if not finite.all():
            row = int(np.flatnonzero(series.is_not_null().to_numpy())[np.flatnonzero(~finite)[0]])
            raise place.error("the vector holds NaN, infinity or null", row)
        return series
    try:  # Object and 128-bit columns have no place in an Arrow file
        unknown = dtype == pl.Object or series.clear().to_arrow(compat_level=pl.CompatLevel.oldest()) is None
    except FOREIGN:
        unknown = True
    if unknown:
        notes.append(f"{place.table}: column {series.name!r} is left out: it holds {dtype}, which no file can keep")
        return None
    return series


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
            if name.lower() in _TEXT_NAMES or _is_prose(table[name]):
                text.append(name)
            elif not _is_code(table[name]):
                labels.append(name)
        elif _is_vector(dtype):
            vectors.append(name)
    place = {name: i for i, name in enumerate(_TEXT_NAMES)}
    text.sort(key=lambda name: place.get(name.lower(), len(place)))  # stable: others keep their order
    return text, labels, vectors


def _is_prose(series: pl.Series) -> bool:
    """Whether values look like sentences: more than six words on average."""
    words = series.drop_nulls().head(1000).str.count_matches(r"\s+").mean()
    return isinstance(words, float) and words > 5


def _is_code(series: pl.Series) -> bool:
    """Whether values look like serial numbers, links or hashes: one word each, most of them different ones."""
    known = series.drop_nulls()
    return len(known) > 20 and 2 * known.n_unique() > len(known) and not known.str.contains(r"\S\s+\S").any()


def _is_vector(dtype: pl.DataType) -> bool:
    """Whether a column holds float vectors of one width."""
    return isinstance(dtype, pl.Array) and dtype.size > 0 and dtype.inner.is_float()


def _blank(series: pl.Series) -> pl.Series:
    """Which values have no character but white space."""
    if series.dtype == pl.List(pl.String):
        series = series.list.join(" ")
    return (series.cast(pl.String).str.strip_chars().str.len_bytes() == 0).fill_null(True)

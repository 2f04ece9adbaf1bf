"""Labels of the items and a table of triples -> Links: which items have what in common."""

from typing import Any

import numpy as np
import polars as pl

from fastrec.data import checks
from fastrec.data.checks import Place
from fastrec.data.read import read
from fastrec.data.vocab import Vocab
from fastrec.errors import DataError
from fastrec.side import Links
from fastrec.types import I64, Catalog

#: An item of the catalogue is named in triples by its id, or with this before it.
_ITEM = "item:"


def links(triples: Any, catalog: Catalog, items: Vocab, strict: bool, where: str, notes: list[str]) -> Links | None:
    """The graph of the items by their label columns and by the triples; None where neither has an edge.

    triples: a table as ``read`` takes it with the columns head, relation and tail, or None. An end that is the id of
        an item, or "item:" and the id, is that item, everything else an entity. Rows without an end are dropped and
        counted in the notes; ``strict`` raises for them
    Raises DataError where a column is missing, or where no row names an item.
    """
    edges = [_labels(catalog, column) for column in catalog.label_columns]
    if triples is not None:
        edges.append(_triples(triples, items, strict, where, notes))
    if not edges:
        return None
    frame = pl.concat(edges)
    # An end is a row (item) or a name (entity), never both; the rows of entities follow those of the items.
    names = pl.concat([frame["head"], frame["tail"]]).drop_nulls().unique(maintain_order=True)
    places = pl.DataFrame({"name": names}).with_row_index("place", len(items))
    ends = [_nodes(frame, f"{end}_row", end, places) for end in ("head", "tail")]
    if not len(ends[0]):
        return None
    head, tail = (nodes.astype(np.int32) for nodes in ends)
    kinds = frame["relation"].unique(maintain_order=True)
    codes = frame["relation"].replace_strict(kinds, pl.arange(len(kinds), eager=True), return_dtype=pl.Int32)
    plain = names.str.replace(r"^(entity |label .*?: )", "").to_list()
    return Links(head, tail, len(items), len(items) + len(names), tuple(plain), codes.to_numpy(), tuple(kinds))


def _nodes(frame: pl.DataFrame, row: str, name: str, places: pl.DataFrame) -> I64:
    joined = frame.select(pl.col(row), pl.col(name).alias("name")).join(
        places, on="name", how="left", maintain_order="left"
    )
    return joined.select(pl.coalesce(pl.col(row), pl.col("place").cast(pl.Int64))).to_series().to_numpy()


def _labels(catalog: Catalog, column: str) -> pl.DataFrame:
    """Edges of every item to its labels in one column."""
    values = pl.Series("tail", pl.from_arrow(catalog.table[column]))
    frame = pl.DataFrame({"head_row": np.arange(len(values)), "tail": values})
    if values.dtype == pl.List(pl.String):
        frame = frame.explode("tail")
    frame = frame.with_columns(pl.col("tail").cast(pl.String).str.strip_chars()).filter(pl.col("tail") != "")
    # A label is another thing in another column, and never an entity of the triples.
    return _edges(frame.with_columns(pl.format("label {}: {}", pl.lit(column), "tail").alias("tail")), pl.lit(column))


def _triples(source: Any, items: Vocab, strict: bool, where: str, notes: list[str]) -> pl.DataFrame:
    frame = read(source, where=where, what="knowledge")
    names = ("head", "tail", "relation")
    ends = pl.DataFrame(
        [_text(checks.column(frame, name, name, where, "knowledge"), Place(where, "knowledge", name)) for name in names]
    )
    missing = ends["head"].is_null() | ends["tail"].is_null()
    if strict and missing.any():
        row = int(np.flatnonzero(missing.to_numpy())[0])
        name = "head" if ends["head"].is_null()[row] else "tail"
        raise Place(where, "knowledge", name).error("the end of the triple is missing", row)
    ids = items.series.cast(pl.String)
    known = pl.DataFrame({"name": pl.concat([ids, _ITEM + ids])}).with_columns(
        pl.Series("row", np.tile(np.arange(len(items)), 2))
    )
    known = known.unique("name", keep="first", maintain_order=True)
    for end in ("head", "tail"):
        rows = known.rename({"name": end, "row": f"{end}_row"})
        ends = ends.join(rows, on=end, how="left", maintain_order="left")
    ends = ends.filter(~missing)
    found = pl.concat([ends["head_row"], ends["tail_row"]]).drop_nulls().n_unique()
    if not found:
        first = ends["head"][0] if ends.height else "of no row"
        raise DataError(
            f"[{where}] knowledge: none of the {frame.height:,} triples names an item (the first head is {first!r}, an "
            f"item is {_ITEM + str(ids[0])!r} or {ids[0]!r}); expected item ids as head or tail"
        )
    notes.append(
        f"knowledge: {frame.height:,} triples, {int(missing.sum()):,} without an end left out, {found:,} of "
        f"{len(items):,} items named"
    )
    return _edges(
        ends.with_columns(
            pl.when(pl.col(f"{end}_row").is_null()).then(pl.format("entity {}", end)).alias(end)
            for end in ("head", "tail")
        ),
        pl.col("relation").fill_null(""),
    )


def _text(series: pl.Series, place: Place) -> pl.Series:
    """As text, null where missing (null, NaN, empty string); whole numbers that a gap made floats are whole again."""
    if series.dtype.is_nested() or series.dtype in (pl.Object, pl.Binary):
        raise place.error(f"holds {series.dtype}, expected ids or names", checks.first(series.is_not_null()))
    text = series.cast(pl.String)
    if series.dtype.is_float():
        series = series.fill_nan(None)
        whole = series.cast(pl.Int64, strict=False)
        text = whole.cast(pl.String).zip_with((whole == series).fill_null(False), series.cast(pl.String))
    return text.set(text == "", None)


def _edges(frame: pl.DataFrame, relation: pl.Expr) -> pl.DataFrame:
    """The columns head_row, head, tail_row, tail, with nulls for those that are not there, and the relation."""
    kinds = {"head_row": pl.Int64, "head": pl.String, "tail_row": pl.Int64, "tail": pl.String}
    return frame.select(
        *((pl.col(n) if n in frame.columns else pl.lit(None)).cast(kind).alias(n) for n, kind in kinds.items()),
        relation.cast(pl.String).alias("relation"),
    )

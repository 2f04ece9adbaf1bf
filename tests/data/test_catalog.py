"""The items table: which columns are what, and rows where the events want them."""

import numpy as np
import polars as pl
import pytest

from fastrec.data import clean
from fastrec.errors import DataError

EVENTS = {"user_id": ["a", "a", "b"], "item_id": ["x", "y", "z"]}
PROSE = "a long sentence of some eight words here"


def catalog(**columns):
    return clean(EVENTS, pl.DataFrame(columns, strict=False)).catalog


def test_rows_follow_the_events_then_the_table():
    cleaned = clean(EVENTS, {"item_id": ["w", "y", "x", "v"], "price": [1, 2, 3, 4]})
    assert cleaned.catalog.table["item_id"].to_pylist() == ["x", "y", "z", "w", "v"]
    assert cleaned.catalog.table["price"].to_pylist() == [3, 2, None, 1, 4]
    assert cleaned.report.unknown_items == 1 and cleaned.report.items == 5
    assert cleaned.interactions.n_items == 5


def test_no_items_table():
    cleaned = clean(EVENTS)
    assert cleaned.catalog.n_items == 3 and cleaned.catalog.text_columns == ()
    assert cleaned.report.empty_texts == 0


def test_columns_are_classified():
    c = catalog(
        item_id=["x", "y"],
        notes=[PROSE, PROSE],
        description=["d", None],
        title=["t", "u"],
        brand=["b", "c"],
        tags=[["a", "b"], None],
        price=[1.5, 2],
        image=["a.png", "b.png"],
        vector=pl.Series([[0.0, 1.0], [1.0, 0.0]], dtype=pl.Array(pl.Float32, 2)),
        other=[[1.0, 2.0, 3.0], None],
        ragged=[[1.0], [1.0, 2.0]],
    )
    assert c.text_columns == ("title", "description", "notes")
    assert c.label_columns == ("brand", "tags")
    assert c.vector_columns == ("vector", "other")
    assert str(c.table.schema.field("other").type) == "fixed_size_list<item: double>[3]"


def test_vectors_of_numpy_arrays():
    frame = pl.DataFrame({"item_id": ["x", "y"], "vector": list(np.eye(2, 5, dtype=np.float32))}).to_pandas()
    assert clean(EVENTS, frame).catalog.vector_columns == ("vector",)


def test_blank_texts_are_counted():
    cleaned = clean(EVENTS, {"item_id": ["x", "y"], "title": [" \n", "t"], "tags": [[" "], ["a"]]})
    assert cleaned.report.empty_texts == 2  # x, and z that no table describes


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({"title": ["t"]}, r"items: no column 'item_id', found \['title'\]"),
        ({"item_id": [1], "title": ["t"]}, "'item_id' row 0: ids are int here but str in interactions"),
        ({"item_id": [1.5], "title": ["t"]}, "id 1.5 is no whole number"),
    ],
)
def test_items_that_cannot_be_understood(items, message):
    with pytest.raises(DataError, match=message):
        clean(EVENTS, items)


def test_repeated_and_missing_ids():
    items = {"item_id": ["x", None, "x", "y"], "title": ["first", "nobody", "second", "t"]}
    cleaned = clean(EVENTS, items)
    assert cleaned.catalog.table["title"].to_pylist() == ["first", "t", None]
    assert cleaned.report.duplicate_items_dropped == 1 and cleaned.report.missing_item_ids_dropped == 1
    with pytest.raises(DataError, match=r"items: column 'item_id' row 1: the id is missing"):
        clean(EVENTS, items, strict=True)


def test_an_empty_items_table():
    assert clean(EVENTS, pl.DataFrame(schema={"item_id": pl.String})).report.unknown_items == 3


def test_users_table_is_checked():
    assert "2 rows" in clean(EVENTS, users={"user_id": ["a", "b"]}).report.notes[0]
    with pytest.raises(DataError, match="users: no column 'user_id'"):
        clean(EVENTS, users={"age": [3]})

"""The items table: kinds of column, ids, what is left out and why."""

import datetime as dt

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from fastrec import DataError
from fastrec.data import Columns, clean

EVENTS = {"user_id": ["a", "a", "b"], "item_id": ["x", "y", "z"]}
IDS = ["y", "x", "w"]


def cleaned(items, events=EVENTS, **keywords):
    return clean(events, items, **keywords)


def column(c, name):
    return c.catalog.table[name].to_pylist()


def test_rows_are_those_of_the_events_and_then_of_the_table():
    c = cleaned({"item_id": IDS, "title": ["why", "ex", "double u"]})
    assert c.items.series.to_list() == ["x", "y", "z", "w"]
    assert column(c, "title") == ["ex", "why", None, "double u"]
    assert c.report.unknown_items == 1 and c.report.empty_texts == 1 and c.report.items == 4
    assert c.interactions.n_items == 4


@pytest.mark.parametrize("items", [{"item_id": []}, pd.DataFrame({"item_id": []}), {"item_id": [None, None]}])
def test_tables_without_an_item(items):
    c = cleaned(items)
    assert c.items.series.to_list() == ["x", "y", "z"] and c.report.unknown_items == 3


def test_an_empty_table_for_int_ids():
    assert cleaned({"item_id": []}, {"user_id": [1], "item_id": [5]}).items.series.to_list() == [5]


def test_repeated_and_missing_ids():
    items = {"item_id": ["x", None, "x", "", "y"], "title": ["first", "no id", "second", "no id", "y"]}
    c = cleaned(items)
    assert column(c, "title") == ["first", "y", None]
    assert c.report.duplicate_items_dropped == 1 and c.report.missing_item_ids_dropped == 2
    with pytest.raises(DataError, match="items: column 'item_id' row 1: the id is missing"):
        cleaned(items, strict=True)
    with pytest.raises(DataError, match="items: column 'item_id' row 1: the id 'x' stands there twice"):
        cleaned({"item_id": ["x", "x"]}, strict=True)


def test_ids_of_the_other_kind():
    with pytest.raises(DataError, match="'item_id' row 1: ids are int here but str in interactions") as caught:
        cleaned({"item_id": [None, 3]})
    assert caught.value.row == 1
    with pytest.raises(DataError, match="ids are str here but int in interactions"):
        cleaned({"item_id": ["3"]}, {"user_id": [1], "item_id": [3]})
    floats = cleaned({"item_id": [3.0], "title": ["three"]}, {"user_id": [1], "item_id": [3]})
    assert column(floats, "title") == ["three"]


def test_no_id_column():
    with pytest.raises(DataError, match=r"items: no column 'item_id', found \['id'\].*item_id=\.\.\."):
        cleaned({"id": IDS})


def test_an_id_column_of_another_name():
    events = {"user_id": ["a"], "sku": ["x"]}
    c = cleaned({"sku": ["x"], "item_id": ["other"], "title": ["ex"]}, events, columns=Columns(item_id="sku"))
    assert column(c, "item_id") == ["x"] and column(c, "title") == ["ex"]
    assert c.report.notes == ("items: column 'item_id' is left out: 'sku' holds the ids",)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["one", "two", None], "label_columns"),
        (pd.Categorical(["one", "two", "one"]), "label_columns"),
        ([["a", None], [], None], "label_columns"),
        ([("a",), ("b", "c"), ()], "label_columns"),
        ([np.array(["a"]), np.array(["b"]), None], "label_columns"),
        (pl.Series([["a"], ["b"], []], dtype=pl.List(pl.Categorical)), "label_columns"),
        (pl.Series([["a", "b"]] * 3, dtype=pl.Array(pl.String, 2)), "label_columns"),
        (["a b c d e f g h"] * 3, "text_columns"),
        ([[1.0, 2.0], None, [3.0, 4.0]], "vector_columns"),
        (np.ones((3, 4), np.float32), "vector_columns"),
        ([np.ones(2, np.float32), None, np.ones(2, np.float32)], "vector_columns"),
        (pl.Series([None, [1.0, 2.0], None], dtype=pl.Array(pl.Float32, 2)), "vector_columns"),
        (pa.FixedSizeListArray.from_arrays(pa.array(np.ones(6, np.float16)), 2), "vector_columns"),
    ],
)
def test_kinds_of_column(values, kind):
    catalog = cleaned({"item_id": IDS, "c": values}).catalog
    for name in ("text_columns", "label_columns", "vector_columns"):
        assert getattr(catalog, name) == (("c",) if name == kind else ()), name
    assert catalog.table.num_rows == 4


@pytest.mark.parametrize(
    "values",
    [
        [1.5, None, float("nan")],
        [True, False, None],
        [dt.date(2020, 1, 1)] * 3,
        [{"a": 1, "b": ["x"]}, None, {"a": 2, "b": []}],
        [[1, 2], [3], []],
        [[[]], [], None],
        np.ones((3, 0)),
        [None] * 3,
    ],
)
def test_columns_for_filters_alone(values):
    c = cleaned({"item_id": IDS, "c": values})
    catalog = c.catalog
    assert not (catalog.text_columns or catalog.label_columns or catalog.vector_columns)
    assert "c" in catalog.table.column_names and c.report.notes == ()


def test_text_columns_stand_in_the_order_in_which_they_are_read():
    items = {"item_id": IDS, "description": ["d"] * 3, "name": ["n"] * 3, "Title": ["t"] * 3, "url": ["u"] * 3}
    assert cleaned(items).catalog.text_columns == ("Title", "name", "description")


def test_all_kinds_side_by_side():
    table = pl.DataFrame(
        {
            "item_id": IDS,
            "notes": ["a long sentence of some eight words here"] * 3,
            "title": ["t", "u", None],
            "brand": ["b", "c", "d"],
            "image": ["a.png", "b.png", None],
            "vector": pl.Series([[0.0, 1.0]] * 3, dtype=pl.Array(pl.Float32, 2)),
            "other": [[1.0, 2.0, 3.0], None, [1.0, 2.0, 3.0]],
        }
    )
    catalog = cleaned(table).catalog
    assert catalog.text_columns == ("title", "notes") and catalog.label_columns == ("brand",)
    assert catalog.vector_columns == ("vector", "other")
    assert str(catalog.table.schema.field("other").type) == "fixed_size_list<item: double>[3]"


def test_no_items_table():
    c = cleaned(None)
    assert c.catalog.n_items == 3 and c.catalog.table.column_names == ["item_id"]
    assert c.report.empty_texts == 0 and c.report.unknown_items == 0


def test_labels_are_lists_of_str_whatever_they_came_as():
    c = cleaned({"item_id": IDS, "c": pl.Series([["a"], ["b"], []], dtype=pl.List(pl.Categorical))})
    assert column(c, "c") == [["b"], ["a"], None, []]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None])
@pytest.mark.parametrize("array", [True, False])
def test_vectors_must_be_finite(bad, array):
    values = pl.Series([None, [1.0, 2.0], [bad, 2.0]], dtype=pl.Array(pl.Float32, 2) if array else pl.List(pl.Float32))
    with pytest.raises(DataError, match="items: column 'v' row 2: the vector holds NaN, infinity or null") as caught:
        cleaned({"item_id": IDS, "v": values})
    assert caught.value.column == "v" and caught.value.row == 2


def test_lists_of_different_lengths_are_no_vectors_and_it_is_said():
    c = cleaned({"item_id": IDS, "v": [[1.0], [1.0, 2.0], []]})
    assert c.catalog.vector_columns == ()
    assert c.report.notes == ("items: column 'v' holds lists of 0 to 2 numbers: no vectors",)


@pytest.mark.parametrize(("values", "dtype"), [([object()] * 3, "Object"), ([10**30] * 3, "Int128")])
def test_what_no_file_can_keep_is_left_out_and_it_is_said(values, dtype):
    c = cleaned({"item_id": IDS, "odd": values})
    assert c.catalog.table.column_names == ["item_id"]
    assert c.report.notes == (f"items: column 'odd' is left out: it holds {dtype}, which no file can keep",)


def test_empty_texts_are_counted_over_texts_and_labels():
    items = {"item_id": IDS, "title": [" \t", "ex", None], "tags": [["", " "], [], ["tag"]]}
    assert cleaned(items).report.empty_texts == 2  # y, and z of which the table knows nothing


def test_users_table():
    c = clean(EVENTS, users={"user_id": ["a", "a", None]})
    assert c.report.notes[0].startswith("users table: 3 rows, 2 without an id or with a repeated one")
    with pytest.raises(DataError, match="users: column 'user_id' row 0: ids are int here but str in interactions"):
        clean(EVENTS, users={"user_id": [1]})
    with pytest.raises(DataError, match="users: no column 'user_id'"):
        clean(EVENTS, users={"id": ["a"]})

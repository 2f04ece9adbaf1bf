import time

import pyarrow as pa

from fastrec.encode import item_texts
from fastrec.types import Catalog


def texts(columns, text=(), label=()):
    return item_texts(Catalog(pa.table(columns), tuple(text), tuple(label)))


def test_text_columns_come_first_and_labels_are_named():
    columns = {
        "brand_name": ["Acme", None],
        "title": ["  A red\n\ttoy ", "Blue toy"],
        "genres": [["Fun", None, "Kids"], []],
        "description": ["For cats.", None],
    }
    assert texts(columns, ["title", "description"], ["brand_name", "genres"]) == [
        "A red toy For cats. Brand name: Acme. Genres: Fun, Kids.",
        "Blue toy",
    ]


def test_contained_fields_are_dropped_once():
    columns = {
        "title": ["Heat (1995)", "Same", "Art"],
        "text": ["Heat (1995). Genres: Action, Crime", "Same", "Party"],
        "genres": ["Action, Crime", "Same", None],
    }
    got = texts(columns, ["title", "text"], ["genres"])
    assert got == ["Heat (1995). Genres: Action, Crime", "Same", "Art Party"]  # "Art" is no word of "Party"


def test_nothing_gives_empty_texts():
    assert texts({"a": [None, " "]}, ["a"]) == ["", ""]
    assert texts({"a": [1, 2, 3]}) == ["", "", ""]
    assert texts({"a": pa.array([], pa.string())}, ["a"]) == []


def test_emoji_right_to_left_and_numbers():
    assert texts({"a": ["😀 שלום"], "year": [1995]}, ["a"], ["year"]) == ["😀 שלום Year: 1995."]


def test_lone_surrogates_are_replaced():
    class Table:  # pyarrow itself refuses them
        num_rows = 1

        def column(self, name):
            return self

        def to_pylist(self):
            return ["a\ud800b \ud83d\ude00"]

    assert item_texts(Catalog(Table(), ("a",))) == ["a\ufffdb 😀"]


def test_a_megabyte_is_cheap():
    begun = time.perf_counter()
    long = "a" * 1_000_000
    got = texts({"a": [long], "b": ["a" * 500_000], "c": ["a b " * 250_000]}, ["a", "b", "c"])
    assert len(got[0]) > 1_000_000
    assert time.perf_counter() - begun < 2

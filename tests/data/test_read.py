"""The same table in every kind gives the same data; damage is named."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from fastrec.data import clean, read
from fastrec.errors import DataError

FRAME = pl.DataFrame(
    {
        "user_id": ["a", "b", "a", "c", "b", "a"],
        "item_id": ["x", "x", "y", "z", "y", "w"],
        "timestamp": [5, 3, 4, 9, 3, 4],
        "event": ["view", "purchase", "view", "like", "view", "dislike"],
        "value": [1.0, 2.0, None, 4.0, 5.0, 6.0],
    }
)


def written(folder, kind):
    path = folder / f"t.{kind}"
    if kind == "parquet":
        FRAME.write_parquet(path)
    elif kind in ("csv", "tsv"):
        FRAME.write_csv(path, separator="," if kind == "csv" else "\t")
    else:
        FRAME.write_ndjson(path)
    return path


def parts(folder):
    folder.mkdir()
    FRAME.head(2).write_parquet(folder / "part-0.parquet")
    FRAME.tail(4).write_parquet(folder / "part-1.parquet")
    return folder


KINDS = {
    "polars": lambda p: FRAME,
    "lazy": lambda p: FRAME.lazy(),
    "categorical": lambda p: FRAME.with_columns(pl.col("user_id", "item_id", "event").cast(pl.Categorical)),
    "pandas": lambda p: FRAME.to_pandas(),
    "pandas object": lambda p: FRAME.to_pandas().astype({"user_id": object, "value": object}),
    "pandas category": lambda p: FRAME.to_pandas().astype({"user_id": "category", "event": "category"}),
    "pandas odd index": lambda p: FRAME.to_pandas().set_index(pd.Index([9, 9, 3, 1, 7, 2])),
    "arrow": lambda p: FRAME.to_arrow(),
    "arrow batch": lambda p: FRAME.to_arrow().to_batches()[0],
    "arrow dictionary": lambda p: pa.table(
        {
            n: c.combine_chunks().dictionary_encode() if n == "item_id" else c
            for n, c in zip(FRAME.columns, FRAME.to_arrow().columns, strict=True)
        }
    ),
    "dict of lists": lambda p: FRAME.to_dict(as_series=False),
    "dict of arrays": lambda p: {s.name: s.to_numpy() for s in FRAME},
    "dict of series": lambda p: {s.name: s.to_pandas() for s in FRAME},
    "list of dicts": lambda p: FRAME.to_dicts(),
    "parquet": lambda p: written(p, "parquet"),
    "csv": lambda p: str(written(p, "csv")),
    "tsv": lambda p: written(p, "tsv"),
    "jsonl": lambda p: written(p, "jsonl"),
    "ndjson": lambda p: written(p, "ndjson"),
    "folder": lambda p: parts(p / "f"),
    "glob": lambda p: str(parts(p / "f") / "part-*.parquet"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_table_gives_the_same(kind, tmp_path):
    want, got = clean(FRAME), clean(KINDS[kind](tmp_path))
    for part in ("indptr", "items", "times", "weights"):
        np.testing.assert_array_equal(getattr(got.interactions, part), getattr(want.interactions, part))
    assert got.users.ids(range(3)).tolist() == ["a", "b", "c"]
    assert got.items.ids(range(4)).tolist() == ["x", "y", "z", "w"]
    assert got.report == want.report


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (7, r"\[fit\] interactions is int, expected a pandas, polars or pyarrow table"),
        ([1, 2], "interactions is list"),
        ("missing.csv", "missing.csv does not exist"),
        ({"user_id": ["a"], "item_id": ["x", "y"]}, "columns have different lengths: {'user_id': 1, 'item_id': 2}"),
        ({"user_id": "abc", "item_id": ["x"]}, "column 'user_id' is str, expected an array or a list"),
        ({"user_id": ["a", 1], "item_id": ["x", "y"]}, "column 'user_id' mixes kinds: row 1 holds 1"),
    ],
)
def test_what_is_no_table(source, message):
    with pytest.raises(DataError, match=message):
        read(source)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"no \.parquet"):
        read(tmp_path)
    with pytest.raises(DataError, match=r"nothing-\*"):
        read(str(tmp_path / "nothing-*.csv"))
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match=r"ends in '.txt', expected one of .parquet"):
        read(tmp_path / "a.txt")
    path = written(tmp_path, "parquet")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"t.parquet cannot be read as parquet"):
        read(path)


def test_parts_with_other_columns(tmp_path):
    folder = parts(tmp_path / "f")
    FRAME.select("user_id").write_parquet(folder / "part-2.parquet")
    with pytest.raises(DataError, match=r"3 files .* have different columns"):
        read(folder)


def test_missing_values_of_every_kind_are_null():
    frame = read({"user_id": ["a", None, float("nan"), pd.NA, pd.NaT, np.float64("nan")]})
    assert frame["user_id"].to_list() == ["a", None, None, None, None, None]


def test_lone_surrogates_become_replacement_characters():
    assert read({"title": ["a\ud800b", "😀"]})["title"].to_list() == ["a�b", "😀"]

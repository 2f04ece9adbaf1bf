"""Every kind of table and file gives the same rows; what cannot be read is refused by column and row."""

import datetime as dt
import decimal
import types

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from fastrec import DataError
from fastrec.data import clean, read

DATA = {
    "user_id": ["a", "b", "a", "c", "b"],
    "item_id": ["x", "y", "z", "x", "x"],
    "timestamp": [5, 1, 3, 2, 4],
    "event": ["view", "cart", "view", "like", "view"],
    "value": [1.0, 2.0, 3.0, 4.0, 5.0],
}
MOMENTS = pd.to_datetime(DATA["timestamp"], unit="s")
ZONED = MOMENTS.tz_localize("UTC").tz_convert("America/New_York")
ISO = [f"1970-01-01T00:00:0{t}Z" for t in DATA["timestamp"]]


def with_columns(**columns):
    return {**DATA, **columns}


def pandas(**dtypes):
    return pd.DataFrame(DATA).astype(dtypes)


def rows(table=DATA):
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def shape_of(source):
    c = clean(source)
    i = c.interactions
    ids = c.users.series.to_list(), c.items.series.to_list()
    return *ids, i.indptr.tolist(), i.items.tolist(), i.times.tolist(), i.weights.tolist(), c.report


EXPECTED = shape_of(DATA)

TABLES = {
    "pandas": pandas(),
    "pandas object": pandas(user_id=object, item_id=object, event=object),
    "pandas string[pyarrow]": pandas(user_id="string[pyarrow]", item_id="string[python]"),
    "pandas nullable": pandas(timestamp="Int64", value="Float64"),
    "pandas arrow": pandas(timestamp="int64[pyarrow]", value="double[pyarrow]"),
    "pandas category": pandas(user_id="category", item_id="category", event="category"),
    "pandas any index": pandas().set_index(pd.Index([7, 7, 1, 0, -5])),
    "pandas sparse": pandas(timestamp=pd.SparseDtype("int64")),
    **{
        f"pandas datetime64[{u}]": pandas().assign(timestamp=MOMENTS.astype(f"datetime64[{u}]"))
        for u in ("s", "us", "ns")
    },
    "pandas with a zone": pandas().assign(timestamp=ZONED),
    "pandas Timestamps": pandas().assign(timestamp=pd.Series(list(ZONED), dtype=object)),
    "pandas ISO": pandas().assign(timestamp=ISO),
    "polars": pl.DataFrame(DATA),
    "polars lazy": pl.LazyFrame(DATA),
    "polars categorical": pl.DataFrame(DATA).cast({"user_id": pl.Categorical, "event": pl.Categorical}),
    "polars enum": pl.DataFrame(DATA).cast({"item_id": pl.Enum(["z", "y", "x"])}),
    "polars decimal": pl.DataFrame(DATA).cast({"value": pl.Decimal(9, 2), "timestamp": pl.Int128}),
    "polars object": pl.DataFrame(DATA).with_columns(pl.Series("user_id", DATA["user_id"], dtype=pl.Object)),
    "polars object in a dict": with_columns(user_id=pl.Series(DATA["user_id"], dtype=pl.Object)),
    "arrow": pa.table(DATA),
    "arrow batch": pa.RecordBatch.from_pydict(DATA),
    "arrow chunks": pa.concat_tables([pa.table(DATA)[:2], pa.table(DATA)[2:]]),
    "arrow dictionary": pa.table(with_columns(user_id=pa.array(DATA["user_id"]).dictionary_encode())),
    "arrow views": pa.table(with_columns(item_id=pa.array(DATA["item_id"], pa.string_view()))),
    "dict": DATA,
    "dict view": types.MappingProxyType(DATA),
    "dict of numpy": {name: np.array(values) for name, values in DATA.items()},
    "dict of objects": {name: np.array(values, object) for name, values in DATA.items()},
    "dict of series": {name: pd.Series(values, index=[4, 3, 2, 1, 0]) for name, values in DATA.items()},
    "dict of polars": {name: pl.Series(values) for name, values in DATA.items()},
    "dict of tuples": {name: tuple(values) for name, values in DATA.items()},
    "dict of categories": with_columns(user_id=pd.Categorical(DATA["user_id"])),
    "datetime64[s]": with_columns(timestamp=np.array(DATA["timestamp"], "datetime64[s]")),
    "datetime64 objects": with_columns(timestamp=list(np.array(DATA["timestamp"], "datetime64[s]").astype("M8[ns]"))),
    "datetimes": with_columns(timestamp=[dt.datetime.fromtimestamp(t, dt.UTC) for t in DATA["timestamp"]]),
    "datetimes of two types": with_columns(timestamp=[m if m.second % 2 else m.to_pydatetime() for m in MOMENTS]),
    "decimals": with_columns(value=[decimal.Decimal(int(v)) for v in DATA["value"]]),
    "big endian": with_columns(timestamp=np.array(DATA["timestamp"], ">i4")),
    "rows": rows(),
    "tuple of rows": tuple(rows()),
}


@pytest.mark.parametrize("kind", TABLES)
def test_the_same_table_in_every_kind(kind):
    assert shape_of(TABLES[kind]) == EXPECTED


def test_columns_that_nobody_needs_do_no_harm():
    mixed = ["a", 1, None, 2.5, [1]]
    assert shape_of(with_columns(extra=mixed)) == EXPECTED
    assert shape_of(pandas().assign(extra=mixed)) == EXPECTED
    union = pa.UnionArray.from_sparse(pa.array([0] * 5, pa.int8()), [pa.array(DATA["timestamp"])])
    assert shape_of(pa.table(with_columns(extra=union))) == EXPECTED
    with pytest.raises(DataError, match="'extra' mixes kinds: row 1 holds 1"):
        read(with_columns(extra=mixed))
    with pytest.raises(DataError, match="'extra' holds values that make no column"):
        read(pa.table(with_columns(extra=union)))


def test_only_spares_the_other_columns(tmp_path):
    pl.DataFrame(DATA).write_parquet(tmp_path / "a.parquet")
    for source in (DATA, tmp_path / "a.parquet"):
        frame = read(source, only=("item_id", "absent"))
        assert frame.columns == list(DATA)
        assert frame["item_id"].to_list() == DATA["item_id"] and frame["user_id"].null_count() == 5


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (5, "interactions is int, expected a pandas, polars or pyarrow table"),
        (None, "interactions is NoneType"),
        (b"a.csv", "interactions is bytes"),
        (np.zeros((3, 3)), "interactions is ndarray"),
        ([(1, 2)], "interactions is list"),
        (pd.Series([1]), "interactions is Series"),
        (pl.LazyFrame(DATA).select("nope"), "lazy frame cannot be collected: .*nope"),
        (pl.LazyFrame(DATA).cast({"user_id": pl.Int64}), "lazy frame cannot be collected: .*'user_id'"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "column 'a' stands there twice"),
        (pa.Table.from_arrays([pa.array([1])] * 2, names=["a", "a"]), "column 'a' stands there twice"),
        ({1: [1], "1": [2]}, "column '1' stands there twice"),
        ({"a": [1], "b": [1, 2]}, r"different lengths: \{'a': 1, 'b': 2\}"),
        ({"a": "abc"}, "column 'a' is str, expected an array or a list"),
        ({"a": 5}, "column 'a' is int"),
        ({"a": np.array(5)}, "column 'a' is ndarray"),
        ({"a": iter([1])}, "column 'a' is list_iterator"),
        ({"a": [1, None, "x"]}, r"column 'a' mixes kinds: row 2 holds 'x' \(str\), row 0 1 \(int\)"),
        ({"a": [None, True, 1]}, r"column 'a' mixes kinds: row 2 holds 1 \(int\), row 1 True \(bool\)"),
        ({"a": [dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 1, tzinfo=dt.UTC)]}, "column 'a' mixes kinds: row 1"),
        ({"a": pd.Categorical([1, "x"])}, "column 'a' mixes kinds: row 1"),
        ({"a": [1, 10**40]}, "column 'a' row 1: 1000.* does not fit into Int64"),
    ],
)
def test_what_is_no_table(source, message):
    with pytest.raises(DataError, match=message) as caught:
        read(source)
    assert str(caught.value).startswith("[fit] ")


def test_arrays_inside_of_objects():
    vectors = [np.array([1.0, 2.0], np.float32), None, np.array([3.0, 4.0], np.float32)]
    tags = [np.array(["a", None], object), np.array(["b"], object), None]
    images = [np.zeros((2, 2, 3), np.uint8), np.ones((1, 2, 3), np.uint8), None]
    frame = read(pd.DataFrame({"v": vectors, "t": tags, "i": images}))
    assert frame["v"].to_list() == [[1.0, 2.0], None, [3.0, 4.0]] and frame["v"].dtype == pl.List(pl.Float32)
    assert frame["t"].to_list() == [["a", None], ["b"], None]
    assert frame["i"][1].to_list() == [[[1, 1, 1], [1, 1, 1]]] and frame["i"][2] is None


def test_missing_values_of_every_kind_are_null():
    frame = read({"a": [None, float("nan"), np.nan, pd.NA, pd.NaT, np.datetime64("NaT"), 1]})
    assert frame["a"].to_list() == [None] * 6 + [1]


def test_lone_surrogates_become_the_replacement_character():
    assert read({"a": ["\ud800", "é"]})["a"].to_list() == ["\ufffd", "é"]

"""What is easily lost in silence: leading zeros, True as 1, a wrong row in a message, an overflowing mean."""

import numpy as np
import polars as pl
import pytest

import fastrec.data
from fastrec.data import Columns, Vocab, clean, read, vocab
from fastrec.errors import DataError

EVENTS = {"user_id": ["a", "a", "b"], "item_id": ["x", "y", "z"]}


def ids_of(cleaned):
    return cleaned.users.ids(range(len(cleaned.users))).tolist()


# ---- ids in csv files, which know no types


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_leading_zeros_of_ids_in_a_csv_are_kept(tmp_path, suffix, quote):
    path, separator = tmp_path / f"e.{suffix}", "," if suffix == "csv" else "\t"
    rows = [("user_id", "item_id"), ("007", "10"), ("7", "20"), ("", "0"), ("07", "-5")]
    path.write_text("".join(f"{quote}{u}{quote}{separator}{i}\n" for u, i in rows))
    cleaned = clean(path)
    assert ids_of(cleaned) == ["007", "7", "07"]  # as numbers they would be one user
    assert cleaned.items.ids([0, 1, 2]).tolist() == [10, 20, -5]
    assert cleaned.report.missing_ids_dropped == 1


def test_numbers_with_leading_zeros_are_still_numbers(tmp_path):
    (tmp_path / "e.csv").write_text("user_id,item_id,timestamp,value\n1,5,0010,01\n1,6,0020,03\n")
    cleaned = clean(tmp_path / "e.csv")
    assert ids_of(cleaned) == [1]
    assert cleaned.interactions.times.tolist() == [10.0, 20.0]
    assert cleaned.interactions.weights.tolist() == [0.5, 1.5]


def test_parts_of_a_csv_are_text_together(tmp_path):
    (tmp_path / "1.csv").write_text("user_id,item_id\n7,x\n")
    (tmp_path / "2.csv").write_text("user_id,item_id\n007,x\n")
    assert read(tmp_path)["user_id"].to_list() == ["7", "007"]
    (tmp_path / "3.jsonl").write_text('{"user_id": 7, "item_id": "x"}\n')  # there 7 is a number for certain
    with pytest.raises(DataError, match=r"'user_id' is Int64 in 3\.jsonl, String in 1\.csv; expected one kind"):
        read(tmp_path)


# ---- ids in memory


def test_true_is_not_the_id_one(monkeypatch):
    v = Vocab.from_ids([1, 0])
    assert v.rows([True, False, 1]).tolist() == [-1, -1, 0]
    monkeypatch.setattr(vocab, "_BULK", 0)
    assert v.rows([True, False, 1]).tolist() == [-1, -1, 0]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1, "a"], r"\[vocab\] ids are not all int"),
        (["a", 1], r"\[vocab\] ids are not all str"),
        ([2**70], r"\[vocab\] ids are not all int"),
        (["a", "a"], r"\[vocab\] ids are missing or repeat"),
        ([1, None], r"\[vocab\] ids are missing or repeat"),
    ],
)
def test_ids_that_make_no_vocabulary(ids, message):
    with pytest.raises(DataError, match=message):
        Vocab.from_ids(ids)


@pytest.mark.parametrize("kind", [list, tuple, lambda v: np.array(v, object), lambda v: pl.Series(v, dtype=pl.Object)])
def test_words_as_objects(kind):
    words = ["a", None, "é😀", "\ud800", "x" * 1_000_000]
    assert read({"c": kind(words)})["c"].to_list() == ["a", None, "é😀", "�", "x" * 1_000_000]
    with pytest.raises(DataError, match="'c' mixes kinds: row 2 holds 3"):
        read({"c": kind(["a", None, 3])})


# ---- times and values


def test_among_numbers_the_first_that_is_none_is_named():
    with pytest.raises(DataError, match="'timestamp' row 2: 'soon' is no time") as caught:
        clean(EVENTS | {"timestamp": ["1", "2", "soon"]})
    assert caught.value.row == 2


def test_few_late_times_are_dropped_and_more_than_half_are_another_unit():
    assert clean(EVENTS | {"timestamp": [1, 2, 1.6e12]}).report.bad_timestamps_dropped == 1
    with pytest.raises(DataError, match="looks like milliseconds; expected seconds: divide by 1,000"):
        clean(EVENTS | {"timestamp": [1, 1.6e12, 1.6e12]})


def test_a_mean_beyond_float64_says_nothing():
    assert clean(EVENTS | {"value": [1e308, 1e308, 1e308]}).interactions.weights.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("field", ["user_id", "item_id", "event", "timestamp"])
def test_a_column_named_rating_may_be_something_else(field):
    rows = EVENTS | {"rating": {"event": ["view"] * 3, "timestamp": [9, 8, 7]}.get(field, ["p", "q", "r"])}
    cleaned = clean(rows, columns=Columns(**{field: "rating"}))
    assert cleaned.interactions.weights.tolist() == [1.0, 1.0, 1.0]


def test_half_life_with_equal_times_and_far_ones():
    rows = EVENTS | {"timestamp": [5.0, 5.0, 5.0]}
    assert clean(rows, half_life=1).interactions.weights.tolist() == [1.0, 1.0, 1.0]
    assert clean(EVENTS | {"timestamp": [0, 0, 4e9]}, half_life=1e-6).interactions.weights.tolist() == [0.0, 0.0, 1.0]


# ---- small tables


@pytest.mark.parametrize(
    "rows", [{"user_id": ["a"] * 3, "item_id": ["x", "y", "z"]}, {"user_id": ["a"], "item_id": [5]}]
)
def test_one_user(rows):
    cleaned = clean(rows)
    assert cleaned.interactions.n_users == 1
    assert cleaned.interactions.items.tolist() == list(range(len(rows["item_id"])))


def test_one_item():
    cleaned = clean({"user_id": [3, 1, 2], "item_id": ["x"] * 3})
    assert ids_of(cleaned) == [3, 1, 2] and cleaned.interactions.n_items == 1
    assert cleaned.interactions.indptr.tolist() == [0, 1, 2, 3]


# ---- tables about items and users


def test_serial_numbers_are_no_labels():
    n = 40
    items = {
        "item_id": [f"i{i}" for i in range(n)],
        "sku": [f"SKU-{i:05}" for i in range(n)],
        "link_to": [f"https://x.example/{i}" for i in range(n)],
        "brand": [f"b{i % 5}" for i in range(n)],
        "author": [f"Ann {i}" for i in range(n)],
    }
    catalog = clean(EVENTS, items).catalog
    assert catalog.label_columns == ("brand", "author") and catalog.text_columns == ()
    assert {"sku", "link_to"} <= set(catalog.table.column_names)  # still there for filters


def test_the_users_table_is_aligned():
    users = {"user_id": ["b", "c", "b", None], "age": [30, 40, 50, 60], "likes": [["x"], [], None, None]}
    cleaned = clean(EVENTS, users=users)
    assert cleaned.user_table.to_pydict() == {"user_id": ["a", "b"], "age": [None, 30], "likes": [None, ["x"]]}
    assert "4 rows, 2 without an id or with a repeated one" in cleaned.report.notes[0]
    assert clean(EVENTS).user_table is None
    with pytest.raises(DataError, match="users: column 'user_id' row 3: the id is missing"):
        clean(EVENTS, users=users, strict=True)
    with pytest.raises(DataError, match="users: column 'user_id' row 1: the id 'a' stands there twice"):
        clean(EVENTS, users={"user_id": ["a", "a"]}, strict=True)


def test_public_names_are_sorted_and_there():
    names = fastrec.data.__all__
    assert names == sorted(names) and all(hasattr(fastrec.data, n) for n in names)


# ---- real data


@pytest.mark.parametrize(("name", "events", "users"), [("ml-1m", 999_611, 6_040), ("amazon-beauty", 198_502, 22_363)])
def test_real_tables(shared_data, name, events, users):
    folder = shared_data / name
    if not folder.is_dir():
        pytest.skip(f"the data set {folder} is absent")
    cleaned = clean(folder / "interactions.parquet", folder / "items.parquet")
    report = cleaned.report
    assert (report.rows_read, report.events, report.users) == (events, events, users)
    assert report.unknown_items == report.repeats_merged == report.duplicates_dropped == 0
    ptr, times = cleaned.interactions.indptr, cleaned.interactions.times
    rises = np.diff(times) >= 0
    rises[ptr[1:-1] - 1] = True  # from one user to the next
    assert rises.all() and "title" in cleaned.catalog.text_columns

"""Files: every format gives the same table; damage is named by file and row."""

import os

import polars as pl
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


def shape_of(source):
    c = clean(source)
    i = c.interactions
    ids = c.users.series.to_list(), c.items.series.to_list()
    return *ids, i.indptr.tolist(), i.items.tolist(), i.times.tolist(), i.weights.tolist(), c.report


EXPECTED = shape_of(DATA)

WRITERS = {
    "parquet": pl.DataFrame.write_parquet,
    "csv": pl.DataFrame.write_csv,
    "tsv": lambda frame, path: frame.write_csv(path, separator="\t"),
    "jsonl": pl.DataFrame.write_ndjson,
    "ndjson": pl.DataFrame.write_ndjson,
}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("name", ["a.{}", "A [1]*?.{}", "ü.{}"])
def test_the_same_table_from_every_file(tmp_path, suffix, name):
    path = tmp_path / name.format(suffix)
    WRITERS[suffix](pl.DataFrame(DATA), path)
    assert shape_of(path) == shape_of(str(path)) == EXPECTED


def test_a_suffix_in_capitals(tmp_path):
    pl.DataFrame(DATA).write_csv(tmp_path / "A.CSV")
    assert shape_of(tmp_path / "A.CSV") == EXPECTED


def test_a_folder_in_the_order_of_names(tmp_path):
    frame = pl.DataFrame(DATA)
    folder = tmp_path / "part=1" / "x.parquet"  # a folder whose name looks like a file
    folder.mkdir(parents=True)
    frame[:2].write_parquet(folder / "1.parquet")
    frame[2:3].write_csv(folder / "2.csv")
    frame[3:].select(reversed(frame.columns)).write_ndjson(folder / "3.jsonl")
    for passed_over in ("_SUCCESS", "_committed.parquet", ".hidden.csv", "notes.txt"):
        (folder / passed_over).touch()
    for path in (tmp_path, folder, f"{folder}/*.*sv", f"{tmp_path}/part=*"):
        assert shape_of(path) == (EXPECTED if "sv" not in str(path) else shape_of(frame[2:3])), path


BAD_FILES = {
    "csv": {
        "Empty CSV": b"",
        "row 1: .*Expected 2 columns, got 1": b"user_id,item_id\na,x\nb\n",
        "row 0: .*Expected 2 columns, got 3": b"user_id,item_id\na,x,1\n",
        "can't decode byte 0xe9": "user_id,é\na,x\n".encode("latin-1"),
        "column 'item_id' is not in UTF-8|can't decode byte 0xe9": "user_id,item_id\na,é\n".encode("latin-1"),
        "no column 'user_id', found": b"user_id;item_id\na;x\n",
        "column 'user_id' stands there twice": b"user_id,user_id\na,x\n",
    },
    "jsonl": {
        "Empty JSON": b"",
        "row 1: .*changed from string to number": b'{"user_id":"a"}\n{"user_id":1}\n',
        "row 1: .*Missing a": b'{"user_id":"a"}\n{"user_id":"b"\n',
        "row 0: .*from object to array": b'[{"user_id":"a"}]\n',
        "surrogate": b'{"user_id":"\\ud800"}\n',
        "(?i)utf-?8": '{"user_id":"é"}\n'.encode("latin-1"),
        "utf-8": '{"é":"a"}\n'.encode("latin-1"),
    },
    "parquet": {"header and footer": b"", "PAR1": b"PAR1" + b"\0" * 99, "PAR1|thrift|Parquet": b"user_id\n" * 9},
}


@pytest.mark.parametrize(("suffix", "message"), [(s, m) for s, some in BAD_FILES.items() for m in some])
def test_bad_files(tmp_path, suffix, message):
    (tmp_path / f"events.{suffix}").write_bytes(BAD_FILES[suffix][message])
    with pytest.raises(DataError, match=message) as caught:
        clean(tmp_path / f"events.{suffix}")
    if "row" in message:
        assert caught.value.row == int(message[4])


def test_a_cut_parquet(tmp_path):
    pl.DataFrame(DATA).write_parquet(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    for end in (0, 3, 20, len(whole) // 2, len(whole) - 1):
        (tmp_path / "a.parquet").write_bytes(whole[:end])
        with pytest.raises(DataError, match=r"a\.parquet cannot be read as parquet"):
            read(tmp_path / "a.parquet")


def test_csv_takes_types_from_the_whole_file(tmp_path):
    (tmp_path / "a.csv").write_text("id,n\n" + "1,2\n" * 30_000 + "x,2.5\n")
    frame = read(tmp_path / "a.csv")
    assert frame.schema == {"id": pl.String, "n": pl.Float64} and frame["id"][-1] == "x"


def test_quotes_line_breaks_and_long_cells(tmp_path):
    long = "y" * (1 << 20)
    (tmp_path / "a.csv").write_text(f'id,text\na,12" vinyl\nb,"two\nlines, ""quoted"""\nc,{long}\n')
    assert read(tmp_path / "a.csv")["text"].to_list() == ['12" vinyl', 'two\nlines, "quoted"', long]


def test_files_without_rows(tmp_path):
    (tmp_path / "a.csv").write_text("user_id,item_id\n")
    pl.DataFrame(DATA).clear().write_parquet(tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        with pytest.raises(DataError, match="has no row; expected at least one event"):
            clean(tmp_path / name)


def test_paths_that_lead_nowhere(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.xlsx").touch()
    (tmp_path / "gone.csv").symlink_to(tmp_path / "nothing")
    for path, message in {
        "no.csv": "no.csv does not exist",
        "gone.csv": "gone.csv does not exist",
        "a.xlsx": "ends in '.xlsx', expected one of .parquet",
        "empty": "no .parquet, .csv, .tsv, .jsonl, .ndjson file at",
        "*.zip": "no .parquet, .csv, .tsv, .jsonl, .ndjson file at",
    }.items():
        with pytest.raises(DataError, match=message):
            read(tmp_path / path)


def test_what_may_not_be_read(tmp_path, monkeypatch):
    pl.DataFrame(DATA).write_csv(tmp_path / "a.csv")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        read(tmp_path)
    monkeypatch.setattr("pyarrow.csv.read_csv", refuse)
    with pytest.raises(DataError, match=r"a\.csv cannot be read as csv: .*Permission denied"):
        read(tmp_path / "a.csv")


def test_folders_of_different_files(tmp_path):
    frame = pl.DataFrame(DATA)
    frame.write_parquet(tmp_path / "1.parquet")
    frame.with_columns(extra=1).write_parquet(tmp_path / "2.parquet")
    assert clean(tmp_path).report.rows_read == 10  # nobody needs the column extra
    with pytest.raises(DataError, match=r"'extra' is only in 2\.parquet, not in 1\.parquet"):
        read(tmp_path)
    frame.drop("event").write_parquet(tmp_path / "2.parquet")
    with pytest.raises(DataError, match=r"'event' is only in 1\.parquet, not in 2\.parquet"):
        clean(tmp_path)
    frame.cast({"timestamp": pl.Float32, "user_id": pl.Categorical}).write_parquet(tmp_path / "2.parquet")
    assert clean(tmp_path).report.duplicates_dropped == 5
    frame.with_columns(user_id=pl.lit(3)).write_parquet(tmp_path / "2.parquet")
    with pytest.raises(DataError, match=r"'user_id' is Int32 in 2\.parquet, String in 1\.parquet; expected one kind"):
        clean(tmp_path)
    (tmp_path / "2.parquet").write_bytes(b"x")
    with pytest.raises(DataError, match=r"2\.parquet cannot be read"):
        clean(tmp_path)

"""Large parquet files, read bit by bit and sorted by blocks of users: the same as all at once, to the last bit."""

import contextlib
import itertools

import numpy as np
import polars as pl
import pytest

from fastrec import Recommender, data
from fastrec.data import merge, spill, stream
from fastrec.errors import DataError

MODELS = ["popularity", "item_item", "directed", "als"]


def table(seed, n, *, ints=False, timed=True, kinds=True, values=True, texts=True, dirt=True):
    """Events of few users and items, with repeats, duplicates, missing ids and impossible times."""
    rng = np.random.default_rng(seed)
    frame = {"user_id": rng.integers(0, 40, n), "item_id": rng.zipf(1.5, n) % 50}
    if timed:
        frame["timestamp"] = rng.integers(0, 50, n) * 1e6 * np.where(dirt & (rng.random(n) < 0.1), -1, 1)
    if kinds:
        frame["event"] = rng.choice(["view", "Purchase", "wave", " ", "dislike"], n).tolist()
    if values:
        frame["value"] = np.where(rng.random(n) < 0.2, np.nan, rng.choice([0.0, -0.0, 0.1, 3.3, 50.0], n))
    if texts:
        frame["text"] = rng.choice(["good", "bad", ""], n).tolist()
    out = pl.DataFrame(frame)
    if not ints:
        out = out.with_columns(
            pl.format("u{}", "user_id").alias("user_id"), pl.format("i{}", "item_id").alias("item_id")
        )
    if dirt:
        gone = pl.Series(rng.random(n) < 0.05)
        out = out.with_columns(pl.when(gone).then(None).otherwise(pl.col("item_id")).alias("item_id"))
        out = pl.concat([out, out.sample(n // 5, seed=seed, shuffle=True)])
    return out


def write(folder, frame, cuts):
    folder.mkdir()
    edges = [0, *cuts, frame.height]
    for i, (a, b) in enumerate(itertools.pairwise(edges)):
        frame[a:b].write_parquet(folder / f"part-{i}.parquet", row_group_size=13)
    return folder


@pytest.fixture
def bits(monkeypatch):
    """Parts of a few rows, blocks of a few users, everything on disk."""
    monkeypatch.setattr(stream, "_FROM", 0)
    monkeypatch.setattr(stream, "_LEAST", 7)
    monkeypatch.setattr(stream, "_MOST", 31)
    monkeypatch.setattr(merge, "_BLOCK", 17)
    monkeypatch.setattr(spill, "_WIDE", 0)
    calls = []
    whole = stream._Reader.read
    monkeypatch.setattr(stream._Reader, "read", lambda self, *a: calls.append(1) or whole(self, *a))
    return calls


def same(a, b):
    """Two results of cleaning, field by field."""
    for name in ("indptr", "items", "times", "weights", "kinds"):
        x, y = getattr(a.interactions, name), getattr(b.interactions, name)
        assert (x is None) == (y is None), name
        if x is not None:
            np.testing.assert_array_equal(x, y, name)
            assert x.dtype == y.dtype
    assert a.users.all_ids() == b.users.all_ids() and a.items.all_ids() == b.items.all_ids()
    assert a.report == b.report and a.means == b.means and a.timed == b.timed
    assert a.catalog.table.equals(b.catalog.table)


@pytest.mark.parametrize("n", [1, 12, 13, 14, 97, 1009])
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"ints": True, "texts": False},
        {"timed": False},
        {"kinds": False, "texts": False},
        {"values": False, "dirt": False},
        {"kinds": False, "values": False, "texts": False, "timed": False, "dirt": False},
    ],
)
def test_bit_by_bit_is_all_at_once(tmp_path, monkeypatch, bits, n, shape):
    frame = table(n, n, **shape)
    folder = write(tmp_path / "events", frame, sorted({n // 3, n // 2}))
    life = 30.0 if shape.get("timed", True) else None
    parts = data.clean(folder, half_life=life)
    assert bits, "it was not read bit by bit"
    monkeypatch.undo()
    same(parts, data.clean(folder, half_life=life))
    same(parts, data.clean(frame, half_life=life))


def test_files_of_related_types(tmp_path, monkeypatch, bits):
    folder = tmp_path / "events"
    folder.mkdir()
    frame = table(3, 60, ints=True, dirt=False)
    small = pl.col("user_id", "item_id").cast(pl.Int16)
    frame[:20].with_columns(small, pl.col("timestamp").cast(pl.Int64)).write_parquet(folder / "a.parquet")
    frame[20:45].with_columns(pl.lit(None).alias("event"), pl.lit(None).alias("text")).write_parquet(
        folder / "b.parquet"
    )
    frame[45:].with_columns(pl.col("event").cast(pl.Categorical)).write_parquet(folder / "c.parquet")
    frame[:7].with_columns(small, pl.col("timestamp").cast(pl.Int64)).write_parquet(folder / "d.parquet")
    parts = data.clean(str(folder / "*.parquet"))
    assert bits
    monkeypatch.undo()
    same(parts, data.clean(folder))
    assert parts.report.duplicates_dropped >= 7 and parts.report.rows_read == 67


def test_types_of_the_whole_are_those_of_every_part(tmp_path, monkeypatch, bits):
    folder = tmp_path / "events"
    folder.mkdir()
    frame = table(4, 60, ints=True, dirt=False)
    large = frame.with_columns(pl.col("user_id") + 20_000_000, text=pl.lit(1))
    large.with_columns(pl.col("user_id").cast(pl.Float32)).write_parquet(folder / "a.parquet")
    large.write_parquet(folder / "b.parquet")
    large.with_columns(pl.col("text").cast(pl.Float64)).write_parquet(folder / "c.parquet")
    parts = data.clean(folder)
    assert bits
    monkeypatch.undo()
    same(parts, data.clean(folder))
    assert parts.report.duplicates_dropped > 60


def test_files_that_do_not_fit_together_are_refused_alike(tmp_path, bits):
    folder = tmp_path / "events"
    folder.mkdir()
    frame = table(4, 60, dirt=False).with_columns(pl.from_epoch("timestamp"))
    frame.write_parquet(folder / "a.parquet")
    frame.with_columns(pl.col("timestamp").dt.replace_time_zone("UTC")).write_parquet(folder / "b.parquet")
    with pytest.raises(DataError, match="do not fit together"):
        data.clean(folder)
    assert not bits


def test_a_model_of_parts_is_the_model_of_the_table(tmp_path, monkeypatch, bits):
    frame = table(5, 1501, dirt=True)
    folder = write(tmp_path / "events", frame, [500, 777])
    items = {"item_id": [f"i{i}" for i in range(60)], "category": [f"c{i % 3}" for i in range(60)]}
    recs = [Recommender(encoder=None, models=MODELS, seed=3).fit(folder, items)]
    assert bits
    monkeypatch.undo()
    recs.append(Recommender(encoder=None, models=MODELS, seed=3).fit(frame, items))
    for i, rec in enumerate(recs):
        rec.save(tmp_path / f"m{i}")
    names = sorted(p.name for p in (tmp_path / "m0").iterdir() if p.name != "manifest.json")
    assert [p for p in names if (tmp_path / "m0" / p).read_bytes() != (tmp_path / "m1" / p).read_bytes()] == []
    assert recs[0].weights == recs[1].weights and recs[0].report == recs[1].report


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("value", [1.0] * 25 + [float("inf")] + [2.0] * 4, "row 25: inf is not finite"),
        ("user_id", [1.0] * 22 + [1.5] * 8, r"row 22: id 1.5 is no whole number"),
        ("timestamp", [5.0] * 10 + [1.7e12] * 20, "row 10: 1700000000000.0 looks like milliseconds"),
    ],
)
def test_an_error_names_the_row_of_the_whole(tmp_path, monkeypatch, bits, column, values, message):
    frame = pl.DataFrame({"user_id": range(30), "item_id": range(30), "timestamp": [1.0] * 30, "value": [1.0] * 30})
    folder = write(tmp_path / "events", frame.with_columns(pl.Series(column, values)), [9])
    with pytest.raises(DataError, match=message):
        data.clean(folder)
    assert bits
    monkeypatch.undo()
    with pytest.raises(DataError, match=message):
        data.clean(folder)


def test_where_nothing_is_left_it_says_so(tmp_path, monkeypatch, bits):
    frame = pl.DataFrame({"user_id": range(30), "item_id": range(30), "timestamp": [-1.0] * 30})
    folder = write(tmp_path / "events", frame, [9])
    for _ in range(2):
        with pytest.raises(DataError, match="30 have no 'timestamp'"):
            data.clean(folder, half_life=3.0)
        monkeypatch.undo()


def test_a_part_whose_times_are_late_does_not_speak_for_the_whole(tmp_path, monkeypatch, bits):
    frame = pl.DataFrame({"user_id": range(40), "item_id": range(40), "timestamp": [5.0] * 30 + [1.7e12] * 10})
    folder = write(tmp_path / "events", frame, [])
    parts = data.clean(folder)
    assert bits and parts.report.bad_timestamps_dropped == 10
    monkeypatch.undo()
    same(parts, data.clean(folder))


def test_what_is_not_read_bit_by_bit(tmp_path, bits):
    frame = pl.DataFrame({"user_id": ["a", "b"], "item_id": ["x", "y"], "timestamp": ["2024-01-01", "2024-01-02"]})
    folder = write(tmp_path / "dates", frame, [1])
    assert data.clean(folder).report.events == 2
    frame.write_csv(tmp_path / "e.csv")
    assert data.clean(tmp_path / "e.csv").report.events == 2
    assert not bits
    frame.drop("timestamp").write_parquet(tmp_path / "p0.parquet")
    frame.drop("timestamp").with_columns(event=pl.lit("view")).write_parquet(tmp_path / "p1.parquet")
    frame.select("user_id").write_parquet(tmp_path / "q.parquet")
    with pytest.raises(DataError, match="different columns: 'event'"):
        data.clean(str(tmp_path / "p*.parquet"))
    with pytest.raises(DataError, match="no column 'item_id'"):
        data.clean(tmp_path / "q.parquet")


def test_a_column_on_disk_is_the_column_in_memory():
    for on_disk in (False, True):
        column = spill.Column(np.float64, on_disk)
        assert column.array().tolist() == [] and column.array().dtype == np.float64
        column = spill.Column(np.int32, on_disk)
        column.append(np.arange(3))
        column.append(np.arange(0))
        column.append(np.arange(5, 9, dtype=np.int8))
        assert len(column) == 7 and column.array().tolist() == [0, 1, 2, 5, 6, 7, 8]


@pytest.mark.parametrize("n", [10, 100_000])
def test_a_full_disk_is_noticed(n):
    column = spill.Column(np.int32, True)
    column._file.close()
    column._file = open("/dev/full", "wb")  # noqa: SIM115

    def filled():
        column.append(np.arange(n))
        return column.array()

    with pytest.raises(OSError, match=r"No space left on device: .* set TMPDIR"):
        filled()
    with contextlib.suppress(OSError):  # what could not be written is tried once more
        column._file.close()

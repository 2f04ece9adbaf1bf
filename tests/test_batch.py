"""Recommendations for all users in files: the same as in memory, bounded, and whole after any kill."""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from helpers import until

import fastrec
from fastrec import batch, pipeline
from fastrec.errors import ArtifactError, ConfigError

#: Blocks of three users that take their time, so that a kill meets a part that is half written; one process a line.
SLOW = """
import os, sys, time
import fastrec
from fastrec import batch, pipeline
import fastrec.recommender
pipeline.USERS_AT_ONCE = 3
table = batch.Job.table
batch.Job.table = lambda self, *a: time.sleep(0.1) or table(self, *a)
for _ in sys.stdin:
    pid = os.fork()
    if not pid:
        fastrec.load(sys.argv[1]).recommend_all(sys.argv[2], 7, users_per_part=8)
        os._exit(0)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def files(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def saved(rec, tmp_path_factory):
    folder = tmp_path_factory.mktemp("batch") / "model"
    rec.save(folder)
    return folder


@pytest.mark.parametrize(
    "keywords", [{}, {"filter_seen": False, "deny": ["i1", "i2"]}, {"where": {"category": "food"}}]
)
@pytest.mark.parametrize("per_part", [1, 7, 60, 61])
def test_the_files_are_what_recommend_gives(rec, tmp_path, monkeypatch, keywords, per_part):
    monkeypatch.setattr(pipeline, "USERS_AT_ONCE", 4)
    counts = rec.recommend_all(tmp_path / "out", 5, users_per_part=per_part, **keywords)
    parts = -(-60 // per_part)
    assert counts == {"users": 60, "parts": parts, "written": parts}
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["_SUCCESS", *(f"part-{i:05d}.parquet" for i in range(parts))]
    want = rec.recommend(rec.user_ids, 5, **keywords).to_polars()
    assert pl.read_parquet(tmp_path / "out").equals(want)
    sizes = [pq.ParquetFile(tmp_path / "out" / n).metadata.row_group(0).num_rows for n in names if n[0] != "_"]
    assert max(sizes) <= 4 * 5


def test_every_keyword_reaches_the_answer(rec, tmp_path):
    users = rec.user_ids
    keywords = {
        "allow": {users[0]: ["i1", "i3"], users[1]: []},
        "deny": {users[2]: [f"i{i}" for i in range(30)]},
        "boost": {"i7": 3.0},
        "diversity": 0.4,
        "at": 5_000_000,
    }
    rec.recommend_all(tmp_path / "out", 4, users_per_part=25, **keywords)
    assert pl.read_parquet(tmp_path / "out").equals(rec.recommend(users, 4, **keywords).to_polars())


def test_a_single_file(rec, tmp_path):
    assert rec.recommend_all(tmp_path / "r.parquet", 3)["written"] == 1
    assert pl.read_parquet(tmp_path / "r.parquet").equals(rec.recommend(rec.user_ids, 3).to_polars())
    assert [p.name for p in tmp_path.iterdir()] == ["r.parquet"]


def test_after_three_kills_the_files_are_the_same_bytes(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "USERS_AT_ONCE", 3)
    fastrec.load(saved).recommend_all(tmp_path / "whole", 7, users_per_part=8)
    whole, out = files(tmp_path / "whole"), tmp_path / "killed"
    left = []
    command = [sys.executable, "-W", "ignore", "-c", SLOW, str(saved), str(out)]

    def state():
        names = [p.name for p in out.iterdir()] if out.is_dir() else []
        return [n for n in names if n.startswith("part")], [n for n in names if n.startswith(".fastrec-")]

    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as forks:
        for more in (1, 1, 2):
            forks.stdin.write("go\n")
            pid, wanted = int(forks.stdout.readline()), len(left) + more
            until(lambda wanted=wanted: len(state()[0]) >= wanted and state()[1], 240)
            os.kill(pid, signal.SIGKILL)
            assert int(forks.stdout.readline()) == -signal.SIGKILL
            left = state()[0]
            assert "_SUCCESS" not in os.listdir(out) and len(left) < 8
        forks.stdin.close()
    counts = fastrec.load(saved).recommend_all(out, 7, users_per_part=8)
    assert counts == {"users": 60, "parts": 8, "written": 8 - len(left)}
    assert files(out) == whole and len(whole) == 9


def test_a_call_that_was_made_writes_nothing_again(rec, saved, tmp_path):
    out = tmp_path / "out"
    assert fastrec.load(saved).recommend_all(out, 5, users_per_part=20, deny={"i1", "i2"})["written"] == 3
    before = {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
    assert fastrec.load(saved).recommend_all(out, 5, users_per_part=20, deny={"i2", "i1"})["written"] == 0
    assert {p.name: p.stat().st_mtime_ns for p in out.iterdir()} == before
    (out / "part-00001.parquet").unlink()
    # The model in memory is the one that was saved.
    assert rec.recommend_all(out, 5, users_per_part=20, deny={"i2", "i1"})["written"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 6}, "begun with k=5, this call has 6"),
        ({"users_per_part": 21}, "begun with users_per_part=20"),
        ({"filter_seen": False}, "filter_seen=True"),
        ({"at": 5_000_000}, "begun with at=None, this call has 5000000.0"),
        ({"deny": {"u1": ["i1"]}}, "begun with deny="),
        ({"boost": {"i1": 2.0}}, "begun with boost="),
    ],
)
def test_another_call_is_refused(rec, tmp_path, change, message):
    out = tmp_path / "out"
    rec.recommend_all(out, 5, users_per_part=20)
    before = files(out)
    with pytest.raises(ConfigError, match=message):
        rec.recommend_all(out, **{"k": 5, "users_per_part": 20, **change})
    assert files(out) == before


def test_another_model_is_refused(fit, tmp_path):
    rec = fit(store=None)
    rec.recommend_all(tmp_path / "out", 5)
    rec.update({"user_id": "u1", "item_id": "i41", "timestamp": 20_000_000})
    with pytest.raises(ConfigError, match="begun with another model"):
        rec.recommend_all(tmp_path / "out", 5)


def test_users_who_were_erased_or_came_later(fit, tmp_path):
    rec = fit(store=None)
    rec.update({"user_id": "new", "item_id": "i1", "timestamp": 20_000_000})
    rec.add_items({"item_id": ["i99"], "title": ["red apple fruit number99"], "category": ["food"]})
    rec.erase_users(["u3", "u59"])
    rec.recommend_all(tmp_path / "out", 50, users_per_part=16)
    found = pl.read_parquet(tmp_path / "out")
    assert found.equals(rec.recommend(rec.user_ids, 50).to_polars())
    assert "new" in found["user_id"].to_list() and not {"u3", "u59"} & {*found["user_id"]}
    assert "i99" in found["item_id"].to_list()


def test_a_folder_of_somebody_else_is_left_alone(rec, tmp_path):
    (tmp_path / "mine.txt").write_text("dear")
    with pytest.raises(ConfigError, match=r"holds 'mine.txt' and is not of recommend_all"):
        rec.recommend_all(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(ConfigError, match="is a file"):
        rec.recommend_all(tmp_path / "mine.txt")
    (tmp_path / "m").mkdir()
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "m" / "part-00000.parquet")
    with pytest.raises(ConfigError, match="was not written by recommend_all"):
        rec.recommend_all(tmp_path / "m")
    with pytest.raises(ConfigError, match="expected a path"):
        rec.recommend_all(7)


def test_two_processes_do_not_write_at_once(rec, tmp_path):
    wanted = {"format": 1, "model": "m", "arguments": {}, "users": 0, "parts": 0}
    with batch.claimed(tmp_path / "out", wanted), pytest.raises(ConfigError, match="another process is writing"):
        rec.recommend_all(tmp_path / "out")
    assert rec.recommend_all(tmp_path / "out")["written"] == 1


def test_a_full_disk_leaves_whole_parts(rec, tmp_path, monkeypatch):
    out, table, calls = tmp_path / "out", batch.Job.table, []

    def full(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return table(self, *arguments)

    monkeypatch.setattr(batch.Job, "table", full)
    with pytest.raises(ArtifactError, match="No space left"):
        rec.recommend_all(out, 5, users_per_part=20)
    assert sorted(p.name for p in out.iterdir()) == ["part-00000.parquet", "part-00001.parquet"]
    assert rec.recommend_all(out, 5, users_per_part=20)["written"] == 1


def test_integer_ids_stay_integers(tmp_path):
    rng = np.random.default_rng(0)
    events = {"user_id": rng.integers(0, 9, 60), "item_id": rng.integers(0, 30, 60) * 1000}
    rec = fastrec.Recommender(encoder=None, models=["popularity"], progress=False).fit(events)
    rec.recommend_all(tmp_path / "out", 3)
    found = pl.read_parquet(tmp_path / "out")
    assert found.schema["user_id"] == found.schema["item_id"] == pl.Int64
    assert found.equals(rec.recommend(rec.user_ids, 3).to_polars())


def test_progress_is_log_lines_where_there_is_no_terminal(rec, tmp_path, caplog, capfd):
    with caplog.at_level("INFO", "fastrec"):
        rec.recommend_all(tmp_path / "out", 3, users_per_part=30)
    assert "[recommend_all] 60 of 60 users" in caplog.text and "|" not in capfd.readouterr().err


def long_lists(kind):
    """Two that differ in the middle alone, which no ``repr`` shows."""
    first = np.arange(2000)
    second = np.where((first > 500) & (first < 1500), first + 2000, first)
    if kind == "expression":
        return [{"where": pc.field("price").isin(ids.astype(float).tolist())} for ids in (first, second)]
    make = {"numpy": np.asarray, "polars": pl.Series, "arrow": pa.array, "list": list}[kind]
    return [{"allow": {user: make(ids) for user in range(9)}} for ids in (first, second)]


@pytest.mark.parametrize("kind", ["numpy", "polars", "arrow", "list", "expression"])
def test_long_arguments_are_told_apart_and_known_again(large, tmp_path, kind):
    one, other = long_lists(kind)
    out = tmp_path / "out"
    large.recommend_all(out, 5, users_per_part=5, **one)
    (out / "part-00001.parquet").unlink()
    with pytest.raises(ConfigError, match="was begun with"):
        large.recommend_all(out, 5, users_per_part=5, **other)
    assert large.recommend_all(out, 5, users_per_part=5, **long_lists(kind)[0])["written"] == 1
    if kind != "expression":
        assert large.recommend_all(out, 5, users_per_part=5, **long_lists("list")[0])["written"] == 0


@pytest.fixture(scope="module")
def large():
    """A model of nine users and 4000 items."""
    rng = np.random.default_rng(1)
    events = {"user_id": np.arange(8000) % 9, "item_id": rng.permutation(8000) % 4000}
    items = {"item_id": range(4000), "price": np.arange(4000.0)}
    return fastrec.Recommender(encoder=None, models=["popularity"], progress=False).fit(events, items)


def test_success_does_not_stand_while_a_part_is_missing(rec, tmp_path, monkeypatch):
    out = tmp_path / "out"
    rec.recommend_all(out, 3, users_per_part=20)
    (out / "part-00001.parquet").unlink()
    monkeypatch.setattr(batch.Job, "blocks", lambda self, rows: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rec.recommend_all(out, 3, users_per_part=20)
    assert sorted(p.name for p in out.iterdir()) == ["part-00000.parquet", "part-00002.parquet"]


def test_a_part_of_another_call_that_came_in_the_meantime_is_noticed(rec, tmp_path, monkeypatch):
    """As an actor may leave one behind whose first process was killed."""
    out, write = tmp_path / "out", batch.write_file
    rec.recommend_all(tmp_path / "other", 6, users_per_part=20)

    def late(job, path, *arguments):
        write(job, path, *arguments)
        shutil.copy(tmp_path / "other" / "part-00000.parquet", out)

    monkeypatch.setattr(batch, "write_file", late)
    with pytest.raises(ConfigError, match="begun with k=6, this call has 5"):
        rec.recommend_all(out, 5, users_per_part=20)
    assert not (out / "_SUCCESS").exists()


def test_names_of_parts_stand_in_the_order_of_the_users(rec, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "_MOST_PARTS", 10)
    with pytest.raises(ConfigError, match="users_per_part=5 for 60 users are over 10 files; expected at least 6"):
        rec.recommend_all(tmp_path / "out", 3, users_per_part=5)
    assert rec.recommend_all(tmp_path / "out", 3, users_per_part=6)["parts"] == 10


def test_k_beyond_the_items_takes_no_more_memory(rec, tmp_path):
    rec.recommend_all(tmp_path / "out", 10**12)
    assert pl.read_parquet(tmp_path / "out").equals(rec.recommend(rec.user_ids, 42).to_polars())
    with pytest.raises(ConfigError, match="users_per_part=0, expected"):
        rec.recommend_all(tmp_path / "out", 3, users_per_part=0)

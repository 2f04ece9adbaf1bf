import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from fastrec.encode.cache import VectorCache, text_key

KEYS = [text_key(f"text {i}") for i in range(1300)]  # more than one chunk of parameters
VECTORS = np.random.default_rng(0).standard_normal((1300, 8)).astype(np.float32)


def same(found, keys, vectors):
    return len(found) == len(keys) and all((found[k] == v).all() for k, v in zip(keys, vectors, strict=True))


def test_round_trip_and_a_second_object(tmp_path):
    cache = VectorCache(tmp_path / "new" / "folder", "f", 8)
    assert cache.get(KEYS) == {}
    cache.put(KEYS, VECTORS)
    assert same(cache.get(KEYS), KEYS, VECTORS)
    assert same(VectorCache(tmp_path / "new" / "folder", "f", 8).get(KEYS[:3]), KEYS[:3], VECTORS[:3])
    assert VectorCache(tmp_path / "new" / "folder", "other model", 8).get(KEYS) == {}
    assert VectorCache(tmp_path / "new" / "folder", "f", 9).get(KEYS) == {}


def test_delete_leaves_no_bytes_behind(tmp_path):
    cache = VectorCache(tmp_path, "f", 8)
    cache.put(KEYS[:5], VECTORS[:5])
    cache.delete(KEYS[:2])
    assert set(cache.get(KEYS)) == set(KEYS[2:5])
    on_disk = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert VECTORS[0].tobytes() not in on_disk
    assert KEYS[0] not in on_disk
    assert VECTORS[4].tobytes() in on_disk


def test_a_flipped_bit_counts_as_missing(tmp_path):
    cache = VectorCache(tmp_path, "f", 8)
    cache.put(KEYS[:2], VECTORS[:2])
    cache.close()
    blob = VECTORS[0].tobytes()
    data = cache.path.read_bytes()
    cache.path.write_bytes(data.replace(blob, bytes([blob[0] ^ 1]) + blob[1:]))
    assert set(cache.get(KEYS)) == {KEYS[1]}
    cache.put(KEYS[:1], VECTORS[:1])
    assert same(cache.get(KEYS[:2]), KEYS[:2], VECTORS[:2])


def garbage(path):
    path.write_bytes(b"no database at all" * 1000)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-5000])


def scrambled(path):
    data = path.read_bytes()
    path.write_bytes(data[:4096] + os.urandom(len(data) - 4096))


def foreign(path):
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE vectors (something TEXT)")
    connection.close()


@pytest.mark.parametrize("damage", [garbage, truncated, scrambled, foreign])
def test_a_damaged_file_is_set_aside_with_one_warning(tmp_path, damage, caplog):
    cache = VectorCache(tmp_path, "f", 8)
    cache.put(KEYS, VECTORS)
    cache.close()
    damage(cache.path)
    with caplog.at_level(logging.WARNING):
        found = cache.get(KEYS)
        assert all((found[k] == VECTORS[KEYS.index(k)]).all() for k in found)  # nothing wrong comes out
        cache.put(KEYS, VECTORS)
        assert same(cache.get(KEYS), KEYS, VECTORS)
    assert cache.enabled
    assert [r.message.count("damaged (") for r in caplog.records] == [1]
    assert (tmp_path / "f.damaged").exists()


@pytest.mark.parametrize("place", ["file", "locked"])
def test_an_unusable_place_turns_the_cache_off_with_one_warning(tmp_path, place, caplog, monkeypatch):
    folder = tmp_path
    if place == "file":
        folder = tmp_path / "file"
        folder.write_text("no folder")
    else:
        monkeypatch.setattr("fastrec.encode.cache._BUSY_SECONDS", 0.1)
        VectorCache(tmp_path, "f", 8).put(KEYS[:1], VECTORS[:1])
        other = sqlite3.connect(tmp_path / "f.sqlite")
        other.execute("BEGIN IMMEDIATE")
    cache = VectorCache(folder, "f", 8)
    cache.put(KEYS, VECTORS)
    assert cache.get(KEYS) == {}
    assert not cache.enabled
    assert [("without the cache" in r.message) for r in caplog.records] == [True]
    if place == "locked":
        other.close()


def test_a_full_disk_turns_the_cache_off(tmp_path, caplog):
    cache = VectorCache(tmp_path, "f", 8)
    cache.put(KEYS[:1], VECTORS[:1])
    cache._open().execute("PRAGMA max_page_count = 4").fetchall()  # SQLITE_FULL, as a full disk gives it
    cache.put(KEYS, VECTORS)
    assert not cache.enabled
    assert "full" in caplog.text
    assert same(VectorCache(tmp_path, "f", 8).get(KEYS), KEYS[:1], VECTORS[:1])


def test_threads_share_one_object(tmp_path):
    cache = VectorCache(tmp_path, "f", 8)
    parts = [slice(i, None, 4) for i in range(4)]
    threads = [threading.Thread(target=cache.put, args=(KEYS[p], VECTORS[p])) for p in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same(cache.get(KEYS), KEYS, VECTORS)


_WRITER = """
import sys, numpy as np
from pathlib import Path
from fastrec.encode.cache import VectorCache, text_key
cache = VectorCache(Path(sys.argv[1]), "f", 8)
print("ready", flush=True)
for block in range(int(sys.argv[3])):
    names = [f"{sys.argv[2]} {block} {i}" for i in range(100)]
    cache.put([text_key(n) for n in names], np.full((100, 8), block, np.float32))
assert cache.enabled
"""


def start_writer(folder, name, blocks):
    command = [sys.executable, "-c", _WRITER, str(folder), name, str(blocks)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def stored(folder, name, block):
    keys = [text_key(f"{name} {block} {i}") for i in range(100)]
    found = VectorCache(folder, "f", 8).get(keys)
    assert all((vector == block).all() for vector in found.values())
    return len(found)


def test_processes_write_and_read_at_once(tmp_path):
    writers = [start_writer(tmp_path, name, 30) for name in ("one", "two", "three")]
    for writer in writers:
        _, err = writer.communicate(timeout=60)
        assert (writer.returncode, err) == (0, b"")
    assert all(stored(tmp_path, name, b) == 100 for name in ("one", "two", "three") for b in range(30))


def test_a_killed_writer_leaves_whole_transactions(tmp_path):
    writer = start_writer(tmp_path, "w", 10**9)
    writer.stdout.readline()
    end = time.monotonic() + 20
    while not stored(tmp_path, "w", 5) and time.monotonic() < end:
        time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    counts = [stored(tmp_path, "w", block) for block in range(2000)]
    assert set(counts) <= {0, 100}
    assert counts == sorted(counts, reverse=True)
    assert counts[5] == 100
    with sqlite3.connect(tmp_path / "f.sqlite") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of fork with threads
def test_a_forked_child_opens_its_own_connection(tmp_path):
    cache = VectorCache(tmp_path, "f", 8)
    cache.put(KEYS[:2], VECTORS[:2])
    child = os.fork()
    if child == 0:
        cache.put(KEYS[2:4], VECTORS[2:4])
        os._exit(0 if same(cache.get(KEYS[:4]), KEYS[:4], VECTORS[:4]) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert same(cache.get(KEYS[:4]), KEYS[:4], VECTORS[:4])

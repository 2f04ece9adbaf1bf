"""One contract for every event store: durable, ordered, and able to forget."""

import gc
import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from servers import RedisServer, redis_server

from fastrec.errors import ArtifactError, ConfigError
from fastrec.store import Record, Sealer, open_store

KEY = bytes(range(32))
KINDS = [pytest.param("sqlite", id="sqlite"), pytest.param("redis", id="redis", marks=redis_server)]


class Place:
    """Where the log of one test lies; it can be opened again, and its bytes read."""

    def __init__(self, kind, folder):
        self.folder = folder
        self.server = RedisServer(folder) if kind == "redis" else None
        self.spec = self.server.url if self.server else str(folder / "log.sqlite")
        self.opened = []

    def open(self, key=None):
        store = open_store(self.spec, key=key)
        self.opened.append(store)
        return store

    def bytes_on_disk(self):
        return b"".join(p.read_bytes() for p in sorted(self.folder.rglob("*")) if p.is_file())

    def close(self):
        for store in self.opened:
            store.close()
        if self.server:
            self.server.kill()


@pytest.fixture(params=KINDS)
def place(request, tmp_path):
    made = Place(request.param, tmp_path)
    yield made
    made.close()


def event(user, text):
    return Record("event", user, text.encode())


def test_order_and_versions(place):
    store = place.open()
    assert (store.version, store.since(0), store.append([])) == (0, [], 0)
    assert store.append([event("ann", "a"), event(7, "b"), Record("items", None, b"\x80\xff")]) == 3
    assert store.append([event("7", "d")]) == 4
    assert [(r.version, r.kind, r.user, r.body) for r in store.since(0)] == [
        (1, "event", "ann", b"a"),
        (2, "event", 7, b"b"),
        (3, "items", None, b"\x80\xff"),
        (4, "event", "7", b"d"),
    ]
    assert [r.version for r in store.since(2)] == [3, 4]
    assert store.since(4) == []
    assert place.open().version == 4


def test_last_of_a_user(place):
    store = place.open()
    store.append([event("ann", str(i)) for i in range(5)] + [event("bob", "x"), event(1, "int"), event("1", "str")])
    assert [r.body for r in store.last("ann", 3)] == [b"2", b"3", b"4"]
    assert [r.body for r in store.last("ann", 99)] == [b"0", b"1", b"2", b"3", b"4"]
    assert [r.body for r in store.last(1, 5)] == [b"int"]
    assert [r.body for r in store.last("1", 5)] == [b"str"]
    assert store.last("ann", 0) == store.last("nobody", 5) == []


def test_more_records_than_one_question_asks_for(place):
    store = place.open()
    store.append([event(i % 3, str(i)) for i in range(2500)])
    assert [r.body for r in store.since(0)] == [str(i).encode() for i in range(2500)]


@pytest.mark.parametrize("key", [None, KEY])
def test_erased_is_gone_from_disk(place, key):
    store = place.open(key)
    store.append([event("ann-the-secret", f"private words {i}") for i in range(50)] + [event("bob", "public")])
    store.append([event("ann-the-secret", "last words"), event("bob", "more")])
    assert store.erase(["ann-the-secret", "nobody"], Record("erase", None, b"note")) == (51, 54)
    store.compact()
    assert [(r.version, r.body) for r in store.since(0)] == [(51, b"public"), (53, b"more"), (54, b"note")]
    assert store.last("ann-the-secret", 5) == []
    for word in (b"ann-the-secret", b"private words", b"last words"):
        assert word not in place.bytes_on_disk()
    if key is None:
        assert b"public" in place.bytes_on_disk()
    assert store.append([event("bob", "next")]) == 55, "a version is never used twice"


def test_with_a_key_the_disk_shows_nothing(place):
    store = place.open(KEY)
    store.append([event("ann-the-secret", "private words")])
    (found,) = place.open(KEY).last("ann-the-secret", 1)
    assert (found.user, found.body) == ("ann-the-secret", b"private words")
    shown = place.bytes_on_disk()
    assert b"ann-the-secret" not in shown and b"private words" not in shown and KEY not in shown


@pytest.mark.parametrize("other", [None, bytes(32)])
def test_another_key_is_refused(place, other):
    place.open(KEY).append([event("ann", "a")])
    with pytest.raises(ArtifactError, match="key"):
        place.open(other)


def test_a_key_on_top_of_a_plain_log_is_refused(place):
    place.open().append([event("ann", "a")])
    with pytest.raises(ArtifactError, match="key"):
        place.open(KEY)


def test_threads_and_their_versions(place):
    store = place.open()

    def write(number):
        return [store.append([event(number, f"{number}.{i}.{j}") for j in range(2)]) for i in range(20)]

    with ThreadPoolExecutor(8) as pool:
        versions = sorted(v for part in pool.map(write, range(8)) for v in part)
    assert versions == list(range(2, 321, 2))
    log = store.since(0)
    assert [r.version for r in log] == list(range(1, 321))
    for first, second in zip(log[::2], log[1::2], strict=True):
        assert second.body[:-1] == first.body[:-1], "records of one call stand side by side"
    for number in range(8):
        mine = [f"{number}.{i}.{j}" for i in range(20) for j in (0, 1)]
        assert [r.body.decode() for r in store.last(number, 99)] == mine


WRITER = """
import sys
from fastrec.store import Record, open_store
store = open_store(sys.argv[1])
for i in range(100000):
    print(store.append([Record("event", "u", f"{sys.argv[2]}.{i}".encode())]), flush=True)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_kill_9_loses_nothing_acknowledged(kind, tmp_path):
    place = Place(kind, tmp_path)
    try:
        for round_ in range(3):
            command = [sys.executable, "-c", WRITER, place.spec, str(round_)]
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            acknowledged = [int(child.stdout.readline()) for _ in range(15 + round_)]
            if place.server:  # it is the server that must not lose anything
                place.server.kill()
            child.send_signal(signal.SIGKILL)
            acknowledged += [int(v) for v in child.communicate()[0].split(b"\n")[:-1]]
            if place.server:
                place.server.start()
            versions = [r.version for r in place.open().since(0)]
            assert versions == list(range(1, len(versions) + 1))
            assert acknowledged[-1] <= len(versions) <= acknowledged[-1] + 1
    finally:
        place.close()


@redis_server
def test_a_server_that_would_forget_is_refused(tmp_path):
    server = RedisServer(tmp_path, "everysec")
    try:
        with pytest.raises(ConfigError, match="--appendfsync always"):
            open_store(server.url)
    finally:
        server.kill()
    with pytest.raises(ConfigError, match="expected a running redis-server"):
        open_store(server.url)


def test_who_is_let_go_of_holds_no_file(tmp_path):
    gc.disable()  # the connection is a cycle
    try:
        store = open_store(tmp_path / "log.sqlite")
        store.append([event("ann", "a")])
        del store
        shown = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.exists(entry.path)]
        assert not [name for name in shown if name.startswith(str(tmp_path))]
    finally:
        gc.enable()


def test_what_is_no_store(tmp_path):
    with pytest.raises(ConfigError, match="expected a path"):
        open_store(3)
    with pytest.raises(ConfigError, match="cannot open"):
        open_store(tmp_path / "missing" / "log.sqlite")
    (tmp_path / "text").write_bytes(b"no database at all " * 100)
    with pytest.raises(ArtifactError, match="is damaged"):
        open_store(tmp_path / "text")


def test_a_damaged_record_is_named(tmp_path):
    store = open_store(tmp_path / "log.sqlite")
    store.append([event("ann", "a"), event("bob", "b")])
    other = sqlite3.connect(tmp_path / "log.sqlite")
    with other:
        other.execute("UPDATE log SET data = x'ff' WHERE version = 2")
    other.close()
    with pytest.raises(ArtifactError, match="record 2 cannot be read"):
        store.since(0)
    store.close()


def test_sealing():
    sealer = Sealer(KEY)
    sealed = sealer.seal(b"words", b"here")
    assert sealer.open(sealed, b"here", "it") == b"words"
    assert sealed != sealer.seal(b"words", b"here"), "a nonce is used once"
    changed = bytes([sealed[0] ^ 1]) + sealed[1:]
    for bad, purpose in ((sealed[:-1], b"here"), (sealed, b"there"), (changed, b"here"), (b"", b"here")):
        with pytest.raises(ArtifactError, match="it cannot be opened"):
            sealer.open(bad, purpose, "it")
    assert sealer.token("s:ann") == Sealer(KEY).token("s:ann") != Sealer(bytes(32)).token("s:ann")
    with pytest.raises(ConfigError, match="expected 32 bytes"):
        Sealer(b"short")

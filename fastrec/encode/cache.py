"""Vectors of texts on disk: one SQLite file per model, shared by threads and processes.

A row is (blake2b-128 of the text, float32 vector and its CRC-32). The texts themselves are not kept. The
file name carries the fingerprint of the model, so another model, or the same one with other weights,
meets an empty file. Nothing here raises for a disk that is full, read-only or damaged: encoding must go
on without a cache.
"""

import fcntl
import hashlib
import logging
import math
import os
import sqlite3
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np

from fastrec.types import F32

_LOG = logging.getLogger("fastrec.encode")
_BUSY_SECONDS = 30.0
_CHUNK = 500  # SQLite's lowest limit for bound parameters is 999
#: Primary result codes that mean that the file is no cache of ours: ERROR (another schema), CORRUPT, NOTADB;
#: and IOERR_SHORT_READ (a truncated file).
_DAMAGE = {1, 11, 26}
_SHORT_READ = 522
_SETUP = (
    "PRAGMA journal_mode = WAL",  # readers and one writer at a time, and a killed writer leaves no half row
    "PRAGMA synchronous = NORMAL",
    "PRAGMA secure_delete = ON",
    "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL, used INTEGER NOT NULL)",
)
_T = TypeVar("_T")


def text_key(text: str) -> bytes:
    """Key of a text: 16 bytes. The text must be free of lone surrogates."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


class VectorCache:
    """The vectors of one model.

    folder: made where missing
    fingerprint: of the model; part of the file name
    dimension: D; rows of another size count as missing
    max_bytes: the file stays below it but for one call of put; what was not used for the longest time, to the hour,
        goes first. None: no limit
    """

    def __init__(self, folder: Path, fingerprint: str, dimension: int, max_bytes: int | None = None) -> None:
        self.path = folder / f"{fingerprint}.sqlite"
        self.enabled = True
        self._dimension, self._max_bytes = dimension, max_bytes
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._pid, self._inode = -1, -1
        self._inherited: list[sqlite3.Connection] = []

    def get(self, keys: Sequence[bytes]) -> dict[bytes, F32]:
        """The vectors that are there, float32 [D] each; a row with a wrong checksum counts as missing."""
        found: dict[bytes, F32] = {}
        stale: list[bytes] = []
        now = _hour()

        def read(connection: sqlite3.Connection) -> None:
            stale.clear()
            for chunk in _chunks(keys):
                marks = ",".join("?" * len(chunk))
                sql = f"SELECT key, vector, used FROM vectors WHERE key IN ({marks})"
                for key, blob, used in connection.execute(sql, chunk).fetchall():
                    vector = self._decode(blob)
                    if vector is not None:
                        found[key] = vector
                        if used < now:
                            stale.append(key)

        def touch(connection: sqlite3.Connection) -> None:
            with connection:
                sql = "UPDATE vectors SET used = ? WHERE key = ?"
                connection.executemany(sql, [(now, key) for key in stale])

        self._guarded(read)
        if stale and self._max_bytes is not None:
            self._guarded(touch)
        return found

    def put(self, keys: Sequence[bytes], vectors: F32) -> None:
        """Store vectors float32 [n, D] in one transaction: after a crash all of them are there or none."""

        now = _hour()

        def write(connection: sqlite3.Connection) -> None:
            rows = ((key, _encode(vector), now) for key, vector in zip(keys, vectors, strict=True))
            with connection:
                connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)
                self._evict(connection)

        self._guarded(write)

    def delete(self, keys: Sequence[bytes]) -> None:
        """Forget vectors; their bytes are overwritten in the file and in its log."""

        def erase(connection: sqlite3.Connection) -> None:
            with connection:
                connection.executemany("DELETE FROM vectors WHERE key = ?", [(key,) for key in keys])
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

        self._guarded(erase)

    def _evict(self, connection: sqlite3.Connection) -> None:
        """Where the pages in use exceed the limit, delete what was not used for longest, to nine tenths of it."""
        if self._max_bytes is None:
            return
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        used = (pages - free) * size
        if used <= self._max_bytes:
            return
        count = connection.execute("SELECT count(*) FROM vectors").fetchone()[0]
        surplus = math.ceil(count * min(1.0, (used - 0.9 * self._max_bytes) / used))
        oldest = "SELECT rowid FROM vectors ORDER BY used, rowid LIMIT ?"
        connection.execute(f"DELETE FROM vectors WHERE rowid IN ({oldest})", (surplus,))

    def close(self) -> None:
        with self._lock:
            self._close()

    def _decode(self, blob: object) -> F32 | None:
        if not isinstance(blob, bytes) or len(blob) != 4 * self._dimension + 4:
            return None
        if zlib.crc32(blob[:-4]) != int.from_bytes(blob[-4:], "little"):
            return None
        return np.frombuffer(blob[:-4], "<f4").astype(np.float32, copy=False)

    def _guarded(self, action: Callable[[sqlite3.Connection], None]) -> None:
        """Run the action; rebuild a damaged file and try again; on anything else give up with one warning."""
        with self._lock:
            for last in (False, True):
                if not self.enabled:
                    return
                try:
                    action(self._open())
                    return
                except (sqlite3.Error, OSError) as error:
                    if not last and _is_damage(error) and self._set_aside(error):
                        continue
                    self._give_up(error)

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._pid != os.getpid():
            # A connection must not be used, nor closed, on the other side of a fork.
            self._inherited.append(self._connection)
            self._connection = None
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked():  # two processes that make the same file at once would meet SQLITE_BUSY
                self._inode = _inode(self.path)
                connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, check_same_thread=False)
                try:
                    for statement in _SETUP:
                        connection.execute(statement).fetchall()
                    connection.commit()
                except BaseException:
                    connection.close()
                    raise
                self._inode = _inode(self.path)
            self._connection, self._pid = connection, os.getpid()
            weakref.finalize(self, _close_in, connection, self._pid)
        return self._connection

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock file that guards making and setting aside the database."""
        with open(self.path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _close(self) -> None:
        if self._connection is not None and self._pid == os.getpid():
            self._connection.close()
            self._connection = None

    def _set_aside(self, error: Exception) -> bool:
        """Rename the damaged file; true when another try makes sense."""
        self._close()
        aside = self.path.with_suffix(".damaged")
        try:
            with self._locked():
                if self._inode != _inode(self.path):
                    return True  # another process found the damage first and has rebuilt the file
                os.replace(self.path, aside)
                for ending in ("-wal", "-shm"):
                    Path(f"{self.path}{ending}").unlink(missing_ok=True)
        except OSError:
            return False
        _LOG.warning("[encode] cache %s is damaged (%s): moved to %s", self.path, error, aside.name)
        return True

    def _give_up(self, error: Exception) -> None:
        self.enabled = False
        self._close()
        _LOG.warning("[encode] going on without the cache %s: %s", self.path, error)


def _hour() -> int:
    return int(time.time() // 3600)


def _encode(vector: F32) -> bytes:
    data = vector.astype("<f4", copy=False).tobytes()
    return data + zlib.crc32(data).to_bytes(4, "little")


def _inode(path: Path) -> int:
    """-1 where there is no file."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return -1


def _is_damage(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code == _SHORT_READ or code & 0xFF in _DAMAGE)


def _close_in(connection: sqlite3.Connection, pid: int) -> None:
    if pid == os.getpid():
        connection.close()


def _chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (items[at : at + _CHUNK] for at in range(0, len(items), _CHUNK))

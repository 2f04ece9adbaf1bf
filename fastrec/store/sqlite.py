"""The embedded event store: one SQLite file in WAL mode with synchronous=FULL, written by group commit.

A commit waits for the disk. Threads that come while one waits queue up, and the next that gets the lock commits for
all of them: the disk is waited for once, not once a thread.
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fastrec.errors import ArtifactError, ConfigError
from fastrec.store.events import Record, pack, token, unpack
from fastrec.store.seal import Sealer

_BUSY_SECONDS = 30.0
_SETUP = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # WAL with NORMAL forgets the last commits when the power fails
    "PRAGMA secure_delete = ON",
    "CREATE TABLE IF NOT EXISTS log (version INTEGER PRIMARY KEY AUTOINCREMENT, user TEXT, data BLOB NOT NULL)",
    "CREATE INDEX IF NOT EXISTS of_user ON log (user, version)",
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
)
_T = TypeVar("_T")


@dataclass
class _Ticket:
    """What one thread wants to be written, and what came of it."""

    rows: list[tuple[str | None, bytes]]
    version: int = 0
    error: BaseException | None = None


class SqliteStore:
    """The log in one file.

    path: made where missing; its folder must be there
    key: 32 bytes, to encrypt; the same one must be given every time
    """

    def __init__(self, path: str | os.PathLike[str], *, key: bytes | None = None) -> None:
        self.path = Path(path)
        self._sealer = None if key is None else Sealer(key)
        self._queue: list[_Ticket] = []
        self._queue_lock, self._lock = threading.Lock(), threading.Lock()
        self._pid = os.getpid()
        connection = None
        try:
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, check_same_thread=False, isolation_level=None
            )
            for statement in _SETUP:
                connection.execute(statement).fetchall()
            self._connection = connection
            self._check_key()
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, sqlite3.Error):
                raise self._failed("open", error) from error
            raise

    def _check_key(self) -> None:
        """ArtifactError where the file was begun with another key, or with one and none is given."""
        mine = "" if self._sealer is None else self._sealer.check
        self._connection.execute("INSERT OR IGNORE INTO meta VALUES ('key', ?)", (mine,))
        (found,) = self._connection.execute("SELECT value FROM meta WHERE name = 'key'").fetchone()
        if found != mine:
            how = "another key" if found and mine else "a key" if found else "no key"
            raise ArtifactError(f"[store] {self.path} was begun with {how}; give the key that it was begun with")

    @property
    def version(self) -> int:
        """The version given last, 0 for none."""
        return self._use(self._last_version)

    def append(self, records: Sequence[Record]) -> int:
        """Version of the last record, durable on return; all of them are there or none."""
        if not records:
            return self.version
        rows = [(None if r.user is None else token(r.user, self._sealer), pack(r, self._sealer)) for r in records]
        ticket = _Ticket(rows)
        with self._queue_lock:
            self._queue.append(ticket)
        with self._lock:
            if not ticket.version and ticket.error is None:
                self._commit_queue()
        if ticket.error is not None:
            raise self._failed("append to", ticket.error) from ticket.error
        return ticket.version

    def _commit_queue(self) -> None:
        """Write what all waiting threads want in one transaction; the lock is held."""
        with self._queue_lock:
            batch, self._queue = self._queue, []
        try:
            self._own()
            self._connection.execute("BEGIN IMMEDIATE")
            version = self._last_version()
            for ticket in batch:
                self._connection.executemany("INSERT INTO log (user, data) VALUES (?, ?)", ticket.rows)
            self._connection.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            for ticket in batch:
                ticket.error = error
            if not isinstance(error, Exception):
                raise
            return
        for ticket in batch:
            version += len(ticket.rows)
            ticket.version = version

    def since(self, version: int) -> list[Record]:
        """All records of a later version, in their order."""
        return self._records("SELECT version, data FROM log WHERE version > ? ORDER BY version", (version,))

    def last(self, user: str | int, n: int) -> list[Record]:
        """The newest n records of a user, oldest first."""
        sql = "SELECT version, data FROM log WHERE user = ? ORDER BY version DESC LIMIT ?"
        return self._records(sql, (token(user, self._sealer), n))[::-1]

    def erase(self, users: Sequence[str | int], note: Record) -> tuple[int, int]:
        """(records deleted, version of the note that stands in their place), in one transaction."""
        tokens = [(token(user, self._sealer),) for user in users]
        data = pack(note, self._sealer)

        def write() -> tuple[int, int]:
            c = self._connection
            c.execute("BEGIN IMMEDIATE")
            try:
                deleted = c.executemany("DELETE FROM log WHERE user = ?", tokens).rowcount if tokens else 0
                version = c.execute("INSERT INTO log (user, data) VALUES (NULL, ?)", (data,)).lastrowid
                c.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    c.execute("ROLLBACK")
                raise
            return max(deleted, 0), int(version or 0)

        return self._use(write)

    def compact(self) -> None:
        """Rewrite the file without what was erased, and empty the write-ahead log."""

        def write() -> None:
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

        self._use(write)

    def close(self) -> None:
        """Close the file; what was appended is in it."""
        with self._lock:
            if self._pid == os.getpid():
                self._connection.close()

    def __del__(self) -> None:
        # sqlite3 ties a connection into a cycle: left alone its files stay open until the collector comes by.
        with suppress(Exception):
            self.close()

    def _last_version(self) -> int:
        row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'log'").fetchone()
        return int(row[0]) if row else 0

    def _records(self, sql: str, values: tuple[object, ...]) -> list[Record]:
        rows = self._use(lambda: self._connection.execute(sql, values).fetchall())
        return [unpack(data, version, self._sealer, str(self.path)) for version, data in rows]

    def _use(self, action: Callable[[], _T]) -> _T:
        with self._lock:
            try:
                self._own()
                return action()
            except sqlite3.Error as error:
                raise self._failed("use", error) from error

    def _own(self) -> None:
        if self._pid != os.getpid():
            raise ConfigError(f"[store] {self.path} was opened before a fork; open it again in this process")

    def _failed(self, what: str, error: BaseException) -> Exception:
        if isinstance(error, (ArtifactError, ConfigError)):
            return error
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(
            error, (sqlite3.OperationalError, sqlite3.ProgrammingError)
        ):
            return ArtifactError(f"[store] {self.path} is damaged ({error}); restore it from a copy")
        return ConfigError(f"[store] {self.path}: cannot {what} it ({error}); expected a file that can be written")

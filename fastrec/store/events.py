"""The event log: one order of everything that changed a model since it was fitted, behind one protocol.

    append(records)    durable when it returns; versions count up from 1 and are never used twice
    since(version)     all later records, in their order
    last(user, n)      the newest n of one user, oldest first
    erase(users, note) the records of these users are gone, and ``note`` stands in the log instead, in one step
    compact()          the bytes of what was erased leave the disk

``SqliteStore`` is the embedded one, ``RedisStore`` the one for many processes. With a Sealer the disk shows neither
ids nor texts: users are found by a keyed hash, everything else is AES-GCM.
"""

import json
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fastrec.errors import ArtifactError, ConfigError
from fastrec.store.seal import Sealer


@dataclass(frozen=True)
class Record:
    """One entry of the log.

    kind: "event", "items", "remove" or "erase"
    user: whose event it is; None for what belongs to nobody
    body: what the writer put there
    version: its place in the log; 0 before it has one
    """

    kind: str
    user: str | int | None
    body: bytes
    version: int = 0


class EventStore(Protocol):
    """A durable log; every method may be called from several threads."""

    @property
    def version(self) -> int:
        """The version given last, 0 for none."""

    def append(self, records: Sequence[Record]) -> int:
        """Version of the last of the records, which stand side by side; durable on return, all or none."""

    def since(self, version: int) -> list[Record]:
        """All records of a later version, in their order."""

    def last(self, user: str | int, n: int) -> list[Record]:
        """The newest n records of a user, oldest first."""

    def erase(self, users: Sequence[str | int], note: Record) -> tuple[int, int]:
        """(records deleted, version of the note)."""

    def compact(self) -> None:
        """Remove the bytes of erased records from the disk."""

    def close(self) -> None:
        """Let go of files and connections."""


def open_store(spec: Any, *, key: bytes | None = None) -> EventStore:
    """A store from a path (SQLite), a URL redis://host:port/0[?prefix=name], or a store as it is.

    key: 32 bytes: encrypt what is written
    Raises ConfigError for anything else and for a server that would not keep what it acknowledged.
    """
    if isinstance(spec, str) and spec.startswith(("redis://", "rediss://", "unix://")):
        from fastrec.store.redis import RedisStore

        return RedisStore(spec, key=key)
    if isinstance(spec, (str, os.PathLike)):
        from fastrec.store.sqlite import SqliteStore

        return SqliteStore(spec, key=key)
    if all(hasattr(spec, name) for name in ("append", "since", "last", "erase", "compact")):
        store: EventStore = spec
        return store
    raise ConfigError(f"[store] store={spec!r}, expected a path, a URL redis://..., a store or None")


def token(user: str | int, sealer: Sealer | None) -> str:
    """What a user is found by on disk: the id and its kind, or a keyed hash of them."""
    plain = f"i:{user}" if isinstance(user, int) else f"s:{user}"
    return plain if sealer is None else sealer.token(plain)


def pack(record: Record, sealer: Sealer | None) -> bytes:
    """A record without its version as bytes: 4 bytes length of the head, head in JSON, body; sealed as a whole."""
    head = json.dumps([record.kind, record.user], ensure_ascii=False).encode()
    data = struct.pack("<I", len(head)) + head + record.body
    return data if sealer is None else sealer.seal(data, b"record")


def unpack(data: bytes, version: int, sealer: Sealer | None, where: str) -> Record:
    """The record that ``pack`` wrote; ArtifactError where it is damaged or sealed with another key."""
    if sealer is not None:
        data = sealer.open(data, b"record", f"{where} record {version}")
    try:
        (length,) = struct.unpack_from("<I", data)
        kind, user = json.loads(data[4 : 4 + length])
        if not isinstance(kind, str) or not isinstance(user, (str, int, type(None))):
            raise ValueError("head")
    except (ValueError, TypeError, struct.error) as error:
        raise ArtifactError(f"[store] {where}: record {version} cannot be read: it is damaged") from error
    return Record(kind, user, data[4 + length :], version)

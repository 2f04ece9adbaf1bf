"""Recommendations for all users, in files: blocks of users to parquet parts, which outlive a kill.

    FOLDER/part-00000.parquet    user_id, item_id, score, rank (from 1) of the users of a part, in the model's order
    FOLDER/_SUCCESS              empty: all parts are there

A part is written under a hidden name, synced and renamed: what has its name is whole, and a call with the same model
and arguments writes those alone that are not there. What those were stands in the footer of every part (the manifest:
fingerprint of the model, arguments, numbers of users and parts), and no file of another kind lies in the folder, which
polars would refuse to read. A part depends on nothing but its number: the files are the same bytes (of one version of
Arrow) however often the work was cut off, and whoever did it.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from fastrec import arguments, config, pipeline
from fastrec.answer import Asked, Rules
from fastrec.errors import ArtifactError, ConfigError
from fastrec.persist import fingerprint
from fastrec.progress import Progress
from fastrec.state import Settings, State
from fastrec.types import I64, Candidates

CALL = "recommend_all"
MANIFEST, SUCCESS = b"fastrec.recommend_all", "_SUCCESS"
#: Users of a part: what a kill loses of a model of a million items is a few minutes.
USERS_PER_PART = 32768
#: More would have names of other lengths, which stand in another order.
_MOST_PARTS = 100_000
#: Places of a block, which becomes a row group: bounds the memory of writing and of reading.
_PLACES = 1 << 20
#: Blocks that wait for the writer, at most.
_WAITING = 2
_HIDDEN = ".fastrec-"
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Job:
    """What is to be written.

    users: rows of the users that are there, ascending, int64 [U]
    at: only events up to this time count, seconds; None: all
    """

    asked: Asked
    users: I64
    at: float | None
    users_per_part: int
    user_ids: Any
    item_ids: Any
    """Arrow arrays, the id of every row."""

    @classmethod
    def of(cls, state: State, rules: Rules, backend: str, at: Any, users_per_part: int) -> "Job":
        """Raises ConfigError and DataError for arguments that do not fit the model."""
        per_part = config.check_k(CALL, users_per_part, name="users_per_part")
        gone: frozenset[int] = getattr(state.users, "gone", frozenset())
        users = np.arange(len(state.users), dtype=np.int64)
        if gone:
            users = np.delete(users, sorted(gone))
        when = None if at is None else arguments.seconds(CALL, at)
        ids = (pa.array(v.series.to_arrow(compat_level=pl.CompatLevel.oldest())) for v in (state.users, state.items))
        if -(-len(users) // per_part) > _MOST_PARTS:
            raise ConfigError(
                f"[{CALL}] users_per_part={per_part} for {len(users):,} users are over {_MOST_PARTS:,} files; expected "
                f"at least {-(-len(users) // _MOST_PARTS)}"
            )
        most = dataclasses.replace(rules, k=min(int(rules.k), len(state.items)))  # places beyond would be empty
        return cls(Asked.of(state, most, backend, state.rerank), users, when, per_part, *ids)

    @property
    def n_parts(self) -> int:
        return -(-len(self.users) // self.users_per_part)

    def part(self, number: int) -> I64:
        """User rows of a part."""
        return self.users[number * self.users_per_part : (number + 1) * self.users_per_part]

    def blocks(self, rows: I64) -> Iterator[tuple[I64, Candidates]]:
        """(user rows, their best items), block by block."""
        rules = self.asked.rules
        width = rules.k * (10 if rules.diversity else 1)
        size = max(1, min(pipeline.USERS_AT_ONCE, _PLACES // width))
        state = self.asked.state
        named = any(isinstance(lists, Mapping) for lists in (rules.allow, rules.deny))
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            histories, seen = state.histories.take(some)
            if self.at is not None:
                histories = histories.select(histories.times <= self.at)
                seen = histories.seen()
            ids: Any = state.users.ids(some) if named else some
            yield some, self.asked.search(ids, histories, seen)[0]

    @property
    def schema(self) -> Any:
        """Of the columns."""
        user, item = (
            pa.int64() if pa.types.is_integer(ids.type) else pa.string() for ids in (self.user_ids, self.item_ids)
        )
        return pa.schema([("user_id", user), ("item_id", item), ("score", pa.float32()), ("rank", pa.int64())])

    def table(self, rows: I64, found: Candidates) -> Any:
        """One line a result, by user and rank; pyarrow.Table."""
        there = found.rows >= 0
        users = np.repeat(rows, there.sum(axis=1))
        rank = np.broadcast_to(np.arange(1, found.rows.shape[1] + 1), there.shape)[there]
        columns = [self.user_ids.take(pa.array(users)), self.item_ids.take(pa.array(found.rows[there]))]
        columns = [c.cast(t) for c, t in zip(columns, self.schema.types[:2], strict=True)]
        return pa.table([*columns, pa.array(found.scores[there]), pa.array(rank)], schema=self.schema)


def rules(
    k: int,
    *,
    filter_seen: bool = True,
    allow: Any = None,
    deny: Any = None,
    where: Any = None,
    boost: Any = None,
    diversity: float = 0.0,
) -> Rules:
    """The keywords of a call, with ids as Python lists, whatever they came in: they are read once for every block."""

    def listed(name: str, ids: Any) -> Any:
        if isinstance(ids, Mapping):
            return {user: arguments.id_list(CALL, f"{name}[{user!r}]", one)[0] for user, one in ids.items()}
        return None if ids is None else arguments.id_list(CALL, name, ids)[0]

    return Rules(CALL, k, filter_seen, listed("allow", allow), listed("deny", deny), where, boost, diversity)


def run(
    state: State, settings: Settings, out: Any, asked: Rules, *, at: Any = None, users_per_part: int, show: bool
) -> dict[str, int]:
    """The work behind ``Recommender.recommend_all``: counts of users, parts, and the parts that this call wrote."""
    path = checked_path(out)
    job = Job.of(state, asked, settings.backend, at, users_per_part)
    alone = path.suffix.lower() == ".parquet" and not path.is_dir()
    progress = Progress(CALL, len(job.users), show, unit="user", logger="fastrec")
    with disk(path):
        wanted = manifest(job, fingerprint(state, settings))
        if alone:
            with progress:
                write_file(job, path, job.users, wanted, progress.add)
            return {"users": len(job.users), "parts": 1, "written": 1}
        with claimed(path, wanted) as missing:
            progress.skip(len(job.users) - sum(len(job.part(number)) for number in missing))
            with progress:
                for number in missing:
                    write_file(job, path / part_name(number), job.part(number), wanted, progress.add)
            finish(path, wanted)
    return {"users": len(job.users), "parts": job.n_parts, "written": len(missing)}


def checked_path(out: Any) -> Path:
    """ConfigError for what is no path."""
    if not isinstance(out, (str, os.PathLike)):
        raise ConfigError(f"[{CALL}] folder is {type(out).__name__}, expected a path")
    return Path(out)


def part_name(number: int) -> str:
    return f"part-{number:05d}.parquet"


def write_file(
    job: Job, path: Path, rows: I64, wanted: dict[str, Any], done: Callable[[int], Any] = lambda n: None
) -> None:
    """The answers for these users as one file, which is there whole or not at all; ``done`` hears of users written."""
    schema = job.schema.with_metadata({MANIFEST: json.dumps(wanted, sort_keys=True)})
    beside = path.with_name(f"{_HIDDEN}{uuid.uuid4().hex}.{path.name}")
    waiting: deque[Future[int]] = deque()
    try:
        # Ids are looked up and pages compressed while the next block is searched.
        with (
            open(beside, "wb") as file,
            pq.ParquetWriter(file, schema) as writer,
            ThreadPoolExecutor(1, "recommend-all") as pool,
        ):

            def write(users: I64, found: Candidates) -> int:
                writer.write_table(job.table(users, found).cast(schema), row_group_size=_PLACES)
                return len(users)

            for users, found in job.blocks(rows):
                waiting.append(pool.submit(write, users, found))
                while len(waiting) > _WAITING:
                    done(waiting.popleft().result())
            while waiting:
                done(waiting.popleft().result())
        _sync(beside)
        os.replace(beside, path)
        _sync(path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def manifest(job: Job, model: str) -> dict[str, Any]:
    """What a resumed call must have in common with the first one."""
    rules = job.asked.rules
    names = ("k", "filter_seen", "allow", "deny", "where", "boost", "diversity")
    given: dict[str, Any] = {name: _plain(getattr(rules, name)) for name in names}
    given |= {"at": job.at, "users_per_part": job.users_per_part, "backend": job.asked.backend}
    if job.asked.mask is not None:  # an expression of Arrow shows only some of the values that it holds
        given["passing"] = hashlib.sha256(np.packbits(job.asked.mask).tobytes()).hexdigest()[:32]
    return {"format": _FORMAT, "model": model, "arguments": given, "users": len(job.users), "parts": job.n_parts}


def _plain(value: Any) -> Any:
    """An argument as JSON; a long one as its hash. Of lists and sets the order says nothing, of ranges it does."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()

    def listed(x: Any) -> Any:
        if isinstance(x, Mapping):
            return sorted(([listed(key), listed(v)] for key, v in x.items()), key=lambda pair: str(pair[0]))
        if isinstance(x, (list, set, frozenset)):
            return sorted(str(listed(v)) for v in x)
        if isinstance(x, tuple):
            return [listed(v) for v in x]
        return repr(x.item() if isinstance(x, np.generic) else x)

    text = json.dumps(listed(value))
    if len(text) <= 200:
        return text
    return f"{len(value) if hasattr(value, '__len__') else 1} entries, {hashlib.sha256(text.encode()).hexdigest()[:32]}"


@contextlib.contextmanager
def claimed(folder: Path, wanted: dict[str, Any]) -> Iterator[list[int]]:
    """Numbers of the parts that are not there, while no other process may write to the folder.

    Raises ConfigError for a folder that was begun with another model or other arguments, that holds other things, or
    that another process is writing to; nothing is touched then.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"[{CALL}] {folder} is a file, expected a folder or a name that ends in .parquet")
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, however it ends
        except BlockingIOError as error:
            raise ConfigError(f"[{CALL}] another process is writing to {folder}; wait for it or end it") from error
        there = sorted(p.name for p in folder.iterdir())
        parts = {part_name(number): number for number in range(wanted["parts"])}
        for name in there:
            if name.startswith("part-"):
                _compare(folder / name, wanted)
            elif name != SUCCESS and not name.startswith(_HIDDEN):
                raise ConfigError(
                    f"[{CALL}] {folder} holds {name!r} and is not of {CALL}; expected a new or an empty folder"
                )
        for name in there:
            if name.startswith(_HIDDEN):
                (folder / name).unlink()
        missing = [number for name, number in parts.items() if name not in there]
        if missing and SUCCESS in there:
            (folder / SUCCESS).unlink()
            _sync(folder)
        yield missing
    finally:
        os.close(handle)


def finish(folder: Path, wanted: dict[str, Any]) -> None:
    """Say that all parts are there, and clear what processes that were killed on the way have left.

    Raises ConfigError where a part is of another call: an actor outlives the process that sent it by some seconds.
    """
    for left in folder.glob(f"{_HIDDEN}*"):
        left.unlink()
    for number in range(wanted["parts"]):
        _compare(folder / part_name(number), wanted)
    if not (folder / SUCCESS).exists():
        (folder / SUCCESS).touch()
        _sync(folder)


def _compare(part: Path, wanted: dict[str, Any]) -> None:
    """ConfigError for a part of another job."""
    try:
        found = json.loads(pq.read_schema(part).metadata[MANIFEST])
        begun = {**found["arguments"], "format": found["format"]}
    except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise ConfigError(f"[{CALL}] {part} was not written by {CALL}; expected a new or an empty folder") from error
    now = {**wanted["arguments"], "format": wanted["format"]}
    for name in sorted({*begun, *now}):
        if begun.get(name) != now.get(name):
            raise ConfigError(
                f"[{CALL}] {part.parent} was begun with {name}={begun.get(name)!r}, this call has {now.get(name)!r}; "
                "expected the same arguments or a new folder"
            )
    if any(found.get(name) != wanted[name] for name in ("model", "users", "parts")):
        raise ConfigError(
            f"[{CALL}] {part.parent} was begun with another model ({found.get('model')}, {found.get('users')} users), "
            f"this one is {wanted['model']} with {wanted['users']}; expected the same model or a new folder"
        )


@contextlib.contextmanager
def disk(path: Path) -> Iterator[None]:
    """ArtifactError for what the disk refuses."""
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"[{CALL}] {error.filename or path} cannot be written ({error.strerror or error}); the parts that are "
            "there are whole: make space or give rights, and call again"
        ) from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

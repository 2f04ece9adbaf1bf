"""The model and all that is asked of it, in the process that holds it."""

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from fastrec import inside
from fastrec.errors import DataError
from fastrec.serve import calls
from fastrec.serve import model as models
from fastrec.serve.model import Facts, Model
from fastrec.serve.views import Views

log = logging.getLogger("fastrec.serve")
#: What may be asked of a Host beside batches, and the threads that do it: a view must not wait behind writes.
POOLS = {"write": "write", "reload": "write", "catch_up": "write", "view": "inspect"}


class Host:
    """The place of the model that is served; all methods may be called from any thread, and block.

    A batch takes ``current`` once and is answered by that one alone.
    """

    def __init__(self, model: Model, store: str | None) -> None:
        self.current, self._store = model, store
        self._reloading, self._looking = threading.Lock(), threading.Lock()
        self._views: Views | None = None

    def answer(self, batch: Sequence[calls.Call]) -> calls.Answered:
        """The answers to a batch."""
        return calls.answer(self.current, batch)

    def write(self, name: str, given: list[Any]) -> dict[str, int]:
        """Counts of a change; given: rows as dicts for events and items, ids for the others."""
        model = self.current
        change = getattr(model.recommender, name)
        counts = change(columns(given) if name in ("update", "add_items") else given)
        if self.current is not model:  # exchanged meanwhile: the new one may have read the log before this was in it
            inside.catch_up(self.current.recommender)
        return {str(n): int(count) for n, count in counts.items()} if isinstance(counts, Mapping) else {}

    def view(self, name: str, *args: Any) -> tuple[bool, Any]:
        """(whether the views were there, what the view of this name gives)."""
        with self._looking:
            views = self._views
            fresh = views is not None and not views.stale(self.current)
            if views is None or not fresh:
                views = self._views = Views(self.current)
            return fresh, getattr(views, name)(*args)

    def reload(self, path: str) -> Facts:
        """Load beside, check, swap; a model that cannot be loaded changes nothing."""
        with self._reloading:
            model = models.load(path, self._store)
            self.current = model
            self._views = None  # they hold the old model
            try:
                # What the store took between the end of loading and the swap.
                inside.catch_up(model.recommender)
            except Exception as error:  # it serves all the same, and the next change brings what is missing
                log.warning("model %s could not read the event store again: %s", model.facts.version, error)
            return model.facts

    def catch_up(self) -> None:
        """Apply what other processes wrote to the event store."""
        inside.catch_up(self.current.recommender)


class Pools:
    """Threads by name, made at first use in the process that uses them: it may have been forked."""

    def __init__(self, writes: int) -> None:
        self._sizes = {"write": writes, "inspect": 1, "model": 1}
        self._lock = threading.Lock()
        self._made: dict[str, ThreadPoolExecutor] = {}
        self._pid = os.getpid()

    def get(self, name: str) -> ThreadPoolExecutor:
        if self._pid != os.getpid():  # threads do not survive a fork, and the lock may have been held in it
            self._pid, self._lock, self._made = os.getpid(), threading.Lock(), {}
        with self._lock:
            if name not in self._made:
                self._made[name] = ThreadPoolExecutor(self._sizes[name], thread_name_prefix=f"fastrec-{name}")
            return self._made[name]

    def end(self) -> None:
        """End the threads when what they do is done."""
        for pool in self._made.values():
            pool.shutdown(wait=True)
        self._made.clear()


def columns(rows: list[dict[str, Any]]) -> Any:
    """Rows as an Arrow table; DataError where a column mixes kinds."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowException, OverflowError, UnicodeError, TypeError) as error:
            raise DataError(f"[serve] {name}: the values are not of one kind: {error}", column=name) from error
        if pa.types.is_null(columns[name].type):
            del columns[name]
    try:
        return pa.table(columns)
    except (pa.ArrowException, UnicodeError) as error:
        raise DataError(f"[serve] the columns make no table: {error}") from error

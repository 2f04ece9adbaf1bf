"""Living on after fitting: events, new items, removals and erasures, applied in the order of one log.

    update, add_items, remove_items, erase_users   checked -> a record of the log -> applied to the state

A record is durable before it is applied, and applying it is a function of the state and the record alone. So a process
that was killed comes back with a snapshot and the records since, to the same bits. Readers take the state as it is and
wait for nobody; writers take turns.
"""

import dataclasses
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from fastrec import arguments, cold, data, encode, incoming, usertext
from fastrec.data.clean import strength
from fastrec.errors import ArtifactError
from fastrec.fresh import fresh_items, joined
from fastrec.fuse import frozen
from fastrec.histories import NOBODY, History
from fastrec.kinds import number
from fastrec.state import Settings, State
from fastrec.store import EventStore, Record
from fastrec.trend import Trend
from fastrec.types import BiasSource, Features
from fastrec.usertext import TextSource

log = logging.getLogger("fastrec")

_DAY = 86400.0
#: Counts that are kept for other threads.
_KEPT = 10_000


class Live:
    """A state that moves. ``state`` is always a whole one.

    store: where records become durable; None: nowhere
    """

    def __init__(
        self,
        state: State,
        settings: Settings,
        encoder: Any,
        store: EventStore | None,
        media: dict[str, Any] | None = None,
    ) -> None:
        self.state, self._settings, self._encoder, self._store = state, settings, encoder, store
        self._media = media or {}
        self._lock = threading.RLock()
        self._trend: Trend | None = None
        self._counts: dict[int, dict[str, int]] = {}
        self._weights = data.DEFAULT_EVENT_WEIGHTS | settings.event_weights

    # ---- reading

    def current(self) -> State:
        """The state, with the popularity of all that was applied unless a writer is at work right now."""
        trend = self._trend
        if trend is not None and trend.stale and self._lock.acquire(blocking=False):
            try:
                self._publish(trend)
            finally:
                self._lock.release()
        return self.state

    def _publish(self, trend: Trend) -> None:
        state = self.state
        bias, rows = trend.fresh(state.popular.bias)
        popular = dataclasses.replace(state.popular, bias=bias)
        swap = {state.popular.name: popular}
        sources, kept = (
            tuple(swap.get(s.name, s) if isinstance(s, BiasSource) else s for s in group)
            for group in (state.sources, state.features.sources)
        )
        features = dataclasses.replace(state.features, sources=kept)
        if state.popular.name in features.bias_scales:
            features = dataclasses.replace(features, bias=fused_bias(features, rows))
        self.state = dataclasses.replace(
            state, popular=popular, sources=sources, features=features, trend=(trend.start, trend.latest, trend.scale)
        )

    # ---- writing

    def update(self, interactions: Any) -> dict[str, int]:
        """See ``Recommender.update``."""
        events, counts = incoming.events(interactions, self.state, self._newest())
        records = [Record("event", e[0], json.dumps(e[1:], ensure_ascii=False).encode()) for e in events]
        return {**counts, **self._write(records)}

    def _newest(self) -> float:
        """The time to give to an event without one."""
        if self.state.timed:
            return time.time()
        with self._lock:
            return self._trending().latest + 1

    def add_items(self, items: Any) -> dict[str, int]:
        """See ``Recommender.add_items``."""
        state = self.state
        table, counts = data.new_items(items, state.catalog, state.items, "add_items")
        if not table.num_rows:
            return {"added": 0, **counts}
        part = dataclasses.replace(state.catalog, table=table)
        embeddings, unreadable = incoming.embedded(part, state.embeddings, self._encoder, self._media)
        counts |= {"unreadable": unreadable} if self._media else {}
        table = incoming.with_vectors(encode.without_media(table), embeddings)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return {**counts, **self._write([Record("items", None, sink.getvalue().to_pybytes())])}

    def remove_items(self, ids: Any) -> dict[str, int]:
        """See ``Recommender.remove_items``."""
        listed, _ = arguments.id_list("remove_items", "ids", ids)
        listed = arguments.objects(listed).tolist()
        return self._write([Record("remove", None, json.dumps(listed, ensure_ascii=False).encode())])

    def erase_users(self, ids: Any) -> dict[str, int]:
        """See ``Recommender.erase_users``."""
        listed, _ = arguments.id_list("erase_users", "ids", ids)
        listed = arguments.objects(listed).tolist()
        with self._lock:
            salt = os.urandom(16)
            latest = self._trending().latest
            names = sorted(_hidden(user, salt) for user in listed)
            note = Record("erase", None, json.dumps({"salt": salt.hex(), "users": names, "latest": latest}).encode())
            if self._store is None:
                deleted, version = 0, self.state.version + 1
            else:
                deleted, version = self._store.erase(listed, note)
                self._catch_up(version - 1)
            rows = sorted({int(r) for r in self.state.users.rows(listed) if r >= 0})
            texts = self._written(rows)
            counts = self._erase(rows, version)
        if texts and hasattr(self._encoder, "forget"):
            self._encoder.forget(texts)
        if self._store is not None:
            self._store.compact()
        return {**counts, "records": deleted}

    def _written(self, rows: Sequence[int]) -> list[str]:
        """The texts of these users that the cache of the encoder may hold vectors of."""
        texts: set[str] = set()
        for source in (s for s in self.state.sources if isinstance(s, TextSource)):
            for history in map(self.state.histories.user, rows):
                liked = history.items[history.weights > 0].tolist()
                texts.update(usertext.windows(cold.titles(source, self.state.fresh, liked), source.last))
        return sorted(texts - {""})

    def _write(self, records: Sequence[Record]) -> dict[str, int]:
        """Make records durable, then apply them and all that stands before them in the log."""
        if not records:
            return self._apply([], self.state.version)
        if self._store is None:
            with self._lock:
                return self._apply(records, self.state.version + len(records))
        last = self._store.append(records)  # not under the lock: threads share one commit
        with self._lock:
            if self.state.version + len(records) == last:
                return self._apply(records, last)
            return self._catch_up(last, last - len(records))

    def _catch_up(self, version: int, mine_after: int = -1) -> dict[str, int]:
        """Apply what the log has up to a version; the counts are of the records after ``mine_after``."""
        assert self._store is not None
        missing = [r for r in self._store.since(self.state.version) if r.version <= version]
        for r in missing:
            if r.version <= mine_after:  # of other threads, who want their counts, and of other processes
                self._counts[r.version] = self._apply([r], r.version)
        while len(self._counts) > _KEPT:
            del self._counts[next(iter(self._counts))]
        mine = [r for r in missing if r.version > mine_after]
        if mine or self.state.version < version:
            return self._apply(mine, max(version, self.state.version))
        # Another thread has applied them before its own.
        return _sum([self._counts.pop(v, {}) for v in range(mine_after + 1, version + 1)]) if mine_after >= 0 else {}

    def replay(self) -> int:
        """Apply all records that the log has beyond the state; returns how many. For a state that was loaded."""
        if self._store is None:
            return 0
        with self._lock:
            newest = self._store.version
            if newest < self.state.version:
                raise ArtifactError(
                    f"[load] the event log ends at version {newest}, the model is at {self.state.version}: "
                    "expected the log that the model was served with"
                )
            records = self._store.since(self.state.version)
            self._apply(records, max([newest, *(r.version for r in records)]))
            return len(records)

    def recover(self) -> int:
        """Apply the events whose items the model came to know later; for training anew. Returns how many."""
        with self._lock:
            found = [] if self._store is None else incoming.missed(self._store.since(0), self.state)
            return self._events(found)["events"] if found else 0

    # ---- applying: functions of the state and the record alone

    def _apply(self, records: Sequence[Record], version: int) -> dict[str, int]:
        counts: dict[str, int] = {}
        at = 0
        while at < len(records):
            end = at
            while end < len(records) and records[end].kind == "event":
                end += 1
            if end > at:
                found = self._events(records[at:end])
            elif records[at].kind == "items":
                found, end = self._items(records[at].body), at + 1
            elif records[at].kind == "remove":
                found, end = self._remove(json.loads(records[at].body)), at + 1
            else:
                found, end = self._erased(json.loads(records[at].body)), at + 1
            counts = _sum([counts, found])
            at = end
        if self.state.version != version:
            self.state = dataclasses.replace(self.state, version=version)
        return counts

    def _trending(self) -> Trend:
        """The counts behind the popularity, made from the histories at first use."""
        if self._trend is None:
            state = self.state
            histories = state.interactions
            newest = float(histories.times.max(initial=0.0))
            start, latest, scale = state.trend or (newest, newest, None)
            half_life = state.popular.half_life
            self._trend = Trend(histories, np.inf if half_life is None else half_life, start, latest, scale)
            if half_life is None:  # a bias that is no count stays as it is
                self._trend.dirty = set()
        return self._trend

    def _events(self, records: Sequence[Record]) -> dict[str, int]:
        state = self.state
        bodies = [json.loads(r.body) for r in records]
        items = state.items.rows([b[0] for b in bodies])
        if (items < 0).all():
            return {"events": 0, "unknown_items": len(records), "new_users": 0}
        trend = self._trending()
        users = state.users.rows([r.user for r in records])
        new: dict[Any, int] = {}
        changed: dict[int, History] = {}
        size, applied = len(state.users), 0
        moves = state.popular.half_life is not None
        recount = False
        for record, (_, when, kind, value, _text), item, user in zip(
            records, bodies, items.tolist(), users.tolist(), strict=True
        ):
            if item < 0:
                continue
            applied += 1
            if user < 0:
                user = new.setdefault(record.user, size + len(new))
            weight = strength(kind, value, self._weights, state.means)
            if self._settings.half_life is not None:  # as fitting has it: the newest fitted event weighs 1
                age = max(0.0, trend.start - when)
                weight *= 2 ** (-age / (self._settings.half_life * _DAY))
            history = changed.get(user) or state.histories.user(user)
            changed[user], before = history.moved(item, when, weight, number(kind))
            recount |= trend.seen_until(when)
            if moves and not recount:
                if before is not None:
                    trend.add(item, *before, sign=-1)
                at = int(np.flatnonzero(changed[user].items == item)[0])
                trend.add(item, float(changed[user].times[at]), float(changed[user].weights[at]))
        vocab = data.GrownVocab.of(state.users).with_added(list(new)) if new else state.users
        histories = state.histories.put(changed, size + len(new))
        self.state = dataclasses.replace(state, users=vocab, histories=histories)
        if moves and recount:
            trend.recount(histories.folded()[0])
        return {"events": applied, "unknown_items": len(records) - applied, "new_users": len(new)}

    def _items(self, body: bytes) -> dict[str, int]:
        state = self.state
        table = pa.ipc.open_stream(body).read_all()
        ids = table["item_id"].to_pylist()
        new = np.flatnonzero(state.items.rows(ids) < 0)  # two threads may have brought the same ones
        if len(new) < len(ids):
            table, ids = table.take(new), [ids[i] for i in new]
        if not ids:
            return {"added": 0}
        table, embeddings = incoming.vectors_of(table, state.embeddings)
        vocab = data.GrownVocab.of(state.items)
        back = vocab.old_rows(ids)
        size, n = len(vocab), len(ids)
        again = {old: size + i for i, old in enumerate(back.tolist()) if old >= 0}
        texts = encode.item_texts(dataclasses.replace(state.catalog, table=table))
        added = fresh_items(embeddings, texts, state.embeddings, state.sources, state.landmarks)
        together = joined(state.fresh, added)
        swap: dict[str, Any] = {
            s.name: dataclasses.replace(s, bias=np.concatenate([s.bias, np.zeros(n, np.float32)]))
            for s in (*state.sources, state.popular)
            if isinstance(s, BiasSource)
        }
        if self._trend is not None:
            self._trend.widen(n)
        sources, kept = (tuple(swap.get(s.name, s) for s in group) for group in (state.sources, state.features.sources))
        features = cold.attach(dataclasses.replace(state.features, sources=kept), together)
        self.state = dataclasses.replace(
            state,
            items=vocab.with_added(ids),
            histories=state.histories.widened(size + n, again),
            catalog=dataclasses.replace(state.catalog, table=pa.concat_tables([state.catalog.table, table])),
            features=features,
            sources=sources,
            popular=swap[state.popular.name],
            fresh=together,
            removed=None if state.removed is None else np.concatenate([state.removed, np.zeros(n, np.bool_)]),
            _views={},
            _lock=threading.Lock(),
        )
        return {"added": n}

    def _remove(self, ids: list[Any]) -> dict[str, int]:
        state = self.state
        rows = state.items.rows(ids)
        gone = np.unique(rows[rows >= 0])
        if len(gone):
            removed = np.zeros(len(state.items), np.bool_) if state.removed is None else state.removed.copy()
            removed[gone] = True
            vocab = data.GrownVocab.of(state.items).without(gone.tolist())
            self.state = dataclasses.replace(state, items=vocab, removed=removed)
        return {"removed": len(gone), "unknown": int((rows < 0).sum())}

    def _erased(self, note: dict[str, Any]) -> dict[str, int]:
        """What ``erase_users`` left in the log, met again or written by another process."""
        state, salt, wanted = self.state, bytes.fromhex(note["salt"]), set(note["users"])
        if self._trending().seen_until(note["latest"]):
            self._trending().recount(state.interactions)
        ids = state.users.ids(np.arange(len(state.users))).tolist()
        known = state.users.rows(ids).tolist()
        rows = [row for row, one in enumerate(ids) if known[row] == row and _hidden(one, salt) in wanted]
        return self._erase(rows, state.version)

    def _erase(self, rows: Sequence[int], version: int) -> dict[str, int]:
        trend, state = self._trending(), self.state
        entries = 0
        for row in rows:
            history = state.histories.user(row)
            entries += len(history.items)
            if state.popular.half_life is not None:
                parts = (history.items.tolist(), history.times.tolist(), history.weights.tolist())
                for item, when, weight in zip(*parts, strict=True):
                    trend.add(item, when, weight, sign=-1)
        vocab = data.GrownVocab.of(state.users).without(rows) if rows else state.users
        histories = state.histories.put(dict.fromkeys(rows, NOBODY), state.histories.n_users)
        self.state = dataclasses.replace(state, users=vocab, histories=histories, version=version)
        return {"users": len(rows), "events": entries}


def _sum(parts: Sequence[dict[str, int]]) -> dict[str, int]:
    return {n: sum(p.get(n, 0) for p in parts) for n in dict.fromkeys(n for p in parts for n in p)}


def _hidden(user: Any, salt: bytes) -> str:
    """A user id in a note of the log: it can be recognised by who has it, and not be read."""
    plain = f"i:{user}" if isinstance(user, int) else f"s:{user}"
    return hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16, key=salt).hexdigest()


def fused_bias(features: Features, rows: Any) -> Any:
    """The bias of the space from its sources, at these rows (None: all); the others stay."""
    at = slice(None) if rows is None else rows
    total = sum(
        features.bias_scales[s.name] * s.bias[at].astype(np.float64)
        for s in features.sources
        if isinstance(s, BiasSource)
    )
    out = np.asarray(total, np.float64).astype(np.float32)
    if rows is not None:
        whole = features.bias.copy()
        whole[rows] = out
        out = whole
    return frozen(out)  # score_topk has to look at it only once

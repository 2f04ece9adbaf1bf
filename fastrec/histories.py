"""The histories of all users, of which a change of one copies next to nothing.

Below lie the histories that fitting found, in CSR and never changed: they may be a file that several processes map.
Above lie the users that changed since, in dicts of a few hundred users each. A new state of one user is a new small
dict and a new tuple of dicts; every older Histories stays as it was. So a reader that holds one sees each user whole,
and needs no lock. Source of the idea: persistent (immutable) vectors and path copying, Driscoll et al. 1989.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastrec.kinds import U8
from fastrec.types import F32, F64, I32, Csr, Interactions

#: Dicts that the changed users are dealt into; copying the tuple and one dict takes microseconds.
_SHARDS = 1024
#: Most that the events of one user with one item may weigh together, as in fitting.
MOST_WEIGHT = 10.0


class History(NamedTuple):
    """One user, oldest entry first, one entry an item; ``seen`` holds the items in ascending order."""

    items: I32
    times: F64
    weights: F32
    seen: I32
    kinds: U8

    def moved(
        self, item: int, time: float, weight: float, kind: int = 0
    ) -> "tuple[History, tuple[float, float] | None]":
        """(the history after one more event, (time, weight) of the entry that the item had before).

        As fitting merges repeats: time and kind of the last, the sum of the weights up to MOST_WEIGHT.
        """
        items, times, weights, seen, kinds = self
        had = np.flatnonzero(items == item)
        before = None
        if len(had):
            at = int(had[0])
            before = (float(times[at]), float(weights[at]))
            kind = kind if time >= before[0] else int(kinds[at])
            time, weight = max(time, before[0]), before[1] + weight
            items, times, weights, kinds = (
                np.concatenate([a[:at], a[at + 1 :]]) for a in (items, times, weights, kinds)
            )
        else:
            seen = _put(seen, int(np.searchsorted(seen, item)), item)
        place = int(np.searchsorted(times, time, side="right"))
        weight = min(weight, MOST_WEIGHT)
        items, times, kinds = _put(items, place, item), _put(times, place, time), _put(kinds, place, kind)
        return History(items, times, _put(weights, place, weight), seen, kinds), before


def _put(array: Any, place: int, value: float) -> Any:
    out = np.empty(len(array) + 1, array.dtype)
    out[:place], out[place], out[place + 1 :] = array[:place], value, array[place:]
    return out


_NONE = np.empty(0, np.int32)
NOBODY = History(_NONE, np.empty(0, np.float64), np.empty(0, np.float32), _NONE, np.empty(0, np.uint8))


@dataclass(frozen=True, eq=False)
class Histories:
    """U users over N items: ``base`` for most of them, ``changed`` for the others.

    base: Interactions [U0 <= U]; base_seen: its items per user, ascending
    n_users, n_items: U and N, which may be more than the base has
    again: {item row: a later row of the same item}, for items that were removed and came back
    """

    base: Interactions
    base_seen: Csr
    n_users: int
    n_items: int
    changed: tuple[Mapping[int, History], ...] = ({},) * _SHARDS
    again: Mapping[int, int] = field(default_factory=dict)
    _folded: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, base: Interactions, seen: Csr | None = None) -> "Histories":
        """Nothing changed yet."""
        return cls(base, base.seen() if seen is None else seen, base.n_users, base.n_items)

    @property
    def n_changed(self) -> int:
        """Users that are not as the base has them."""
        return sum(map(len, self.changed))

    def user(self, row: int) -> History:
        """One user; an empty history for a row that has none."""
        found = self.changed[row % _SHARDS].get(row)
        if found is not None:
            return found
        if not 0 <= row < self.base.n_users:
            return NOBODY
        span = slice(self.base.indptr[row], self.base.indptr[row + 1])
        seen = self.base_seen.indices[span]
        b = self.base
        kinds = np.zeros(len(seen), np.uint8) if b.kinds is None else b.kinds[span]
        return History(b.items[span], b.times[span], b.weights[span], seen, kinds)

    def put(self, histories: Mapping[int, History], n_users: int) -> "Histories":
        """With these users changed, and ``n_users`` in all."""
        shards = list(self.changed)
        fresh: set[int] = set()
        for row, history in histories.items():
            at = row % _SHARDS
            if at not in fresh:
                shards[at] = dict(shards[at])
                fresh.add(at)
            shards[at][row] = history  # type: ignore[index]
        return Histories(self.base, self.base_seen, n_users, self.n_items, tuple(shards), self.again)

    def widened(self, n_items: int, again: Mapping[int, int] | None = None) -> "Histories":
        """Over more items."""
        more = {**self.again, **again} if again else self.again
        return Histories(self.base, self.base_seen, self.n_users, n_items, self.changed, more)

    def take(self, rows: npt.ArrayLike) -> tuple[Interactions, Csr]:
        """(histories of these users in this order, their items ascending); row -1 gives an empty history."""
        rows = np.asarray(rows, np.int64)
        wanted = rows.tolist() if self.n_changed else []
        mine = [(i, self.user(row)) for i, row in enumerate(wanted) if row >= 0 and row in self.changed[row % _SHARDS]]
        below = np.where(rows < self.base.n_users, rows, -1)
        below[[i for i, _ in mine]] = -1
        base, seen = self.base.take(below), self.base_seen.take(below)
        indptr = base.indptr
        parts: list[Any] = [base.items, base.times, base.weights, seen.indices, base.kinds]
        if mine:
            parts[4] = np.zeros(len(base.items), np.uint8) if base.kinds is None else base.kinds
            lengths = np.diff(indptr)
            lengths[[i for i, _ in mine]] = [len(h.items) for _, h in mine]
            cuts = [int(indptr[i]) for i, _ in mine]
            parts = [_woven(part, cuts, [h[p] for _, h in mine]) for p, part in enumerate(parts)]
            indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        items, times, weights, had, kinds = parts
        taken = Interactions(indptr, items, times, weights, self.n_items, kinds)
        return taken, self._with_again(Csr(indptr, had, self.n_items))

    def _with_again(self, seen: Csr) -> Csr:
        """What was seen under an older row is seen under the later one too."""
        if not self.again or not len(seen.indices):
            return seen
        old = np.isin(seen.indices, np.fromiter(self.again, np.int64, len(self.again)))
        if not old.any():
            return seen
        owner = np.repeat(np.arange(seen.n_rows), np.diff(seen.indptr))
        extra: list[tuple[int, int]] = []
        for user, row in zip(owner[old].tolist(), seen.indices[old].tolist(), strict=True):
            while row in self.again:
                row = self.again[row]
                extra.append((user, row))
        users = np.concatenate([owner, [u for u, _ in extra]]).astype(np.int64)
        items = np.concatenate([seen.indices, [i for _, i in extra]]).astype(np.int32)
        pairs = np.unique(users * self.n_items + items)
        counts = np.bincount(pairs // self.n_items, minlength=seen.n_rows)
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return Csr(indptr, (pairs % self.n_items).astype(np.int32), self.n_items)

    def folded(self) -> tuple[Interactions, Csr]:
        """Everything in CSR: (Interactions [U, N], items of each user ascending). Takes time; kept."""
        if "all" not in self._folded:
            if self.n_changed == 0 and self.n_users == self.base.n_users:
                b = self.base
                base = replace(b, n_items=self.n_items)
                self._folded["all"] = base, Csr(b.indptr, self.base_seen.indices, self.n_items)
            else:
                plain = Histories(self.base, self.base_seen, self.n_users, self.n_items, self.changed)
                self._folded["all"] = plain.take(np.arange(self.n_users))
        folded: tuple[Interactions, Csr] = self._folded["all"]
        return folded


def _woven(array: Any, cuts: list[int], parts: list[Any]) -> Any:
    """``array`` with parts[i] put in at cuts[i], which do not fall."""
    pieces, at = [], 0
    for cut, part in zip(cuts, parts, strict=True):
        pieces += [array[at:cut], part]
        at = cut
    return np.concatenate([*pieces, array[at:]]).astype(array.dtype, copy=False)

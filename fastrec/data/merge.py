"""Events in rows -> Interactions: duplicates found, repeats merged, histories ordered, all by counting sorts."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.sparse as sp

from fastrec.data.events import Events
from fastrec.data.spill import Column, spilled
from fastrec.kinds import U8, number
from fastrec.types import F32, F64, I32, I64, Bool, Interactions

#: Events of the users that are sorted at once; more take their places in turns, and go to disk.
_BLOCK = 1 << 22
_DAY = 86400.0
#: Most that the events of one user with one item may weigh together: a film played daily is no better than ten.
MOST_WEIGHT = 10.0


def histories(
    events: Events, weights: Mapping[str, float], half_life: float | None, n_items: int
) -> tuple[Interactions, dict[str | None, float], int]:
    """(the histories of all users, mean value by kind of event, exact duplicates that were dropped).

    weights: of a kind of event; half_life: days in which an event loses half its weight, None for no decay
    Duplicates and repeats are those of one user: users are taken in blocks, and no more than a block is in memory
    beside the columns. The result does not depend on the blocks.
    """
    n, n_users = len(events), len(events.users)
    blocks = list(_blocks(events))
    first = np.ones(n, np.bool_)
    for _, _, at in blocks:
        mask = first_of_duplicates(events.user[at], events.item[at], events.rest(at))
        if mask is not None:
            first[at] = mask
    means = events.means(first)
    dropped = n - int(first.sum())
    # Without timestamps the place among what is left is the time.
    places = None if events.time is not None else np.cumsum(first) - 1
    newest = events.time.max(where=first, initial=-np.inf) if half_life is not None and events.time is not None else 0.0
    numbers = np.array([number(kind) for kind in events.kinds], np.uint8)
    wide = spilled(n)
    parts: dict[str, Column] = {
        name: Column(dtype, wide)
        for name, dtype in {"items": np.int32, "times": np.float64, "weights": np.float32, "kinds": np.uint8}.items()
    }
    lengths = np.zeros(n_users, np.int64)
    for begin, end, at in blocks:
        kept = at if not dropped else np.arange(n)[at][first[at]] if isinstance(at, slice) else at[first[at]]
        when = np.asarray(places[kept], np.float64) if places is not None else events.time[kept]  # type: ignore[index]
        strength = events.strengths(kept, weights, means)
        if half_life is not None:
            strength = strength * np.exp2(-(newest - when) / (half_life * _DAY))
        kinds = None if events.kind is None else numbers[events.kind[kept]]
        merged = merge(
            events.user[kept] - np.int32(begin), events.item[kept], when, strength, end - begin, n_items, kinds
        )
        lengths[begin:end] = np.diff(merged.indptr)
        for name, column in parts.items():
            if (part := getattr(merged, name)) is not None:
                column.append(part)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items, times, strengths, of_kind = (column.array() for column in parts.values())
    found = Interactions(indptr, items, times, strengths, n_items, None if events.kind is None else of_kind)
    return found, means, dropped


def _blocks(events: Events) -> Iterator[tuple[int, int, Any]]:
    """(first user, user after the last, places of their events by user and place): about _BLOCK events at a time."""
    n, n_users = len(events), len(events.users)
    if n <= _BLOCK:
        yield 0, n_users, slice(None)
        return
    order = _stable_order(events.user, n_users)
    ends = np.cumsum(np.bincount(events.user, minlength=n_users))
    begin, at = 0, 0
    while begin < n_users:
        end = max(begin + 1, int(np.searchsorted(ends, at + _BLOCK, side="right")))
        yield begin, end, order[at : ends[end - 1]]
        begin, at = end, int(ends[end - 1])


def first_of_duplicates(user: I32, item: I32, rest: pl.DataFrame) -> Bool | None:
    """Which events, bool [n], equal no earlier one in user, item and the columns of ``rest``; None: all of them."""
    events = pl.DataFrame({"user": user, "item": item}).with_columns(rest.get_columns())
    floats = [n for n, t in rest.schema.items() if t.is_float()]
    events = events.with_columns(pl.col(*floats) + 0.0) if floats else events  # -0.0 equals 0.0 and must hash alike
    hashes = events.select(pl.sum_horizontal(pl.col(n).hash(i) for i, n in enumerate(events.columns))).to_series()
    ordered = np.sort(hashes.to_numpy())
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(repeated):
        return None
    # Equal events have equal hashes; that few others have one too costs a little time.
    suspects = events.with_row_index("place").filter(hashes.is_in(pl.Series(repeated).unique().implode()))
    kept = suspects.unique(events.columns, keep="first", maintain_order=True)
    first = np.ones(events.height, np.bool_)
    first[suspects["place"].to_numpy()] = False
    first[kept["place"].to_numpy()] = True
    return None if first.all() else first


def merge(
    user: I32, item: I32, time: F64, weight: F64, n_users: int, n_items: int, kind: U8 | None = None
) -> Interactions:
    """One entry per (user, item), by user and time, equal times in the order of the input."""
    order = _stable_order(user, n_users)
    if not _rising(user[order], time[order]):
        order = np.argsort(time, kind="stable")
        order = order[_stable_order(user[order], n_users)]
    user, item, time, weight = user[order], item[order], time[order], weight[order]
    # Places in this order, the events of one user with one item side by side and still by time.
    pairs = _stable_order(item, n_items)
    pairs = pairs[_stable_order(user[pairs], n_users)]
    last = np.empty(len(pairs), np.bool_)
    last[-1:] = True
    last[:-1] = (np.diff(item[pairs]) != 0) | (np.diff(user[pairs]) != 0)
    keep = pairs[last]
    total = np.zeros(len(pairs))
    total[keep] = np.bincount(np.cumsum(last) - last, weight[pairs])
    kept = np.zeros(len(pairs), np.bool_)
    kept[keep] = True
    strengths: F32 = np.minimum(total[kept], MOST_WEIGHT).astype(np.float32)
    indptr: I64 = np.concatenate([[0], np.cumsum(np.bincount(user[kept], minlength=n_users))]).astype(np.int64)
    kinds = None if kind is None else kind[order][kept]
    return Interactions(indptr, item[kept], time[kept], strengths, n_items, kinds)


def _stable_order(rows: I32, n_rows: int) -> npt.NDArray[np.integer]:
    """What np.argsort(rows, kind="stable") gives, by counting instead of comparing: a sparse matrix sorts by row."""
    n = len(rows)
    columns = np.arange(n, dtype=np.int32 if n < 2**31 else np.int64)
    entries = sp.coo_array((np.ones(n, np.bool_), (rows, columns)), shape=(n_rows, n))
    order: npt.NDArray[np.integer] = entries.tocsr().indices
    return order


def _rising(user: I32, time: F64) -> bool:
    """Whether the times of each user do not fall; ``user`` is sorted."""
    return bool(((np.diff(user) > 0) | (np.diff(time) >= 0)).all())

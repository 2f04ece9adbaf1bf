"""Events in rows -> Interactions: duplicates found, repeats merged, histories ordered, all by counting sorts."""

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.sparse as sp

from fastrec.kinds import U8
from fastrec.types import F32, F64, I32, I64, Bool, Interactions

#: Most that the events of one user with one item may weigh together: a film played daily is no better than ten.
MOST_WEIGHT = 10.0


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
    entries = sp.coo_array((np.ones(n, np.bool_), (rows, np.arange(n))), shape=(n_rows, n))
    order: npt.NDArray[np.integer] = entries.tocsr().indices
    return order


def _rising(user: I32, time: F64) -> bool:
    """Whether the times of each user do not fall; ``user`` is sorted."""
    return bool(((np.diff(user) > 0) | (np.diff(time) >= 0)).all())

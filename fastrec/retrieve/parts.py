"""A catalogue in parts, which stand in the order of their rows: what goes to each, and the best of what they found."""

import numpy as np

from fastrec.types import Candidates, Csr


def columns(lists: Csr, first: int, last: int) -> Csr:
    """The columns from ``first`` to before ``last``, numbered from 0."""
    inside = (lists.indices >= first) & (lists.indices < last)
    indptr = np.concatenate([[0], np.cumsum(inside)])[lists.indptr].astype(np.int64)
    values = None if lists.values is None else lists.values[inside]
    return Csr(indptr, lists.indices[inside] - np.int32(first), last - first, values)


def shifted(found: Candidates, by: int) -> Candidates:
    """With rows that are larger by so many."""
    return Candidates(np.where(found.rows >= 0, found.rows + by, -1), found.scores)


def best(parts: list[Candidates], k: int) -> Candidates:
    """The best k of each user over the parts, in rows of the whole catalogue."""
    scores = np.concatenate([found.scores for found in parts], axis=1)
    rows = np.concatenate([found.rows for found in parts], axis=1)
    # Stable: equals stand in the order of the parts, and of the rows within one.
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Candidates(np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1))

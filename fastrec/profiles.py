"""How a history becomes the query of a dense source, and what each of its entries contributes."""

import numpy as np

from fastrec import ops
from fastrec.types import F32, F64, DenseSource, FoldInSource, Interactions


def profiles(source: DenseSource, histories: Interactions) -> F32:
    """The query of every user, float32 [B, D]; zero for an empty history.

    A plain dense source takes the decayed mean of the item vectors, L2-normalised. A fold-in source solves

        (gram + sum_j e_j alpha w_j y_j y_j') q = sum_j e_j (1 + alpha w_j) y_j

    with w the weights and e the decay of the entries: one that has decayed away counts as never there. Every
    user is solved alone, so that a batch changes nothing.
    """
    weights = histories.decayed(source.decay)
    if not isinstance(source, FoldInSource):
        means: F32 = ops.segment_mean(source.vectors, (histories.indptr, histories.items, weights), normalize=True)
        return means
    out = np.zeros((histories.n_users, source.vectors.shape[1]), np.float32)
    for u in np.flatnonzero(np.diff(histories.indptr)):
        system, right = _system(source, histories.take([u]))
        if right.any():
            out[u] = np.linalg.solve(system, right.sum(axis=0))
    return out


def contributions(source: DenseSource, history: Interactions, target: int) -> F64:
    """What every entry of one user's history adds to <query, vector of ``target``>, up to one factor, float64 [n]."""
    wanted = source.vectors[target].astype(np.float64)
    parts: F64
    if isinstance(source, FoldInSource) and len(history.items):
        system, right = _system(source, history)
        parts = right @ np.linalg.solve(system, wanted)
    else:
        parts = history.decayed(source.decay) * (source.vectors[history.items].astype(np.float64) @ wanted)
    return parts


def _system(source: FoldInSource, history: Interactions) -> tuple[F64, F64]:
    """(matrix [D, D], right side entry by entry [n, D]) of one user."""
    y = source.vectors[history.items].astype(np.float64)
    weight = history.decayed(source.decay).astype(np.float64)
    # The decay alone; an entry without weight (a dislike) was never there.
    there = np.divide(weight, history.weights, out=np.zeros_like(weight), where=history.weights > 0)
    confident = source.alpha * weight
    return source.gram + (y * confident[:, None]).T @ y, (there + confident)[:, None] * y

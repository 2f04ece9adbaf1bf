"""How a history becomes the query of a dense source, and what each of its entries contributes."""

import numpy as np

from fastrec import ops, ridge, sequence, usertext
from fastrec.types import F32, F64, DenseSource, FoldInSource, Interactions, SequenceSource
from fastrec.usertext import TextSource

#: More than any fold-in has needed; most end long before by their residual.
_STEPS = 100


def profiles(source: DenseSource, histories: Interactions) -> F32:
    """The query of every user, float32 [B, D]; zero for an empty history.

    A plain dense source takes the decayed mean of the item vectors, L2-normalised. A fold-in source solves

        (gram + sum_j e_j alpha w_j y_j y_j') q = sum_j e_j (1 + alpha w_j) y_j

    with w the weights and e the decay of the entries: one that has decayed away counts as never there. Every
    user is solved alone, so that a batch changes nothing. A sequence source gives its last state, a text source
    what the encoder reads.
    """
    if isinstance(source, TextSource):
        return usertext.queries(source, histories)
    if isinstance(source, SequenceSource):
        return sequence.queries(source, histories)
    if not isinstance(source, FoldInSource):
        weights = histories.decayed(source.decay)
        means: F32 = ops.segment_mean(source.vectors, (histories.indptr, histories.items, weights), normalize=True)
        return means
    out = np.zeros((histories.n_users, source.vectors.shape[1]), np.float32)
    right, confident = _sides(source, histories)
    gram = source.gram.astype(np.float32)
    ridge.solve(out, source.vectors, gram, histories.indptr, histories.items, right, confident, _STEPS)
    return out


def contributions(source: DenseSource, history: Interactions, target: int) -> F64:
    """What every entry of one user's history adds to <query, vector of ``target``>, up to one factor, float64 [n]."""
    if isinstance(source, TextSource):
        return usertext.contributions(source, history, target)
    if isinstance(source, SequenceSource):
        return sequence.contributions(source, history, target)
    wanted = source.vectors[target].astype(np.float64)
    parts: F64
    y = source.vectors[history.items].astype(np.float64)
    if isinstance(source, FoldInSource):
        right, confident = _sides(source, history)
        system = source.gram + (y * confident[:, None]).T @ y
        parts = right * (y @ np.linalg.solve(system, wanted))
    else:
        parts = history.decayed(source.decay) * (y @ wanted)
    return parts


def _sides(source: FoldInSource, histories: Interactions) -> tuple[F32, F32]:
    """(factor of each entry on the right side, its confidence beyond 1), float32 [n]."""
    weights = histories.decayed(source.decay)
    # The decay alone; an entry without weight (a dislike) was never there.
    there = np.divide(weights, histories.weights, out=np.zeros_like(weights), where=histories.weights > 0)
    confident = np.float32(source.alpha) * weights
    return there + confident, confident

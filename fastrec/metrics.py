"""Ranking metrics over full rankings; nothing here samples.

Every accuracy metric takes

    recommended: sequence of B rankings, best first; None or -1 marks an empty place
    relevant: sequence of B collections of items, the ones that came true

and gives the mean over the users who have a relevant item, as a float. A user without a recommendation
counts as 0. ``k`` cuts the ranking, None keeps it whole. Items are compared by equality, so ids and rows
both work. Formulas: Järvelin and Kekäläinen 2002 (NDCG), Voorhees 1999 (MRR), Manning et al. 2008 (MAP).
"""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from fastrec.errors import DataError
from fastrec.types import F64, I64, Interactions

__all__ = ["by_user", "coverage", "diversity", "gini", "hit_rate", "map", "mrr", "ndcg", "novelty", "recall"]

Rankings = Sequence[Sequence[Any]] | np.ndarray
Relevant = Sequence[Collection[Any]]


def hit_rate(recommended: Rankings, relevant: Relevant, k: int | None = None) -> float:
    """Share of users with at least one relevant item among the first k."""
    return _mean(recommended, relevant, k, lambda hits, total, k: float(hits.any()))


def recall(recommended: Rankings, relevant: Relevant, k: int | None = None) -> float:
    """Relevant items among the first k, divided by all relevant items of the user."""
    return _mean(recommended, relevant, k, lambda hits, total, k: hits.sum() / total)


def mrr(recommended: Rankings, relevant: Relevant, k: int | None = None) -> float:
    """1 / rank of the first relevant item, 0 where none is among the first k."""
    return _mean(recommended, relevant, k, lambda hits, total, k: 1 / (hits.argmax() + 1) if hits.any() else 0.0)


def ndcg(recommended: Rankings, relevant: Relevant, k: int | None = None) -> float:
    """Binary gains over log2(rank + 1), divided by the same of a perfect ranking of min(k, relevant) items."""

    def gain(hits: np.ndarray, total: int, k: int) -> float:
        discount = 1 / np.log2(np.arange(2, max(k, len(hits), total) + 2))
        return float((hits * discount[: len(hits)]).sum() / discount[: min(k, total)].sum())

    return _mean(recommended, relevant, k, gain)


def map(recommended: Rankings, relevant: Relevant, k: int | None = None) -> float:
    """Mean over the users of: precision at every relevant rank, summed, divided by min(k, relevant)."""

    def average_precision(hits: np.ndarray, total: int, k: int) -> float:
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        return float((precision * hits).sum() / min(k, total))

    return _mean(recommended, relevant, k, average_precision)


def by_user(ranked: I64, targets: Interactions, k: int) -> dict[str, F64]:
    """ndcg, recall, hit_rate, mrr and map of every user as float64 [B], for item rows: the same numbers, faster.

    ranked: int64 [B, k], no row twice, -1 for an empty place; targets: of the same users, at least one each
    """
    ranked = ranked[:, :k]
    total = np.diff(targets.indptr)
    owner = np.arange(len(ranked))[:, None] * targets.n_items
    hits = (ranked >= 0) & np.isin(owner + ranked, targets.users * targets.n_items + targets.items)
    places = np.arange(1, ranked.shape[1] + 1)
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discount)[np.minimum(total, k) - 1]
    any_hit = hits.any(axis=1)
    first = 1.0 + (hits.argmax(axis=1) if hits.shape[1] else np.zeros(len(hits)))
    return {
        "ndcg": (hits * discount[: ranked.shape[1]]).sum(axis=1) / ideal,
        "recall": hits.sum(axis=1) / total,
        "hit_rate": any_hit.astype(np.float64),
        "mrr": np.where(any_hit, 1 / first, 0.0),
        "map": (np.cumsum(hits, axis=1) / places * hits).sum(axis=1) / np.minimum(total, k),
    }


def coverage(recommended: Rankings, n_items: int, k: int | None = None) -> float:
    """Share of the n_items of the catalogue that are recommended to anybody."""
    return len({item for row in recommended for item in _cut(row, k)}) / n_items if n_items else 0.0


def gini(recommended: Rankings, n_items: int, k: int | None = None) -> float:
    """Gini index of how often each of the n_items is recommended: 0 all alike, towards 1 always the same few."""
    counts: dict[Hashable, int] = {}
    for row in recommended:
        for item in _cut(row, k):
            counts[item] = counts.get(item, 0) + 1
    ordered = np.sort(np.concatenate([np.zeros(max(n_items - len(counts), 0)), np.array(list(counts.values()), float)]))
    total = ordered.sum()
    if not total:
        return 0.0
    n = len(ordered)
    return float(((2 * np.arange(1, n + 1) - n - 1) * ordered).sum() / (n * total))


def novelty(recommended: Rankings, popularity: Mapping[Any, float], k: int | None = None) -> float:
    """Mean of -log2 p(item) over all recommendations; ``popularity`` gives each item's share of the events."""
    surprise = [-np.log2(max(popularity.get(item, 0.0), 1e-12)) for row in recommended for item in _cut(row, k)]
    return float(np.mean(surprise)) if surprise else 0.0


def diversity(recommended: Rankings, vectors: Mapping[Any, np.ndarray] | np.ndarray, k: int | None = None) -> float:
    """Mean over the users of 1 - cosine over all pairs of their recommendations; lists of one item are left out.

    vectors: item -> float [D], or an array [N, D] when the items are rows
    """
    means = []
    for row in recommended:
        items = _cut(row, k)
        if len(items) < 2:
            continue
        v = np.stack([np.asarray(vectors[item], np.float64) for item in items])
        v /= np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12)
        similar = v @ v.T
        n = len(items)
        means.append(1 - (similar.sum() - np.trace(similar)) / (n * (n - 1)))
    return float(np.mean(means)) if means else 0.0


def _cut(row: Sequence[Any] | np.ndarray, k: int | None) -> list[Any]:
    """The first k items without empty places."""
    items = row.tolist() if isinstance(row, np.ndarray) else list(row)
    return [item for item in items[:k] if item is not None and not (isinstance(item, int) and item == -1)]


def _mean(
    recommended: Rankings,
    relevant: Relevant,
    k: int | None,
    value: Callable[[np.ndarray, int, int], float],
) -> float:
    if len(recommended) != len(relevant):
        raise DataError(f"[metrics] {len(recommended)} rankings but {len(relevant)} sets of relevant items")
    if k is not None and k < 1:
        raise DataError(f"[metrics] k={k}, expected at least 1")
    values = []
    for row, wanted in zip(recommended, relevant, strict=True):
        truth = set(wanted)
        if not truth:
            continue
        items = _cut(row, k)
        first = dict(zip(reversed(items), range(len(items) - 1, -1, -1), strict=True))  # a repeat is no second hit
        hits = np.fromiter((item in truth and first[item] == r for r, item in enumerate(items)), bool, len(items))
        values.append(value(hits, len(truth), k or max(len(items), len(truth))) if len(items) else 0.0)
    return float(np.mean(values)) if values else 0.0

"""Fusion: all sources become one space in which a single top-k search gives the ensemble's answer.

    score(u, i) = sum_m w_m(u) * s_m(u, i) / std_m(u)

where s_m(u, .) are the scores of source m over the catalogue and std_m(u) is their standard deviation
(population, over all N items). Without it a source would count by the scale of its numbers. No score is
needed to know it: for dense sources std is sqrt(q' Cov(v) q), for sparse ones it follows from the touched
entries, for biases it is one number. The mean is left out: it moves all items of a user alike.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrec import ops
from fastrec.gate import Gate
from fastrec.profiles import profiles
from fastrec.types import (
    F32,
    F64,
    BiasSource,
    Csr,
    DenseSource,
    Features,
    Interactions,
    Queries,
    Source,
    SparseSource,
)
from fastrec.unchosen import Cold


def frozen(values: Any) -> F32:
    """A copy that nobody can ever write to: what score_topk finds out about it holds for good."""
    return np.frombuffer(np.asarray(values, np.float32).tobytes(), np.float32)


def fuse(
    sources: Sequence[Source],
    weights: dict[str, float],
    n_items: int,
    gate: Gate | None = None,
    cold: Cold | None = None,
) -> Features:
    """The item side of the fused space; sources of weight 0 are dropped, ``cold`` scales the vectors of some items."""
    kept = tuple(s for s in sources if weights[s.name] > 0)
    dense = [s for s in kept if isinstance(s, DenseSource)]
    bias = np.zeros(n_items, np.float64)
    bias_scales: dict[str, float] = {}
    for s in kept:
        if isinstance(s, BiasSource):
            std = float(s.bias.std(dtype=np.float64)) if n_items else 0.0
            # A spread of rounding errors says nothing: it must not be blown up to one of size 1.
            level = float(np.abs(s.bias).max(initial=0.0))
            bias_scales[s.name] = weights[s.name] / std if std > 1e-5 * level else 0.0
            bias += bias_scales[s.name] * s.bias.astype(np.float64)
    parts = [s.vectors if cold is None else cold.scaled(s) for s in dense]
    vectors = parts[0] if len(parts) == 1 else np.concatenate([np.empty((n_items, 0), np.float32), *parts], axis=1)
    return Features(
        sources=kept,
        weights=np.array([weights[s.name] for s in kept], np.float64),
        items=ops.pack_items(vectors, dtype="auto"),
        similarity=stack_similarities(kept, n_items),
        bias=frozen(bias),  # score_topk has to look at it only once
        bias_scales=bias_scales,
        # The spread of a source is that of what it gives, not of how items without events weigh.
        covariances={s.name: _covariance(s.vectors) for s in dense},
        gate=gate,
        cold=cold,
    )


def queries(features: Features, histories: Interactions) -> Queries:
    """The user side for these histories: every source's query, weighted and normalised per user.

    An empty history gives zeros: only the bias sources speak.
    """
    dense: list[tuple[Any, Any, Any]] = []
    sparse: list[tuple[F32, int]] = []
    for source, weight in zip(features.sources, features.weights, strict=True):
        weight = weight_by_user(features, source, weight, histories)
        if isinstance(source, DenseSource):
            q = profiles(source, histories)
            dense.append((q, None, _scale(weight, ops.score_std(q, features.covariances[source.name]))))
        elif isinstance(source, SparseSource):
            a = histories.decayed(source.decay)
            history = Csr(histories.indptr, histories.items, histories.n_items, a)
            scale = _scale(weight, ops.sparse_score_std(history, source.similarity))
            sparse.append(((a * np.repeat(scale, np.diff(histories.indptr))).astype(np.float32), len(sparse)))
    vectors = ops.fuse_features(dense) if dense else np.empty((histories.n_users, 0), np.float32)
    return Queries(vectors, _interleave(histories, sparse))


def weight_by_user(features: Features, source: Source, weight: float, histories: Interactions) -> float | F64:
    """The weight of a source, float64 [B] where it depends on the user."""
    if features.gate is None or isinstance(source, BiasSource):
        return weight
    by_user: F64 = weight * features.gate.factors(source.name, histories)
    return by_user


def vector_queries(features: Features, vectors: Sequence[F32]) -> Queries:
    """The user side for vectors [B, D] that are queries themselves, one array for each source; all are dense."""
    parts: list[tuple[Any, Any, Any]] = []
    for source, weight, part in zip(features.sources, features.weights, vectors, strict=True):
        parts.append((part, None, _scale(weight, ops.score_std(part, features.covariances[source.name]))))
    return Queries(ops.fuse_features(parts), None)


def _scale(weight: float | F64, std: F64) -> F64:
    """weight / std by user, and 0 where a source gives every item the same."""
    return np.divide(weight, std, out=np.zeros_like(std), where=std > 1e-12)


def _covariance(vectors: F32) -> F64:
    """Population covariance over the catalogue, float64 [D, D], by blocks so that no float64 copy of it exists."""
    n, d = vectors.shape
    total, products = np.zeros(d), np.zeros((d, d))
    for start in range(0, n, 65536):
        block = vectors[start : start + 65536].astype(np.float64)
        total += block.sum(axis=0)
        products += block.T @ block
    mean = total / max(n, 1)
    return np.ascontiguousarray(products / max(n, 1) - np.outer(mean, mean))


def stack_similarities(sources: Sequence[Source], n_items: int) -> Csr | None:
    """The matrices of the S sparse sources below one another, [S * N, N]; None where there is none."""
    sparse = [s for s in sources if isinstance(s, SparseSource)]
    if not sparse:
        return None
    if len(sparse) == 1:
        return sparse[0].similarity
    parts = [s.similarity for s in sparse]
    offsets = np.cumsum([0] + [p.indptr[-1] for p in parts[:-1]])
    indptr = np.concatenate([[0], *[p.indptr[1:] + o for p, o in zip(parts, offsets, strict=True)]])
    indices = np.concatenate([p.indices for p in parts])
    values = np.concatenate([p.values for p in parts if p.values is not None])
    return Csr(indptr.astype(np.int64), indices, n_items, values)


def _interleave(histories: Interactions, sparse: Sequence[tuple[F32, int]]) -> Csr | None:
    """One history per user over the stacked matrices: entry (s, j) stands at row s * N + j."""
    if not sparse:
        return None
    n, count = histories.n_items, len(sparse)
    if count == 1:
        return Csr(histories.indptr, histories.items, n, sparse[0][0])
    rows = np.concatenate([histories.items.astype(np.int64) + s * n for _, s in sparse])
    if len(rows) and rows.max() > np.iinfo(np.int32).max:
        raise AssertionError(f"{count} sparse sources over {n} items do not fit into int32 rows")
    users = np.tile(histories.users, count)
    order = np.argsort(users, kind="stable")
    values = np.concatenate([a for a, _ in sparse])[order]
    return Csr(histories.indptr * count, rows[order].astype(np.int32), n * count, values)

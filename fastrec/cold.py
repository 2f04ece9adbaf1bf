"""Search over fitted items and those that came after fitting, beside one another, without copying any of them.

What a new item is in each source stands in ``fastrec.fresh``. Scores are brought to one scale with the spread over the
fitted catalogue, so that a new item does not move the scores of the others.

Shape legend: N fitted items, n new ones, whose rows are N .. N + n - 1.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from fastrec import fuse, ops, retrieve, score
from fastrec.fresh import Fresh
from fastrec.profiles import profiles
from fastrec.retrieve import parts
from fastrec.types import (
    F32,
    F64,
    I32,
    I64,
    BiasSource,
    Candidates,
    Csr,
    DenseSource,
    Features,
    Interactions,
    Queries,
    Source,
    SparseSource,
)
from fastrec.unchosen import Cold
from fastrec.usertext import TextSource, shortened


def attach(features: Features, fresh: Fresh | None) -> Features:
    """The space with the new items beside it; its bias gets zeros for them where it is that of the fitted ones."""
    if fresh is None:
        return features
    factors = {} if features.cold is None else features.cold.factors  # of items without events, as these are
    dense = [
        fresh.vectors[s.name] * np.float32(factors.get(s.name, 1))
        for s in features.sources
        if isinstance(s, DenseSource)
    ]
    vectors = np.concatenate([np.empty((fresh.n_items, 0), np.float32), *dense], axis=1)
    missing = features.items.n_items + fresh.n_items - len(features.bias)
    bias = np.concatenate([features.bias, np.zeros(missing, np.float32)])
    return dataclasses.replace(features, bias=bias, fresh=fresh, fresh_items=ops.pack_items(vectors))


def gather(source: DenseSource, fresh: Fresh | None, rows: Any) -> F32:
    """Vectors of these items, fitted or new, float32 [len(rows), D]."""
    rows = np.asarray(rows, np.int64)
    n = len(source.vectors)
    if fresh is None or not (rows >= n).any():
        some: F32 = source.vectors[rows]
        return some
    out: F32 = np.empty((len(rows), source.vectors.shape[1]), np.float32)
    new = rows >= n
    out[~new] = source.vectors[rows[~new]]
    out[new] = fresh.vectors[source.name][rows[new] - n]
    return out


def fused(features: Features, source: DenseSource, rows: I64) -> F32:
    """The same as they stand in the fused space."""
    vectors = gather(source, features.fresh, rows)
    scaled = _unchosen(features, rows)
    return vectors if scaled is None else scaled.scaled(dataclasses.replace(source, vectors=vectors))


def _unchosen(features: Features, rows: I64) -> Cold | None:
    """``features.cold`` of these items, fitted or new."""
    if features.cold is None:
        return None
    n = len(features.cold.rows)
    return Cold((rows >= n) | features.cold.rows[np.minimum(rows, n - 1)], features.cold.factors)


def _at(source: DenseSource, fresh: Fresh, rows: I32) -> DenseSource:
    """The source over these items alone, fitted or new."""
    vectors = gather(source, fresh, rows)
    if not isinstance(source, TextSource):
        return dataclasses.replace(source, vectors=vectors)
    return dataclasses.replace(source, vectors=vectors, titles=titles(source, fresh, rows.tolist()))


def titles(source: TextSource, fresh: Fresh | None, rows: Sequence[int]) -> tuple[str, ...]:
    """What a text source writes for these items, fitted or new."""
    n = len(source.titles)
    later = () if fresh is None else fresh.texts
    return tuple(source.titles[row] if row < n else shortened(later[row - n], source.characters) for row in rows)


def queries(features: Features, histories: Interactions) -> Queries:
    """As ``fuse.queries``, for histories that may hold new items."""
    n, fresh = features.items.n_items, features.fresh
    if fresh is None:
        return fuse.queries(features, histories)
    if not len(histories.items) or int(histories.items.max()) < n:
        return fuse.queries(features, dataclasses.replace(histories, n_items=n))
    rows, places = np.unique(histories.items, return_inverse=True)
    local = dataclasses.replace(histories, items=places.astype(np.int32), n_items=max(len(rows), 1))
    dense: list[tuple[Any, Any, Any]] = []
    for s, weight in zip(features.sources, features.weights, strict=True):
        if isinstance(s, DenseSource):
            q = profiles(_at(s, fresh, rows), local)
            weight = fuse.weight_by_user(features, s, weight, histories)
            dense.append((q, None, fuse._scale(weight, ops.score_std(q, features.covariances[s.name]))))
    vectors = ops.fuse_features(dense) if dense else np.empty((histories.n_users, 0), np.float32)
    spread, owner, share = _spread(histories, fresh, n)
    parts = _sparse_parts(features, histories, spread, owner, share)
    return Queries(vectors, fuse._interleave(spread, [(a, i) for i, (a, _) in enumerate(parts)]))


def _sparse_parts(
    features: Features, histories: Interactions, spread: Interactions, owner: I64, share: F32
) -> list[tuple[F32, F64]]:
    """For every sparse source (weights of the spread entries, factor of every user); the factor is in the weights."""
    out = []
    for s, weight in zip(features.sources, features.weights, strict=True):
        if isinstance(s, SparseSource):
            weight = fuse.weight_by_user(features, s, weight, histories)
            a = (histories.decayed(s.decay)[owner] * share).astype(np.float32)
            std = ops.sparse_score_std(Csr(spread.indptr, spread.items, spread.n_items, a), s.similarity)
            scale = fuse._scale(weight, std)
            out.append(((a * np.repeat(scale, np.diff(spread.indptr))).astype(np.float32), scale))
    return out


def _spread(histories: Interactions, fresh: Fresh, n: int) -> tuple[Interactions, I64, F32]:
    """(histories with each new item replaced by its neighbours, entry that each came from, its share of that)."""
    new = histories.items >= n
    at = np.maximum(histories.items.astype(np.int64) - n, 0)
    used = fresh.shares > 0
    counts = np.where(new, used.sum(axis=1)[at], 1)
    owner = np.repeat(np.arange(len(new)), counts)
    items, share = histories.items[owner].copy(), np.ones(len(owner), np.float32)
    if new.any():
        mine = new[owner]
        # Neighbours of one item stand in ascending place, as boolean indexing gives them.
        items[mine] = np.concatenate([fresh.neighbors[j][used[j]] for j in at[new]])
        share[mine] = np.concatenate([fresh.shares[j][used[j]] for j in at[new]])
    indptr = np.concatenate([[0], np.cumsum(counts)])[histories.indptr].astype(np.int64)
    return Interactions(indptr, items, histories.times[owner], histories.weights[owner], n), owner, share


def _beside(features: Features, queries: Queries, bias: F32) -> tuple[Features, Queries]:
    """The space of the new items alone, and its queries; of the matrices only the rows that the histories meet."""
    fresh, items = features.fresh, features.fresh_items
    assert fresh is not None and items is not None
    similarity, history = None, None
    if features.similarity is not None and queries.history is not None:
        met, places = np.unique(queries.history.indices, return_inverse=True)
        rows = features.similarity.take(met)
        product = sp.csr_matrix((rows.values, rows.indices, rows.indptr), (rows.n_rows, rows.n_cols)) @ mixture(
            fresh, rows.n_cols
        )
        product.sort_indices()
        indptr, indices = product.indptr.astype(np.int64), product.indices.astype(np.int32)
        similarity = Csr(indptr, indices, fresh.n_items, product.data.astype(np.float32))
        history = Csr(queries.history.indptr, places.astype(np.int32), len(met), queries.history.values)
    space = dataclasses.replace(
        features,
        items=items,
        similarity=similarity,
        bias=np.ascontiguousarray(bias),
        fresh=None,
        fresh_items=None,
        index=None,
    )
    return space, Queries(queries.vectors, history)


def mixture(fresh: Fresh, n: int) -> "sp.csr_matrix":
    """[N, n]: how much of each new item a fitted one is."""
    m = fresh.neighbors.shape[1]
    used = fresh.shares.ravel() > 0
    columns = np.repeat(np.arange(fresh.n_items), m)[used]
    return sp.csr_matrix((fresh.shares.ravel()[used], (fresh.neighbors.ravel()[used], columns)), (n, fresh.n_items))


def search(
    features: Features,
    asked: Queries,
    k: int,
    *,
    bias: F32 | None = None,
    seen: Csr | None = None,
    allow: Csr | None = None,
    deny: Csr | None = None,
    backend: str = "auto",
) -> Candidates:
    """As ``retrieve.search``, over fitted and new items; at equal scores the smaller row first."""
    if features.fresh is None:
        return retrieve.search(features, asked, k, bias=bias, seen=seen, allow=allow, deny=deny, backend=backend)
    n = features.items.n_items
    bias = features.bias if bias is None else bias
    lists = {"seen": seen, "allow": allow, "deny": deny}
    halves = {
        name: (None, None) if x is None else (parts.columns(x, 0, n), parts.columns(x, n, max(x.n_cols, n)))
        for name, x in lists.items()
    }
    spaces = (
        (dataclasses.replace(features, bias=np.ascontiguousarray(bias[:n])), asked),
        _beside(features, asked, bias[n:]),
    )
    old, new = (
        retrieve.search(
            space, q, k, seen=halves["seen"][i], allow=halves["allow"][i], deny=halves["deny"][i], backend=backend
        )
        for i, (space, q) in enumerate(spaces)
    )
    return parts.best([old, parts.shifted(new, n)], k)


def scores(features: Features, asked: Queries, items: I64) -> F32:
    """As ``retrieve.scores``, for fitted and new items."""
    if features.fresh is None:
        return retrieve.scores(features, asked, items)
    n = features.items.n_items
    new = items >= n
    out = np.empty((len(asked.vectors), len(items)), np.float32)
    old = dataclasses.replace(features, bias=np.ascontiguousarray(features.bias[:n]))
    out[:, ~new] = retrieve.scores(old, asked, items[~new])
    if new.any():
        out[:, new] = retrieve.scores(*_beside(features, asked, features.bias[n:]), items[new] - n)
    return out


def diversify(found: Candidates, features: Features, k: int, diversity: float) -> Candidates:
    """As ``score.diversify``, for fitted and new items."""
    if features.fresh is None:
        return score.diversify(found, features, k, diversity)
    rows, places = np.unique(found.rows, return_inverse=True)
    space = _local(features, np.maximum(rows, 0))
    mine = Candidates(np.where(found.rows >= 0, places.reshape(found.rows.shape), -1), found.scores)
    best = score.diversify(mine, space, k, diversity)
    return Candidates(np.where(best.rows >= 0, rows[np.maximum(best.rows, 0)], -1), best.scores)


def explain(
    features: Features, asked: Queries, histories: Interactions, found: Candidates, factors: F64 | None
) -> list[list[score.Explanation]]:
    """As ``score.explain``, for fitted and new items: everything that takes part is copied into a small space."""
    if features.fresh is None:
        return score.explain(features, asked, histories, found, factors)
    rows = np.union1d(histories.items, found.rows[found.rows >= 0]).astype(np.int64)
    rows = rows if len(rows) else np.zeros(1, np.int64)
    local = dataclasses.replace(
        histories, items=np.searchsorted(rows, histories.items).astype(np.int32), n_items=len(rows)
    )
    spread, owner, share = _spread(histories, features.fresh, features.items.n_items)
    per_entry = []
    for s, (_, scale) in zip(
        (s for s in features.sources if isinstance(s, SparseSource)),
        _sparse_parts(features, histories, spread, owner, share),
        strict=True,
    ):
        per_entry.append((histories.decayed(s.decay) * np.repeat(scale, np.diff(histories.indptr))).astype(np.float32))
    history = fuse._interleave(local, [(a, i) for i, a in enumerate(per_entry)])
    places = np.where(found.rows >= 0, np.searchsorted(rows, np.maximum(found.rows, 0)), -1)
    why = score.explain(
        _local(features, rows),
        Queries(asked.vectors, history),
        local,
        Candidates(places, found.scores),
        None if factors is None else factors[rows],
    )
    return [
        [score.Explanation(e.sources, [(int(rows[j]), weight) for j, weight in e.history]) for e in row] for row in why
    ]


def _local(features: Features, rows: I64) -> Features:
    """The space with these items alone."""
    fresh, n = features.fresh, features.items.n_items
    assert fresh is not None
    sources: list[Source] = []
    for s in features.sources:
        if isinstance(s, BiasSource):
            sources.append(dataclasses.replace(s, bias=s.bias[rows]))
        elif isinstance(s, DenseSource):
            sources.append(dataclasses.replace(s, vectors=gather(s, fresh, rows)))
        else:
            sources.append(dataclasses.replace(s, similarity=_pairs(s.similarity, fresh, rows, n)))
    return dataclasses.replace(
        features,
        sources=tuple(sources),
        similarity=None,
        bias=features.bias[rows],
        fresh=None,
        fresh_items=None,
        cold=_unchosen(features, rows),
    )


def _pairs(similarity: Csr, fresh: Fresh, rows: I64, n: int) -> Csr:
    """S over these items, new ones as mixtures of their neighbours, [len(rows), len(rows)]."""
    new = np.flatnonzero(rows >= n)
    mixed = sp.hstack([sp.identity(n, np.float32, format="csr"), mixture(fresh, n)]).tocsc()[:, rows].tocsr()
    met = np.unique(np.concatenate([rows[rows < n], fresh.neighbors[rows[new] - n].ravel()])).astype(np.int64)
    some = similarity.take(met)
    block = sp.csr_matrix((some.values, some.indices, some.indptr), (len(met), n))
    found = (mixed.T.tocsr()[:, met] @ block @ mixed).tocsr()
    found.sort_indices()
    return Csr(found.indptr.astype(np.int64), found.indices.astype(np.int32), len(rows), found.data.astype(np.float32))

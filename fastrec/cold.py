"""Items that came after fitting, searched beside the fitted ones without copying any of them.

A new item has its content vector from its text. In a source that learned of pairs of users and items it is a mixture
of the fitted items whose content is nearest (Gantner et al. 2010, kNN mapping), as a result and in a history; in a
sequence source it has the linear map of its content that fits the vectors of known items best. Scores are brought to
one scale with the spread over the fitted catalogue, so that a new item does not move the scores of the others.

Shape legend: N fitted items, n new ones, whose rows are N .. N + n - 1, m neighbours of each.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from fastrec import fuse, ops, retrieve, score
from fastrec.profiles import profiles
from fastrec.types import (
    F32,
    F64,
    I32,
    I64,
    BiasSource,
    Candidates,
    Csr,
    DenseSource,
    Embeddings,
    Features,
    Interactions,
    Queries,
    SequenceSource,
    Source,
    SparseSource,
)
from fastrec.usertext import TextSource, shortened

#: Fitted items that a new one may be a mixture of: the most chosen ones with content, and how many of them it takes.
LANDMARKS, NEIGHBORS = 4096, 10
_RIDGE = 1e-3


@dataclass(frozen=True, eq=False)
class Fresh:
    """n items that came after fitting; their rows follow those of the N items that were fitted.

    embeddings: of the n items; None where the fitted ones have none
    vectors: float32 [n, D] by the name of the dense source
    neighbors: int32 [n, m], fitted items whose content is nearest
    shares: float32 [n, m], >= 0, how much of the new item each of them stands for; the sum is 1, or 0 without content
    texts: n texts, "" for an item without one; in a history they are read as those of the fitted items are

    What was learned of pairs of items is not known of a new one: in a sparse source it is the mixture of neighbours.
    """

    embeddings: Embeddings | None
    vectors: dict[str, F32]
    neighbors: I32
    shares: F32
    texts: tuple[str, ...]

    @property
    def n_items(self) -> int:
        return len(self.neighbors)


def landmarks(embeddings: Embeddings | None, popularity: F32) -> I64:
    """Rows of the fitted items with content that were chosen most, ascending; int64 [at most 4096]."""
    if embeddings is None:
        return np.empty(0, np.int64)
    known = np.flatnonzero(embeddings.known & (popularity[: len(embeddings.known)] > 0))
    best = known[np.argsort(-popularity[known], kind="stable")[:LANDMARKS]]
    return np.sort(best).astype(np.int64)


def fresh_items(
    embeddings: Embeddings | None,
    texts: Sequence[str],
    fitted: Embeddings | None,
    sources: tuple[Source, ...],
    marks: I64,
) -> Fresh:
    """n new items in every source, from their content alone; without content only their popularity speaks for them."""
    n, texts = len(texts), tuple(texts)
    neighbors, shares = np.zeros((n, NEIGHBORS), np.int32), np.zeros((n, NEIGHBORS), np.float32)
    if embeddings is None or fitted is None:
        dense = [s for s in sources if isinstance(s, DenseSource)]
        empty = {s.name: np.zeros((n, s.vectors.shape[1]), np.float32) for s in dense}
        return Fresh(None, empty, neighbors, shares, texts)
    known = fitted.vectors[marks]
    if len(marks):
        near = embeddings.vectors @ known.T
        m = min(NEIGHBORS, len(marks))
        best = np.argpartition(-near, m - 1, axis=1)[:, :m]
        weight = np.maximum(np.take_along_axis(near, best, axis=1), 0)
        total = weight.sum(axis=1, keepdims=True)
        neighbors[:, :m] = marks[best]
        shares[:, :m] = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
    vectors = {}
    for s in sources:
        if not isinstance(s, DenseSource):
            continue
        if s.vectors is fitted.vectors:
            vectors[s.name] = embeddings.vectors
        elif isinstance(s, SequenceSource):
            vectors[s.name] = _mapped(embeddings.vectors, known, s.vectors[marks])
        else:
            vectors[s.name] = np.einsum("nm,nmd->nd", shares, s.vectors[neighbors]).astype(np.float32)
    return Fresh(embeddings, vectors, neighbors, shares, texts)


def _mapped(content: F32, known: F32, wanted: F32) -> F32:
    """content @ P for the ridge regression P from ``known`` to ``wanted``, L2-normalised, float32 [n, D]."""
    x = known.astype(np.float64)
    gram = x.T @ x
    gram[np.diag_indices(len(gram))] += _RIDGE * max(len(x), 1)
    found = content @ np.linalg.solve(gram, x.T @ wanted.astype(np.float64))
    length = np.linalg.norm(found, axis=1, keepdims=True)
    out: F32 = np.divide(found, length, out=np.zeros_like(found), where=length > 1e-12).astype(np.float32)
    return out


def joined(first: Fresh | None, second: Fresh) -> Fresh:
    """The items of both, one behind the other."""
    if first is None:
        return second
    embeddings = second.embeddings
    if first.embeddings is not None and second.embeddings is not None:
        a, b = first.embeddings, second.embeddings
        embeddings = Embeddings(np.concatenate([a.vectors, b.vectors]), np.concatenate([a.known, b.known]))
    return Fresh(
        embeddings,
        {name: np.concatenate([array, second.vectors[name]]) for name, array in first.vectors.items()},
        np.concatenate([first.neighbors, second.neighbors]),
        np.concatenate([first.shares, second.shares]),
        first.texts + second.texts,
    )


def attach(features: Features, fresh: Fresh | None) -> Features:
    """The space with the new items beside it; its bias gets zeros for them where it is that of the fitted ones."""
    if fresh is None:
        return features
    dense = [fresh.vectors[s.name] for s in features.sources if isinstance(s, DenseSource)]
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


def _at(source: DenseSource, fresh: Fresh, rows: I32) -> DenseSource:
    """The source over these items alone, fitted or new."""
    vectors = gather(source, fresh, rows)
    if not isinstance(source, TextSource):
        return dataclasses.replace(source, vectors=vectors)
    n = len(source.titles)
    titles = tuple(
        source.titles[row] if row < n else shortened(fresh.texts[row - n], source.characters) for row in rows.tolist()
    )
    return dataclasses.replace(source, vectors=vectors, titles=titles)


def queries(features: Features, histories: Interactions) -> Queries:
    """As ``fuse.queries``, for histories that may hold new items."""
    n, fresh = features.items.n_items, features.fresh
    if fresh is None:
        return fuse.queries(features, histories)
    if not len(histories.items) or int(histories.items.max()) < n:
        h = histories
        return fuse.queries(features, Interactions(h.indptr, h.items, h.times, h.weights, n))
    rows, places = np.unique(histories.items, return_inverse=True)
    local = Interactions(
        histories.indptr, places.astype(np.int32), histories.times, histories.weights, max(len(rows), 1)
    )
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
        features, items=items, similarity=similarity, bias=np.ascontiguousarray(bias), fresh=None, fresh_items=None
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
    halves = {name: (None, None) if x is None else _split(x, n) for name, x in lists.items()}
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
    scores = np.concatenate([old.scores, new.scores], axis=1)
    rows = np.concatenate([old.rows, np.where(new.rows >= 0, new.rows + n, -1)], axis=1)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Candidates(np.take_along_axis(rows, best, axis=1), np.take_along_axis(scores, best, axis=1))


def _split(lists: Csr, n: int) -> tuple[Csr, Csr]:
    """The columns before n, and those from n on."""
    low = lists.indices < n
    before = np.concatenate([[0], np.cumsum(low)])[lists.indptr].astype(np.int64)
    return (
        Csr(before, lists.indices[low], n),
        Csr(lists.indptr - before, (lists.indices[~low] - n).astype(np.int32), max(lists.n_cols - n, 0)),
    )


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
    local = Interactions(
        histories.indptr,
        np.searchsorted(rows, histories.items).astype(np.int32),
        histories.times,
        histories.weights,
        len(rows),
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
        features, sources=tuple(sources), similarity=None, bias=features.bias[rows], fresh=None, fresh_items=None
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

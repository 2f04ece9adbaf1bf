"""Knowledge: items are alike by what they have in common, as far as users choose them together for it.

    A = D^-1/2 (adjacency of items and entities) D^-1/2,   F = the columns of the entities of (A + ... + A^L) / L
    F ~ Z V'  by its largest singular values,   v(item) = Z W^1/2
    W = the metric under which Z W Z' comes nearest to the cosines of the items' users, ridge * |W|^2 beside

The propagation is that of LightGCN (He et al. 2020) with the entities at its source, and a projection onto the largest
singular values is its limit for many layers (Shen et al. 2021). No item has a part of its own, so that one without any
event stands where what is known of it puts it. W is the closed form of a ridge regression on both sides,

    W = R (X Z)'(X Z) R - ...,   R = (Z'Z + ridge I)^-1,   X the events, each column of length 1, without the diagonal,

and its negative directions are left out. The query of a user is the decayed mean of the item vectors.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg

from fastrec.models._decay import check_decay, decay_variants, resolve_decay
from fastrec.models._settings import check_number, check_whole
from fastrec.side import Links
from fastrec.types import F64, DenseSource, Embeddings, Interactions

#: Up to so many rows or columns the singular values are found densely.
_DENSE = 500


@dataclass(frozen=True)
class Knowledge:
    """Settings of the knowledge source."""

    factors: int = 64
    """Singular values that are kept."""

    layers: int = 2
    """Steps along the graph from an entity."""

    ridge: float = 3.0
    """Weight of the squared entries of the metric; the rows of Z are of length 1 on average."""

    decay: float | str | None = "auto"
    """A history entry of rank r (newest 0) weighs exp(-r / decay); None for no decay; "auto": learned."""

    name: ClassVar[str] = "knowledge"

    def __post_init__(self) -> None:
        for field in ("factors", "layers"):
            check_whole(self.name, field, getattr(self, field))
        check_number(self.name, "ridge", self.ridge)
        check_decay(self.name, self.decay)

    variants = decay_variants

    def fit(self, interactions: Interactions, embeddings: Embeddings | None, goal: str) -> DenseSource | None:
        """The item vectors; None without links, or where no two items with events have something in common."""
        if embeddings is None or embeddings.links is None:
            return None
        shared = entity_features(embeddings.links, self.layers)
        if not shared.nnz:
            return None
        z = leading(shared, self.factors)
        z /= max(float(np.sqrt((z**2).sum(axis=1).mean())), 1e-12)
        vectors = (z @ metric_root(z, interactions, self.ridge)).astype(np.float32)
        if not np.any(vectors):
            return None
        decay = resolve_decay(self.decay, goal, next_item=3.0, period=None)
        return DenseSource(self.name, np.ascontiguousarray(vectors), decay)


def entity_features(links: Links, layers: int) -> "sp.csr_matrix":
    """F, float64 [N, entities that two nodes or more share]; an item that others are linked to is an entity too."""
    n, shape = links.n_items, (links.n_nodes, links.n_nodes)
    apart = links.heads != links.tails
    edges = sp.coo_matrix((np.ones(int(apart.sum())), (links.heads[apart], links.tails[apart])), shape).tocsr()
    graph = edges + edges.T
    graph.data[:] = 1.0
    degree = np.diff(graph.indptr)
    kept = (np.arange(links.n_nodes) < n) | (degree > 1)  # one that a single item has connects nothing
    graph = graph[kept][:, kept].tocsr()
    scale = sp.diags(np.maximum(np.diff(graph.indptr), 1) ** -0.5)
    graph = (scale @ graph @ scale).tocsr()
    sources = graph[:n, :n].getnnz(axis=0) > 0
    columns = np.concatenate([np.flatnonzero(sources), np.arange(n, graph.shape[0])])
    step = graph[:, columns].tocsr()
    total = step[:n]
    for _ in range(layers - 1):
        step = graph @ step
        total = total + step[:n]
    return (total / layers).tocsr()


def leading(features: "sp.csr_matrix", count: int) -> F64:
    """Z: the left singular vectors times the singular values, the largest ``count`` that are not 0, float64 [N, D]."""
    least = min(features.shape)
    if least <= max(_DENSE, count + 1):
        left, values, _ = np.linalg.svd(features.toarray(), full_matrices=False)
    else:
        start = np.random.default_rng(0).normal(size=least)
        left, values, _ = scipy.sparse.linalg.svds(features, count, v0=start)
    order = np.argsort(-values, kind="stable")[:count]
    order = order[values[order] > 1e-9 * max(values[order[0]], 1e-300)]
    z: F64 = left[:, order] * values[order]
    return z


def metric_root(z: F64, interactions: Interactions, ridge: float) -> F64:
    """W^1/2, float64 [D, D], by the items that have events."""
    likes = interactions.select(interactions.weights > 0)
    n_users = np.bincount(likes.items, minlength=likes.n_items)
    inverse = np.where(n_users > 0, np.maximum(n_users, 1) ** -0.5, 0.0)
    x = sp.csr_matrix((inverse[likes.items], likes.items, likes.indptr), (likes.n_users, likes.n_items))
    known = z[n_users > 0]
    together = x @ z
    # Every column has length 1: the diagonal of the cosines is 1, and an item says nothing about itself.
    target = together.T @ together - known.T @ known
    shrunk = np.linalg.inv(known.T @ known + ridge * np.eye(z.shape[1]))
    w = shrunk @ target @ shrunk
    values, vectors = np.linalg.eigh((w + w.T) / 2)
    root: F64 = vectors * np.sqrt(np.maximum(values, 0.0))
    return root

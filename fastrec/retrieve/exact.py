"""Exact retrieval: one pass of score_topk over the catalogue, or exact scores of given items."""

import numpy as np

from fastrec import ops
from fastrec.types import F32, I64, Candidates, Csr, Features, Queries


def search(
    features: Features,
    queries: Queries,
    k: int,
    *,
    bias: F32 | None = None,
    seen: Csr | None = None,
    allow: Csr | None = None,
    deny: Csr | None = None,
    backend: str = "auto",
) -> Candidates:
    """The k best items for each of B users.

    bias: float32 [N] instead of ``features.bias``: the fused bias with filters (-inf) and boosts in it
    seen, allow, deny: rows per user, as in score_topk
    """
    scores, rows = ops.score_topk(
        queries.vectors,
        features.items,
        k,
        bias=features.bias if bias is None else bias,
        sparse=_sparse(features, queries),
        seen=seen,
        allow=allow,
        deny=deny,
        backend=backend,
    )
    return Candidates(rows, scores)


def scores(features: Features, queries: Queries, items: I64) -> F32:
    """The score of each of B users with each of n item rows, float32 [B, n]; the bits that ``search`` gives."""
    users, n = len(queries.vectors), len(items)
    pairs = (np.arange(users + 1, dtype=np.int64) * n, np.tile(items, users).astype(np.int32))
    found: F32 = ops.score_pairs(
        queries.vectors, features.items, pairs, bias=features.bias, sparse=_sparse(features, queries)
    )
    return found.reshape(users, n)


def _sparse(features: Features, queries: Queries) -> tuple[Csr, Csr] | None:
    if features.similarity is None or queries.history is None:
        return None
    return queries.history, features.similarity

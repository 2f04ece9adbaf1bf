"""Retrieval: Features and Queries -> Candidates."""

from fastrec.errors import BackendUnavailable
from fastrec.retrieve import approximate, cells, exact
from fastrec.retrieve.approximate import Index
from fastrec.retrieve.exact import scores
from fastrec.types import F32, Candidates, Csr, Features, Queries

FAISS = "faiss"  #: the backend that searches with an index


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
    """The k best items for each of B users: ``exact.search``, or with an index where ``backend`` is "faiss" and the
    space has one; a small space that was made for the call has none."""
    if backend != FAISS:
        return exact.search(features, queries, k, bias=bias, seen=seen, allow=allow, deny=deny, backend=backend)
    if features.index is None:
        return exact.search(features, queries, k, bias=bias, seen=seen, allow=allow, deny=deny)
    return approximate.search(features, features.index, queries, k, bias=bias, seen=seen, allow=allow, deny=deny)


def check(backend: str) -> None:
    """Raises BackendUnavailable where FAISS is asked for and cannot be imported."""
    gap = approximate.missing() if backend == FAISS else None
    if gap is not None:
        raise BackendUnavailable("retrieve", FAISS, *gap)


__all__ = ["FAISS", "Index", "approximate", "cells", "check", "exact", "scores", "search"]

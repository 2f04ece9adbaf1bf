"""What is known of an item that came after fitting: its content, and the fitted items that it is a mixture of.

A new item has its content vector from its text. In a source that learned of pairs of users and items it is a mixture
of the fitted items whose content is nearest (Gantner et al. 2010, kNN mapping), as a result and in a history; in a
sequence source it has the linear map of its content that fits the vectors of known items best.

Shape legend: N fitted items, n new ones, whose rows are N .. N + n - 1, m neighbours of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastrec import ops
from fastrec.types import F32, I32, I64, DenseSource, Embeddings, SequenceSource, Source

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
        m = min(NEIGHBORS, len(marks))
        near, best = ops.score_topk(embeddings.vectors, known, m)
        weight = np.maximum(near, 0)
        total = weight.sum(axis=1, keepdims=True)
        neighbors[:, :m] = marks[best]
        shares[:, :m] = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
    # Sentences are compared with images and sounds that no source was made of, too.
    vectors = {kind: found.vectors for kind, found in embeddings.media.items()}
    for s in sources:
        if not isinstance(s, DenseSource):
            continue
        if s.vectors is fitted.vectors:
            vectors[s.name] = embeddings.vectors
        elif isinstance(s, SequenceSource):
            vectors[s.name] = _mapped(embeddings.vectors, known, s.vectors[marks])
        else:
            parts = np.arange(n + 1, dtype=np.int64) * NEIGHBORS, neighbors.ravel(), shares.ravel()
            mixed = ops.segment_mean(s.vectors, parts, normalize=False)
            own = embeddings.media.get(s.name)
            vectors[s.name] = mixed if own is None else np.where(own.known[:, None], own.vectors, mixed)
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
        media = {kind: found.followed(b.media[kind]) for kind, found in a.media.items()}
        vectors, known = np.concatenate([a.vectors, b.vectors]), np.concatenate([a.known, b.known])
        embeddings = Embeddings(vectors, known, media=media)
    return Fresh(
        embeddings,
        {name: np.concatenate([array, second.vectors[name]]) for name, array in first.vectors.items()},
        np.concatenate([first.neighbors, second.neighbors]),
        np.concatenate([first.shares, second.shares]),
        first.texts + second.texts,
    )

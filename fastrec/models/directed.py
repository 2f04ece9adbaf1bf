"""Directed item-item: what comes soon after what.

    T[a, b] = sum over the users of exp(-(gap - 1) / horizon), gap the places from a to a later b,
              divided by ((n_a + 1) (n_b + 1))^popularity

with n the number of users of an item and gaps up to 3 horizon + 1. A first-order Markov chain (Rendle et al.
2010) is the limit of a short horizon. Entries of equal time stand in the order of the input.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp

from fastrec.models._decay import check_decay, decay_variants, resolve_decay
from fastrec.models._neighbors import neighbors, spans
from fastrec.models._settings import check_number, check_whole
from fastrec.types import I32, Embeddings, Interactions, SparseSource

#: Events whose successors are counted at once: with ten gaps some 500 MB.
_BLOCK_EVENTS = 2_000_000


@dataclass(frozen=True)
class Directed:
    """Settings of the directed source."""

    horizon: float = 3.0
    """Places after which a successor counts 1/e."""

    popularity: float = 0.2
    """Power of the item counts in the denominator: 0 leaves popular successors as they are."""

    neighbors: int = 200
    """Strongest successors that are kept for each item."""

    decay: float | str | None = "auto"
    """A history entry of rank r (newest 0) weighs exp(-r / decay); None for no decay; "auto": learned."""

    name: ClassVar[str] = "directed"

    def __post_init__(self) -> None:
        check_whole(self.name, "neighbors", self.neighbors)
        check_number(self.name, "horizon", self.horizon, "a number of places")
        check_number(self.name, "popularity", self.popularity, zero=True)
        check_decay(self.name, self.decay)

    variants = decay_variants

    def fit(self, interactions: Interactions, embeddings: Embeddings | None, goal: str) -> SparseSource:
        n, items = interactions.n_items, interactions.items
        counts = np.bincount(items, minlength=n)
        scale = (counts + 1.0) ** -self.popularity
        places = _by_item(items, n)
        begins = np.concatenate([[0], np.cumsum(counts)])

        def successors(first: int, last: int) -> "sp.csr_matrix":
            """The scaled rows of these items."""
            at = places[begins[first] : begins[last]]
            at = np.sort(at)  # by user and time, as the sums are taken
            ends = interactions.indptr[1:][np.searchsorted(interactions.indptr, at, side="right") - 1]
            rows = items[at] - first
            liked = np.minimum(interactions.weights[at], 1)  # a dislike neither leads anywhere nor is led to
            after = sp.csr_matrix((last - first, n), dtype=np.float32)
            for gap in range(1, int(3 * self.horizon + 1) + 1):
                same = at + gap < ends
                at, ends, rows, liked = at[same], ends[same], rows[same], liked[same]
                if not len(at):
                    break
                weight = np.exp(-(gap - 1) / self.horizon) * (liked * np.minimum(interactions.weights[at + gap], 1))
                pairs = rows, items[at + gap]
                after = after + sp.coo_matrix((weight.astype(np.float32), pairs), after.shape).tocsr()
            return (sp.diags(scale[first:last]) @ after @ sp.diags(scale)).tocsr()

        decay = resolve_decay(self.decay, goal, next_item=2.0, period=10.0)
        return SparseSource(self.name, neighbors(successors, spans(counts, _BLOCK_EVENTS), self.neighbors), decay)


def _by_item(items: I32, n: int) -> Any:
    """Places of the events by item, [n]; those of one item ascending."""
    places = np.arange(len(items), dtype=np.int32 if len(items) < 2**31 else np.int64)
    return sp.coo_array((np.ones(len(items), np.bool_), (items, places)), shape=(n, len(items))).tocsr().indices

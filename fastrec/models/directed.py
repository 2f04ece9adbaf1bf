"""Directed item-item: what comes soon after what.

    T[a, b] = sum over the users of exp(-(gap - 1) / horizon), gap the places from a to a later b,
              divided by ((n_a + 1) (n_b + 1))^popularity

with n the number of users of an item and gaps up to 3 horizon + 1. A first-order Markov chain (Rendle et al.
2010) is the limit of a short horizon. Entries of equal time stand in the order of the input.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastrec import ops
from fastrec.models._decay import check_decay, decay_variants, resolve_decay
from fastrec.models._settings import check_number, check_whole
from fastrec.types import Csr, Embeddings, Interactions, SparseSource


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
        longest = int(np.diff(interactions.indptr).max(initial=1))
        gaps = int(min(3 * self.horizon + 1, longest))
        liked = np.minimum(interactions.weights, np.float32(1))  # a dislike neither leads anywhere nor is led to
        after = ops.cooccurrence_topk(
            Csr(interactions.indptr, items, n, liked),
            self.neighbors,
            norms=(counts + 1.0) ** self.popularity,
            steps=np.exp(-np.arange(gaps) / self.horizon),
        )
        decay = resolve_decay(self.decay, goal, next_item=2.0, period=10.0)
        return SparseSource(self.name, after, decay)

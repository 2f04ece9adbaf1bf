"""Matrix factorisation whose item factors are differentially private for every user.

    minimise  sum_ui (p_ui - <x_u, y_i>)^2 + regularization (sum |x_u|^2 + sum |y_i|^2),   p = 1 where there is an event

by alternating least squares. A user's factor x_u is made from his own events and the public item factors, and brought
to length 1. The items see users only through two sums, and each gets Gaussian noise before it is used:

    G = sum_u x_u x_u' + noise        one user changes it by at most 1
    B_i = sum_(u has i) x_u + noise   one user of at most m items changes all of them together by at most sqrt(m)

A round costs 1 / (2 sigma_G^2) + m / (2 sigma_B^2) of zero-concentrated privacy, rounds add up, and
epsilon = rho + 2 sqrt(rho ln(1 / delta)). Neighbouring data differ in all events of one user. Sources: Chien et al.
2021, Private Alternating Least Squares; Bun and Steinke 2016 (zCDP).

What this covers is the item factors. It does not cover other sources, a learned decay, learned weights, or which items
there are. The noise is drawn in floating point by numpy; it is not hardened against attacks on its lowest bits.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from fastrec.errors import ConfigError
from fastrec.models._decay import check_decay, decay_variants, resolve_decay
from fastrec.types import F64, Embeddings, FoldInSource, Interactions


@dataclass(frozen=True)
class PrivateAls:
    """Settings of the private factorisation."""

    epsilon: float = 4.0
    """What one training may spend; smaller is more private."""

    delta: float = 1e-6
    """Probability with which epsilon may be exceeded; to be far below 1 / users."""

    factors: int = 32
    """Dimensions of the factors; the noise grows with them."""

    most_items: int = 50
    """Newest liked items of a user that count."""

    regularization: float = 10.0
    """Weight of the squared lengths of the factors."""

    iterations: int = 3
    """Rounds over users and items; each of them spends."""

    decay: float | str | None = None
    """A history entry of rank r (newest 0) weighs exp(-r / decay) when a user is folded in; "auto": learned."""

    seed: int | None = None
    """Of the first factors; of the noise as well, and then a secret: None draws it from the operating system."""

    name: ClassVar[str] = "private_als"

    def __post_init__(self) -> None:
        for field in ("factors", "most_items", "iterations"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"[private_als] {field}={value!r}, expected a whole number >= 1")
        for field in ("epsilon", "regularization"):
            if not 0 < getattr(self, field) < math.inf:
                raise ConfigError(f"[private_als] {field}={getattr(self, field)!r}, expected a number > 0")
        if not 0 < self.delta < 1:
            raise ConfigError(f"[private_als] delta={self.delta!r}, expected a number between 0 and 1")
        check_decay(self.name, self.decay)

    variants = decay_variants

    @property
    def rho(self) -> float:
        """What epsilon and delta are in zero-concentrated privacy."""
        log = math.log(1 / self.delta)
        return (math.sqrt(log + self.epsilon) - math.sqrt(log)) ** 2

    def spent(self, trainings: int) -> float:
        """Epsilon at the same delta after so many trainings on the same users."""
        rho = trainings * self.rho
        return rho + 2 * math.sqrt(rho * math.log(1 / self.delta))

    def note(self, trainings: int) -> str:
        """For the report."""
        return (
            f"private_als: item factors are ({self.spent(trainings):.3g}, {self.delta:g})-differentially private for a "
            f"user after {trainings} training(s); other sources, learned decay and weights are not"
        )

    def fit(self, interactions: Interactions, embeddings: Embeddings | None, goal: str) -> FoldInSource | None:
        """The noisy item factors, and what folding a history in needs; None without any event of weight."""
        likes = interactions.select(interactions.weights > 0)
        if not len(likes.items):
            return None
        had = self._bounded(likes)
        rng = np.random.default_rng(self.seed)
        ridge = self.regularization * np.eye(self.factors)
        items: F64 = rng.normal(0, 0.1, (likes.n_items, self.factors))
        # Half of a round's budget for each of the two sums.
        budget = self.rho / self.iterations / 2
        for _ in range(self.iterations):
            users = had @ items @ np.linalg.inv(items.T @ items + ridge)
            users /= np.maximum(np.linalg.norm(users, axis=1, keepdims=True), 1e-12)
            gram = users.T @ users + _symmetric(rng, self.factors, math.sqrt(1 / (2 * budget)))
            sums = had.T @ users + rng.normal(0, math.sqrt(self.most_items / (2 * budget)), items.shape)
            items = sums @ np.linalg.inv(_positive(gram) + ridge)
        vectors = items.astype(np.float32)
        decay = resolve_decay(self.decay, goal, next_item=3.0, period=None)
        gram = items.T @ items + ridge
        return FoldInSource(self.name, np.ascontiguousarray(vectors), decay, gram, 0.0)

    def _bounded(self, likes: Interactions) -> "sp.csr_matrix":
        """[U, N] with ones, at most ``most_items`` a user, the newest."""
        rank = np.repeat(likes.indptr[1:], np.diff(likes.indptr)) - 1 - np.arange(len(likes.items))
        kept = likes.select(rank < self.most_items)
        shape = (likes.n_users, likes.n_items)
        return sp.csr_matrix((np.ones(len(kept.items)), kept.items, kept.indptr), shape=shape)


def _symmetric(rng: np.random.Generator, n: int, sigma: float) -> F64:
    """Noise for a symmetric matrix: that of its upper triangle, which says everything."""
    upper = np.triu(rng.normal(0, sigma, (n, n)))
    noise: F64 = upper + np.triu(upper, 1).T
    return noise


def _positive(matrix: F64) -> F64:
    """The nearest symmetric matrix without negative eigenvalues; what is done after the noise costs no privacy."""
    values, vectors = np.linalg.eigh(matrix)
    out: F64 = (vectors * np.maximum(values, 0)) @ vectors.T
    return out

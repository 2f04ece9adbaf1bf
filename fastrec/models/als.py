"""Implicit-feedback matrix factorisation by alternating least squares.

    minimise  sum_ui c_ui (p_ui - <x_u, y_i>)^2 + regularization (sum |x_u|^2 + sum |y_i|^2)

with p = 1 and c = 1 + alpha * weight where there is an event, else p = 0 and c = 1. Source: Hu, Koren and
Volinsky 2008; each row is solved by a few steps of conjugate gradients from where it was, as Takacs,
Pilaszy and Tikk 2011.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from fastrec import ridge
from fastrec.models import _arrays
from fastrec.models._decay import check_decay, decay_variants, resolve_decay
from fastrec.models._settings import check_device, check_number, check_whole
from fastrec.types import F32, Embeddings, FoldInSource, Interactions


@dataclass(frozen=True)
class Als:
    """Settings of the matrix factorisation."""

    factors: int = 128
    """Dimensions of the factors."""

    alpha: float = 4.0
    """Confidence of an event of weight 1, beyond the 1 that everything has."""

    regularization: float = 10.0
    """Weight of the squared lengths of the factors."""

    iterations: int = 12
    """Rounds over users and items."""

    steps: int = 3
    """Steps of conjugate gradients for a row and a round."""

    decay: float | str | None = "auto"
    """A history entry of rank r (newest 0) weighs exp(-r / decay) when a user is folded in; None for no decay;
    "auto": learned. The item factors do not depend on it."""

    device: str = "cpu"
    """"cpu", or "cuda": the training on a GPU with CuPy, in the same steps."""

    seed: int | None = None
    """Of the first factors; None: that of the Recommender."""

    name: ClassVar[str] = "als"

    def __post_init__(self) -> None:
        for field in ("factors", "iterations", "steps"):
            check_whole(self.name, field, getattr(self, field))
        for field in ("alpha", "regularization"):
            check_number(self.name, field, getattr(self, field))
        check_decay(self.name, self.decay)
        check_device(self.name, self.device)

    variants = decay_variants

    def fit(self, interactions: Interactions, embeddings: Embeddings | None, goal: str) -> FoldInSource | None:
        """The item factors, and what folding a history in needs; None without any event of weight."""
        likes = interactions.select(interactions.weights > 0)
        xp = _arrays.cupy(self.name) if self.device == "cuda" else None
        if not len(likes.items):
            return None
        shape = (likes.n_users, likes.n_items)
        extra = sp.csr_matrix((likes.weights * np.float32(self.alpha), likes.items, likes.indptr), shape=shape)
        rng = np.random.default_rng(self.seed or 0)
        users = rng.normal(0, 0.01, (shape[0], self.factors)).astype(np.float32)
        items = rng.normal(0, 0.01, (shape[1], self.factors)).astype(np.float32)
        if xp is not None:
            items = _arrays.als(xp, extra, users, items, self.regularization, self.iterations, self.steps)
            return self._source(items, goal)
        by_item = extra.T.tocsr()
        for _ in range(self.iterations):
            for rows, others, events in ((users, items, extra), (items, users, by_item)):
                gram = _gram(others, self.regularization)
                # Preference 1 with confidence 1 + alpha * weight.
                ridge.solve(rows, others, gram, events.indptr, events.indices, None, events.data, self.steps)
        return self._source(items, goal)

    def _source(self, items: F32, goal: str) -> FoldInSource:
        return FoldInSource(
            self.name,
            items,
            resolve_decay(self.decay, goal, next_item=3.0, period=None),
            _gram(items, self.regularization).astype(np.float64),
            float(self.alpha),
        )


def _gram(factors: F32, regularization: float) -> F32:
    gram: F32 = factors.T @ factors
    gram[np.diag_indices(len(gram))] += np.float32(regularization)
    return gram

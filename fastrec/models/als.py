"""Implicit-feedback matrix factorisation by alternating least squares.

    minimise  sum_ui c_ui (p_ui - <x_u, y_i>)^2 + regularization (sum |x_u|^2 + sum |y_i|^2)

with p = 1 and c = 1 + alpha * weight where there is an event, else p = 0 and c = 1. Source: Hu, Koren and
Volinsky 2008; each row is solved by a few steps of conjugate gradients from where it was, as Takacs,
Pilaszy and Tikk 2011.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp

from fastrec import config
from fastrec.errors import ConfigError
from fastrec.models._decay import check_decay, resolve_decay
from fastrec.types import F32, Embeddings, FoldInSource, Interactions

#: Rows of one task of a thread: enough to keep the interpreter out of the way.
_ROWS = 512


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

    seed: int | None = None
    """Of the first factors; None: that of the Recommender."""

    name: ClassVar[str] = "als"

    def __post_init__(self) -> None:
        for field in ("factors", "iterations", "steps"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"[als] {field}={value!r}, expected a whole number >= 1")
        for field in ("alpha", "regularization"):
            value = getattr(self, field)
            if not 0 < value < np.inf:
                raise ConfigError(f"[als] {field}={value!r}, expected a number > 0")
        check_decay(self.name, self.decay)

    def fit(self, interactions: Interactions, embeddings: Embeddings | None, goal: str) -> FoldInSource | None:
        """The item factors, and what folding a history in needs; None without any event of weight."""
        likes = interactions.select(interactions.weights > 0)
        if not len(likes.items):
            return None
        shape = (likes.n_users, likes.n_items)
        extra = sp.csr_matrix((likes.weights * np.float32(self.alpha), likes.items, likes.indptr), shape=shape)
        by_item = extra.T.tocsr()
        rng = np.random.default_rng(self.seed or 0)
        users = rng.normal(0, 0.01, (shape[0], self.factors)).astype(np.float32)
        items = rng.normal(0, 0.01, (shape[1], self.factors)).astype(np.float32)
        for _ in range(self.iterations):
            self._solve(users, items, extra)
            self._solve(items, users, by_item)
        return FoldInSource(
            self.name,
            items,
            resolve_decay(self.decay, goal, next_item=3.0, period=None),
            _gram(items, self.regularization).astype(np.float64),
            float(self.alpha),
        )

    def _solve(self, rows: F32, others: F32, extra: "sp.csr_matrix") -> None:
        """Improve ``rows`` in place with ``others`` fixed; every row by itself, so that threads change nothing."""
        gram = _gram(others, self.regularization)
        solve = _kernel()

        def task(first: int) -> None:
            last = min(first + _ROWS, len(rows))
            solve(rows, others, gram, extra.indptr, extra.indices, extra.data, first, last, self.steps)

        with ThreadPoolExecutor(config.threads()) as pool:
            list(pool.map(task, range(0, len(rows), _ROWS)))


def _gram(factors: F32, regularization: float) -> F32:
    gram: F32 = factors.T @ factors
    gram[np.diag_indices(len(gram))] += np.float32(regularization)
    return gram


@cache
def _kernel() -> Any:
    """The native solver; numba is imported at the first fit, not with the package."""
    import numba

    @numba.njit(nogil=True, fastmath=True, cache=True)
    def product(x, others, gram, indices, extra, out):  # type: ignore[no-untyped-def]  # pragma: no cover
        """out = (gram + sum_j extra_j y_j y_j') x"""
        factors = len(x)
        for f in range(factors):
            s = np.float32(0)
            for g in range(factors):
                s += gram[f, g] * x[g]
            out[f] = s
        for e in range(len(indices)):
            y = others[indices[e]]
            s = np.float32(0)
            for f in range(factors):
                s += y[f] * x[f]
            s *= extra[e]
            for f in range(factors):
                out[f] += s * y[f]

    @numba.njit(nogil=True, fastmath=True, cache=True)
    def solve(rows, others, gram, indptr, indices, extra, first, last, steps):  # type: ignore[no-untyped-def]  # pragma: no cover
        factors = rows.shape[1]
        r, p, ap = np.empty(factors, np.float32), np.empty(factors, np.float32), np.empty(factors, np.float32)
        for u in range(first, last):
            begin, end = indptr[u], indptr[u + 1]
            x = rows[u]
            if begin == end:
                x[:] = 0
                continue
            mine, mine_extra = indices[begin:end], extra[begin:end]
            product(x, others, gram, mine, mine_extra, ap)
            r[:] = -ap
            for e in range(len(mine)):
                y = others[mine[e]]
                for f in range(factors):
                    r[f] += (1 + mine_extra[e]) * y[f]
            p[:] = r
            rr = np.float32(0)
            for f in range(factors):
                rr += r[f] * r[f]
            for _ in range(steps):
                if rr < 1e-20:
                    break
                product(p, others, gram, mine, mine_extra, ap)
                pap = np.float32(0)
                for f in range(factors):
                    pap += p[f] * ap[f]
                a = rr / pap
                after = np.float32(0)
                for f in range(factors):
                    x[f] += a * p[f]
                    r[f] -= a * ap[f]
                    after += r[f] * r[f]
                b = after / rr
                for f in range(factors):
                    p[f] = r[f] + b * p[f]
                rr = after

    return solve

"""EASE: a linear model of the items that the user has, in closed form.

    minimise |X - X B|^2 + regularization |B|^2   with diag(B) = 0
    P = (X'X + regularization I)^-1,  B[j, i] = -P[j, i] / P[i, i]

with X the events of weight > 0, each 1. Source: Steck 2019. The inverse is dense: it is made in place, in
float64, from a Gram matrix that is filled by blocks, and read by blocks.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from fastrec import config
from fastrec.errors import ConfigError
from fastrec.models._decay import check_decay, decay_variants, resolve_decay
from fastrec.types import F32, F64, I32, I64, Csr, Embeddings, Interactions, SparseSource

#: Items whose rows are worked on at once.
_ROWS = 512
#: The time to invert grows with the cube: 30,000 items take minutes, 100,000 hours.
_MOST_ITEMS = 40_000
#: Up to here it is inverted in a second or two.
_PRESET_ITEMS = 5_000


@dataclass(frozen=True)
class Ease:
    """Settings of the closed-form linear model."""

    regularization: float | str = "auto"
    """Weight of the squared entries of B; "auto": 4 times the mean number of events of the items that have any."""

    neighbors: int | None = 1000
    """Entries of B that are kept in each row, the largest in size, negative ones too; None keeps all."""

    decay: float | str | None = "auto"
    """A history entry of rank r (newest 0) weighs exp(-r / decay); None for no decay; "auto": learned."""

    optional: bool = False
    """As the presets have it: left out for the next event, where it adds nothing to the directed and decayed sources,
    and where the catalogue is so large that it would take longer than all others together."""

    name: ClassVar[str] = "ease"

    def __post_init__(self) -> None:
        weight = self.regularization
        if weight != "auto" and (isinstance(weight, (bool, str)) or not 0 < weight < np.inf):
            raise ConfigError(f"[ease] regularization={weight!r}, expected a number > 0 or 'auto'")
        most = self.neighbors
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            raise ConfigError(f"[ease] neighbors={most!r}, expected a whole number >= 1 or None")
        if not isinstance(self.optional, bool):
            raise ConfigError(f"[ease] optional={self.optional!r}, expected True or False")
        check_decay(self.name, self.decay)

    variants = decay_variants

    def fit(self, interactions: Interactions, embeddings: Embeddings | None, goal: str) -> SparseSource | None:
        """B, or its largest entries; ConfigError where the inverse does not fit into the free memory."""
        n = interactions.n_items
        if self.optional and (goal == "next" or n > _PRESET_ITEMS):
            return None
        kept = max(n - 1, 0) if self.neighbors is None else min(self.neighbors, max(n - 1, 0))
        _check_size(n, kept)
        likes = interactions.select(interactions.weights > 0)
        if isinstance(self.regularization, str):
            regularization = 4.0 * len(likes.items) / max(len(np.unique(likes.items)), 1)
        else:
            regularization = float(self.regularization)
        p = inverse(likes, regularization or 1.0)  # without any event every weight gives B = 0
        rows = [_largest(_rows(p, first, min(first + _ROWS, n)), kept) for first in range(0, n, _ROWS)]
        counts = np.concatenate([[0], *[count for count, _, _ in rows]])
        similarity = Csr(
            np.cumsum(counts, dtype=np.int64),
            np.concatenate([np.empty(0, np.int32), *[columns for _, columns, _ in rows]]),
            n,
            np.concatenate([np.empty(0, np.float32), *[values for _, _, values in rows]]),
        )
        return SparseSource(self.name, similarity, resolve_decay(self.decay, goal, next_item=3.0, period=None))


def _check_size(n: int, kept: int) -> None:
    need, free = 8 * n * n + 16 * n * kept, config.free_memory()
    if n <= _MOST_ITEMS and need <= free:
        return
    raise ConfigError(
        f"[ease] {n:,} items need {need / 1e9:,.1f} GB for a dense inverse, {free / 1e9:,.1f} GB are free; expected at "
        f"most {min(_MOST_ITEMS, int((free / 8) ** 0.5)):,} items here. Use 'item_item' or 'als', whose memory grows "
        "with the events, or fewer items"
    )


def inverse(likes: Interactions, regularization: float) -> F64:
    """The lower triangle of (X'X + regularization I)^-1, float64 [N, N] in column order; above it is no meaning."""
    n = likes.n_items
    x = sp.csr_matrix((np.ones(len(likes.items)), likes.items, likes.indptr), shape=(likes.n_users, n))
    x.sum_duplicates()
    x.data[:] = 1
    by_item = x.T.tocsr()
    # Column order is what LAPACK works on without a copy; X'X is the same read either way.
    p: F64 = np.empty((n, n), np.float64, order="F")
    for first in range(0, n, _ROWS):
        p[:, first : first + _ROWS] = (by_item[first : first + _ROWS] @ x).toarray().T
    p[np.diag_indices(n)] += regularization
    if n:
        potrf, potri = scipy.linalg.get_lapack_funcs(("potrf", "potri"), (p,))
        p, failed = potrf(p, lower=1, overwrite_a=1, clean=0)
        if not failed:
            p, failed = potri(p, lower=1, overwrite_c=1)
        if failed:
            raise ConfigError(
                f"[ease] regularization={regularization!r} leaves the system without a stable solution; expected more"
            )
    return p


def _rows(p: F64, first: int, last: int) -> F32:
    """B from one row to before another, float32 [last - first, N], out of the lower triangle of P."""
    block = np.concatenate([p[first:last, :first], np.empty((last - first, p.shape[0] - first))], axis=1)
    block[:, first:] = p[first:, first:last].T
    square = block[:, first:last]  # holds the triangle on the wrong side, above the diagonal
    below = np.tril_indices(last - first, -1)
    square[below] = square.T[below]
    block /= -np.diagonal(p)
    square[np.diag_indices(last - first)] = 0
    return block.astype(np.float32)


def _largest(block: F32, kept: int) -> tuple[I64, I32, F32]:
    """(entries of each row, their columns ascending, their values): the ``kept`` largest in size that are not 0."""
    size = np.abs(block)
    if kept < block.shape[1]:
        # At equal sizes the smaller column stays, as everywhere; a partition alone would take any of them.
        least = -np.partition(-size, kept - 1, axis=1)[:, kept - 1 : kept] if kept else np.full((len(block), 1), np.inf)
        keep = size > least
        ties = size == least
        keep |= ties & (np.cumsum(ties, axis=1) <= kept - keep.sum(axis=1, keepdims=True))
        size = np.where(keep, size, np.float32(0))
    row, column = np.nonzero(size)
    return np.bincount(row, minlength=len(block)), column.astype(np.int32), block[row, column]

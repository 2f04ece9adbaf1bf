"""Fusion weights that depend on the user: on how much is known of him, and on how long ago he was here.

    w_m(u) = w_m exp(g_m . z(u)),   z(u) = (features(u) - centre) / scale, within [-2, 2]

A source that scores every item the same for all users keeps its weight: only the proportions to it matter, and so the
fused space stays one: a factor multiplies the queries of a user, never an item.
"""

from dataclasses import dataclass

import numpy as np

from fastrec.types import F64, Interactions

#: Features beyond so many standard deviations count as there.
_REACH = 2.0
#: A weight is multiplied or divided by no more than this.
_MOST = 4.0
_DAY = 86400.0
FEATURES = ("length of the history", "time since its newest event")


@dataclass(frozen=True, eq=False)
class Gate:
    """What a user's features do to the weights.

    coefficients: float64 [F] of each source, by name
    centre, scale: float64 [F]
    span: seconds of the first and the last event that was learned from
    """

    coefficients: dict[str, F64]
    centre: F64
    scale: F64
    span: tuple[float, float]

    def standardised(self, histories: Interactions) -> F64:
        """z, float64 [B, F]."""
        z: F64 = np.clip((features(histories, self.span) - self.centre) / self.scale, -_REACH, _REACH)
        return z

    def factors(self, name: str, histories: Interactions) -> F64:
        """What the weight of a source is multiplied by, float64 [B]."""
        if name not in self.coefficients:
            return np.ones(histories.n_users)
        return multiples(self.standardised(histories) @ self.coefficients[name])


def multiples(exponents: F64) -> F64:
    """exp, within bounds."""
    out: F64 = np.exp(np.clip(exponents, -np.log(_MOST), np.log(_MOST)))
    return out


def features(histories: Interactions, span: tuple[float, float]) -> F64:
    """log2(1 + entries) and log2(1 + days since the newest entry, up to the end of ``span``), float64 [B, 2].

    A history whose newest entry lies before the span has no real times (a list of item ids): it is of now.
    """
    counts = np.diff(histories.indptr)
    newest = np.full(histories.n_users, span[1])
    some = counts > 0
    newest[some] = histories.times[histories.indptr[1:][some] - 1]
    newest[newest < span[0]] = span[1]
    days = np.maximum(span[1] - newest, 0.0) / _DAY
    return np.stack([np.log2(1.0 + counts), np.log2(1.0 + days)], axis=1)

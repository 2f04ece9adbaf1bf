"""Recent popularity: how often an item was chosen, where an event loses half its weight every half-life."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastrec.errors import ConfigError
from fastrec.types import F64, BiasSource, Embeddings, Interactions

#: Half-lives that "auto" chooses from, in days.
HALF_LIVES = (1.0, 3.0, 7.0, 30.0, 90.0, 365.0, np.inf)
_DAY = 86400.0


@dataclass(frozen=True)
class Popularity:
    """Settings of the popularity source."""

    half_life: float | str | None = "auto"
    """Days; None or infinity for no decay; "auto": learned, and without a holdout to learn from the one under
    which the newest tenth of the events is most likely."""

    name: ClassVar[str] = "popularity"

    def __post_init__(self) -> None:
        h = self.half_life
        if h is None or h == "auto":
            return
        if isinstance(h, bool) or not isinstance(h, (int, float)) or not h > 0:
            raise ConfigError(f"[popularity] half_life={h!r}, expected days > 0, None or 'auto'")

    def variants(self, source: BiasSource, interactions: Interactions) -> list[tuple["Popularity", BiasSource]]:
        """(settings, source) for every half-life that "auto" may mean."""
        if self.half_life != "auto":
            return [(self, source)]
        models = [Popularity(half_life) for half_life in HALF_LIVES]
        return [(model, model.fit(interactions, None, "next")) for model in models]

    def fit(self, interactions: Interactions, embeddings: Embeddings | None, goal: str) -> BiasSource:
        """log(1 + decayed count), the count scaled so that all items together keep their number of events."""
        if self.half_life == "auto":
            half_life = choose_half_life(interactions)
        else:
            half_life = np.inf if self.half_life is None else float(self.half_life)
        counts = decayed_counts(interactions, half_life)
        total = counts.sum()
        if total > 0:
            counts *= len(interactions.items) / total
        return BiasSource(self.name, np.log1p(counts).astype(np.float32), half_life)


def decayed_counts(interactions: Interactions, half_life: float) -> F64:
    """Sum of weight * 2^(-age / half_life) per item, float64 [N]; half_life in days, age to the newest event."""
    weights = interactions.weights.astype(np.float64)
    if np.isfinite(half_life) and len(weights):
        age = interactions.times.max() - interactions.times
        weights *= np.exp2(-age / (half_life * _DAY))
    counts: F64 = np.bincount(interactions.items, weights, interactions.n_items).astype(np.float64)
    return counts


def choose_half_life(interactions: Interactions) -> float:
    """The half-life whose counts, cut at the 0.9 quantile of time, best predict the events after the cut.

    Best means the largest multinomial log likelihood with one pseudo-count an item.
    """
    cut = np.quantile(interactions.times, 0.9) if len(interactions.times) else 0.0
    newest = interactions.times > cut
    past, future = interactions.select(~newest), interactions.items[newest]
    if not len(past.items) or not len(future):
        return np.inf

    def log_likelihood(half_life: float) -> float:
        counts = decayed_counts(past, half_life)
        counts *= len(past.items) / max(counts.sum(), 1e-300)
        return float(np.log((counts[future] + 1) / (len(past.items) + interactions.n_items)).sum())

    # The longest of equals: fewer assumptions about the data.
    return max(reversed(HALF_LIVES), key=log_likelihood)

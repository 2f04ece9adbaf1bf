"""The setting ``decay`` that all history-based sources share."""

import dataclasses
import math
from typing import Any

from fastrec.errors import ConfigError
from fastrec.types import DenseSource, Interactions, SparseSource

#: Decays that "auto" chooses from, in ranks; None is no decay.
DECAYS: tuple[float | None, ...] = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, None)


def check_decay(model: str, decay: float | str | None) -> None:
    """ConfigError unless decay is a number > 0, None or "auto"."""
    if decay is None or decay == "auto":
        return
    if isinstance(decay, (bool, str)) or not (decay > 0 and math.isfinite(decay)):
        raise ConfigError(f"[{model}] decay={decay!r}, expected a number of ranks > 0, None or 'auto'")


def resolve_decay(
    decay: float | str | None, goal: str, *, next_item: float | None, period: float | None
) -> float | None:
    """The decay to use: "auto" depends on what is predicted, for the next event recency counts far more."""
    if isinstance(decay, str):
        return next_item if goal == "next" else period
    return decay


def decay_variants(
    model: Any, source: DenseSource | SparseSource, interactions: Interactions
) -> list[tuple[Any, DenseSource | SparseSource]]:
    """(settings, source) for every decay that "auto" may mean; what was learned does not depend on it."""
    if model.decay != "auto":
        return [(model, source)]
    return [(dataclasses.replace(model, decay=d), dataclasses.replace(source, decay=d)) for d in DECAYS]

"""The setting ``decay`` that all history-based sources share."""

import math

from fastrec.errors import ConfigError


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

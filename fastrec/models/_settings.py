"""Checks of settings that several models share; the messages name model, field, value and range."""

import math

import numpy as np

from fastrec.errors import ConfigError


def check_whole(model: str, field: str, value: object, least: int = 1) -> None:
    """ConfigError unless the value is a whole number from ``least`` on."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"[{model}] {field}={value!r}, expected a whole number >= {least}")


def check_number(model: str, field: str, value: object, what: str = "a number", *, zero: bool = False) -> None:
    """ConfigError unless the value is a finite number above 0, or 0 where ``zero``."""
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (value == 0 and not zero):  # type: ignore[operator]
        raise ConfigError(f"[{model}] {field}={value!r}, expected {what} {'>=' if zero else '>'} 0")


def check_device(model: str, device: str) -> None:
    """ConfigError unless device is "cpu" or "cuda"."""
    if device not in ("cpu", "cuda"):
        raise ConfigError(f"[{model}] device={device!r}, expected 'cpu' or 'cuda'")

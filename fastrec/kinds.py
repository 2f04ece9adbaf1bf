"""Kinds of event as small numbers: what a history remembers of an entry beside its time and its weight."""

from typing import Any

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]

#: The kinds that have a number of their own, from 1; a model that learned from them keeps these numbers.
KINDS = ("cart", "click", "comment", "dislike", "like", "play", "purchase", "rating", "search", "view")
#: 0 stands for no kind, the last number for every other one.
COUNT = len(KINDS) + 2
_NUMBER = {kind: number for number, kind in enumerate(KINDS, 1)}


def number(kind: str | None) -> int:
    """Of a kind as ``data`` writes it: in small letters, None for none."""
    return _NUMBER.get(kind, COUNT - 1) if kind else 0


def numbers(kinds: Any) -> U8:
    """Of a polars.Series of kinds, uint8 [n]; histories know kinds, and they do without polars."""
    import polars as pl

    found: U8 = kinds.replace_strict(_NUMBER, default=COUNT - 1, return_dtype=pl.UInt8).to_numpy().copy()
    found[kinds.is_null().to_numpy()] = 0
    return found

"""Popularity that moves with the events: the decayed counts behind a BiasSource, kept up to date one event at a time.

    bias_i = log(1 + scale * sum over the users u of w_ui 2^((t_ui - reference) / half-life))

A decay of everything by the same factor cancels in the scale, so that time alone moves nothing, and an event one item.
Counts are whole numbers of 2^-16: sums of them do not depend on the order, and what was added can be taken away again
without a trace. ``scale`` moves in steps of a 64th of a doubling, and ``reference`` in steps of eight half-lives: both
are functions of the histories, not of the way that led to them, which is what makes a replayed log give the same bits.
"""

import math

import numpy as np

from fastrec.types import F32, F64, I64, Interactions

_DAY, _UNIT, _STEPS, _SPAN = 86400.0, 2.0**16, 64, 8


class Trend:
    """Counts of N items. Its methods are called by one thread at a time.

    half_life: days; infinity for no decay
    start: seconds, time of the newest event that was fitted
    scale: of the fitted counts; None: so that all items together keep their number of events
    """

    def __init__(
        self, histories: Interactions, half_life: float, start: float, latest: float, scale: float | None = None
    ) -> None:
        self.half_life, self.start, self.latest = half_life, start, latest
        self._count(histories)
        self.scale = self._exact() if scale is None else scale
        #: Items whose bias is out of date; None: all of them.
        self.dirty: set[int] | None = None
        self._published = 0.0

    def _count(self, histories: Interactions) -> None:
        self.reference = self._reference()
        units = self._units(histories.times, histories.weights)
        # bincount adds in float64, which is exact for whole numbers below 2^53.
        self.counts: I64 = np.bincount(histories.items, units, histories.n_items).astype(np.int64)
        self.total, self.entries = int(units.sum()), len(histories.items)

    def _reference(self) -> float:
        if not math.isfinite(self.half_life):
            return self.start
        step = _SPAN * self.half_life * _DAY
        return self.start + step * max(0, math.floor((self.latest - self.start) / step))

    def _units(self, times: F64, weights: F32) -> F64:
        units = weights.astype(np.float64)
        if math.isfinite(self.half_life):
            age = (times - self.reference) / (self.half_life * _DAY)
            units = units * np.exp2(np.minimum(age, _SPAN))
        out: F64 = np.rint(units * _UNIT)
        return out

    def _unit(self, time: float, weight: float) -> int:
        return int(self._units(np.array([time]), np.array([weight], np.float32))[0])

    def seen_until(self, time: float) -> bool:
        """Note the time of an event; true where the counts must be made anew with ``recount``."""
        self.latest = max(self.latest, time)
        return self._reference() != self.reference

    def recount(self, histories: Interactions) -> None:
        """All counts from all histories: the reference has moved."""
        self._count(histories)
        self.dirty = None

    def add(self, item: int, time: float, weight: float, sign: int = 1) -> None:
        """One entry of a history more, or with sign -1 less."""
        unit = sign * self._unit(time, weight)
        self.counts[item] += unit
        self.total += unit
        self.entries += sign
        if self.dirty is not None:
            self.dirty.add(item)

    def widen(self, n: int) -> None:
        """Room for n more items, which nobody has chosen."""
        self.counts = np.concatenate([self.counts, np.zeros(n, np.int64)])

    def _exact(self) -> float:
        return self.entries / self.total if self.total > 0 else 1.0 / _UNIT

    def _current_scale(self) -> float:
        return float(self.scale * 2 ** (round(_STEPS * math.log2(max(self._exact(), 1e-300) / self.scale)) / _STEPS))

    def fresh(self, bias: F32) -> tuple[F32, I64 | None]:
        """(the bias of all items, rows that changed; None for all), given the bias that was published last."""
        scale = self._current_scale()
        if self.dirty is None or scale != self._published or len(bias) != len(self.counts):
            self.dirty, self._published = set(), scale
            return self._bias(self.counts, scale), None
        rows = np.fromiter(sorted(self.dirty), np.int64, len(self.dirty))
        self.dirty = set()
        out = bias.copy()
        out[rows] = self._bias(self.counts[rows], scale)
        return out, rows

    @property
    def stale(self) -> bool:
        """Whether ``fresh`` would give something new."""
        return self.dirty is None or bool(self.dirty)

    @staticmethod
    def _bias(counts: I64, scale: float) -> F32:
        out: F32 = np.log1p(counts * scale).astype(np.float32)
        return out

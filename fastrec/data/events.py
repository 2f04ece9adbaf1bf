"""Events as columns of numbers: what is left of a table once ids are rows and kinds of event are codes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from fastrec.data import checks
from fastrec.data.checks import Place
from fastrec.data.columns import Columns
from fastrec.data.vocab import Vocab, encode
from fastrec.types import F64, I32, Bool

#: Most that the value of one event may count, by the mean of its kind.
_MOST_STRENGTH = 5.0


@dataclass(frozen=True, eq=False)
class Events:
    """n events in the order of the input.

    user, item: rows, int32 [n]
    time: seconds since 1970, float64 [n]; None where the data has no timestamps
    kind: place in ``kinds``, int32 [n]; None where no event has one. In ``kinds`` None stands for no kind
    value: float64 [n], NaN where missing; None where no event has one
    others: further columns in which exact duplicates agree, numpy arrays or polars Series [n] by name
    users, items: the ids of the rows, in the order of their first event
    """

    user: I32
    item: I32
    time: F64 | None
    kind: I32 | None
    kinds: tuple[str | None, ...]
    value: F64 | None
    users: Vocab
    items: Vocab
    others: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.user)

    def rest(self, at: Any) -> pl.DataFrame:
        """All columns but user and item of the events at these places (a slice or an index)."""
        columns = {name: a for name in ("time", "kind", "value") if (a := getattr(self, name)) is not None}
        columns |= self.others

        def some(a: Any) -> Any:
            return a[at] if isinstance(a, np.ndarray) or isinstance(at, slice) else a.gather(at)

        return pl.DataFrame({name: some(a) for name, a in columns.items()})

    def means(self, kept: Bool) -> dict[str | None, float]:
        """Mean value of each kind over these events, bool [n]; NaN where no event of the kind has one."""
        if self.value is None:
            return {}
        total, count = np.zeros(max(len(self.kinds), 1)), np.zeros(max(len(self.kinds), 1))
        for start in range(0, len(self), 1 << 20):
            span = slice(start, start + (1 << 20))
            value = self.value[span]
            there = kept[span] & ~np.isnan(value)
            codes = np.zeros(len(value), np.int32) if self.kind is None else self.kind[span]
            # One addition after the other: sums by parts of another size would be other numbers.
            with np.errstate(over="ignore", invalid="ignore"):
                np.add.at(total, codes[there], value[there])
            count += np.bincount(codes[there], minlength=len(count))
        with np.errstate(invalid="ignore"):
            mean = total / count
        return dict(zip(self.kinds or (None,), mean.tolist(), strict=True))

    def strengths(self, at: Any, weights: Mapping[str, float], means: Mapping[str | None, float]) -> F64:
        """Weight of the events at these places, float64."""
        n = len(self.user[at])
        if self.kind is None:
            base = np.full(n, weights["rating"] if self.value is not None else 1.0)
            codes: Any = np.zeros(n, np.int32)
        else:
            codes = self.kind[at]
            base = np.array([1.0 if kind is None else weights.get(kind, 1.0) for kind in self.kinds])[codes]
        if self.value is None:
            return np.asarray(base, np.float64)
        mean = np.array([means[kind] for kind in self.kinds or (None,)])[codes]
        value = self.value[at]
        good = (mean > 0) & np.isfinite(mean) & ~np.isnan(value)
        by_mean = np.divide(value, mean, out=np.ones(n), where=good)
        return np.asarray(base * np.clip(by_mean, 0.0, _MOST_STRENGTH), np.float64)


def pack(events: pl.DataFrame) -> Events:
    """From the columns of ``recognised``."""
    users, user = encode(events["user"])
    items, item = encode(events["item"])
    kinds: tuple[str | None, ...] = ()
    kind = None
    if "kind" in events.columns:
        kinds, kind = coded(events["kind"], ())
    value = events["value"].fill_null(float("nan")).to_numpy() if "value" in events.columns else None
    time = events["time"].to_numpy() if "time" in events.columns else None
    others = {"text": events["text"]} if "text" in events.columns else {}
    return Events(user, item, time, kind, kinds, value, users, items, others)


def coded(kinds: pl.Series, known: tuple[str | None, ...]) -> tuple[tuple[str | None, ...], I32]:
    """(the known kinds and the new ones among these, place of each in them, int32 [n])."""
    codes = {kind: code for code, kind in enumerate(known)}
    for kind in kinds.unique(maintain_order=True).to_list():
        codes.setdefault(kind, len(codes))
    by_text = {kind: code for kind, code in codes.items() if kind is not None}
    found = (
        kinds.replace_strict(by_text, default=None, return_dtype=pl.Int32)
        if by_text
        else pl.Series([None], dtype=pl.Int32).new_from_index(0, len(kinds))
    )
    return tuple(codes), found.fill_null(codes.get(None, 0)).to_numpy().astype(np.int32)


def recognised(
    frame: pl.DataFrame,
    c: Columns,
    strict: bool,
    where: str,
    counts: dict[str, Any],
    start: int = 0,
    late: checks.Late | None = None,
) -> tuple[pl.DataFrame, bool]:
    """(the recognised columns under our own names without bad rows, whether there are timestamps).

    counts: gets what was dropped, beside what earlier parts of the table dropped
    start, late: for a part of a table: rows before it, and what gathers the evidence of wrong units
    """
    parts = {}

    def at(name: str) -> Place:
        return Place(where, "interactions", name, start)

    for ours, name in c.renamed.items():
        checks.column(frame, name, ours, where, "interactions")
    for ours, name, keyword in (("user", c.user_id, "user_id"), ("item", c.item_id, "item_id")):
        values = checks.column(frame, name, keyword, where, "interactions")
        parts[ours] = checks.ids(values, at(name))
    if c.event in frame.columns:
        parts["kind"] = checks.kinds(frame[c.event], at(c.event))
    taken = {c.user_id, c.item_id, c.timestamp, c.event, c.text}
    value = next((n for n in (c.value, "rating") if n in frame.columns and n not in taken), None)
    if value is not None:
        parts["value"] = checks.numbers(frame[value], at(value))
    if c.text in frame.columns:
        parts["text"] = checks.texts(frame[c.text], at(c.text))
    timed = c.timestamp in frame.columns
    if timed:
        parts["time"] = checks.times(frame[c.timestamp], at(c.timestamp), late)
    missing = parts["user"].is_null() | parts["item"].is_null()
    bad_time = parts["time"].is_null() & ~missing if timed else pl.Series([False]).new_from_index(0, frame.height)
    if strict:
        for ours, name in (("user", c.user_id), ("item", c.item_id)):
            row = checks.first(parts[ours].is_null())
            if row is not None:
                raise at(name).error("the id is missing", row)
        row = checks.first(bad_time)
        if row is not None:
            place = at(c.timestamp)
            raise place.error(f"{frame[c.timestamp][row]} is missing or outside of the years 1970 to 2100", row)
    counts["missing_ids_dropped"] = counts.get("missing_ids_dropped", 0) + int(missing.sum())
    counts["bad_timestamps_dropped"] = counts.get("bad_timestamps_dropped", 0) + int(bad_time.sum())
    events = pl.DataFrame([s.alias(name) for name, s in parts.items()])
    drop = missing | bad_time
    return (events.filter(~drop) if drop.any() else events), timed

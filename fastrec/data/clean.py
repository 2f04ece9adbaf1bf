"""Cleaning: raw tables -> Interactions + Catalog, with a report of everything that was dropped or merged."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from fastrec.data import catalog as catalogs
from fastrec.data import checks, merge, stream
from fastrec.data import knowledge as triples
from fastrec.data.checks import Place
from fastrec.data.columns import Columns
from fastrec.data.events import Events, pack, recognised
from fastrec.data.read import read
from fastrec.data.vocab import Vocab
from fastrec.errors import ConfigError, DataError
from fastrec.side import Links
from fastrec.types import Catalog, Interactions, Report

#: How much one event of a kind says about liking; 0 is seen but not liked. Other kinds weigh 1.
DEFAULT_EVENT_WEIGHTS: dict[str, float] = {
    "cart": 3.0,
    "click": 1.0,
    "comment": 2.0,
    "dislike": 0.0,
    "like": 2.0,
    "play": 1.0,
    "purchase": 4.0,
    "rating": 1.0,
    "search": 0.5,
    "view": 1.0,
}


@dataclass(frozen=True, eq=False)
class Cleaned:
    """What cleaning gives: everything in rows, and the vocabularies that lead back to ids."""

    interactions: Interactions
    catalog: Catalog
    users: Vocab
    items: Vocab
    report: Report
    user_table: Any = None
    """pyarrow.Table of U rows with the column user_id and what the users table says; None without one."""
    means: dict[str, float] = field(default_factory=dict)
    """Mean value of each kind of event, "" for events without a kind; empty where no event has a value."""
    timed: bool = True
    """Whether the events had timestamps; else their times are places in the input."""
    links: Links | None = None
    """What the items have in common by their labels and by the triples; None without any."""


def clean(
    interactions: Any,
    items: Any = None,
    users: Any = None,
    *,
    knowledge: Any = None,
    columns: Columns | None = None,
    event_weights: Mapping[str, float] | None = None,
    half_life: float | None = None,
    strict: bool = False,
    where: str = "fit",
) -> Cleaned:
    """Clean events, and items where given.

    interactions, items, users: tables or paths as ``read`` takes them; ``users`` is checked and aligned
    knowledge: triples about the items with the columns head, relation and tail, see ``knowledge.links``
    event_weights: {kind: weight >= 0} over DEFAULT_EVENT_WEIGHTS
    half_life: days in which an event loses half its weight, counted back from the newest event
    strict: raise where the default drops rows

    User and item rows are numbered by first appearance in the input; items that no event names come after,
    in the order of their table. Exact duplicates are dropped, then the events of one user with one item are
    merged: time of the last, sum of the weights (at most 10). The weight of an event is that of its kind
    times its value by the mean value of the kind, between 0 and 5.
    Raises DataError naming table, column and row, ConfigError for a setting out of range.
    """
    c = columns or Columns()
    weights = _event_weights(event_weights, where)
    if half_life is not None and not (_finite(half_life) and half_life > 0):
        raise ConfigError(f"[{where}] half_life={half_life!r}, expected days > 0 or None")
    counts: dict[str, Any] = {}
    notes: list[str] = []
    events = _packed(interactions, c, strict, where, counts)
    timed = events.time is not None
    if len(events) == 0:
        lack, bad = counts["missing_ids_dropped"], counts["bad_timestamps_dropped"]
        raise DataError(
            f"[{where}] interactions: none of the {counts['rows_read']:,} rows is left: {lack:,} lack {c.user_id!r} or "
            f"{c.item_id!r}, {bad:,} have no {c.timestamp!r} between the years 1970 and 2100",
            column=c.user_id if lack else c.timestamp,
        )
    if half_life is not None and not timed:
        raise ConfigError(f"[{where}] half_life={half_life} needs the column {c.timestamp!r}")
    user_vocab, item_vocab = events.users, events.items
    unknown = sorted({kind for kind in events.kinds if kind is not None} - set(weights))
    if unknown:
        notes.append(f"kinds of event without a weight of their own count 1: {', '.join(unknown[:10])}")
    user_table = None if users is None else catalogs.read_users(users, c.user_id, user_vocab, strict, where, notes)
    table = None if items is None else catalogs.read_items(items, c.item_id, item_vocab, strict, where, counts, notes)
    catalog, item_vocab = catalogs.align(table, item_vocab, counts)
    links = triples.links(knowledge, catalog, item_vocab, strict, where, notes)
    merged, means, dropped = merge.histories(events, weights, half_life, len(item_vocab))
    counts["duplicates_dropped"] = dropped
    counts["repeats_merged"] = len(events) - dropped - len(merged.items)
    report = Report(
        **counts, users=len(user_vocab), items=len(item_vocab), events=len(merged.items), notes=tuple(notes)
    )
    found = {kind or "": mean for kind, mean in means.items() if math.isfinite(mean)}
    return Cleaned(merged, catalog, user_vocab, item_vocab, report, user_table, found, timed, links)


def _packed(interactions: Any, c: Columns, strict: bool, where: str, counts: dict[str, Any]) -> Events:
    """The events as columns of numbers; large parquet files are read bit by bit."""
    streamed = stream.events(interactions, c, strict, where, counts)
    if streamed is not None:
        return streamed
    frame = read(interactions, where=where, only=c.all)
    counts["rows_read"] = frame.height
    if frame.height == 0 and {c.user_id, c.item_id} <= {*frame.columns}:
        raise DataError(f"[{where}] interactions has no row; expected at least one event")
    return pack(recognised(frame, c, strict, where, counts)[0])


def event_rows(
    given: Any, columns: Columns, users: Vocab, items: Vocab, where: str
) -> tuple[list[tuple[Any, ...]], bool, dict[str, Any]]:
    """((user, item, time, kind, value, text) of each event, whether they have times, counts of what was dropped).

    given: a table with columns of the same names as in ``clean``, of which only user and item must be there; None
    stands for what an event does not have. Exact repeats within the table are dropped. Raises DataError as ``clean``
    does.
    """
    frame = read(given, where=where, only=columns.all)
    known = {f.name: getattr(columns, f.name) for f in fields(columns)}
    # What fit needed and this table does not have is done without.
    present = {f: n for f, n in known.items() if n in frame.columns or f in ("user_id", "item_id")}
    counts: dict[str, Any] = {"rows_read": frame.height}
    events, timed = recognised(frame, Columns(**present), False, where, counts)
    for name, column, vocab in (("user", columns.user_id, users), ("item", columns.item_id, items)):
        if len(vocab):
            checks.same_kind(events[name], vocab, Place(where, "interactions", column))
    distinct = events.unique(maintain_order=True)
    counts["duplicates_dropped"] = events.height - distinct.height
    parts = [distinct[n] if n in distinct.columns else [None] * distinct.height for n in _PARTS]
    return list(zip(*(list(p) for p in parts), strict=True)), timed, counts


def strength(kind: str | None, value: float | None, weights: Mapping[str, float], means: Mapping[str, float]) -> float:
    """The weight of one event as ``clean`` gives it, with the means of the events that were cleaned then."""
    by = kind or ""
    base = float(weights.get(by, 1.0)) if by else (weights["rating"] if means and value is not None else 1.0)
    mean = means.get(by, 0.0)
    if value is None or not mean > 0:
        return base
    return base * min(max(value / mean, 0.0), 5.0)


#: What an event consists of, in order.
_PARTS = ("user", "item", "time", "kind", "value", "text")


def _finite(number: Any) -> bool:
    """Whether this is a number, and one that float64 can hold."""
    if isinstance(number, bool) or not isinstance(number, (int, float, np.integer, np.floating)):
        return False
    try:
        return math.isfinite(number)
    except OverflowError:  # an int of more than 308 digits
        return False


def _event_weights(given: Mapping[str, float] | None, where: str) -> dict[str, float]:
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError(f"[{where}] event_weights is {type(given).__name__}, expected {{kind: weight}} or None")
    for kind, weight in (given or {}).items():
        if not isinstance(kind, str) or not _finite(weight) or weight < 0:
            raise ConfigError(f"[{where}] event_weights[{kind!r}]={weight!r}, expected a finite number >= 0")
    return DEFAULT_EVENT_WEIGHTS | {kind.strip().lower(): float(w) for kind, w in (given or {}).items()}

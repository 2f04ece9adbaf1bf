"""Events of a running system as callers hand them in: one or a few at once, and fast, or a whole table."""

import datetime
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from fastrec import data, encode
from fastrec.data.checks import LATEST
from fastrec.errors import ConfigError, DataError
from fastrec.side import Media
from fastrec.state import State
from fastrec.store import Record
from fastrec.types import Catalog, Embeddings

#: (user, item, time, kind, value, text); None for what an event does not have.
Event = tuple[Any, Any, float, str | None, float | None, str | None]
#: Events that are looked at one by one; more are read as a table.
_FEW = 256
#: Column of the log with the content vectors of new items; with "image" or "audio" behind it those of their files.
_VECTOR = "__vector__"


def events(given: Any, state: State, now: float) -> tuple[list[Event], dict[str, int]]:
    """(the events in their order, counts of what was dropped).

    given: {column: value} of one event, a list of such dicts, or a table as ``fit`` takes it
    now: time of an event without one
    Raises DataError for what cannot be understood, before anything is changed.
    """
    rows = _few(given, state)
    if rows is not None:
        found = [_one(row, state, now) for row in rows]
        if all(e is not None for e in found):
            distinct = list(dict.fromkeys(e for e in found if e is not None))
            return _placed(distinct, state, now), {"dropped": len(found) - len(distinct)}
        given = _table(rows, state)
    elif _is_list(given):
        given = _table(given, state)
    found_rows, timed, counts = data.event_rows(given, state.columns, state.users, state.items, "update")
    dropped = sum(counts[n] for n in ("missing_ids_dropped", "bad_timestamps_dropped", "duplicates_dropped"))
    table = [(*row[:2], row[2] if timed else now, *row[3:]) for row in found_rows]
    return _placed(table, state, now), {"dropped": dropped}


def missed(records: Sequence[Record], state: State) -> list[Record]:
    """The events of a log that were never applied, although the model knows their items by now."""
    events = [r for r in records if r.kind == "event"]
    items = state.items.rows([json.loads(r.body)[0] for r in events])
    users = state.users.rows([r.user for r in events])
    _, seen = state.histories.take(users)
    owner = np.repeat(np.arange(len(events)), np.diff(seen.indptr))
    had = np.zeros(len(events), np.bool_)
    had[owner[seen.indices == items[owner]]] = True
    return [r for r, item, there in zip(events, items.tolist(), had.tolist(), strict=True) if item >= 0 and not there]


def _table(rows: Sequence[Mapping[str, Any]], state: State) -> pl.DataFrame:
    """Dicts as a table; DataError where one column holds values of several kinds."""
    for name in (state.columns.user_id, state.columns.item_id):
        kinds = sorted({type(row[name]).__name__ for row in rows if row.get(name) is not None})
        if len(kinds) > 1:
            raise DataError(f"[update] column {name!r} holds {' and '.join(kinds)}; expected one kind", column=name)
    try:
        return pl.DataFrame(list(rows), strict=False, infer_schema_length=None)
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"[update] the events are no table: {str(error).splitlines()[0]}") from error


def _placed(found: Sequence[Any], state: State, now: float) -> list[Event]:
    """Where the fitted events had no timestamps, times are places: new events come after all others."""
    if state.timed:
        return list(found)
    return [(e[0], e[1], now + i, *e[3:]) for i, e in enumerate(found)]


def _is_list(given: Any) -> bool:
    return isinstance(given, (list, tuple)) and len(given) > 0 and all(isinstance(e, Mapping) for e in given)


def _few(given: Any, state: State) -> list[dict[str, Any]] | None:
    """The events as dicts where there are few and they are plain; None for anything else."""
    if isinstance(given, (list, tuple)) and not given:
        return []
    if _is_list(given) and len(given) <= _FEW:
        return [dict(e) for e in given]
    if not isinstance(given, Mapping) or not given:
        return None
    plain = [v is None or isinstance(v, (str, int, float, datetime.datetime)) for v in given.values()]
    if all(plain):
        return [dict(given)]
    if any(plain):
        raise DataError(f"[update] values and lists stand side by side in {list(given)}; expected one or the other")
    columns = list(given.values())
    if all(isinstance(c, list) and len(c) == len(columns[0]) <= _FEW for c in columns):
        return [dict(zip(given, row, strict=True)) for row in zip(*columns, strict=True)]
    return None


def _one(row: dict[str, Any], state: State, now: float) -> Event | None:
    """An event that needs no cleaning; None where ``data`` must have a look at it."""
    c = state.columns
    user, item, when = row.get(c.user_id), row.get(c.item_id), row.get(c.timestamp, now)
    kind, text = row.get(c.event), row.get(c.text)
    value = row.get(c.value, row.get("rating") if c.value not in row else None)
    if isinstance(when, datetime.datetime):
        when = (when if when.tzinfo else when.replace(tzinfo=datetime.UTC)).timestamp()
    good = (
        _is_id(user, state.users.is_int if len(state.users) else None)
        and _is_id(item, state.items.is_int)
        and _is_number(when)
        and 0 <= when <= LATEST
        and (kind is None or isinstance(kind, str))
        and (value is None or _is_number(value))
        and (text is None or isinstance(text, str))
    )
    if not good:
        return None
    kind = kind.strip().lower() or None if isinstance(kind, str) else None
    return (user, item, float(when), kind, None if value is None else float(value), text)


def _is_id(one: Any, is_int: bool | None) -> bool:
    if isinstance(one, str):
        return is_int is not True and one != "" and (one.isascii() or not any("\ud800" <= c <= "\udfff" for c in one))
    return type(one) is int and is_int is not False and -(2**63) <= one < 2**63


def _is_number(x: Any) -> bool:
    return type(x) in (int, float) and abs(x) < 1e300 and math.isfinite(x)


def embedded(
    part: Catalog, fitted: Embeddings | None, encoder: Any, media: dict[str, Any]
) -> tuple[Embeddings | None, int]:
    """(what is known of n new items beside those that were fitted, files that cannot be used); None: nothing is asked.

    Raises ConfigError where an encoder is not here, or gives other dimensions than it gave.
    """
    if fitted is None or not (fitted.vectors.shape[1] or fitted.media):
        return None, 0
    n, width = part.n_items, fitted.vectors.shape[1]
    if width and encoder is None and (part.text_columns or part.label_columns):
        raise ConfigError("[add_items] the encoder of the model is not here; hand it to load(..., encoder=...)")
    found = encode.embed_items(part, encoder) if width else None
    if found is not None and found.vectors.shape[1] != width:
        got = found.vectors.shape[1]
        raise ConfigError(f"[add_items] content has {got} dimensions, the fitted items have {width}: fit again")
    ids = part.table["item_id"].to_pylist()
    seen, unreadable = encode.embed_new_media(part, media, fitted.media, ids, "add_items")
    vectors = np.zeros((n, width), np.float32) if found is None else found.vectors
    return Embeddings(vectors, np.any(vectors != 0, axis=1), media=seen), unreadable


def with_vectors(table: Any, embeddings: Embeddings | None) -> Any:
    """The table with the vectors of its rows as columns, for the log: they must come back to the same bits."""
    if embeddings is None:
        return table
    for name, vectors in (("", embeddings.vectors), *((k, m.vectors) for k, m in embeddings.media.items())):
        if vectors.shape[1]:
            flat = pa.array(vectors.ravel())
            column = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
            table = table.append_column(_VECTOR + name, column)
    return table


def vectors_of(table: Any, fitted: Embeddings | None) -> tuple[Any, Embeddings | None]:
    """(the table without the columns of vectors, what they say)."""
    found = {name: table[name] for name in table.column_names if name.startswith(_VECTOR)}
    if not found or fitted is None:
        return table.drop_columns(list(found)) if found else table, None
    arrays = {
        name.removeprefix(_VECTOR): np.ascontiguousarray(
            column.combine_chunks().flatten().to_numpy(zero_copy_only=False), np.float32
        ).reshape(table.num_rows, -1)
        for name, column in found.items()
    }
    vectors = arrays.pop("", np.zeros((table.num_rows, 0), np.float32))
    media = {k: Media(v, np.any(v != 0, axis=1), fitted.media[k].mean) for k, v in arrays.items() if k in fitted.media}
    return table.drop_columns(list(found)), Embeddings(vectors, np.any(vectors != 0, axis=1), media=media)

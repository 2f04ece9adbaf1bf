"""What callers hand to Recommender, checked once and turned into rows."""

import dataclasses
import datetime
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastrec import data, score
from fastrec.errors import ConfigError, DataError, UnknownIdError
from fastrec.kinds import U8
from fastrec.side import Links
from fastrec.state import Settings, State
from fastrec.types import F32, F64, I64, Bool, Csr, Interactions


def check_choice(call: str, name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(f"[{call}] {name}={value!r}, expected one of {', '.join(map(repr, choices))}")


def check_weights(weights: Any) -> Any:
    """ "learned", "equal" or a copy of {source name: finite weight >= 0}."""
    if isinstance(weights, Mapping):
        for name, weight in weights.items():
            number = isinstance(weight, (int, float, np.number)) and not isinstance(weight, bool)
            if not number or not (weight >= 0 and math.isfinite(weight)):
                raise ConfigError(f"[Recommender] weights[{name!r}]={weight!r}, expected a finite number >= 0")
        return {str(name): float(weight) for name, weight in weights.items()}
    check_choice("Recommender", "weights", weights, ("learned", "equal"))
    return weights


def id_list(call: str, name: str, ids: Any) -> tuple[list[Any], bool]:
    """(list of ids, whether a single one was given); DataError for what is neither an id nor a sequence."""
    if isinstance(ids, (str, int, np.integer)) and not isinstance(ids, bool):
        return [ids], True
    table = isinstance(ids, (Mapping, bytes)) or hasattr(ids, "columns") or getattr(ids, "ndim", 1) != 1
    if table or not isinstance(ids, Iterable):
        raise DataError(f"[{call}] {name} is {type(ids).__name__}, expected an id (str or int) or a sequence of ids")
    listed = (
        ids.to_pylist() if hasattr(ids, "to_pylist") else ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    )
    for i, one in enumerate(listed):
        if isinstance(one, bool) or not isinstance(one, (str, int, np.integer)):
            raise DataError(f"[{call}] {name}[{i}] is {one!r} ({type(one).__name__}), expected str or int", row=i)
    return listed, False


def text_list(call: str, texts: Any) -> list[Any]:
    """A list of the texts, or of the single one; DataError for what is neither."""
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, (Mapping, bytes)) or hasattr(texts, "columns") or not isinstance(texts, Iterable):
        raise DataError(f"[{call}] texts is {type(texts).__name__}, expected a str or a sequence of str")
    return list(texts)


def check_event_weights(weights: Any) -> dict[str, float]:
    """A copy; ConfigError for what is no dict. The weights themselves are checked by cleaning."""
    if weights is not None and not isinstance(weights, Mapping):
        raise ConfigError(f"[Recommender] event_weights is {type(weights).__name__}, expected {{kind: weight}} or None")
    return dict(weights or {})


def known_rows(call: str, kind: str, ids: Sequence[Any], vocab: data.Vocab) -> I64:
    """Rows of the ids; UnknownIdError naming all that the model does not know."""
    rows = vocab.rows(ids)
    if (rows < 0).any():
        raise UnknownIdError(call, kind, [ids[i] for i in np.flatnonzero(rows < 0).tolist()])
    return rows


def unknown_users(call: str, ids: list[Any], rows: I64, on_unknown: str) -> tuple[list[Any], I64]:
    """(ids, rows) after ``on_unknown``: "fallback" keeps row -1, "skip" drops it, "raise" raises."""
    check_choice(call, "on_unknown", on_unknown, ("fallback", "raise", "skip"))
    unknown = np.flatnonzero(rows < 0)
    if len(unknown) and on_unknown == "raise":
        raise UnknownIdError(call, "user", [ids[i] for i in unknown])
    if len(unknown) and on_unknown == "skip":
        keep = np.flatnonzero(rows >= 0)
        return [ids[i] for i in keep], rows[keep]
    return ids, rows


def seconds(call: str, at: Any) -> float:
    """Seconds since 1970 of a number or a datetime (without a zone: UTC)."""
    if isinstance(at, np.datetime64):
        at = at.astype("datetime64[us]").item()
    if isinstance(at, datetime.datetime) and at == at:  # pandas' NaT is a datetime that does not equal itself
        return (at if at.tzinfo else at.replace(tzinfo=datetime.UTC)).timestamp()
    try:
        if not isinstance(at, (bool, datetime.date)) and isinstance(at, (int, float, np.number)) and math.isfinite(at):
            return float(at)
    except OverflowError:
        pass
    raise ConfigError(f"[{call}] at={at!r}, expected seconds or a datetime")


def histories(
    call: str, given: Any, state: State, settings: Settings, on_unknown: str
) -> tuple[list[Any], Interactions, bool]:
    """(ids or positions, histories in item rows, whether a single one was given)."""
    check_choice(call, "on_unknown", on_unknown, ("fallback", "raise", "skip"))
    sequence = isinstance(given, (list, tuple, np.ndarray))
    if sequence and not (len(given) and all(isinstance(h, Mapping) for h in given)):
        single = len(given) > 0 and all(isinstance(h, (str, int, np.integer)) for h in given)
        lists = [_one_history(call, given)] if single else [_one_history(call, h) for h in given]
        ids: list[Any] = list(range(len(lists)))
        owner = np.repeat(np.arange(len(lists)), [len(h) for h in lists])
        flat = [item for h in lists for item in h]
        rows = state.items.rows(flat)
        unknown = [flat[i] for i in np.flatnonzero(rows < 0).tolist()]
        times = np.arange(len(rows), dtype=np.float64)
        weights, kinds = np.ones(len(rows), np.float32), None
    else:
        cleaned = _clean(call, given, state, settings)
        flat = cleaned.items.ids(np.arange(len(cleaned.items))).tolist()
        found = state.items.rows(flat)
        unknown = [flat[i] for i in np.flatnonzero(found < 0).tolist()]
        ids, single = cleaned.users.ids(np.arange(len(cleaned.users))).tolist(), False
        events = cleaned.interactions
        owner, times, weights, rows = events.users, events.times, events.weights, found[events.items]
        kinds = events.kinds
    if unknown and on_unknown == "raise":
        raise UnknownIdError(call, "item", unknown)
    return ids, _one_entry_per_item(owner, rows, times, weights, kinds, len(ids), len(state.items)), single


def _one_history(call: str, items: Any) -> list[Any]:
    """Item ids of one history; DataError where it is no sequence of ids."""
    if isinstance(items, (str, int, np.integer)):
        raise DataError(
            f"[{call}] histories mixes lists and the id {items!r}, expected one list of ids or a list of lists"
        )
    return id_list(call, "history", items)[0]


def _clean(call: str, events: Any, state: State, settings: Settings) -> data.Cleaned:
    """Events of the caller, read as those of ``fit`` were."""
    frame = data.read(events, where=call)
    names = frame.columns
    # What fit needed and this table does not have is done without.
    keep = {f: n for f, n in dataclasses.asdict(state.columns).items() if n in names or f in ("user_id", "item_id")}
    timed = keep.get("timestamp") in names
    half_life = settings.half_life if timed else None
    weights = settings.event_weights
    return data.clean(frame, columns=data.Columns(**keep), event_weights=weights, half_life=half_life, where=call)


def _one_entry_per_item(
    owner: I64, rows: I64, times: F64, weights: F32, kinds: U8 | None, n_users: int, n_items: int
) -> Interactions:
    """Histories without unknown items (row -1), each item at its last place, as fit merges repeats."""
    place = np.arange(len(rows))
    last = np.zeros(len(rows), np.bool_)
    known = rows >= 0
    # np.unique gives the first of equals: reversed, that is the last.
    _, first = np.unique((owner * n_items + rows)[::-1][known[::-1]], return_index=True)
    last[place[::-1][known[::-1]][first]] = True
    indptr = np.concatenate([[0], np.cumsum(np.bincount(owner[last], minlength=n_users))]).astype(np.int64)
    kinds = None if kinds is None else kinds[last]
    return Interactions(indptr, rows[last].astype(np.int32), times[last], weights[last], n_items, kinds)


def test_events(given: Any, state: State, settings: Settings) -> tuple[Interactions, Interactions, tuple[str, ...]]:
    """(histories, held-out items, notes) for the users of a test table, known or not.

    Items that the model does not know and items that the user already had cannot be recommended: they are
    left out and counted in the notes.
    """
    cleaned = _clean("evaluate", given, state, settings)
    user_ids = cleaned.users.ids(np.arange(len(cleaned.users))).tolist()
    item_ids = cleaned.items.ids(np.arange(len(cleaned.items))).tolist()
    train, _ = state.histories.take(state.users.rows(user_ids))
    c = cleaned.interactions
    rows = state.items.rows(item_ids)[c.items]
    n = len(state.items)
    old = np.isin(c.users * n + rows, train.users * n + train.items)
    keep = (rows >= 0) & ~old
    held = dataclasses.replace(c, items=np.maximum(rows, 0).astype(np.int32), n_items=n).select(keep)
    notes = []
    if (rows < 0).any():
        notes.append(f"{int((rows < 0).sum()):,} test events are of items that the model does not know: left out")
    if old.any():
        notes.append(f"{int(old.sum()):,} test events are of items that the user had before: left out")
    return train, held, tuple(notes)


def item_mask(call: str, allow: Any, deny: Any, where: Any, state: State) -> Bool | None:
    """Which items all users may get, bool [N]; None where nothing limits them. Per-user dicts are not read here."""
    mask = None if where is None else score.where_mask(state.catalog, where, call)
    for name, ids, inside in (("allow", allow, True), ("deny", deny, False)):
        if ids is None or isinstance(ids, Mapping):
            continue
        named = np.full(len(state.items), not inside)
        rows = state.items.rows(id_list(call, name, ids)[0])
        named[rows[rows >= 0]] = inside
        mask = named if mask is None else mask & named
    if state.removed is not None:
        mask = ~state.removed if mask is None else mask & ~state.removed
    return mask


def per_user(call: str, name: str, lists: Any, ids: Sequence[Any], state: State, *, everything: bool) -> Csr | None:
    """Rows of {user id: item ids} for these users; one who is not named gets every item or none."""
    if not isinstance(lists, Mapping):
        return None
    n = len(state.items)
    rows = []
    for user in ids:
        if user not in lists:
            rows.append(np.arange(n if everything else 0))
        else:
            found = state.items.rows(id_list(call, f"{name}[{user!r}]", lists[user])[0])
            rows.append(np.unique(found[found >= 0]))
    indptr = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)
    flat = np.concatenate([np.empty(0, np.int64), *rows]).astype(np.int32)
    return Csr(indptr, flat, n)


def candidates(given: Any, users: Sequence[Any]) -> tuple[Any, int]:
    """(candidates of ``rank`` as lists, length of the longest, at least 1); who is not named gets none."""
    if not isinstance(given, Mapping):
        listed, _ = id_list("rank", "candidates", given)
        return listed, max(1, len(set(listed)))
    lists = {user: id_list("rank", "candidates", ids)[0] for user, ids in given.items()}
    return {user: lists.get(user, []) for user in users}, max([1, *(len(set(ids)) for ids in lists.values())])


def boost_factors(call: str, boost: Any, state: State) -> F64 | None:
    """Factor of every item, float64 [N], from {item id: factor} or a numeric column; None without boosts."""
    if boost is None:
        return None
    if isinstance(boost, str):
        return score.boost_column(state.catalog, boost, call)
    if not isinstance(boost, Mapping):
        raise ConfigError(f"[{call}] boost is {type(boost).__name__}, expected {{item id: factor}} or a column name")
    factors = np.ones(len(state.items))
    rows = state.items.rows(id_list(call, "boost", list(boost))[0])
    for row, (item, factor) in zip(rows, boost.items(), strict=True):
        if isinstance(factor, bool) or not isinstance(factor, (int, float, np.number)):
            raise ConfigError(f"[{call}] boost[{item!r}]={factor!r}, expected a finite number >= 0")
        if row >= 0:
            factors[row] = np.inf if isinstance(factor, int) and abs(factor) > 1e300 else factor
    return factors


def objects(ids: Sequence[Any]) -> npt.NDArray[np.object_]:
    """ids as an object array, which numpy must not turn into an array of its own kind."""
    out = np.empty(len(ids), object)
    out[:] = [i.item() if isinstance(i, np.generic) else i for i in ids]
    return out


def readable(explanation: score.Explanation, state: State) -> dict[str, Any]:
    """An explanation in the caller's item ids."""
    items = state.items.ids(np.array([row for row, _ in explanation.history], np.int64))
    told: dict[str, Any] = {
        "sources": explanation.sources,
        "history": [(item, weight) for item, (_, weight) in zip(items, explanation.history, strict=True)],
    }
    if explanation.paths is not None and state.embeddings is not None and state.embeddings.links is not None:
        told["paths"] = [_readable_path(path, state, state.embeddings.links) for path in explanation.paths]
    return told


def _readable_path(path: list[Any], state: State, links: Links) -> list[Any]:
    """Nodes, which stand at the even places, as item ids and the names of entities."""

    def name(node: int) -> Any:
        return state.items.ids(np.array([node]))[0] if node < links.n_items else links.names[node - links.n_items]

    return [part if place % 2 else name(part) for place, part in enumerate(path)]

"""From asks to answers: requests with the same keywords become one call of the recommender."""

import datetime
import json
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from fastrec.errors import ConfigError, FastRecError
from fastrec.results import Recommendations
from fastrec.serve import schemas
from fastrec.serve.model import Facts, Model

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"

#: A call asks for one of these, so that requests of different k are one call: the first of more are the same.
_STEPS = (10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True, slots=True)
class Call:
    """One request: the method of the recommender, what it is about (a list), its k and its keywords."""

    method: str
    subjects: list[Any]
    k: int
    keywords: dict[str, Any]
    arrow: bool = False
    candidates: list[Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:  # on its way to another process: a third of the time of the default
        return Call, (self.method, self.subjects, self.k, self.keywords, self.arrow, self.candidates)

    @property
    def key(self) -> Hashable:
        """Calls of one key can be made together; None for one that cannot."""
        if self.method == "rank":
            return ("rank",)
        if self.keywords.get("on_unknown", "fallback") != "fallback":
            return None  # others than those that were asked for come back, or nobody does
        exact = self.keywords.get("diversity") or self.keywords.get("explain")
        if not any(v is not None for n, v in self.keywords.items() if n in ("allow", "deny", "where", "boost", "at")):
            rest: Hashable = tuple(self.keywords.values())
        else:
            rest = repr(sorted(self.keywords.items()))
        return (self.method, self.k if exact else _step(self.k), rest)


def _step(k: int) -> int:
    return next((step for step in _STEPS if step >= k), k)


def recommend(body: schemas.Recommend, model: Facts, arrow: bool) -> Call:
    """The call of POST /recommend; ConfigError for values that JSON alone cannot check."""
    keywords: dict[str, Any] = {
        "filter_seen": body.filter_seen,
        "allow": _per_user(body.allow, model),
        "deny": _per_user(body.deny, model),
        "where": where(body.where),
        "boost": _keys(body.boost, "item", model) if isinstance(body.boost, dict) else body.boost,
        "diversity": body.diversity,
        "at": _moment(body.at),
        "explain": body.explain,
        "on_unknown": body.on_unknown,
    }
    if body.users is not None:
        return Call("recommend", _listed(body.users), body.k, keywords, arrow)
    if body.text is not None:
        return Call("recommend_for_text", _listed(body.text), body.k, keywords, arrow)
    history: Any = body.history
    nested = bool(history) and isinstance(history[0], list)
    return Call("recommend_for_history", history if nested else [history], body.k, keywords, arrow)


def similar(body: schemas.Similar, arrow: bool) -> Call:
    return Call("similar_items", _listed(body.items), body.k, {"by": body.by, "where": where(body.where)}, arrow)


def rank(body: schemas.Rank, arrow: bool) -> Call:
    k = max(1, len(set(body.candidates))) if body.k is None else body.k
    return Call("rank", [body.user], k, {}, arrow, body.candidates)


def where(given: dict[str, Any] | None) -> dict[str, Any] | None:
    """A JSON filter as the recommender takes it: JSON has no tuples, which stand for ranges there."""
    if given is None:
        return None
    out = {}
    for column, wanted in given.items():
        if isinstance(wanted, schemas.Range):
            wanted = (wanted.min, wanted.max)
        elif isinstance(wanted, list) and len(wanted) == 2 and None in wanted:
            wanted = tuple(wanted)
        out[column] = wanted
    return out


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _keys(given: dict[str, Any], kind: str, model: Facts) -> dict[Any, Any]:
    """The keys of a JSON object are text; where the ids are numbers they are meant."""
    return {model.id(kind, name): value for name, value in given.items()}


def _per_user(given: Any, model: Facts) -> Any:
    return _keys(given, "user", model) if isinstance(given, dict) else given


def _moment(at: Any) -> Any:
    if not isinstance(at, str):
        return at
    try:
        return datetime.datetime.fromisoformat(at)
    except ValueError as error:
        raise ConfigError(f"[recommend] at={at!r}, expected seconds or an ISO 8601 time") from error


@dataclass(frozen=True, slots=True)
class Answered:
    """What a batch gave: (content, media type) or an error for each call, the groups it was, seconds of writing."""

    results: list[Any]
    groups: int
    seconds: float


def answer(model: Model, batch: Sequence[Call]) -> Answered:
    """The answers of one model to a batch; an error is that of its own call alone."""
    groups: dict[Hashable, list[int]] = {}
    for i, call in enumerate(batch):
        key = call.key
        groups.setdefault(i if key is None else key, []).append(i)
    out: list[Any] = [None] * len(batch)
    spent = 0.0
    for members in groups.values():
        calls = [batch[i] for i in members]
        answers = _together(model, calls)
        began = time.perf_counter()
        for i, call, found in zip(members, calls, answers, strict=True):
            out[i] = found if isinstance(found, Exception) else _content(found, call, model)
        spent += time.perf_counter() - began
    return Answered(out, len(groups), spent)


def _together(model: Model, calls: Sequence[Call]) -> list[Any]:
    try:
        return _parts(_made(model, calls), calls)
    except Exception as error:
        if len(calls) == 1:
            return [error]
        if not isinstance(error, (FastRecError, MemoryError)):
            return [error] * len(calls)
    # One of them is at fault, and only that one is told so.
    return [_together(model, [call])[0] for call in calls]


def alone(model: Model, call: Call) -> tuple[bytes, str]:
    """One call, past the queue."""
    return _content(_made(model, [call]), call, model)


def _made(model: Model, calls: Sequence[Call]) -> Recommendations:
    first = calls[0]
    rec = model.recommender
    if first.method == "rank":
        return _ranked(rec, calls)
    exact = len(calls) == 1
    k = max(call.k for call in calls) if exact else max(_step(call.k) for call in calls)
    if first.keywords.get("diversity") or first.keywords.get("explain"):
        k = first.k
    subjects = first.subjects if exact else [s for call in calls for s in call.subjects]
    method: Callable[..., Recommendations] = getattr(rec, first.method)
    return method(subjects, k, **first.keywords)


def _ranked(rec: Any, calls: Sequence[Call]) -> Recommendations:
    users = [call.subjects[0] for call in calls]
    if len(set(users)) < len(users):  # the candidates go by user: two lists of one user are two calls
        results = [_ranked(rec, [call]) for call in calls]
        return _joined(results)
    wanted = {user: call.candidates for user, call in zip(users, calls, strict=True)}
    result: Recommendations = rec.rank(users, wanted, max(call.k for call in calls))
    return result


def _joined(results: Sequence[Recommendations]) -> Recommendations:
    import numpy as np

    k = max(r.items.shape[1] for r in results)

    def wide(array: Any, fill: Any) -> Any:
        return np.pad(array, ((0, 0), (0, k - array.shape[1])), constant_values=fill)

    return Recommendations(
        np.concatenate([r.users for r in results]),
        np.concatenate([wide(r.items, None) for r in results]),
        np.concatenate([wide(r.scores, -np.inf) for r in results]),
    )


def _parts(result: Recommendations, calls: Sequence[Call]) -> list[Recommendations]:
    """The rows of each call."""
    if len(calls) == 1:
        return [result]
    parts, at = [], 0
    for call in calls:
        rows = slice(at, at + len(call.subjects))
        at = rows.stop
        why = None if result.explanations is None else result.explanations[rows]
        parts.append(
            Recommendations(result.users[rows], result.items[rows, : call.k], result.scores[rows, : call.k], why)
        )
    return parts


def _content(result: Recommendations, call: Call, model: Model) -> tuple[bytes, str]:
    if call.method in ("recommend_for_history", "recommend_for_text") and call.keywords["on_unknown"] != "skip":
        # A batch counts through all requests; every request counts from 0.
        result.users[:] = range(len(result.users))
    if call.arrow:
        table = result.to_arrow().replace_schema_metadata({"model_version": model.facts.version})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue().to_pybytes(), ARROW
    results = []
    for u, (user, items, scores) in enumerate(
        zip(result.users.tolist(), result.items.tolist(), result.scores.tolist(), strict=True)
    ):
        rows: list[dict[str, Any]] = [
            {"item_id": item, "score": score, "rank": rank}
            for rank, (item, score) in enumerate(zip(items, scores, strict=True), 1)
            if item is not None
        ]
        if result.explanations is not None:
            for row, why in zip(rows, result.explanations[u], strict=True):
                history = [{"item_id": item, "weight": weight} for item, weight in why["history"]]
                row["explanation"] = {**why, "history": history}
        results.append({"user_id": user, "items": rows})
    text = json.dumps({"results": results, "model_version": model.facts.version}, separators=(",", ":"))
    return text.encode(), JSON

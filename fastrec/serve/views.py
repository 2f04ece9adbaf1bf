"""What the page to look inside shows of a model; made where the model is."""

import dataclasses
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fastrec import inside
from fastrec.errors import UnknownIdError
from fastrec.serve import calls
from fastrec.serve.model import Model
from fastrec.types import BiasSource, Interactions

_POINTS = 2000
_STALE_SECONDS = 30.0
_TITLES = ("title", "name", "label", "headline", "text", "description")


class Views:
    """What the page shows of one model; made at first use."""

    def __init__(self, model: Model) -> None:
        self.model, self._made = model, time.monotonic()
        self.state = inside.state_of(model.recommender, "inspect")
        self.items: list[Any] = model.recommender.item_ids
        self.users: list[Any] = model.recommender.user_ids
        self._texts = {"item": _text(self.items), "user": _text(self.users)}
        table, text_columns = self.state.catalog.table, self.state.catalog.text_columns
        strings = [n for n in table.column_names if _is_string(table[n].type)]
        named = [n for t in _TITLES for n in strings if n.lower() == t]
        self.title: str | None = next(iter([*named, *text_columns, *strings]), None)
        self._map: dict[str, Any] | None = None

    def stale(self, model: Model) -> bool:
        """Whether views of this model, as of now, would show something else."""
        return self.model is not model or time.monotonic() - self._made >= _STALE_SECONDS

    def about(self) -> dict[str, Any]:
        rec = self.model.recommender
        content = any(s.name == "content" for s in self.state.sources)
        return {
            "model_version": self.model.facts.version,
            "loaded_at": self.model.facts.loaded_at,
            "users": len(self.users),
            "items": len(self.items),
            "weights": rec.weights,
            "title": self.title,
            "columns": self.state.catalog.table.column_names,
            "text": content and inside.encoder_of(rec) is not None,
            "ints": self.model.facts.ints,
            "some_users": self.users[:5],
        }

    def search(self, kind: str, words: str, limit: int) -> list[dict[str, Any]]:
        """Ids, or titles of items, that hold these letters; a whole id first."""
        ids = self.items if kind == "item" else self.users
        mask = pc.match_substring(self._texts[kind], words, ignore_case=True)
        if kind == "item" and self.title is not None and words:
            titles = self.state.catalog.table[self.title].combine_chunks()
            found = pc.fill_null(pc.match_substring(titles, words, ignore_case=True), False)
            mask = pc.or_(mask, found) if len(found) == len(mask) else mask
        rows = np.flatnonzero(mask.to_numpy(zero_copy_only=False))[: 50 * limit].tolist()
        rows.sort(key=lambda row: (str(ids[row]) != words, row))
        chosen = [ids[row] for row in rows[:limit]]
        if kind == "user":
            return [{"id": one} for one in chosen]
        titles_of = self.describe(chosen)
        return [{"id": one, "title": entry["title"]} for one, entry in zip(chosen, titles_of, strict=True)]

    def describe(self, ids: list[Any]) -> list[dict[str, Any]]:
        """Title and short columns of each item."""
        rows = self.state.items.rows(ids)
        table = self.state.catalog.table
        known = (rows >= 0) & (rows < table.num_rows)
        records = table.take(pa.array(rows[known].astype(np.int64))).to_pylist()
        out, at = [], iter(records)
        for one, there in zip(ids, known.tolist(), strict=True):
            record = next(at) if there else {}
            title = record.get(self.title) if self.title else None
            short = {n: _short(v) for n, v in record.items() if n != self.title and v is not None}
            columns = {n: v for n, v in short.items() if v is not None}
            out.append({"item_id": one, "title": str(title)[:200] if title else None, "columns": columns})
        return out

    def history(self, user: Any, limit: int) -> dict[str, Any]:
        """The newest events of a user; UnknownIdError for one whom the model has never met."""
        rows = self.state.users.rows([user])
        if rows[0] < 0:
            raise UnknownIdError("inspect", "user", [user])
        if hasattr(self.state, "histories"):
            entries = self.state.histories.take(rows)[0]
        else:
            entries = self.state.interactions.take(rows)
        newest = np.arange(len(entries.items))[::-1][:limit]
        items = self.state.items.ids(entries.items[newest].astype(np.int64)).tolist()
        events = self.describe(items)
        for event, place in zip(events, newest.tolist(), strict=True):
            event["time"], event["weight"] = float(entries.times[place]), float(entries.weights[place])
        return {"user_id": user, "events": events, "total": len(entries.items)}

    def map(self) -> dict[str, Any]:
        """The items that were used most, in the plane of the two largest principal components of their vectors.

        A model without vectors of items is shown by who used them.
        """
        if self._map is None:
            used = np.bincount(self.state.interactions.items, minlength=len(self.items))[: len(self.items)]
            rows = np.sort(np.argsort(-used, kind="stable")[:_POINTS])
            ids = [self.items[row] for row in rows.tolist()]
            vectors, of = self.model.recommender.item_vectors(ids), "their vectors"
            if vectors.shape[1] < 2:
                vectors, of = _users_of(self.state.interactions, rows), "who used them"
            points, share = _plane(vectors)
            described = self.describe(ids)
            groups = self._groups(described)
            self._map = {
                "share": share,
                "of": of,
                "points": [
                    {"item_id": d["item_id"], "title": d["title"], "x": x, "y": y, "group": g, "events": n}
                    for d, (x, y), g, n in zip(described, points.tolist(), groups, used[rows].tolist(), strict=True)
                ],
            }
        return self._map

    def recommend(self, call: calls.Call, factors: dict[str, float]) -> tuple[bytes, str]:
        """(content, media type) of a call, with a factor for the weight of each source."""
        return calls.alone(reweighted(self.model, factors), call)

    def _groups(self, described: list[dict[str, Any]]) -> list[str]:
        """A label for each item, of the first column whose labels repeat; "" where none does."""
        for name in self.state.catalog.label_columns:
            labels = [str(d["columns"].get(name, "")).split(", ")[0] for d in described]
            if 1 < len(set(labels)) <= max(12, len(labels) // 10):
                return labels
        return [""] * len(described)


def reweighted(model: Model, factors: dict[str, float]) -> Model:
    """The same model with other weights for its sources: they are part of the queries and of the bias alone."""
    if all(factor == 1 for factor in factors.values()):
        return model
    state = inside.state_of(model.recommender, "inspect")
    features = state.features
    bias, scales = features.bias.astype(np.float64), dict(features.bias_scales)
    weights = features.weights.copy()
    for i, source in enumerate(features.sources):
        factor = factors.get(source.name, 1.0)
        weights[i] *= factor
        if isinstance(source, BiasSource):
            bias += (factor - 1) * scales[source.name] * source.bias.astype(np.float64)
            scales[source.name] *= factor
    changed = dataclasses.replace(features, weights=weights, bias=bias.astype(np.float32), bias_scales=scales)
    other = dataclasses.replace(state, features=changed)
    return dataclasses.replace(model, recommender=inside.with_state(model.recommender, other))


def _users_of(interactions: Interactions, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Who used these items, as float32 [n, 64]: each user is one of 64 random signs, so that few dimensions do."""
    place = np.full(interactions.n_items, -1)
    place[rows] = np.arange(len(rows))
    at = place[interactions.items]
    signs = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), (interactions.n_users, 64))
    out = np.zeros((len(rows), 64), np.float32)
    np.add.at(out, at[at >= 0], signs[interactions.users[at >= 0]])
    out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)
    return out


def _plane(vectors: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], float]:
    """([n, 2] in [-1, 1], share of the variance that the plane shows) of vectors [n, D]."""
    points = np.zeros((len(vectors), 2))
    if vectors.shape[1] < 2 or len(vectors) < 3:
        return points, 0.0
    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    values, axes = np.linalg.eigh(centred.T @ centred)
    # The sign of an axis is arbitrary: its largest entry is taken as positive, so that the map stays.
    best = axes[:, [-1, -2]]
    best = best * np.sign(best[np.abs(best).argmax(axis=0), [0, 1]])
    points = centred @ best
    largest = np.abs(points).max(axis=0)
    return points / np.where(largest > 0, largest, 1), float(values[-2:].sum() / max(values.sum(), 1e-12))


def _text(ids: list[Any]) -> Any:
    return pa.array([str(i).encode("utf-8", "replace").decode() for i in ids], pa.string())


def _is_string(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _short(value: Any) -> Any:
    """A column value for people; None for vectors and the like."""
    if isinstance(value, (bool, int, float)):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, str):
        return value[:120]
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        return ", ".join(value)[:120]
    return None

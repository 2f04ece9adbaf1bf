"""What callers get back: Recommendations and Evaluation, in the caller's own ids."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl
import pyarrow as pa

from fastrec.types import F32

__all__ = ["Evaluation", "Recommendations"]

Ids = npt.NDArray[np.object_]


@dataclass(frozen=True, eq=False)
class Recommendations:
    """Ranked items for B users; for a single id the arrays are 1-D and iteration gives item ids.

    users: object [B], the ids that were asked for (or the position, for histories and texts)
    items: object [B, k], item ids, None where fewer than k exist
    scores: float32 [B, k], -inf there
    explanations: with ``explain=True`` a list [B] of lists [k] of
        {"sources": {source: share}, "history": [(item id, weight), ...]}, else None; the shares of a
        result sum to its score, its history weights are those of the entries that weigh most. With "knowledge" or
        "graph" also "paths": [item of the history, relation, entity, relation, item], by their weight in it
    """

    users: Ids
    items: Ids
    scores: F32
    explanations: Any = None
    single: bool = False

    @classmethod
    def of(cls, users: Ids, items: Ids, scores: F32, explanations: Any, single: bool) -> "Recommendations":
        """From arrays of B users; ``single`` takes the batch dimension off."""
        if single and len(users):
            return cls(users[:1], items[0], scores[0], explanations and explanations[0], True)
        return cls(users, items, scores, explanations, False)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        """Item ids, best first, for a single id; (user id, [item ids]) for a batch. Empty places are left out."""
        if self.single:
            yield from (item for item in self.items if item is not None)
        else:
            for user, row in zip(self.users, self.items, strict=True):
                yield user, [item for item in row if item is not None]

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dict a result: user_id, item_id, score, rank (from 1)."""
        return self.to_arrow().to_pylist()  # type: ignore[no-any-return]

    def to_arrow(self) -> Any:
        """pyarrow.Table with the columns user_id, item_id, score (float32), rank (int64, from 1)."""
        items = np.atleast_2d(self.items)
        found = np.array([[item is not None for item in row] for row in items], np.bool_).reshape(items.shape)
        place, rank = np.nonzero(found)
        return pa.table(
            {
                "user_id": _column(self.users[place].tolist()),
                "item_id": _column(items[found].tolist()),
                "score": pa.array(np.atleast_2d(self.scores)[found], pa.float32()),
                "rank": pa.array(rank + 1, pa.int64()),
            }
        )

    def to_pandas(self) -> pd.DataFrame:
        """The table of ``to_arrow`` as pandas."""
        frame: pd.DataFrame = self.to_arrow().to_pandas()
        return frame

    def to_polars(self) -> pl.DataFrame:
        """The table of ``to_arrow`` as polars."""
        return pl.DataFrame(self.to_arrow())

    def __repr__(self) -> str:
        shape = f"{len(self.items)} items" if self.single else f"{self.items.shape[0]} users x {self.items.shape[1]}"
        return f"Recommendations({shape})"


def _column(ids: list[Any]) -> Any:
    """Ids as one Arrow column: int64 or string; ids that were asked for and fit neither become strings."""
    if ids and all(isinstance(i, int) and -(2**63) <= i < 2**63 for i in ids):
        return pa.array(ids, pa.int64())
    return pa.array([str(i).encode("utf-8", "replace").decode() for i in ids], pa.string())


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Metrics of the ensemble and of its sources on one split.

    rows: one dict a model: model, ndcg, recall, hit_rate, mrr, map, coverage
    split: what was held out; k: length of the rankings
    users: test users measured; events: their relevant items
    notes: what could not be measured (test events of items that the model has never met, ...)
    intervals: {model: {metric: [low, high]}}, the middle 95 % of a bootstrap over the users
    sources: one dict a source, NDCG: source, weight, alone, fused, without (the ensemble without it), gain,
        gain_interval
    segments: one dict a part of the users or events: segment, users, events, ndcg of every model
    ladder: one dict a step: step, sources, the metrics, ndcg_interval; empty unless asked for
    """

    rows: list[dict[str, Any]]
    split: str
    k: int
    users: int
    events: int
    notes: tuple[str, ...] = ()
    intervals: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
    segments: list[dict[str, Any]] = field(default_factory=list)
    ladder: list[dict[str, Any]] = field(default_factory=list)

    @property
    def table(self) -> pd.DataFrame:
        """One line a model, indexed by its name."""
        return pd.DataFrame(self.rows).set_index("model")

    def to_dict(self) -> dict[str, Any]:
        return {
            "split": self.split,
            "k": self.k,
            "users": self.users,
            "events": self.events,
            "models": self.rows,
            "intervals": self.intervals,
            "sources": self.sources,
            "segments": self.segments,
            "ladder": self.ladder,
            "notes": list(self.notes),
        }

    def to_json(self, path: str | Path | None = None) -> str:
        """JSON text; also written to ``path`` when given."""
        text = json.dumps(self.to_dict(), indent=2)
        if path is not None:
            Path(path).write_text(text + "\n")
        return text

    def __str__(self) -> str:
        names = list(self.rows[0])
        head = f"{'model':<20}" + "".join(f"{name + f'@{self.k}':>14}" for name in names[1:])
        lines = [f"{row['model']:<20}" + "".join(f"{row[n]:>14.4f}" for n in names[1:]) for row in self.rows]
        about = f"split {self.split}: {self.users:,} test users, {self.events:,} events to find"
        parts = [about, head, *lines]
        if self.intervals:
            parts += ["", f"{'ndcg, 95 % interval':<34}{'low':>8}{'high':>8}"]
            parts += [f"{name:<34}{_pair(found['ndcg'])}" for name, found in self.intervals.items()]
        if self.sources:
            head = f"{'weight':>8}{'alone':>8}{'fused':>8}{'without':>9}{'gain':>9}   95 % interval of the gain"
            parts += ["", f"{'source (ndcg)':<20}{head}"]
            parts += [
                f"{s['source']:<20}{s['weight']:>8.3f}{s['alone']:>8.4f}{s['fused']:>8.4f}{s['without']:>9.4f}"
                f"{s['gain']:>+9.4f}   {_pair(s['gain_interval'])}"
                for s in self.sources
            ]
        if self.segments:
            shown = list(self.segments[0]["ndcg"])
            parts += ["", f"{'segment (ndcg)':<30}{'users':>8}" + "".join(f"{name[:17]:>18}" for name in shown)]
            parts += [
                f"{s['segment']:<30}{s['users']:>8,}" + "".join(f"{s['ndcg'][name]:>18.4f}" for name in shown)
                for s in self.segments
            ]
        if self.ladder:
            parts += ["", f"{'step (ndcg)':<20}{'ndcg':>8}{'low':>8}{'high':>8}   sources"]
            parts += [
                f"{s['step']:<20}{s['ndcg']:>8.4f}{_pair(s['ndcg_interval'])}   {', '.join(s['sources'])}"
                for s in self.ladder
            ]
        return "\n".join([*parts, *[f"note: {note}" for note in self.notes]])


def _pair(interval: list[float]) -> str:
    return "".join(f"{x:>8.4f}" for x in interval)

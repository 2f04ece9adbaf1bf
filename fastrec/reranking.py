"""The wiring of the last stage: which titles the language model reads, and how much it counts."""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.optimize

from fastrec import pipeline
from fastrec.errors import ConfigError
from fastrec.rerank import Reader, bonus, reordered
from fastrec.types import F32, F64, BiasSource, Bool, Candidates, Catalog, Interactions
from fastrec.usertext import shortened

log = logging.getLogger("fastrec")

#: Fewer users of the holdout whose next item is among the candidates teach nothing.
_FEWEST = 20
#: The largest weight, and the standard errors by which it must raise the NDCG of the candidates.
_MOST, _ERRORS = 10.0, 2.0


@dataclass(frozen=True, eq=False)
class Reranker:
    """What reads, and the weight of a unit of log likelihood beside the fused score."""

    reader: Reader
    weight: float

    @property
    def candidates(self) -> int:
        """How many of the best are read; 0 where reading changes nothing."""
        return self.reader.settings.candidates if self.weight > 0 else 0


def titles(catalog: Catalog, rows: Sequence[int], characters: int) -> list[str]:
    """The titles of these items, "" for one without: the first text column, on one line."""
    found = catalog.table.column(catalog.text_columns[0]).take(list(rows)).to_pylist()
    return [shortened(" ".join(title.split()), characters) if title else "" for title in found]


def check(catalog: Catalog) -> None:
    """ConfigError where the items have no titles."""
    if not catalog.text_columns:
        raise ConfigError("[fit] rerank reads titles and the items have none; fit with items that have a text column")


def apply(reranker: Reranker, catalog: Catalog, histories: Interactions, found: Candidates) -> tuple[Candidates, F32]:
    """(candidates in the new order, what was added to the score of each, float32 [B, k]).

    The best of each user change places among themselves; who has no history that can be read keeps the order.
    """
    added = np.zeros(found.scores.shape, np.float32)
    best = found.rows[:, : reranker.candidates]
    users, logs = read(reranker.reader, catalog, histories, best)
    for u, some in zip(users, logs, strict=True):
        added[u, : len(some)] = bonus(some, reranker.weight)
    return reordered(found, added)


def read(reader: Reader, catalog: Catalog, histories: Interactions, rows: Any) -> tuple[list[int], list[F32]]:
    """(users whose candidates can be compared, the log likelihoods of each one's).

    rows: int64 [B, C], -1 at the end where there are fewer
    """
    settings = reader.settings
    likes = histories.select(histories.weights > 0)
    spans = [(max(begin, end - settings.history), end) for begin, end in itertools.pairwise(likes.indptr.tolist())]
    pasts = [likes.items[begin:end].tolist() for begin, end in spans]
    able = [u for u, past in enumerate(pasts) if past and (rows[u] >= 0).sum() > 1]
    candidates = [rows[u][rows[u] >= 0].tolist() for u in able]
    needed = sorted({*itertools.chain(*candidates), *itertools.chain(*(pasts[u] for u in able))})
    text = dict(zip(needed, titles(catalog, needed, settings.characters) if needed else (), strict=True))
    named = [i for i, u in enumerate(able) if any(text[j] for j in pasts[u])]
    logs = reader.likelihoods(
        [[text[j] for j in pasts[able[i]]] for i in named], [[text[j] for j in candidates[i]] for i in named]
    )
    return [able[i] for i in named], logs


def learned(
    reader: Reader, catalog: Catalog, past: "pipeline.Past | None", popular: BiasSource, seed: int
) -> tuple[float, str]:
    """(the weight, what to tell of it): on users of the holdout whose next item is among the candidates."""
    count = reader.settings.candidates
    if past is None:
        return 0.0, "rerank: too few events for a holdout, weight 0"
    able = np.flatnonzero((np.diff(past.held.indptr) > 0) & (np.diff(past.histories.indptr) > 0))
    able = np.random.default_rng(seed).permutation(able[able < past.n_users])
    parts: list[Candidates] = []
    chosen: list[Any] = []
    targets: list[Bool] = []
    for start in range(0, len(able), pipeline.USERS_AT_ONCE):  # until there are enough: a user in ten may do
        block = able[start : start + pipeline.USERS_AT_ONCE]
        histories = past.histories.take(block)
        found = pipeline.top_k(past.features, histories, min(count, histories.n_items), histories.seen(), popular)
        wanted = _targets(found, past.held.take(block))
        hit = np.flatnonzero(wanted.any(axis=1))[: reader.settings.sample - sum(map(len, chosen))]
        parts.append(Candidates(found.rows[hit], found.scores[hit]))
        chosen.append(block[hit])
        targets.append(wanted[hit])
        if sum(map(len, chosen)) == reader.settings.sample:
            break
    if not chosen:
        return 0.0, "rerank: nobody of the holdout has a history, weight 0"
    found, wanted = Candidates.concatenate(parts, count), np.concatenate(targets)
    users, logs = read(reader, catalog, past.histories.take(np.concatenate(chosen)), found.rows)
    if len(users) < _FEWEST:
        return 0.0, f"rerank: {len(users)} users of the holdout have their next item among the best, weight 0"
    fused, wanted = found.scores[users].astype(np.float64), wanted[users]
    likely = np.zeros(fused.shape)
    for u, some in enumerate(logs):
        likely[u, : len(some)] = bonus(some, 1.0)
    weight, before, after = best_weight(fused, likely, wanted)
    told = f"rerank: weight {weight:.3g} learned on {len(users)} users, NDCG of the best {count} {before:.4f}"
    return weight, told + (f" -> {after:.4f}" if weight else ", which the model does not raise")


def _targets(found: Candidates, held: Interactions) -> Bool:
    """Which candidates are what came next, bool [B, C]."""
    keys = held.users * held.n_items + held.items
    asked = np.arange(len(found.rows))[:, None] * held.n_items + found.rows
    return np.isin(asked, keys) & (found.rows >= 0)


def best_weight(fused: F64, likely: F64, wanted: Bool) -> tuple[float, float, float]:
    """(weight, NDCG without it, NDCG with it) over users and their candidates, [B, C] each.

    The weight minimises the softmax loss of what came next, as those of the sources do; it is 0 unless it raises the
    NDCG by more than two standard errors, paired by user. Scores of -inf are places without a candidate.
    """
    share = 1 / wanted.sum(axis=1)

    def loss(w: float) -> float:
        logits = fused + w * likely
        top = logits.max(axis=1, keepdims=True)
        total = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
        return float((total - np.where(wanted, logits, 0.0).sum(axis=1) * share).mean())

    # The loss is convex: from the best of a few sizes the minimum is near.
    grid = np.concatenate([[0.0], np.geomspace(1e-3, _MOST, 17)])
    at = int(np.argmin([loss(w) for w in grid]))
    low, high = grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)]
    weight = float(scipy.optimize.minimize_scalar(loss, bounds=(low, high), method="bounded").x)
    before, after = _ndcg(fused, wanted), _ndcg(fused + weight * likely, wanted)
    gain = after - before
    if gain.mean() <= _ERRORS * gain.std() / np.sqrt(len(gain)):
        return 0.0, float(before.mean()), float(before.mean())
    return weight, float(before.mean()), float(after.mean())


def _ndcg(scores: F64, wanted: Bool) -> F64:
    """NDCG over all candidates of every user."""
    order = np.argsort(-scores, axis=1, kind="stable")
    discount = 1 / np.log2(np.arange(2, scores.shape[1] + 2))
    gain = (np.take_along_axis(wanted, order, axis=1) * discount).sum(axis=1)
    best: F64 = gain / np.cumsum(discount)[wanted.sum(axis=1) - 1]
    return best


def explained(why: list[Any], found: Candidates, added: dict[tuple[int, int], float], name: str = "rerank") -> None:
    """Write what was added into the shares of the explanations of B users."""
    for u, row in enumerate(why):
        for item, one in zip(found.rows[u][found.rows[u] >= 0].tolist(), row, strict=True):
            if (u, item) in added:
                one.sources[name] = added[u, item]

"""The wiring between the stages, in rows: what Recommender and the evaluation have in common."""

import dataclasses
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrec import fuse, learn, retrieve, unchosen
from fastrec.errors import ConfigError, DataError
from fastrec.gate import Gate
from fastrec.models import Model, Popularity
from fastrec.types import (
    BiasSource,
    Candidates,
    Csr,
    DenseSource,
    Embeddings,
    Features,
    Interactions,
    Report,
    Source,
)

log = logging.getLogger("fastrec")

Weights = str | dict[str, float]
#: Users of one call of the search: bounds the memory of queries, not the speed.
USERS_AT_ONCE = 4096
#: Sources that see items without events and are fitted in no time: how they weigh there is learned of its own.
_SEEING = ("content", "user_text", "knowledge", "image", "audio")
#: Least weight of them together for such an item, beside the largest.
_COLD = 0.02


def fit_sources(
    models: Sequence[Model], interactions: Interactions, embeddings: Embeddings | None, goal: str
) -> list[Source]:
    """The sources of the models that the data has something for; DataError where there is none."""
    sources: list[Source] = []
    for model in models:
        start = time.perf_counter()
        source = model.fit(interactions, embeddings, goal)
        if source is None:
            log.info("[fit] %s has nothing to learn from and is left out", model.name)
            continue
        log.info("[fit] %s in %.1f s", model.name, time.perf_counter() - start)
        sources.append(source)
    if not sources:
        names = ", ".join(m.name for m in models)
        raise DataError(
            f"[fit] none of the models ({names}) can use this data; give items with texts or add 'popularity'"
        )
    return sources


@dataclass(frozen=True, eq=False)
class Past:
    """The space as it was before the holdout, for what is learned on top of it.

    features: fitted on what lies before; histories, held: what was known then and what came next, row by row
    n_users: rows of different users; the others come again
    """

    features: Features
    histories: Interactions
    held: Interactions
    n_users: int


def fit_features(
    models: Sequence[Model],
    weights: Weights,
    interactions: Interactions,
    embeddings: Embeddings | None,
    goal: str,
    seed: int,
) -> tuple[Features, tuple[Source, ...]]:
    """Fit all models on all interactions and fuse them: (features, all sources, dropped ones too).

    With "learned" weights, decay and weights come from a temporal holdout first: models are fitted on
    what lies before it, tuned on it, and fitted again on everything.
    """
    return fit_with_past(models, weights, interactions, embeddings, goal, seed, False)[:2]


def fit_with_past(
    models: Sequence[Model],
    weights: Weights,
    interactions: Interactions,
    embeddings: Embeddings | None,
    goal: str,
    seed: int,
    wanted: bool = True,
) -> tuple[Features, tuple[Source, ...], Past | None]:
    """As ``fit_features``, and the past where it is wanted; None where there is too little data for a holdout."""
    learned: dict[str, float] | None = None
    gate: Gate | None = None
    past: Past | None = None
    asked: dict[str, float] = {}
    models = seeded(models, seed)
    if weights == "learned" and len(interactions.items):
        models, learned, gate, asked, past = _learn(models, interactions, embeddings, goal, seed, wanted)
    elif wanted and len(interactions.items):
        past = _past(models, weights, interactions, embeddings, goal)
    if gate is not None:
        span = float(interactions.times.min()), float(interactions.times.max())
        gate = dataclasses.replace(gate, span=span)
    sources = fit_sources(models, interactions, embeddings, goal)
    chosen = _weights(weights, learned, sources)
    events = np.bincount(interactions.items, minlength=interactions.n_items)
    chosen, items = unchosen.settled(chosen, asked, events == 0, _COLD)
    return fuse.fuse(sources, chosen, interactions.n_items, gate, items), tuple(sources), past


def _past(
    models: Sequence[Model], weights: Weights, interactions: Interactions, embeddings: Embeddings | None, goal: str
) -> Past | None:
    """The past of weights that are not learned on it."""
    train, histories, held = learn.lessons(interactions, goal)
    if not len(train.items) or not len(held.items):
        return None
    sources = fit_sources(models, train, embeddings, goal)
    features = fuse.fuse(sources, _weights(weights, None, sources), train.n_items)
    return Past(features, histories, held, train.n_users)


def seeded(models: Sequence[Model], seed: int) -> list[Model]:
    """The models with this seed, where their settings leave it open."""

    def one(model: Any) -> Model:
        open_seed = dataclasses.is_dataclass(model) and getattr(model, "seed", seed) is None
        settled: Model = dataclasses.replace(model, seed=seed) if open_seed else model
        return settled

    return [one(m) for m in models]


def _learn(
    models: Sequence[Model],
    interactions: Interactions,
    embeddings: Embeddings | None,
    goal: str,
    seed: int,
    wanted: bool,
) -> tuple[Sequence[Model], dict[str, float] | None, Gate | None, dict[str, float], Past | None]:
    """(models with what "auto" turned out to mean, weight by name, how users move the weights, weight by name for items
    without events, the past where it is wanted); as they came and nothing where there is too little data."""
    train, histories, held = learn.lessons(interactions, goal)
    if not len(train.items) or not len(held.items):
        return models, None, None, {}, None
    by_name = {m.name: m for m in models}
    sources = fit_sources(models, train, embeddings, goal)
    variants = [by_name[s.name].variants(s, train) for s in sources]
    found = learn.tune([[source for _, source in v] for v in variants], histories, held, seed, train.n_users, goal)
    if found is None:
        return models, None, None, {}, None
    settled = {s.name: v[place][0] for s, v, place in zip(sources, variants, found[0], strict=True)}
    weights = {s.name: float(w) for s, w in zip(sources, found[1], strict=True)}
    log.info("[fit] learned %s", ", ".join(f"{name} {w:.2f} {settled[name]}" for name, w in weights.items()))
    gate = found[2]
    for name, (length, age) in gate.coefficients.items() if gate is not None else ():
        log.info("[fit] %s weighs exp(%+.2f length %+.2f age) as much", name, length, age)
    asked = _learn_cold(settled, sources, train, embeddings, goal, seed)
    past = None
    if wanted:
        chosen = [v[place][1] for v, place in zip(variants, found[0], strict=True)]
        past = Past(fuse.fuse(chosen, weights, train.n_items, gate), histories, held, train.n_users)
    return [settled.get(m.name, m) for m in models], weights, gate, asked, past


def _learn_cold(
    settled: dict[str, Model],
    sources: Sequence[Source],
    train: Interactions,
    embeddings: Embeddings | None,
    goal: str,
    seed: int,
) -> dict[str, float]:
    """Weights for items without events, by name; empty where there is no such item or nothing sees it."""
    lonely = np.bincount(train.items, minlength=train.n_items) == 0
    sees = [s.name for s in sources if s.name in _SEEING and isinstance(s, DenseSource) and s.vectors[lonely].any()]
    if len(sees) < 2:
        return dict.fromkeys(sees, 1.0)
    hidden = learn.hidden_items(train, seed)[train.items]
    past = train.select(~hidden)
    again = [settled[name].fit(past, embeddings, goal) for name in sees]
    there = [s for s in again if s is not None]
    found = learn.cold_weights(there, past, train.select(hidden), seed) if there else None
    if found is None:
        return {}
    asked = {s.name: float(w) for s, w in zip(there, found, strict=True)}
    log.info("[fit] for items without events %s", ", ".join(f"{name} {w:.2f}" for name, w in asked.items()))
    return asked


def _weights(weights: Weights, learned: dict[str, float] | None, sources: Sequence[Source]) -> dict[str, float]:
    """A weight for every source; ConfigError where a given dict names none of them or other ones."""
    names = [s.name for s in sources]
    if isinstance(weights, dict):
        unknown = set(weights) - set(names)
        if unknown:
            raise ConfigError(f"[fit] weights name {sorted(unknown)}, the fitted sources are {names}")
        chosen = {name: float(weights.get(name, 0.0)) for name in names}
    elif learned is not None:
        chosen = {name: learned.get(name, 0.0) for name in names}
    else:
        chosen = learn.equal(sources)
    if not any(chosen.values()):
        raise ConfigError(f"[fit] weights {chosen} give no source any weight")
    return chosen


def popularity(sources: Sequence[Source], interactions: Interactions) -> BiasSource:
    """The popularity source among these, or one fitted for the purpose."""
    found = (s for s in sources if isinstance(s, BiasSource))
    return next(found, None) or Popularity().fit(interactions, None, "next")


def with_notes(report: Report, models: Sequence[Model], weights: Weights) -> Report:
    """The report with what models have to say of their training: "learned" weights train on the past, and then anew."""
    notes = [m.note(2 if weights == "learned" else 1) for m in models if hasattr(m, "note")]
    return dataclasses.replace(report, notes=(*report.notes, *notes))


def with_index(features: Features, report: Report, interactions: Interactions, seed: int) -> tuple[Features, Report]:
    """The space with an index of FAISS, its recall measured on a sample of users, and the report that says so."""
    sample = fuse.queries(features, _some(interactions, seed))
    index = retrieve.approximate.build(features, sample, seed=seed)
    notes = (*report.notes, index.note)
    return dataclasses.replace(features, index=index), dataclasses.replace(report, notes=notes)


def with_cells(features: Features, interactions: Interactions, seed: int) -> Features:
    """The space with cells where they pay for a sample of users, see ``retrieve.cells``."""
    if not retrieve.cells.fit(features):
        return features
    return retrieve.cells.with_cells(features, fuse.queries(features, _some(interactions, seed)), seed=seed)


def _some(interactions: Interactions, seed: int) -> Interactions:
    """Some histories that are not empty."""
    busy = np.flatnonzero(np.diff(interactions.indptr) > 0)
    chosen = np.random.default_rng(seed).permutation(busy)[: retrieve.approximate.SAMPLE]
    return interactions.take(np.sort(chosen))


def top_k(
    features: Features,
    histories: Interactions,
    k: int,
    seen: Csr,
    popular: BiasSource,
) -> Candidates:
    """The best k of the whole catalogue for each history, without what is seen, by blocks of users.

    popular: what users get of whom the sources know nothing, as ``Recommender.recommend`` has it
    """
    parts = []
    fallback = fuse.fuse([popular], {popular.name: 1.0}, features.n_items)
    for start in range(0, histories.n_users, USERS_AT_ONCE):
        rows = np.arange(start, min(start + USERS_AT_ONCE, histories.n_users))
        block = histories.take(rows)
        queries = fuse.queries(features, block)
        found = retrieve.search(features, queries, k, seen=seen.take(rows))
        silent = np.flatnonzero(queries.silent) if not features.bias_scales else np.empty(0, np.int64)
        if len(silent):
            nothing = fuse.queries(fallback, block.take(silent))
            other = retrieve.search(fallback, nothing, k, seen=seen.take(rows[silent]))
            found.rows[silent], found.scores[silent] = other.rows, other.scores
        parts.append(found)
    return Candidates.concatenate(parts, k)

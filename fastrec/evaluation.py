"""Honest evaluation: full ranking, temporal splits, seen items excluded, recent popularity always beside it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrec import arguments, fuse, learn, metrics
from fastrec.errors import ConfigError, DataError
from fastrec.models import Model, resolve
from fastrec.pipeline import Weights, fit_features, popularity, seeded, top_k
from fastrec.results import Evaluation
from fastrec.state import Settings, State
from fastrec.types import F64, I64, BiasSource, Embeddings, Features, Interactions, Source

SPLITS = {"time": "period", "loo": "next"}
BASELINE = "recent popularity"
#: Resamples of the users; the interval of the middle 95 % is stable to a tenth of its width.
_RESAMPLES = 1000
#: Lengths of history that begin a segment.
_LENGTHS = (1, 5, 20, 100)
#: The steps of the ladder: what each adds to those before.
_COLLABORATIVE = ("item_item", "directed", "ease", "als", "bpr", "graph", "sequential")
_CONTENT = ("content", "user_text", "knowledge")

PerUser = dict[str, dict[str, F64]]


def evaluate(
    state: State, settings: Settings, test: Any, *, split: str, k: int, per_model: bool, ladder: bool
) -> Evaluation:
    """Recommender.evaluate: of a fitted model on given events, or of its settings on a split of what it has."""
    seed, state = settings.seed, state.fitted()
    if test is None:
        model = resolve(settings.models), settings.weights, state.interactions, state.embeddings
        return evaluate_split(*model, split=split, goal=state.goal, k=k, seed=seed, per_model=per_model, ladder=ladder)
    if ladder:
        raise ConfigError("[evaluate] ladder=True fits every step on the past of a split; expected no test set")
    train, held, notes = arguments.test_events(test, state, settings)
    return measure(
        state.features,
        state.sources,
        state.popular,
        train,
        held,
        _counts(state.interactions),
        split="given",
        k=k,
        per_model=per_model,
        seed=seed,
        notes=notes,
    )


def evaluate_split(
    models: Sequence[Model],
    weights: Weights,
    interactions: Interactions,
    embeddings: Embeddings | None,
    *,
    split: str,
    goal: str,
    k: int,
    seed: int,
    per_model: bool,
    ladder: bool = False,
) -> Evaluation:
    """Fit on the past of ``interactions``, measure on what followed.

    split: "time": cut at the 0.9 quantile of time, all later events are test; "loo": the last event of each
        user with at least two is test
    goal: what the weights are learned for, as in Recommender.fit
    ladder: also measure popularity, collaborative, content and hybrid ensembles of these models
    Raises DataError where the split leaves nothing to train on or to test.
    """
    train, held = learn.holdout(interactions, SPLITS[split])
    if not len(train.items) or not len(held.items):
        raise DataError(
            f"[evaluate] split {split!r} leaves {len(train.items)} events to train on and {len(held.items)} to "
            "find; expected more events, or a test set of your own"
        )
    memory: dict[Any, Any] = {}
    models = seeded(models, seed)
    if ladder:  # its steps share what the models learn
        models = [_Once(m, memory) for m in models]
    features, sources = fit_features(models, weights, train, embeddings, goal, seed)
    popular = popularity(sources, train)
    result = measure(
        features, sources, popular, train, held, _counts(train), split=split, k=k, per_model=per_model, seed=seed
    )
    if not ladder:
        return result
    steps = {}
    for name, chosen in _steps(models).items():
        if len(chosen) == len(models):
            steps[name] = features
        elif isinstance(weights, dict):  # given weights stay as they are, for the sources that a step has
            names = {m.name for m in chosen if weights.get(m.name)}
            kept = [s for s in sources if s.name in names]
            if kept:
                steps[name] = fuse.fuse(kept, weights, train.n_items)
        else:
            steps[name] = fit_features(chosen, weights, train, embeddings, goal, seed)[0]
    return dataclasses.replace(result, ladder=_ladder(steps, train, held, popular, k, seed))


class _Once:
    """A model that fits the same events once; as the steps of a ladder split the same way, so do its holdouts."""

    def __init__(self, model: Model, memory: dict[Any, Any]) -> None:
        self.model, self.memory, self.name = model, memory, model.name

    def fit(self, interactions: Interactions, embeddings: Embeddings | None, goal: str) -> Source | None:
        key = (repr(self.model), len(interactions.items))
        if key not in self.memory:
            self.memory[key] = self.model.fit(interactions, embeddings, goal)
        found: Source | None = self.memory[key]
        return found

    def variants(self, source: Any, interactions: Interactions) -> list[tuple[Model, Source]]:
        return [(_Once(model, self.memory), s) for model, s in self.model.variants(source, interactions)]

    def __repr__(self) -> str:
        return repr(self.model)


def _steps(models: Sequence[Model]) -> dict[str, list[Model]]:
    """The steps that differ from the one before, the last one with all models."""
    groups = {
        "popularity": [m for m in models if m.name == "popularity"],
        "collaborative": [m for m in models if m.name in ("popularity", *_COLLABORATIVE)],
        "content": [m for m in models if m.name in ("popularity", *_CONTENT)],
        "hybrid": list(models),
    }
    return {name: chosen for name, chosen in groups.items() if chosen}


def measure(
    features: Features,
    sources: Sequence[Source],
    popular: BiasSource,
    train: Interactions,
    held: Interactions,
    counts: I64,
    *,
    split: str,
    k: int,
    per_model: bool,
    seed: int = 0,
    notes: tuple[str, ...] = (),
) -> Evaluation:
    """Rank the catalogue for every user with held-out items and compare; both over the same user rows.

    popular: the baseline, with the half-life that was learned for it: an untuned one would flatter the rest
    counts: int64 [N], events of each item that the sources have learned from
    """
    users = np.flatnonzero(np.diff(held.indptr) > 0)
    if not len(users):
        raise DataError("[evaluate] no user of the test set has an item to find that the model knows")
    histories, targets = train.take(users), held.take(users)
    n = train.n_items
    spaces = {"fastrec": features}
    kept = {s.name for s in features.sources}
    if per_model:
        spaces |= {s.name: fuse.fuse([s], {s.name: 1.0}, n) for s in sources if s.name in kept}
    spaces[BASELINE] = fuse.fuse([popular], {popular.name: 1.0}, n)
    seen = histories.seen()
    ranked = {name: top_k(space, histories, k, seen, popular).rows for name, space in spaces.items()}
    per_user = {name: metrics.by_user(rows, targets, k) for name, rows in ranked.items()}
    rows = [
        {
            "model": name,
            **{metric: float(values.mean()) for metric, values in per_user[name].items()},
            "coverage": metrics.coverage(ranked[name], n, k),
        }
        for name in spaces
    ]
    intervals = _intervals(per_user, seed)
    table: list[dict[str, Any]] = []
    if per_model:
        without = {}
        weights = {s.name: float(w) for s, w in zip(features.sources, features.weights, strict=True)}
        for name in weights:
            rest = [s for s in sources if s.name in kept and s.name != name]
            without[name] = np.zeros(len(users))
            if rest:
                space = fuse.fuse(rest, weights, n, features.gate, features.cold)
                ranking = top_k(space, histories, k, seen, popular).rows
                without[name] = metrics.by_user(ranking, targets, k)["ndcg"]
        table = _sources(sources, weights, per_user, without, histories, targets, popular, k, seed)
    segments = _segments(ranked, histories, targets, counts, k)
    cold = int((np.diff(histories.indptr) == 0).sum())
    if cold:
        notes = (*notes, f"{cold:,} of the {len(users):,} test users have no history before the test")
    return Evaluation(rows, split, k, len(users), len(targets.items), notes, intervals, table, segments)


def _counts(train: Interactions) -> I64:
    return np.bincount(train.items, minlength=train.n_items).astype(np.int64)


def _resampled(values: F64, seed: int) -> F64:
    """Means of M rows of numbers of B users over resampled users, float64 [resamples, M]; the same users for all."""
    rng = np.random.default_rng(seed)
    users = values.shape[1]
    out = np.empty((_RESAMPLES, len(values)))
    for r in range(_RESAMPLES):
        out[r] = values @ np.bincount(rng.integers(0, users, users), minlength=users) / users
    return out


def _interval(means: F64) -> list[float]:
    return [float(x) for x in np.quantile(means, [0.025, 0.975])]


def _intervals(per_user: PerUser, seed: int) -> dict[str, dict[str, list[float]]]:
    """{model: {metric: [low, high]}}, the middle 95 % of a bootstrap over the users."""
    keys = [(name, metric) for name, found in per_user.items() for metric in found]
    means = _resampled(np.stack([per_user[name][metric] for name, metric in keys]), seed)
    out: dict[str, dict[str, list[float]]] = {name: {} for name in per_user}
    for (name, metric), column in zip(keys, means.T, strict=True):
        out[name][metric] = _interval(column)
    return out


def _sources(
    sources: Sequence[Source],
    weights: dict[str, float],
    per_user: PerUser,
    without: dict[str, F64],
    histories: Interactions,
    targets: Interactions,
    popular: BiasSource,
    k: int,
    seed: int,
) -> list[dict[str, Any]]:
    """NDCG of each source alone, of the ensemble with it and without it; what it gains is paired by user."""
    fused = per_user["fastrec"]["ndcg"]
    table = []
    seen = histories.seen()
    for s in sources:
        if s.name in per_user:
            alone = per_user[s.name]["ndcg"]
        else:
            space = fuse.fuse([s], {s.name: 1.0}, histories.n_items)
            alone = metrics.by_user(top_k(space, histories, k, seen, popular).rows, targets, k)["ndcg"]
        gain = fused - without.get(s.name, fused)
        table.append(
            {
                "source": s.name,
                "weight": weights.get(s.name, 0.0),
                "alone": float(alone.mean()),
                "fused": float(fused.mean()),
                "without": float((fused - gain).mean()),
                "gain": float(gain.mean()),
                "gain_interval": _interval(_resampled(gain[None], seed)[:, 0]),
            }
        )
    return table


def _segments(
    ranked: dict[str, I64], histories: Interactions, targets: Interactions, counts: I64, k: int
) -> list[dict[str, Any]]:
    """NDCG of every model for users of each length of history, and for the events of new and of known items."""
    lengths = np.diff(histories.indptr)
    everyone = np.ones(len(targets.items), np.bool_)
    parts = [("cold users (no history)", lengths == 0, everyone)]
    for low, high in zip(_LENGTHS, (*_LENGTHS[1:], None), strict=True):
        inside = (lengths >= low) & (lengths < high if high else True)
        parts.append((f"history {low} to {high - 1}" if high else f"history {low} and more", inside, everyone))
    new = counts[targets.items] == 0
    anybody = np.ones(len(lengths), np.bool_)
    parts += [("cold items (no event before)", anybody, new), ("known items", anybody, ~new)]
    out = []
    for name, users, events in parts:
        chosen = targets.select(events & users[targets.users])
        rows = np.flatnonzero(np.diff(chosen.indptr))
        if not len(rows):
            continue
        wanted = chosen.take(rows)
        ndcg = {model: float(metrics.by_user(r[rows], wanted, k)["ndcg"].mean()) for model, r in ranked.items()}
        out.append({"segment": name, "users": len(rows), "events": len(wanted.items), "ndcg": ndcg})
    return out


def _ladder(
    steps: dict[str, Features], train: Interactions, held: Interactions, popular: BiasSource, k: int, seed: int
) -> list[dict[str, Any]]:
    """What every step reaches, with intervals over the same resampled users."""
    users = np.flatnonzero(np.diff(held.indptr) > 0)
    histories, targets = train.take(users), held.take(users)
    seen = histories.seen()
    ranked = {name: top_k(space, histories, k, seen, popular).rows for name, space in steps.items()}
    found = {name: metrics.by_user(rows, targets, k) for name, rows in ranked.items()}
    intervals = _intervals(found, seed)
    return [
        {
            "step": name,
            "sources": [s.name for s in steps[name].sources],
            **{metric: float(values.mean()) for metric, values in by_user.items()},
            "ndcg_interval": intervals[name]["ndcg"],
        }
        for name, by_user in found.items()
    ]

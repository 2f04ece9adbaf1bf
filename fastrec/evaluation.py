"""Honest evaluation: full ranking, temporal splits, seen items excluded, recent popularity always beside it."""

from collections.abc import Sequence

import numpy as np

from fastrec import fuse, learn, metrics
from fastrec.errors import DataError
from fastrec.models import Model
from fastrec.pipeline import Weights, fit_features, popularity, top_k
from fastrec.results import Evaluation
from fastrec.types import BiasSource, Embeddings, Features, Interactions

SPLITS = {"time": "period", "loo": "next"}
BASELINE = "recent popularity"


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
) -> Evaluation:
    """Fit on the past of ``interactions``, measure on what followed.

    split: "time": cut at the 0.9 quantile of time, all later events are test; "loo": the last event of each
        user with at least two is test
    goal: what the weights are learned for, as in Recommender.fit
    Raises DataError where the split leaves nothing to train on or to test.
    """
    train, held = learn.holdout(interactions, SPLITS[split])
    if not len(train.items) or not len(held.items):
        raise DataError(
            f"[evaluate] split {split!r} leaves {len(train.items)} events to train on and {len(held.items)} to "
            "find; expected more events, or a test set of your own"
        )
    features, sources = fit_features(models, weights, train, embeddings, goal, seed)
    popular = popularity(sources, train)
    return measure(features, popular, train, held, split=split, k=k, per_model=per_model)


def measure(
    features: Features,
    popular: BiasSource,
    train: Interactions,
    held: Interactions,
    *,
    split: str,
    k: int,
    per_model: bool,
    notes: tuple[str, ...] = (),
) -> Evaluation:
    """Rank the catalogue for every user with held-out items and compare; both over the same user rows.

    popular: the baseline, with the half-life that was learned for it: an untuned one would flatter the rest
    """
    users = np.flatnonzero(np.diff(held.indptr) > 0)
    if not len(users):
        raise DataError("[evaluate] no user of the test set has an item to find that the model knows")
    histories, targets = train.take(users), held.take(users)
    seen = histories.seen()
    relevant = [row.tolist() for row in np.split(targets.items, targets.indptr[1:-1])]
    candidates = {"fastrec": features}
    if per_model:
        for s in features.sources:
            candidates[s.name] = fuse.fuse([s], {s.name: 1.0}, train.n_items)
    candidates[BASELINE] = fuse.fuse([popular], {popular.name: 1.0}, train.n_items)
    rows = []
    for name, space in candidates.items():
        ranked = top_k(space, histories, k, seen).rows
        rows.append(
            {
                "model": name,
                "ndcg": metrics.ndcg(ranked, relevant, k),
                "recall": metrics.recall(ranked, relevant, k),
                "hit_rate": metrics.hit_rate(ranked, relevant, k),
                "mrr": metrics.mrr(ranked, relevant, k),
                "map": metrics.map(ranked, relevant, k),
                "coverage": metrics.coverage(ranked, train.n_items, k),
            }
        )
    cold = int((np.diff(histories.indptr) == 0).sum())
    if cold:
        notes = (*notes, f"{cold:,} of the {len(users):,} test users have no history before the test")
    return Evaluation(rows, split, k, len(users), len(targets.items), notes)

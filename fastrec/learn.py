"""Decay and fusion weights, learned on a temporal holdout of the training data.

For the next event recency buys more than the choice of model, for a coming period the order reverses:
no constant suits both. So the holdout is of the kind that the user names (``goal``): the last event of
each user, or everything after a cut in time. Weights minimise the listwise softmax loss (Cao et al. 2007)
over the catalogue; they carry the temperature too, so their sizes can be compared.
"""

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np
import scipy.optimize
import scipy.sparse as sp

from fastrec.profiles import profiles
from fastrec.types import F32, F64, I64, BiasSource, Bool, DenseSource, Interactions, Source

log = logging.getLogger("fastrec")

#: Decays that "auto" chooses from, in ranks; None is no decay.
DECAYS: tuple[float | None, ...] = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, None)
#: Users x items of one source's score matrix on the holdout: 5 million are 20 MB a source.
_CELLS = 5_000_000
_RIDGE = 1e-4
#: Multiples that ``climb`` tries, and the relative gain that it takes for more than noise.
_STEPS = (0.0, 0.25, 0.5, 0.7, 1.4, 2.0, 4.0)
_GAIN = 0.002
#: Fewer holdout users than this teach nothing.
_FEWEST = 20


def holdout(interactions: Interactions, goal: str) -> tuple[Interactions, Interactions]:
    """(train, held out), both over all users: each user's last event, or all after the 0.9 quantile of time."""
    if goal == "next":
        held = np.zeros(len(interactions.items), np.bool_)
        many = np.diff(interactions.indptr) >= 2
        held[interactions.indptr[1:][many] - 1] = True
    else:
        held = interactions.times > np.quantile(interactions.times, 0.9)
    return interactions.select(~held), interactions.select(held)


def tune(
    sources: Sequence[Source],
    free: set[str],
    train: Interactions,
    held: Interactions,
    seed: int,
) -> tuple[dict[str, float | None], dict[str, float]] | None:
    """(decay by source name, weight by source name), or None where the holdout is too small to tell.

    sources: fitted on ``train``; free: names of those whose decay is to be learned
    """
    rng = np.random.default_rng(seed)
    able = np.flatnonzero((np.diff(held.indptr) > 0) & (np.diff(train.indptr) > 0))
    if len(able) < _FEWEST:
        return None
    most = max(_FEWEST, _CELLS // train.n_items)
    users = np.sort(rng.choice(able, most, replace=False)) if len(able) > most else able
    histories, targets = train.take(users), held.take(users)
    open_items = _open(histories)
    decays: dict[str, float | None] = {}
    scores: list[F32] = []
    for source in sources:
        if isinstance(source, BiasSource) or source.name not in free:
            scores.append(normalised_scores(source, histories))
            continue
        best = -1.0
        for decay in DECAYS:
            z = normalised_scores(dataclasses.replace(source, decay=decay), histories)
            value = _ndcg(z, targets, open_items)
            if value > best:
                best, best_z, decays[source.name] = value, z, decay
        scores.append(best_z)
    stacked = np.stack(scores)
    weights = climb(stacked, targets, open_items, softmax_weights(stacked, targets, open_items))
    return decays, {s.name: float(w) for s, w in zip(sources, weights, strict=True)}


def normalised_scores(source: Source, histories: Interactions) -> F32:
    """Scores of one source over the catalogue by the per-user standard deviation, float32 [B, N]."""
    if isinstance(source, BiasSource):
        std = np.full(histories.n_users, source.bias.std(dtype=np.float64))
        scores = np.broadcast_to(source.bias, (histories.n_users, len(source.bias)))
    elif isinstance(source, DenseSource):
        scores = profiles(source, histories) @ source.vectors.T
        std = scores.std(axis=1, dtype=np.float64)
    else:
        s = source.similarity
        a = sp.csr_matrix(
            (histories.decayed(source.decay), histories.items, histories.indptr),
            shape=(histories.n_users, histories.n_items),
        )
        scores = (a @ sp.csr_matrix((s.values, s.indices, s.indptr), shape=(s.n_rows, s.n_cols))).toarray()
        std = scores.std(axis=1, dtype=np.float64)
    scale = np.divide(1.0, std, out=np.zeros_like(std), where=std > 1e-12)
    result: F32 = (scores * scale[:, None]).astype(np.float32)
    return result


def softmax_weights(scores: F32, targets: Interactions, open_items: Bool) -> F64:
    """Weights >= 0 that minimise the mean over users of the softmax loss of their targets, float64 [M].

    scores: float32 [M, B, N]; open_items: bool [B, N], false for what the user has seen. A weight under 1%
    of the largest becomes 0. When nothing helps, all weights are equal.
    """
    n_sources, n_users, _ = scores.shape
    user, item = targets.users, targets.items
    share = 1.0 / np.diff(targets.indptr)[user] / n_users
    wanted = (scores[:, user, item] * share).sum(axis=1).astype(np.float64)
    closed = np.where(open_items, np.float32(0), np.float32(-np.inf))
    # A seen item may come back as a target (repeated events are merged, so only with foreign data).
    closed[user, item] = 0

    def loss(w: F64) -> tuple[float, F64]:
        logits = np.tensordot(w.astype(np.float32), scores, 1) + closed
        top = logits.max(axis=1, keepdims=True)
        p = np.exp(logits - top)
        total = p.sum(axis=1, keepdims=True)
        p /= total
        mean_logit = float((np.log(total) + top).mean(dtype=np.float64))
        expected = np.array([(s * p).sum(dtype=np.float64) for s in scores]) / n_users
        # The ridge keeps weights finite where a source ranks every target first.
        return mean_logit - float(w @ wanted) + _RIDGE * float(w @ w), expected - wanted + 2 * _RIDGE * w

    start = np.full(n_sources, 0.5)
    found = scipy.optimize.minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=[(0.0, None)] * n_sources, options={"maxiter": 100}
    )
    weights = np.where(found.x >= 0.01 * found.x.max(), found.x, 0.0)
    return weights if weights.max() > 0 and np.isfinite(weights).all() else np.ones(n_sources)


def climb(scores: F32, targets: Interactions, open_items: Bool, start: F64) -> F64:
    """From ``start`` uphill in NDCG@10, one weight at a time; float64 [M].

    The softmax loss looks at the whole catalogue, users at the first ten. Each weight is tried at multiples
    of what it is (and of the mean weight, where it is 0); a step is taken when it gains more than noise would.
    Two rounds, then it stops.
    """
    weights = start.copy()
    best = _ndcg(np.tensordot(weights.astype(np.float32), scores, 1), targets, open_items)
    for _ in range(2):
        before = best
        for m in range(len(weights)):
            base = weights[m] if weights[m] > 0 else weights.mean()
            for factor in _STEPS:
                trial = weights.copy()
                trial[m] = factor * base
                if not trial.any() or trial[m] == weights[m]:
                    continue
                value = _ndcg(np.tensordot(trial.astype(np.float32), scores, 1), targets, open_items)
                if value > best * (1 + _GAIN):
                    best, weights = value, trial
        if best == before:
            break
    return weights


def _open(histories: Interactions) -> Bool:
    """bool [B, N], false where the item is in the user's history."""
    mask = np.ones((histories.n_users, histories.n_items), np.bool_)
    mask[histories.users, histories.items] = False
    return mask


def _ndcg(scores: F32, targets: Interactions, open_items: Bool, k: int = 10) -> float:
    """Mean NDCG@k of the targets; ties count against the source."""
    user: I64 = targets.users
    masked = np.where(open_items, scores, np.float32(-np.inf))
    mine = scores[user, targets.items]
    rank = np.empty(len(mine), np.int64)
    for start in range(0, len(mine), 1024):
        span = slice(start, start + 1024)
        rank[span] = (masked[user[span]] >= mine[span, None]).sum(axis=1) - open_items[user[span], targets.items[span]]
    gain = np.where(rank < k, 1 / np.log2(rank + 2), 0.0)
    ideal = np.cumsum(1 / np.log2(np.arange(2, k + 2)))[np.minimum(np.diff(targets.indptr), k) - 1]
    return float((np.bincount(user, gain, targets.n_users) / ideal).mean())


def equal(sources: Sequence[Source]) -> dict[str, float]:
    """Weight 1 for every source."""
    return {s.name: 1.0 for s in sources}

"""Decay and fusion weights, learned on a temporal holdout of the training data.

For the next event recency buys more than the choice of model, for a coming period the order reverses:
no constant suits both. So the holdout is of the kind that the user names (``goal``): the last event of
each user, or everything after a cut in time. Weights minimise the listwise softmax loss (Cao et al. 2007)
over the catalogue; they carry the temperature too, so their sizes can be compared.
"""

from collections.abc import Sequence

import numpy as np
import scipy.optimize
import scipy.sparse as sp

from fastrec import gating
from fastrec.gate import Gate
from fastrec.profiles import profiles
from fastrec.types import F32, F64, I64, BiasSource, Bool, DenseSource, Interactions, Source

#: Users x items that are scored for a variant of a source, and how many of them at once.
_CELLS, _BLOCK = 30_000_000, 4_000_000
#: Users, about, that choose among the variants of a source; the weights are learned from all.
_USERS = 2000
#: The best of every source that compete for the first places of a user.
_POOL = 100
_RIDGE = 1e-4
#: Multiples that ``climb`` tries, and what a step must gain: standard errors, for a period a share of the NDCG. There a
#: few hundred users have dozens of targets each, and what is best is open: inside the training part of ml-1m no climb
#: at all was better (.012 NDCG, standard error .0035), inside that of ml-100k nothing was clear.
_STEPS = (0.0, 0.25, 0.5, 0.7, 1.4, 2.0, 4.0)
_ERRORS, _GAIN = 2.0, 0.002
#: Fewer holdout users than this teach nothing.
_FEWEST = 20
#: Last events of users that are wanted as lessons, and the share of a history that may be among them.
_LESSONS, _SHARE = 4000, 0.2


def holdout(interactions: Interactions, goal: str) -> tuple[Interactions, Interactions]:
    """(train, held out), both over all users: each user's last event, or all after the 0.9 quantile of time."""
    if goal == "next":
        held = np.zeros(len(interactions.items), np.bool_)
        many = np.diff(interactions.indptr) >= 2
        held[interactions.indptr[1:][many] - 1] = True
    else:
        held = interactions.times > np.quantile(interactions.times, 0.9)
    return interactions.select(~held), interactions.select(held)


def lessons(interactions: Interactions, goal: str) -> tuple[Interactions, Interactions, Interactions]:
    """(what models are fitted on, histories, what came next), the last two over the same rows; row u is user u.

    As ``holdout``, but for the next event a few users teach more than one lesson each: also what came before their last
    event, as long as it is in the newest fifth of the history. The weights of 900 users with one lesson each are noise:
    another order of the rows gives others. Histories of these lessons stand behind those of all users.
    """
    train, held = holdout(interactions, goal)
    lengths = np.diff(interactions.indptr)
    wanted = -(-_LESSONS // max(int((lengths >= 2).sum()), 1))
    each = np.where(lengths >= 2, np.clip((_SHARE * lengths).astype(np.int64), 1, wanted), 0)
    if goal != "next" or not each.any() or each.max() == 1:
        return train, train, held
    age = np.repeat(interactions.indptr[1:], lengths) - 1 - np.arange(len(interactions.items))
    histories, next_events = [train], [held]
    for back in range(1, int(each.max())):
        rows = np.flatnonzero(each > back)
        histories.append(interactions.select(age > back).take(rows))
        next_events.append(interactions.select(age == back).take(rows))
    past = interactions.select(age >= np.repeat(each, lengths))
    return past, _joined(histories), _joined(next_events)


def _joined(parts: Sequence[Interactions]) -> Interactions:
    """The rows of all parts behind one another."""
    ends = np.cumsum([0, *(len(p.items) for p in parts)])
    indptr = np.concatenate([[0], *(p.indptr[1:] + end for p, end in zip(parts, ends, strict=False))]).astype(np.int64)
    arrays = ([getattr(p, name) for p in parts] for name in ("items", "times", "weights"))
    items, times, weights = (np.concatenate(a) for a in arrays)
    kinds = None if parts[0].kinds is None else np.concatenate([p.kinds for p in parts])
    return Interactions(indptr, items, times, weights, parts[0].n_items, kinds)


def tune(
    candidates: Sequence[Sequence[Source]],
    train: Interactions,
    held: Interactions,
    seed: int,
    n_users: int | None = None,
    goal: str = "next",
) -> tuple[list[int], F64, Gate | None] | None:
    """(place of the best variant of every source, their weights float64 [M], how users move them), or None where too
    few users are held out.

    candidates: the variants of every source, fitted on what lies before ``held``; the best is the one with the largest
        NDCG alone, the first of equals
    train, held: histories and what came next, see ``lessons``
    n_users: rows of different users; the others come again. None: all of them
    goal: what was held out, as in ``holdout``
    """
    rng = np.random.default_rng(seed)
    able = np.flatnonzero((np.diff(held.indptr) > 0) & (np.diff(train.indptr) > 0))
    if len(able) < _FEWEST:
        return None
    most = max(_FEWEST, _CELLS // train.n_items)
    again = np.zeros(len(able), np.bool_) if n_users is None else able >= n_users
    users = np.concatenate([rng.permutation(able[~again]), rng.permutation(able[again])])[:most]
    rows = max(1, _BLOCK // train.n_items)
    blocks = [
        (train.take(users[first : first + rows]), held.take(users[first : first + rows]))
        for first in range(0, len(users), rows)
    ]
    few = blocks[: -(-_USERS // rows)]
    chosen = [0 if len(variants) == 1 else _best(variants, few) for variants in candidates]
    scores, targets, open_items = pool([v[place] for v, place in zip(candidates, chosen, strict=True)], blocks)
    weights = climb(scores, targets, open_items, softmax_weights(scores, targets, open_items), goal)
    sources = [v[place] for v, place in zip(candidates, chosen, strict=True)]
    names, fixed = [s.name for s in sources], [isinstance(s, BiasSource) for s in sources]
    span = float(train.times.min()), float(train.times.max())
    # Its standard errors are those of different users.
    one = np.arange(min(len(users), int((~again).sum())))
    pooled = scores[:, one], targets.take(one), open_items[one], weights, train.take(users[one]), span
    return chosen, weights, gating.gate(names, fixed, *pooled, _ndcg_by_user)


def _best(variants: Sequence[Source], blocks: Sequence[tuple[Interactions, Interactions]]) -> int:
    """Place of the variant with the largest NDCG, the first of equals."""
    gains = np.zeros(len(variants))
    for histories, targets in blocks:
        open_items = _open(histories)
        for place, source in enumerate(variants):
            gains[place] += histories.n_users * _ndcg(normalised_scores(source, histories), targets, open_items)
    return int(gains.argmax())


def pool(
    sources: Sequence[Source], blocks: Sequence[tuple[Interactions, Interactions]]
) -> tuple[F32, Interactions, Bool]:
    """What competes for the first places: per user the best 100 open items of every source, and the targets.

    Returns (scores float32 [M, B, C] of the sources, the targets with their places in C as items, bool [B, C]
    false for padding). The whole catalogue of every user would not fit into memory, and an item that no source
    has near the top is not at the top of a sum of them either.
    """
    parts: list[F32] = []
    places: list[I64] = []
    for histories, targets in blocks:
        open_items = _open(histories)
        z = np.stack([normalised_scores(source, histories) for source in sources])
        wanted = np.zeros(open_items.shape, np.bool_)
        most = min(_POOL, histories.n_items)
        for scores in z:
            best = np.argpartition(np.where(open_items, -scores, np.inf), most - 1, axis=1)[:, :most]
            np.put_along_axis(wanted, best, True, axis=1)
        wanted &= open_items
        wanted[targets.users, targets.items] = True
        before = np.cumsum(wanted, axis=1) - 1
        places.append(before[targets.users, targets.items])
        parts += [z[:, u, columns] for u, columns in enumerate(np.flatnonzero(row) for row in wanted)]
    width = max(part.shape[1] for part in parts)
    scores = np.zeros((len(sources), len(parts), width), np.float32)
    open_places = np.zeros((len(parts), width), np.bool_)
    for u, part in enumerate(parts):
        scores[:, u, : part.shape[1]] = part
        open_places[u, : part.shape[1]] = True
    counts = np.concatenate([np.diff(targets.indptr) for _, targets in blocks])
    items = np.concatenate(places)
    n = len(items)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    held = Interactions(indptr, items.astype(np.int32), np.zeros(n), np.ones(n, np.float32), width)
    return scores, held, open_places


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


def climb(scores: F32, targets: Interactions, open_items: Bool, start: F64, goal: str = "next") -> F64:
    """From ``start`` uphill in NDCG@10, one weight at a time; float64 [M].

    The softmax loss looks at the whole catalogue, users at the first ten. Each weight is tried at multiples
    of what it is (and of the mean weight, where it is 0); a step is taken when it gains more than two standard errors,
    paired by user; for the goal "period", a five hundredth of the NDCG. Two rounds, then it stops.
    """
    weights = start.copy()
    best = _ndcg_by_user(np.tensordot(weights.astype(np.float32), scores, 1), targets, open_items)
    for _ in range(2):
        before = weights
        for m in range(len(weights)):
            base = weights[m] if weights[m] > 0 else weights.mean()
            for factor in _STEPS:
                trial = weights.copy()
                trial[m] = factor * base
                if not trial.any() or trial[m] == weights[m]:
                    continue
                value = _ndcg_by_user(np.tensordot(trial.astype(np.float32), scores, 1), targets, open_items)
                gain = value - best
                noise = _ERRORS * gain.std() / np.sqrt(len(gain)) if goal == "next" else _GAIN * best.mean()
                if gain.mean() > noise:
                    best, weights = value, trial
        if weights is before:
            break
    return weights


def hidden_items(train: Interactions, seed: int) -> Bool:
    """A fifth of the items with events, bool [N]: their events are taken away to learn what to say without them."""
    known = np.flatnonzero(np.bincount(train.items, minlength=train.n_items))
    hidden = np.zeros(train.n_items, np.bool_)
    hidden[np.random.default_rng(seed).permutation(known)[: len(known) // 5]] = True
    return hidden


def cold_weights(sources: Sequence[Source], past: Interactions, future: Interactions, seed: int) -> F64 | None:
    """The weights that rank the hidden items, among themselves, best for who chose them; None for too few users.

    sources: fitted on ``past``; future: the events of the hidden items, over the same users
    """
    future = future.select(future.weights > 0)
    able = np.flatnonzero((np.diff(future.indptr) > 0) & (np.diff(past.indptr) > 0))
    columns = np.unique(future.items)
    if len(able) < _FEWEST or len(columns) < 2:
        return None
    most = max(_FEWEST, min(_USERS, _CELLS // past.n_items))
    users = np.sort(np.random.default_rng(seed).permutation(able)[:most])
    rows = max(1, _BLOCK // past.n_items)
    parts = []
    for first in range(0, len(users), rows):
        some = past.take(users[first : first + rows])
        parts.append(np.stack([normalised_scores(source, some)[:, columns] for source in sources]))
    wanted = future.take(users)
    places = np.searchsorted(columns, wanted.items).astype(np.int32)
    targets = Interactions(wanted.indptr, places, wanted.times, wanted.weights, len(columns))
    scores = np.concatenate(parts, axis=1)
    return softmax_weights(scores, targets, np.ones(scores.shape[1:], np.bool_))


def _open(histories: Interactions) -> Bool:
    """bool [B, N], false where the item is in the user's history."""
    mask = np.ones((histories.n_users, histories.n_items), np.bool_)
    mask[histories.users, histories.items] = False
    return mask


def _ndcg(scores: F32, targets: Interactions, open_items: Bool, k: int = 10) -> float:
    """Mean NDCG@k of the targets; ties count against the source."""
    return float(_ndcg_by_user(scores, targets, open_items, k).mean())


def _ndcg_by_user(scores: F32, targets: Interactions, open_items: Bool, k: int = 10) -> F64:
    user: I64 = targets.users
    masked = np.where(open_items, scores, np.float32(-np.inf))
    mine = scores[user, targets.items]
    rank = np.empty(len(mine), np.int64)
    for start in range(0, len(mine), 1024):
        span = slice(start, start + 1024)
        rank[span] = (masked[user[span]] >= mine[span, None]).sum(axis=1) - open_items[user[span], targets.items[span]]
    gain = np.where(rank < k, 1 / np.log2(rank + 2), 0.0)
    ideal = np.cumsum(1 / np.log2(np.arange(2, k + 2)))[np.minimum(np.diff(targets.indptr), k) - 1]
    by_user: F64 = np.bincount(user, gain, targets.n_users) / ideal
    return by_user


def equal(sources: Sequence[Source]) -> dict[str, float]:
    """Weight 1 for every source."""
    return {s.name: 1.0 for s in sources}

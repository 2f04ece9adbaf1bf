"""The gate of ``gate.py`` is learned on the holdout that taught the weights, and kept only where it helps there.

The loss is that of the weights, the listwise softmax, with a ridge that draws every coefficient to 0 (no gate). Each
user is judged by a gate that the other half of the users taught: it must raise their NDCG@10 by more than chance would,
in full or at half its size, or there is none.
"""

import logging
from collections.abc import Callable, Sequence

import numpy as np
import scipy.optimize

from fastrec.gate import Gate, features, multiples
from fastrec.types import F32, F64, I64, Bool, Interactions

log = logging.getLogger("fastrec")

#: Users that teach, at most: the gate has a few numbers only.
_USERS = 4000
#: Weight of the squared coefficients beside the mean loss of a user.
_RIDGE = 0.01
_ITERATIONS = 20
#: Sizes at which a learned gate is tried, and the standard errors that its gain must have. With the features dealt out
#: to other users (MovieLens 100k without last events, 40 deals) one gate in twenty gains more than 1.7 for nothing.
_SIZES, _ERRORS = (1.0, 0.5), 2.0
#: Fewer users than this teach nothing.
_FEWEST = 200

#: (scores [B, C], targets, open places) -> NDCG@10 of every user
Ndcg = Callable[[F32, Interactions, Bool], F64]


def gate(
    names: Sequence[str],
    fixed: Sequence[bool],
    scores: F32,
    targets: Interactions,
    open_items: Bool,
    weights: F64,
    histories: Interactions,
    span: tuple[float, float],
    ndcg: Ndcg,
) -> Gate | None:
    """The gate that these users teach; None where none helps.

    names, fixed: of the M sources, and whether the weight of one is the same for all users
    scores, targets, open_items: [M, B, C], B users, [B, C], see ``learn.pool``
    histories: of the B users
    """
    free = [m for m, kept in enumerate(fixed) if not kept and weights[m] > 0]
    n_users = min(scores.shape[1], _USERS)
    if n_users < _FEWEST or not free or np.count_nonzero(weights) < 2:
        return None
    some = np.arange(n_users)
    scores, targets, open_items = scores[:, :n_users], targets.take(some), open_items[:n_users]
    raw = features(histories.take(some), span)
    empty = Gate({}, raw.mean(axis=0), np.maximum(raw.std(axis=0), 1e-6), span)
    z = empty.standardised(histories.take(some))
    z[:, raw.std(axis=0) < 1e-6] = 0.0
    halves = np.random.default_rng(0).permutation(n_users) % 2
    plain = ndcg(_mixed(scores, weights, free, z, np.zeros((len(free), z.shape[1]))), targets, open_items)
    judged = np.zeros((len(_SIZES), n_users))
    for half in (0, 1):
        taught, asked = np.flatnonzero(halves != half), np.flatnonzero(halves == half)
        found = _coefficients(scores[:, taught], targets.take(taught), open_items[taught], weights, free, z[taught])
        for at, size in enumerate(_SIZES):
            mixed = _mixed(scores[:, asked], weights, free, z[asked], size * found)
            judged[at, asked] = ndcg(mixed, targets.take(asked), open_items[asked])
    gains = judged - plain
    best = int(gains.mean(axis=1).argmax())
    gain, error = gains[best].mean(), gains[best].std(ddof=1) / np.sqrt(n_users)
    log.info("[fit] weights by user: NDCG@10 %+.5f on the other half, standard error %.5f", gain, error)
    if gain <= _ERRORS * error:
        return None
    found = _SIZES[best] * _coefficients(scores, targets, open_items, weights, free, z)
    return Gate({names[m]: row for m, row in zip(free, found, strict=True)}, empty.centre, empty.scale, span)


def _mixed(scores: F32, weights: F64, free: Sequence[int], z: F64, coefficients: F64) -> F32:
    """The fused scores of every user, float32 [B, C]."""
    by_user = _by_user(weights, free, z, coefficients).astype(np.float32)
    return np.asarray(sum(w[:, None] * s for w, s in zip(by_user, scores, strict=True)), np.float32)


def _by_user(weights: F64, free: Sequence[int], z: F64, coefficients: F64) -> F64:
    """float64 [M, B]"""
    out = np.repeat(weights[:, None], len(z), axis=1)
    out[list(free)] *= multiples(coefficients @ z.T)
    return out


def _coefficients(
    scores: F32, targets: Interactions, open_items: Bool, weights: F64, free: Sequence[int], z: F64
) -> F64:
    """float64 [free sources, F]: least loss beside the ridge."""
    n_users, width = len(z), z.shape[1]
    user: I64 = targets.users
    share = 1.0 / np.diff(targets.indptr)[user] / n_users
    closed = np.where(open_items, np.float32(0), np.float32(-np.inf))
    closed[user, targets.items] = 0
    # A user who is easier to predict has a lower temperature, which moves no ranking: it must not look like a gate.
    free_temperature = 1 + width

    def loss(x: F64) -> tuple[float, F64]:
        heat = np.exp(np.clip(x[0] + z @ x[1:free_temperature], -3, 3))
        g = x[free_temperature:].reshape(len(free), width)
        by_user = _by_user(weights, free, z, g)
        plain = np.asarray(sum(w[:, None] * s for w, s in zip(by_user.astype(np.float32), scores, strict=True)))
        logits = heat[:, None].astype(np.float32) * plain + closed
        top = logits.max(axis=1, keepdims=True)
        p = np.exp(logits - top)
        total = p.sum(axis=1, keepdims=True)
        p /= total
        value = float((np.log(total) + top).mean(dtype=np.float64)) - float((logits[user, targets.items] * share).sum())
        p /= n_users
        np.subtract.at(p, (user, targets.items), share.astype(np.float32))  # the slope of the logits
        slope_heat = (p * np.where(open_items, plain, 0)).sum(axis=1, dtype=np.float64) * heat
        out = np.empty_like(x)
        out[0] = slope_heat.sum()
        out[1:free_temperature] = slope_heat @ z
        slopes = np.empty_like(g)
        for row, m in enumerate(free):
            along = (p * scores[m]).sum(axis=1, dtype=np.float64) * heat * by_user[m]
            slopes[row] = along @ z
        out[free_temperature:] = (slopes + 2 * _RIDGE * g).ravel()
        return value + _RIDGE * float((g**2).sum()), out

    start = np.zeros(free_temperature + len(free) * width)
    found = scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS})
    x: F64 = found.x if np.isfinite(found.x).all() else start
    return x[free_temperature:].reshape(len(free), width)

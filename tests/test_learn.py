"""Decay and weights are found where the data holds them."""

from dataclasses import replace

import numpy as np
import pytest

from fastrec import learn, metrics, unchosen
from fastrec.models._decay import DECAYS
from fastrec.types import BiasSource, DenseSource, Interactions


def chains(rng, n_users=300, n_items=60, length=12):
    """Histories in which the next item is a neighbour on a ring of the one before, the rest is noise."""
    items = np.empty((n_users, length), np.int32)
    for u in range(n_users):
        free = rng.permutation(n_items)
        items[u] = free[:length]
        items[u, -1] = next(
            i
            for i in ((items[u, -2] + d) % n_items for d in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12))
            if i not in items[u, :-1]
        )
    indptr = np.arange(n_users + 1, dtype=np.int64) * length
    n = n_users * length
    return Interactions(indptr, items.ravel(), np.arange(n, dtype=float), np.ones(n, np.float32), n_items)


def variants(source):
    return [replace(source, decay=d) for d in DECAYS]


def ring(n_items):
    angle = np.arange(n_items) * 2 * np.pi / n_items
    return np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)


def test_holdout_next_takes_the_last_event_of_each_user_who_keeps_one():
    data = Interactions(
        np.array([0, 3, 4, 4]), np.array([0, 1, 2, 1], np.int32), np.arange(4.0), np.ones(4, np.float32), 3
    )
    train, held = learn.holdout(data, "next")
    assert train.indptr.tolist() == [0, 2, 3, 3] and train.items.tolist() == [0, 1, 1]
    assert held.indptr.tolist() == [0, 1, 1, 1] and held.items.tolist() == [2]


def test_holdout_period_cuts_time():
    data = chains(np.random.default_rng(0))
    train, held = learn.holdout(data, "period")
    assert train.times.max() < held.times.min()
    assert len(held.items) == pytest.approx(0.1 * len(data.items), abs=2)
    assert train.n_users == held.n_users == data.n_users


def test_few_users_teach_several_lessons():
    rng = np.random.default_rng(6)
    lengths = np.array([1, 2, 9, 10, 40, 0])
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    n = int(indptr[-1])
    items = np.concatenate([rng.permutation(40)[:m] for m in lengths]).astype(np.int32)
    kinds = rng.integers(0, 5, n).astype(np.uint8)
    data = Interactions(indptr, items, np.arange(float(n)), np.ones(n, np.float32), 40, kinds)
    past, histories, held = learn.lessons(data, "next")
    assert np.diff(past.indptr).tolist() == [1, 1, 8, 8, 32, 0]  # a fifth at most is taken away
    train, last = learn.holdout(data, "next")
    for found, want in ((histories, train), (held, last)):
        first = found.take(np.arange(6))
        for name in ("indptr", "items", "times", "kinds"):
            np.testing.assert_array_equal(getattr(first, name), getattr(want, name))
    assert histories.n_users == held.n_users == 6 + 1 + 7  # one more of 10 entries, seven more of 40
    for row in range(6, 14):
        (item,), before = held.take([row]).items, histories.take([row]).items
        user = 3 if row == 6 else 4
        mine = data.take([user]).items.tolist()
        assert mine[: len(before) + 1] == [*before, item] and len(before) >= len(past.take([user]).items)


def test_many_users_and_periods_teach_one_lesson_each(monkeypatch):
    data = chains(np.random.default_rng(0))
    monkeypatch.setattr(learn, "_LESSONS", 300)
    for goal in ("next", "period"):
        past, histories, held = learn.lessons(data, goal)
        assert past is histories
        np.testing.assert_array_equal(held.items, learn.holdout(data, goal)[1].items)


def test_short_decay_is_found_and_noise_gets_no_weight():
    rng = np.random.default_rng(1)
    data = chains(rng)
    train, held = learn.holdout(data, "next")
    content = DenseSource("content", ring(data.n_items), None)
    noise = BiasSource("noise", rng.random(data.n_items).astype(np.float32))
    (which, only), weights, gate = learn.tune([variants(content), [noise]], train, held, seed=0)
    assert DECAYS[which] in (0.5, 1.0)
    assert only == 0
    assert weights[0] > 10 * weights[1]
    assert gate is None  # there is one source left: nothing to weigh against


def test_too_little_data_teaches_nothing():
    data = chains(np.random.default_rng(3), n_users=5)
    content = DenseSource("content", ring(60), None)
    assert learn.tune([variants(content)], *learn.holdout(data, "next"), seed=0) is None


def test_weights_minimise_the_softmax_loss():
    rng = np.random.default_rng(4)
    scores = rng.normal(size=(3, 50, 30)).astype(np.float32)
    logits = 1.5 * scores[0] + 0.5 * scores[1]
    logits += rng.gumbel(size=logits.shape)  # the best of these is a draw from the softmax of the weights
    targets = Interactions(np.arange(51), logits.argmax(1).astype(np.int32), np.zeros(50), np.ones(50, np.float32), 30)
    open_items = np.ones((50, 30), bool)
    w = learn.softmax_weights(scores, targets, open_items)

    def loss(w):
        z = np.tensordot(w, scores.astype(np.float64), 1)
        return (np.log(np.exp(z).sum(1)) - z[np.arange(50), targets.items]).mean()

    for i in range(3):
        for step in (-0.05, 0.05):
            other = w.copy()
            other[i] = max(0.0, other[i] + step)
            assert loss(other) >= loss(w) - 1e-4
    assert w[0] > w[1] > w[2]


def test_climbing_never_loses_and_drops_what_misleads():
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 30, 400).astype(np.int32)
    good = rng.normal(size=(400, 30)).astype(np.float32)
    good[np.arange(400), truth] += 1.5
    bad = rng.normal(size=(400, 30)).astype(np.float32)
    scores = np.stack([good, bad])
    targets = Interactions(np.arange(401), truth, np.zeros(400), np.ones(400, np.float32), 30)
    open_items = np.ones((400, 30), bool)
    start = np.array([1.0, 1.0])
    end = learn.climb(scores, targets, open_items, start)

    def ndcg(w):
        return learn._ndcg(np.tensordot(w.astype(np.float32), scores, 1), targets, open_items)

    assert ndcg(end) > 1.05 * ndcg(start)
    assert end[1] < 0.5 * end[0]


def test_ndcg_on_the_holdout_is_that_of_the_metrics():
    rng = np.random.default_rng(6)
    scores = rng.normal(size=(20, 15)).astype(np.float32)
    histories = [rng.permutation(15) for _ in range(20)]
    targets = Interactions(
        np.arange(21) * 3,
        np.concatenate([h[:3] for h in histories]).astype(np.int32),
        np.zeros(60),
        np.ones(60, np.float32),
        15,
    )
    open_items = np.ones((20, 15), bool)
    for u, h in enumerate(histories):
        open_items[u, h[3:6]] = False
    ranked = np.argsort(np.where(open_items, -scores, np.inf), axis=1)[:, :10]
    want = metrics.ndcg(ranked, [h[:3].tolist() for h in histories], 10)
    assert learn._ndcg(scores, targets, open_items) == pytest.approx(want)


def test_seen_items_are_not_among_the_alternatives():
    # Source 0 likes the seen item above all; with it out of the way its order is right.
    scores = np.array([[[9.0, 2.0, 1.0, 0.0]] * 30, [[0.0, 1.0, 2.0, 3.0]] * 30], np.float32)
    targets = Interactions(np.arange(31), np.full(30, 1, np.int32), np.zeros(30), np.ones(30, np.float32), 4)
    open_items = np.ones((30, 4), bool)
    open_items[:, 0] = False
    w = learn.softmax_weights(scores, targets, open_items)
    assert w[0] > 1 and w[1] < 0.01 * w[0] + 1e-9


def test_weights_for_items_without_events():
    rng = np.random.default_rng(8)
    kinds = rng.integers(0, 5, 60)
    right = np.eye(5, dtype=np.float32)[kinds] + 0.1 * rng.normal(size=(60, 5)).astype(np.float32)
    sources = [DenseSource("right", right, None), DenseSource("noise", rng.normal(size=(60, 5)).astype("f4"), None)]
    rows = [np.flatnonzero(kinds == u % 5) for u in range(200)]
    flat = np.concatenate([rng.permutation(r)[:6] for r in rows]).astype(np.int32)
    indptr = np.concatenate([[0], np.cumsum([min(len(r), 6) for r in rows])])
    data = Interactions(indptr, flat, np.arange(len(flat), dtype=float), np.ones(len(flat), np.float32), 60)
    hidden = learn.hidden_items(data, 0)
    assert hidden.sum() == 12
    taken = hidden[data.items]
    w = learn.cold_weights(sources, data.select(~taken), data.select(taken), 0)
    assert w[0] > 0.5 and w[1] < 0.1 * w[0]
    few = data.take(np.arange(10))
    assert learn.cold_weights(sources, few, few, 0) is None


def test_factors_bring_cold_items_to_the_proportions_asked_for():
    rows = np.array([False, True])
    weights = {"directed": 2.0, "content": 0.6, "knowledge": 0.0}
    raised, found = unchosen.settled(weights, {"content": 3.0, "knowledge": 4.0}, rows, 0.02)
    assert raised == {"directed": 2.0, "content": 0.6, "knowledge": 0.04}
    effective = {name: raised[name] * factor for name, factor in found.factors.items()}
    assert effective == {"content": pytest.approx(0.36), "knowledge": pytest.approx(0.48)}
    source = DenseSource("content", np.ones((2, 3), np.float32), None)
    np.testing.assert_allclose(found.scaled(source), [[1, 1, 1], [0.6, 0.6, 0.6]])
    np.testing.assert_allclose(found.scaled(source, np.array([1])), [[0.6, 0.6, 0.6]])
    assert (source.vectors == 1).all()
    assert found.scaled(DenseSource("directed", source.vectors, None)) is source.vectors
    assert unchosen.settled(weights, {"content": 1.0}, ~rows & rows, 0.02) == (weights, None)
    assert unchosen.settled(weights, {}, rows, 0.02) == (weights, None)
    none = {"directed": 2.0, "content": 0.0}
    raised, found = unchosen.settled(none, {"content": 1.0}, rows, 0.02)
    assert raised["content"] == 0.04 and found.factors["content"] == pytest.approx(1)

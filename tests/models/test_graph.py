"""LightGCN: the propagation, the gradient by differences, the loss, a new history."""

import numpy as np
import pytest
from helpers import groups, interactions, pairwise_loss, random_interactions

from fastrec.models import Graph
from fastrec.models.graph import propagation
from fastrec.profiles import profiles


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_propagation_is_its_formula_and_its_own_transpose(layers):
    data = random_interactions(1)
    rng = np.random.default_rng(0)
    u, n = data.n_users, data.n_items
    a = np.zeros((u + n, u + n))
    a[data.users, u + data.items] = a[u + data.items, data.users] = 1
    scale = 1 / np.sqrt(np.maximum(a.sum(axis=1), 1))
    a = a * scale[:, None] * scale
    whole = sum(np.linalg.matrix_power(a, power) for power in range(layers + 1)) / (layers + 1)
    np.testing.assert_allclose(whole, whole.T)
    start = rng.normal(size=(u + n, 3)).astype(np.float32)
    users, items = propagation(data, layers)(start[:u], start[u:])
    np.testing.assert_allclose(np.concatenate([users, items]), whole @ start, rtol=1e-4, atol=1e-5)


def test_the_first_step_goes_down_the_gradient():
    # The first step of Adam has the length of the rate along the sign of the gradient of every coordinate, so that
    # a short one must lower the loss, and a step back must raise it.
    data = groups()
    losses = {}
    for rate in (1e-6, 1e-3):
        losses[rate] = pairwise_loss(data, *Graph(factors=4, epochs=1, learning_rate=rate).train(data, data))
    assert losses[1e-3] < losses[1e-6]


def test_the_loss_falls():
    data = groups()
    losses = [pairwise_loss(data, *Graph(factors=8, epochs=e).train(data, data)) for e in (1, 10, 50)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.5 * losses[0]


def test_a_new_history_finds_its_group():
    data = groups()
    source = Graph(factors=8, epochs=50).fit(data, None, "next")
    fresh = interactions([[0, 3, 6], [1, 4], [2]], data.n_items)
    for u, row in enumerate(profiles(source, fresh) @ source.vectors.T):
        assert (np.argsort(-row)[:8] % 3 == u).all()


def test_the_seed_decides():
    data = random_interactions(3)
    one = Graph(factors=4, epochs=3).fit(data, None, "next").vectors
    np.testing.assert_array_equal(Graph(factors=4, epochs=3).fit(data, None, "next").vectors, one)
    assert (Graph(factors=4, epochs=3, seed=1).fit(data, None, "next").vectors != one).any()


def test_what_cannot_be_compared_is_left_out():
    assert Graph().fit(interactions([[0]], 1), None, "next") is None
    assert Graph().fit(interactions([[0]], 2, weights=[0]), None, "next") is None
    source = Graph(factors=3, epochs=2).fit(interactions([[0, 1]], 4), None, "next")
    assert (source.vectors[2:] == 0).all() and np.isfinite(source.vectors).all()

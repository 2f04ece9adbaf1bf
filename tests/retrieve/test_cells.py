"""Cells of an index: near centroids, every vector in the nearest, the same each time."""

import numpy as np
import pytest

from fastrec.retrieve import cells


def vectors(n, dims=8, seed=0, kinds=9):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((kinds, dims))
    x = centres[rng.integers(0, kinds, n)] + 0.2 * rng.standard_normal((n, dims))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(("n", "count"), [(1, 1), (7, 7), (50, 3), (1000, 40), (3001, 100)])
def test_centroids_are_means_and_better_than_a_draw(n, count):
    x = vectors(n)
    found = cells.train(x, count, 0)
    assert found.shape == (count, 8)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    scores = x @ found.T
    np.testing.assert_array_equal(cells.nearest(x, found), scores.argmax(axis=1))
    drawn = x[np.random.default_rng(1).permutation(n)[:count]]
    assert scores.max(axis=1).mean() >= (x @ drawn.T).max(axis=1).mean() - 1e-6


@pytest.mark.parametrize("spread", [0.3, 1.5])
def test_long_vectors_do_not_draw_all_to_their_cells(spread):
    rng = np.random.default_rng(2)
    x = (vectors(8000, kinds=60) * rng.lognormal(0, spread, (8000, 1))).astype(np.float32)
    found = cells.train(x, 150, 0)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    sizes = np.bincount(cells.nearest(x, found), minlength=150)
    assert (sizes == 0).sum() < 15 and sizes.max() < 8000 / 10


def test_cells_are_the_same_each_time():
    x = vectors(2000)
    a, b = (cells.train(x, 60, 5) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, cells.train(x, 60, 6))


def test_equal_vectors_and_zeros_are_no_trouble():
    x = np.concatenate([np.tile(vectors(1), (200, 1)), np.zeros((50, 8), np.float32)])
    found = cells.train(x, 12, 0)
    assert np.isfinite(found).all()
    assert set(cells.nearest(x, found)) <= set(range(12))


def test_means_of_cells():
    got = cells.means(np.array([1, 3, 5, 7], np.float32), np.array([2, 0, 2, 2]), 4)
    np.testing.assert_array_equal(got, np.array([3, 4, 13 / 3, 4], np.float32))

"""Cells of an index and of a catalogue: near centroids, every vector in the nearest, the same each time."""

import dataclasses

import numpy as np
import polars as pl
import pytest

from fastrec import Recommender, fuse, load, ops
from fastrec.inside import state_of
from fastrec.retrieve import cells, exact
from fastrec.types import BiasSource, Csr, DenseSource, Queries


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


def clusters(n, dims=16, kinds=12, noise=0.15, seed=0):
    """(features, queries of 40 users, seen items) of n items in clusters, with a bias."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((kinds, dims))
    x = centres[rng.integers(0, kinds, n)] + noise * rng.standard_normal((n, dims))
    x *= rng.lognormal(0, 0.1, (n, 1))
    sources = [DenseSource("d", x.astype(np.float32), None), BiasSource("b", rng.exponential(1, n).astype(np.float32))]
    features = fuse.fuse(sources, {"d": 1.0, "b": 0.2}, n)
    queries = Queries((centres[rng.integers(0, kinds, 40)] + rng.standard_normal((40, dims))).astype(np.float32), None)
    seen = [np.sort(rng.choice(n, 30, replace=False)) for _ in range(40)]
    return features, queries, Csr(np.arange(41, dtype=np.int64) * 30, np.concatenate(seen).astype(np.int32), n)


@pytest.mark.parametrize("dtype", ["int8", "bfloat16"])
@pytest.mark.parametrize(("n", "size"), [(2, 1), (17, 16), (500, 3), (3001, 64), (3001, 5000)])
def test_an_arranged_catalogue_has_every_item_once_and_within_its_radius(n, size, dtype):
    x = vectors(n, dims=5) * np.float32(3)
    x[n // 2 :] = x[0]
    found = cells.arrange(ops.pack_items(x, dtype=dtype), size=size).cells
    rows = found.order[found.order >= 0]
    np.testing.assert_array_equal(np.sort(rows), np.arange(n))
    owner = np.repeat(np.arange(len(found.begins) - 1), np.diff(found.begins) * 16)[found.order.ravel() >= 0]
    middles = found.coarse.rows.astype(np.float64)
    off = np.linalg.norm(x[rows].astype(np.float64) - middles[owner, :-1], axis=1)
    assert (off <= middles[owner, -1]).all()


def test_cells_are_kept_where_they_spare_most_items_and_change_no_result():
    features, queries, seen = clusters(6000)
    with_cells = cells.with_cells(features, queries)
    assert with_cells.items.cells is not None
    for which, bias in ((seen, None), (None, np.where(np.arange(6000) % 9 == 0, features.bias, -np.inf))):
        keywords = {} if bias is None else {"bias": bias.astype(np.float32)}
        found, wanted = (exact.search(f, queries, 10, seen=which, **keywords) for f in (with_cells, features))
        np.testing.assert_array_equal(found.rows, wanted.rows)
        np.testing.assert_array_equal(found.scores, wanted.scores)
    # Directions all alike: a bound of a cell says nothing.
    features, queries, _ = clusters(6000, kinds=1, noise=5)
    assert cells.with_cells(features, queries) is features


def test_only_a_large_space_of_dense_sources_is_tried(monkeypatch):
    features = clusters(300)[0]
    assert not cells.fit(features)
    monkeypatch.setattr(cells, "LEAST_NUMBERS", 300 * 16)
    assert cells.fit(features)
    similarity = Csr(np.zeros(301, np.int64), np.empty(0, np.int32), 300, np.empty(0, np.float32))
    assert not cells.fit(dataclasses.replace(features, similarity=similarity))


def test_a_fit_with_cells_recommends_the_same_and_is_saved_with_them(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    n, dims = 2000, 12
    kind = rng.integers(0, 20, n)
    table = {
        "item_id": [f"i{i}" for i in range(n)],
        "vector": list((rng.standard_normal((20, dims))[kind] + 0.1 * rng.standard_normal((n, dims))).tolist()),
    }
    likes = rng.integers(0, 20, 300)
    rows = [
        (f"u{u}", f"i{i}", t) for u in range(300) for t, i in enumerate(rng.choice(np.flatnonzero(kind == likes[u]), 6))
    ]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    items = pl.DataFrame(table, schema_overrides={"vector": pl.Array(pl.Float32, dims)})

    def fitted():
        return Recommender(encoder=None, models=["popularity", "als"], weights="equal").fit(events, items)

    plain = fitted()
    monkeypatch.setattr(cells, "LEAST_NUMBERS", 1)
    monkeypatch.setattr(cells, "_LEFT", 1.0)
    rec = fitted()
    assert state_of(rec, "test").features.items.cells is not None
    users = [f"u{u}" for u in range(300)]
    rec.save(tmp_path / "model")
    found = rec.recommend(users, k=10)
    for other in (plain, load(tmp_path / "model")):
        wanted = other.recommend(users, k=10)
        np.testing.assert_array_equal(found.items, wanted.items)
        np.testing.assert_array_equal(found.scores, wanted.scores)
    kept = state_of(load(tmp_path / "model"), "test").features.items.cells
    np.testing.assert_array_equal(kept.order, state_of(rec, "test").features.items.cells.order)

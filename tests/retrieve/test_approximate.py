"""The approximate search: exact scores, filters that hold, a recall that is measured, refusals that say why."""

import dataclasses

import numpy as np
import polars as pl
import pytest

from fastrec import BackendUnavailable, ConfigError, Recommender, fuse, load, retrieve, score
from fastrec.retrieve import approximate, exact
from fastrec.types import BiasSource, Csr, DenseSource, Interactions, Queries, SparseSource

pytest.importorskip("faiss", reason="faiss-cpu is not installed")


def clustered(rng, n, dims, centres):
    return (centres[rng.integers(0, len(centres), n)] + 0.3 * rng.standard_normal((n, dims))).astype(np.float32)


@pytest.fixture(scope="module")
def space():
    """(features of 20,000 items with dense, sparse and bias sources, queries of 40 users, seen items)."""
    rng = np.random.default_rng(0)
    n, dims, users = 20_000, 24, 40
    vectors = clustered(rng, n, dims, rng.standard_normal((50, dims)))
    indptr = np.arange(n + 1, dtype=np.int64) * 5
    indices = np.sort(rng.integers(0, n, (n, 5)).astype(np.int32), axis=1).ravel()
    similarity = Csr(indptr, indices, n, rng.random(5 * n, np.float32))
    sources = (
        DenseSource("dense", vectors, None),
        SparseSource("sparse", similarity, None),
        BiasSource("popular", rng.exponential(1, n).astype(np.float32)),
    )
    features = fuse.fuse(sources, {"dense": 1.0, "sparse": 0.3, "popular": 0.3}, n)
    items = [np.sort(rng.choice(n, 12, replace=False)) for _ in range(users)]
    histories = Interactions(
        np.arange(users + 1, dtype=np.int64) * 12,
        np.concatenate(items).astype(np.int32),
        np.tile(np.arange(12.0), users),
        np.ones(12 * users, np.float32),
        n,
    )
    return features, fuse.queries(features, histories), histories.seen()


@pytest.fixture(scope="module")
def index(space):
    return approximate.build(space[0], space[1], recall=0.95)


def recall(found, wanted):
    return np.mean([np.isin(w, f).mean() for f, w in zip(found.rows, wanted.rows, strict=True)])


def same_scores(features, queries, found):
    """Every score is the one that the exact search gives to this pair."""
    every = exact.scores(features, queries, np.arange(features.n_items))
    there = found.rows >= 0
    assert (np.take_along_axis(every, np.maximum(found.rows, 0), 1)[there] == found.scores[there]).all()


def test_reaches_the_recall_with_exact_scores_in_order(space, index):
    features, queries, seen = space
    wanted = exact.search(features, queries, 10, seen=seen)
    found = approximate.search(features, index, queries, 10, seen=seen, few=0)
    assert index.recall >= 0.95 and recall(found, wanted) >= 0.93
    same_scores(features, queries, found)
    assert (np.diff(found.scores, axis=1) <= 0).all()
    for u, row in enumerate(found.rows):
        assert not np.isin(row, seen.indices[seen.indptr[u] : seen.indptr[u + 1]]).any()


def test_a_batch_is_its_users_one_by_one(space, index):
    features, queries, seen = space
    together = approximate.search(features, index, queries, 10, seen=seen, few=0)
    for u in (0, 7, 39):
        alone = approximate.search(features, index, queries.take([u]), 10, seen=seen.take([u]), few=0)
        wider = set(together.rows[u])  # seen items of others give a user of a batch more room
        assert len(wider & set(alone.rows[0])) >= 9


def test_all_probes_and_nothing_else_lose_only_what_eight_bits_lose(space, index):
    features, queries, seen = space
    whole = dataclasses.replace(index, probes=index.index.nlist)
    found = approximate.search(features, whole, queries, 10, seen=seen, few=0)
    assert recall(found, exact.search(features, queries, 10, seen=seen)) >= 0.99


def test_many_seen_items_are_kept_out_by_a_selector(space, index):
    features, queries, _ = space
    rng = np.random.default_rng(3)
    rows = np.sort(rng.choice(features.n_items, 3000, replace=False)).astype(np.int32)
    # What user 0 would get goes, too.
    best = exact.search(features, queries.take([0]), 50).rows[0]
    rows = np.union1d(rows, best).astype(np.int32)
    seen = Csr(np.array([0, len(rows)]), rows, features.n_items)
    found = approximate.search(features, index, queries.take([0]), 10, seen=seen, few=0)
    assert not np.isin(found.rows, rows).any() and (found.rows >= 0).all()
    assert recall(found, exact.search(features, queries.take([0]), 10, seen=seen)) >= 0.8


@pytest.mark.parametrize("few", [0, 1 << 24])
def test_a_filter_that_keeps_one_percent_loses_nothing_it_should_not(space, index, few):
    features, queries, seen = space
    bias = features.bias.copy()
    bias[np.random.default_rng(5).random(features.n_items) > 0.01] = -np.inf
    wanted = exact.search(features, queries, 10, bias=bias, seen=seen)
    found = approximate.search(features, index, queries, 10, bias=bias, seen=seen, few=few)
    assert (bias[found.rows[found.rows >= 0]] > -np.inf).all()
    if few:
        assert (found.rows == wanted.rows).all() and (found.scores == wanted.scores).all()
    else:
        assert recall(found, wanted) >= 0.9


@pytest.fixture(scope="module")
def plain():
    """(features of 40,000 items with vectors alone, queries of 60 users, an index)."""
    rng = np.random.default_rng(4)
    n, dims = 40_000, 16
    centres = rng.standard_normal((100, dims))
    features = fuse.fuse([DenseSource("d", clustered(rng, n, dims, centres), None)], {"d": 1.0}, n)
    queries = Queries(clustered(rng, 60, dims, centres), None)
    return features, queries, approximate.build(features, queries)


@pytest.mark.parametrize("share", [0.02, 0.05, 0.2])
def test_a_filter_asks_for_as_many_more_cells(plain, share, monkeypatch):
    monkeypatch.setattr(approximate, "_BIASES", 1)  # or the best by bias would be candidates whatever the cells say
    features, queries, index = plain
    rng = np.random.default_rng(6)
    bias = np.where(rng.random(features.n_items) < share, features.bias, np.float32(-np.inf))
    wanted = exact.search(features, queries, 10, bias=bias)
    assert recall(approximate.search(features, index, queries, 10, bias=bias, few=0), wanted) >= 0.93
    # The bias of the space itself is no other one: so it comes where items were added after fitting.
    own = dataclasses.replace(features, bias=bias)
    assert recall(approximate.search(own, index, queries, 10, few=0), wanted) >= 0.93
    found = approximate.search(own, index, queries, 10)
    assert (found.rows == wanted.rows).all() and (found.scores == wanted.scores).all()


@pytest.mark.parametrize("lowered", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("factor", [0.1, 1e-4])
def test_items_with_a_boost_below_one_do_not_stand_in_the_way(plain, lowered, factor, monkeypatch):
    monkeypatch.setattr(approximate, "_BIASES", 1)
    features, queries, index = plain
    down = np.random.default_rng(7).random(features.n_items) < lowered
    queries = Queries(queries.vectors * np.float32(5), None)  # so that vectors and boosts weigh about the same
    bias = score.boosted(features.bias, np.where(down, factor, 1.0), "test")
    wanted = exact.search(features, queries, 10, bias=bias)
    assert recall(approximate.search(features, index, queries, 10, bias=bias, few=0), wanted) >= 0.93


def test_a_bias_that_moved_everywhere_is_searched_exactly(plain, monkeypatch):
    monkeypatch.setattr(approximate, "_MOVED", 1000)
    features, queries, index = plain
    bias = np.random.default_rng(8).standard_normal(features.n_items).astype(np.float32)
    found = approximate.search(features, index, queries, 10, bias=bias, few=0)
    assert (found.rows == exact.search(features, queries, 10, bias=bias).rows).all()


def test_nobody_gets_fewer_than_there_are(space, index, monkeypatch):
    features, queries, seen = space
    monkeypatch.setattr(approximate, "_union", _half_empty)
    found = approximate.search(features, index, queries, 10, seen=seen, few=0)
    wanted = exact.search(features, queries, 10, seen=seen)
    assert (found.rows >= 0).all()
    assert (found.rows[::2] == wanted.rows[::2]).all() and (found.scores[::2] == wanted.scores[::2]).all()


def _half_empty(named, scope, features, queries):
    """Every second user has three candidates, the others the first thousand items."""
    sizes = np.where(np.arange(len(named)) % 2, 1000, 3)
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    return Csr(indptr, np.concatenate([np.arange(size, dtype=np.int32) for size in sizes]), features.n_items)


def test_raised_items_are_candidates(space, index):
    features, queries, seen = space
    bias = features.bias.copy()
    bias[[17, 4711]] += 100
    found = approximate.search(features, index, queries, 5, bias=bias, seen=seen, few=0)
    for u, row in enumerate(found.rows):
        mine = seen.indices[seen.indptr[u] : seen.indptr[u + 1]]
        assert {17, 4711} - set(mine) <= set(row)


def test_a_bias_that_moved_by_more_than_a_code_makes_a_candidate(plain, monkeypatch):
    monkeypatch.setattr(approximate, "_BIASES", 1)
    n = plain[0].n_items
    for low in (-8, 0, 8):  # codes lie between the least and the largest bias, wherever zero is
        bias = np.linspace(low, low + 1, n, dtype=np.float32)
        index = dataclasses.replace(plain[2], bias=bias)
        now = bias.copy()
        now[[5, 7]] += np.float32([1.5 / 255, 0.5 / 255])
        assert approximate._Scope.of(now, index, None).always.tolist() == [5, n - 1]


def test_allow_lists_and_large_k_are_exact(space, index):
    features, queries, seen = space
    rows = np.arange(0, features.n_items, 7, dtype=np.int32)
    users = len(queries.vectors)
    allow = Csr(np.arange(users + 1, dtype=np.int64) * len(rows), np.tile(rows, users), features.n_items)
    for k, lists in ((10, {"allow": allow}), (features.n_items, {"seen": seen})):
        found = approximate.search(features, index, queries, k, **lists)
        assert (found.rows == exact.search(features, queries, k, **lists).rows).all()


def test_an_index_below_the_recall_is_refused():
    rng = np.random.default_rng(1)
    n, dims = 8000, 48  # no structure: cells say little
    features = fuse.fuse([DenseSource("d", rng.standard_normal((n, dims), np.float32), None)], {"d": 1.0}, n)
    queries = Queries(rng.standard_normal((30, dims), np.float32), None)
    with pytest.raises(BackendUnavailable, match=r"the index finds 0\.\d+ of the best 10 .* backend='auto'"):
        approximate.build(features, queries, recall=0.99)


def test_vectors_of_unequal_lengths_are_no_reason_to_refuse():
    rng = np.random.default_rng(0)
    n, dims = 20_000, 16
    centres = rng.standard_normal((60, dims))
    vectors = (clustered(rng, n, dims, centres) * rng.lognormal(0, 0.6, (n, 1))).astype(np.float32)
    features = fuse.fuse([DenseSource("d", vectors, None)], {"d": 1.0}, n)
    queries = Queries(clustered(rng, 50, dims, centres), None)
    index = approximate.build(features, queries)
    assert index.recall >= 0.95 and index.probes < index.index.nlist / 6


@pytest.mark.parametrize("n", [1, 2, 39, 400])
def test_small_catalogues(n):
    rng = np.random.default_rng(n)
    features = fuse.fuse([DenseSource("d", rng.standard_normal((n, 5), np.float32), None)], {"d": 1.0}, n)
    queries = Queries(rng.standard_normal((3, 5), np.float32), None)
    index = approximate.build(features, queries, recall=0.5)
    found = retrieve.search(dataclasses.replace(features, index=index), queries, 3, backend="faiss")
    assert found.rows.shape == (3, 3) and ((found.rows >= 0).sum(axis=1) == min(n, 3)).all()


def test_without_dense_sources(space):
    n = 3000
    features = fuse.fuse([BiasSource("b", np.arange(n, dtype=np.float32))], {"b": 1.0}, n)
    queries = Queries(np.empty((2, 0), np.float32), None)
    index = approximate.build(features, queries)
    found = approximate.search(features, index, queries, 3, few=0)
    assert found.rows.tolist() == [[n - 1, n - 2, n - 3]] * 2


@pytest.fixture(scope="module")
def model(events_of_groups):
    return Recommender(encoder=None, models=["popularity", "item_item", "als"], backend="faiss").fit(events_of_groups)


@pytest.fixture(scope="module")
def events_of_groups():
    rng = np.random.default_rng(2)
    users, n = np.repeat(np.arange(300), 20), 2000
    items = (users % 10) * (n // 10) + (rng.random(len(users)) ** 2 * (n // 10)).astype(int)
    return pl.DataFrame({"user_id": users, "item_id": items, "timestamp": rng.integers(0, 10**6, len(users))})


def test_the_recommender_builds_saves_and_loads_it(model, events_of_groups, tmp_path):
    assert any("faiss" in note and "recall@10" in note for note in model.report.notes)
    exactly = Recommender(encoder=None, models=["popularity", "item_item", "als"]).fit(events_of_groups)
    found, wanted = model.recommend(range(300)), exactly.recommend(range(300))
    shared = np.mean([np.isin(w, f).mean() for f, w in zip(found.items, wanted.items, strict=True)])
    assert shared >= 0.95
    model.save(tmp_path / "m")
    again = load(tmp_path / "m").recommend(range(300))
    assert (again.items == found.items).all() and (again.scores == found.scores).all()
    history = set(events_of_groups.filter(pl.col("user_id") == 3)["item_id"])
    assert not history & set(found.items[3])


def test_updates_and_new_items_are_seen(model, tmp_path):
    model.save(tmp_path / "m")
    rec = load(tmp_path / "m")
    best = rec.recommend(5).items[0]
    rec.update({"user_id": [5], "item_id": [best], "timestamp": [2e6]})
    assert best not in rec.recommend(5).items
    rec.remove_items([rec.recommend(5).items[0]])
    assert len(set(rec.recommend(5).items)) == 10


def test_faiss_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(approximate, "missing", lambda: ("faiss is not installed", "pip install it"))
    with pytest.raises(BackendUnavailable, match="pip install it"):
        Recommender(encoder=None, backend="faiss")
    with pytest.raises(ConfigError, match="backend"):
        Recommender(encoder=None, backend="fais")

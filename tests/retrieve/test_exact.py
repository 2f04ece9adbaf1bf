"""The search over the fused space: what it passes on, and that scores of given items are the same bits."""

import numpy as np
import pytest

from fastrec import fuse, retrieve
from fastrec.types import BiasSource, Csr, DenseSource, Interactions, SparseSource

N = 30


@pytest.fixture(scope="module")
def space():
    rng = np.random.default_rng(0)
    indptr = np.arange(N + 1, dtype=np.int64) * 4
    columns = np.concatenate([np.sort(rng.permutation(N)[:4]) for _ in range(N)]).astype(np.int32)
    similar = Csr(indptr, columns, N, rng.random(4 * N).astype(np.float32))
    sources = [
        DenseSource("content", rng.normal(size=(N, 6)).astype(np.float32), 1.0),
        SparseSource("item_item", similar, None),
        BiasSource("popularity", rng.random(N).astype(np.float32)),
    ]
    features = fuse.fuse(sources, {s.name: 1.0 for s in sources}, N)
    items = np.concatenate([rng.permutation(N)[:5] for _ in range(8)]).astype(np.int32)
    histories = Interactions(np.arange(9) * 5, items, np.arange(40.0), np.ones(40, np.float32), N)
    return features, fuse.queries(features, histories), histories


def test_scores_are_the_bits_of_the_search(space):
    features, queries, _ = space
    found = retrieve.search(features, queries, N)
    everything = retrieve.scores(features, queries, np.arange(N))
    np.testing.assert_array_equal(np.take_along_axis(everything, found.rows, 1), found.scores)


def test_lists_and_bias_are_passed_on(space):
    features, queries, histories = space
    seen = histories.seen()
    found = retrieve.search(features, queries, N, seen=seen)
    for u, row in enumerate(found.rows):
        mine = set(histories.items[histories.indptr[u] : histories.indptr[u + 1]].tolist())
        assert set(row[row >= 0].tolist()) == set(range(N)) - mine
    assert (retrieve.search(features, queries, N, deny=seen).rows == found.rows).all()
    allowed = retrieve.search(features, queries, N, allow=seen).rows
    assert all(set(a[a >= 0].tolist()).isdisjoint(f[f >= 0].tolist()) for a, f in zip(allowed, found.rows, strict=True))
    closed = features.bias.copy()
    closed[:20] = -np.inf
    assert retrieve.search(features, queries, N, bias=closed).rows.max(axis=1).min() >= 20
    assert (retrieve.search(features, queries, N, bias=closed).rows < 20).sum() == 8 * 20  # the empty places


def test_no_users(space):
    features, queries, _ = space
    nobody = queries.take([])
    assert retrieve.search(features, nobody, 3).rows.shape == (0, 3)
    assert retrieve.scores(features, nobody, np.arange(4)).shape == (0, 4)

"""The fused space gives the weighted sum of per-user normalised scores, source by source."""

import numpy as np
import pytest

from fastrec import fuse, ops
from fastrec.types import BiasSource, Csr, DenseSource, FoldInSource, Interactions, SparseSource
from fastrec.unchosen import Cold

N, D = 37, 5


def sources(rng):
    vectors = rng.normal(size=(N, D)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[3] = 0

    def sparse():
        s = rng.random((N, N)) * (rng.random((N, N)) < 0.2)
        rows, columns = np.nonzero(s)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=N))]).astype(np.int64)
        return Csr(indptr, columns.astype(np.int32), N, s[rows, columns].astype(np.float32))

    return [
        DenseSource("a", vectors, 2.0),
        SparseSource("b", sparse(), None),
        DenseSource("c", np.ascontiguousarray(vectors[::-1, :3]), None),
        SparseSource("d", sparse(), 3.0),
        FoldInSource("g", vectors, 2.0, vectors.T.astype(float) @ vectors + np.eye(D), 3.0),
        BiasSource("e", rng.random(N).astype(np.float32)),
        BiasSource("f", np.ones(N, np.float32)),  # says nothing: standard deviation 0
    ]


def histories(rng, lengths=(0, 1, 2, 7, 20)):
    indptr = np.cumsum([0, *lengths]).astype(np.int64)
    items = np.concatenate([rng.permutation(N)[:n] for n in lengths]).astype(np.int32)
    n = len(items)
    return Interactions(indptr, items, np.arange(n, dtype=float), rng.random(n).astype(np.float32), N)


def dense(csr):
    out = np.zeros((csr.n_rows, csr.n_cols))
    for r in range(csr.n_rows):
        out[r, csr.indices[csr.indptr[r] : csr.indptr[r + 1]]] = csr.values[csr.indptr[r] : csr.indptr[r + 1]]
    return out


def reference(parts, weights, hist):
    """score(u, i) as the module docstring says, in float64."""
    total = np.zeros((hist.n_users, N))
    for s in parts:
        for u in range(hist.n_users):
            past = hist.items[hist.indptr[u] : hist.indptr[u + 1]]
            a = hist.weights[hist.indptr[u] : hist.indptr[u + 1]].astype(np.float64)
            if not isinstance(s, BiasSource) and s.decay is not None:
                a = a * np.exp(-np.arange(len(past))[::-1] / s.decay)
            if isinstance(s, BiasSource):
                scores = s.bias.astype(np.float64)
            elif isinstance(s, FoldInSource):
                y = s.vectors[past].astype(np.float64)
                e = np.exp(-np.arange(len(past))[::-1] / s.decay)
                system = s.gram + 3.0 * (y.T * a) @ y
                scores = s.vectors @ np.linalg.solve(system, (e + 3.0 * a) @ y)
            elif isinstance(s, DenseSource):
                q = a @ s.vectors[past]
                scores = s.vectors @ (q / np.linalg.norm(q)) if np.linalg.norm(q) > 0 else np.zeros(N)
            else:
                scores = a @ dense(s.similarity)[past]
            if scores.std() > 1e-9:
                total[u] += weights[s.name] * scores / scores.std()
    return total


@pytest.mark.parametrize("names", ["abcdefg", "e", "a", "b", "bd", "ac", "abe", "g", "ag"])
def test_scores_are_the_weighted_sum(names):
    rng = np.random.default_rng(1)
    parts = [s for s in sources(rng) if s.name in names]
    weights = {s.name: w for s, w in zip(parts, rng.random(len(parts)) + 0.1, strict=True)}
    hist = histories(rng)
    features = fuse.fuse(parts, weights, N)
    q = fuse.queries(features, hist)
    sparse = None if features.similarity is None else (q.history, features.similarity)
    scores, rows = ops.score_topk(q.vectors, features.items, N, bias=features.bias, sparse=sparse)
    got = np.empty((hist.n_users, N))
    np.put_along_axis(got, rows, scores, 1)
    np.testing.assert_allclose(got, reference(parts, weights, hist), rtol=2e-5, atol=2e-5)


def test_weight_zero_drops_a_source():
    parts = sources(np.random.default_rng(2))
    features = fuse.fuse(parts, {s.name: float(s.name in "be") for s in parts}, N)
    assert [s.name for s in features.sources] == ["b", "e"]
    assert features.items.dims == 0


def test_empty_history_leaves_the_biases_alone():
    parts = sources(np.random.default_rng(3))
    features = fuse.fuse(parts, {s.name: 1.0 for s in parts}, N)
    q = fuse.queries(features, histories(np.random.default_rng(3), (0, 0)))
    assert not q.vectors.any()
    assert q.history.indptr.tolist() == [0, 0, 0]


def test_a_user_is_the_same_alone_and_in_a_batch():
    rng = np.random.default_rng(4)
    parts = sources(rng)
    features = fuse.fuse(parts, {s.name: 1.0 for s in parts}, N)
    hist = histories(rng, tuple(rng.integers(0, 30, 200)))
    batch = fuse.queries(features, hist)
    for u in (0, 1, 77, 199):
        alone = fuse.queries(features, hist.take([u]))
        np.testing.assert_array_equal(alone.vectors[0], batch.vectors[u])
        np.testing.assert_array_equal(alone.history.values, batch.history.take([u]).values)
        np.testing.assert_array_equal(alone.history.indices, batch.history.take([u]).indices)


def test_items_without_events_weigh_otherwise_and_nothing_else_changes():
    parts = [s for s in sources(np.random.default_rng(5)) if s.name in "abe"]
    weights = {s.name: 1.0 for s in parts}
    rows = np.zeros(N, np.bool_)
    rows[[4, 9]] = True
    hist = histories(np.random.default_rng(5))
    scores = []
    for cold in (None, Cold(rows, {"a": 30.0})):
        features = fuse.fuse(parts, weights, N, None, cold)
        q = fuse.queries(features, hist)
        sparse = q.history, features.similarity
        top, order = ops.score_topk(q.vectors, features.items, N, bias=features.bias, sparse=sparse)
        out = np.empty((hist.n_users, N))
        np.put_along_axis(out, order, top, 1)
        scores.append(out)
    np.testing.assert_allclose(scores[1][:, ~rows], scores[0][:, ~rows], rtol=1e-5, atol=1e-6)
    alone = fuse.fuse(parts[:1], weights, N)
    dense_part = fuse.queries(alone, hist).vectors @ parts[0].vectors.T
    np.testing.assert_allclose(scores[1][:, rows] - scores[0][:, rows], 29 * dense_part[:, rows], rtol=1e-4, atol=1e-4)

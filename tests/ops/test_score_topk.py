"""score_topk against its definition: exact rows and bits, whatever the shape, the ties and the arguments."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrec import ConfigError, ops
from fastrec.ops._cases import lists, matrix
from fastrec.types import Csr

SIZES = [0, 1, 15, 16, 17, 63, 1023]


@pytest.fixture
def backend(topk_backend):
    return topk_backend


def brute(queries, items, k, *, bias=None, sparse=None, seen=None, allow=None, deny=None):
    """Float64 and lexsort, written apart from the package; the sums go in numpy's order: close only."""
    q, v = np.asarray(queries, np.float64), np.asarray(items, np.float64)
    scores = q @ v.T
    if sparse is not None:
        dense = [sp.csr_matrix((m.values.astype(float), m.indices, m.indptr), (m.n_rows, m.n_cols)) for m in sparse]
        scores = scores + (dense[0] @ dense[1]).toarray()
    if bias is not None:
        scores = scores + np.asarray(bias, np.float64)
    rows = np.full((len(q), k), -1)
    best = np.full((len(q), k), -np.inf)
    for u in range(len(q)):
        keep = np.ones(len(v), bool) if bias is None else np.asarray(bias) > -np.inf
        for given_lists, sign in ((seen, False), (deny, False), (allow, True)):
            if given_lists is not None:
                inside = np.zeros(len(v), bool)
                inside[given_lists[1][given_lists[0][u] : given_lists[0][u + 1]]] = True
                keep = keep & (inside == sign)
        ids = np.flatnonzero(keep)
        order = ids[np.lexsort((ids, -scores[u, ids].astype(np.float32)))][:k]
        rows[u, : len(order)], best[u, : len(order)] = order, scores[u, order]
    return best, rows


def same(got, want):
    np.testing.assert_array_equal(got[1], want[1], strict=True)
    np.testing.assert_array_equal(got[0], want[0], strict=True)


def close(got, want):
    np.testing.assert_array_equal(got[1], want[1])
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5, atol=1e-5)
    assert got[0].dtype == np.float32
    assert got[1].dtype == np.int64


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("k", [1, 7, 1100])
def test_sizes(backend, n, k):
    rng = np.random.default_rng(n * 7 + k)
    for b in (1, 9, 17):
        d = int(rng.choice([1, 2, 5, 17, 64]))
        q, v = rng.standard_normal((b, d)), rng.standard_normal((n, d))
        q, v = q.astype(np.float32), v.astype(np.float32)
        close(ops.score_topk(q, v, k, backend=backend), brute(q, v, k))


@pytest.mark.parametrize("packed", [False, True])
def test_ties_go_to_the_smaller_row(backend, packed):
    rng = np.random.default_rng(0)
    q = rng.integers(-2, 3, (19, 4)).astype(np.float32)
    v = rng.integers(-1, 2, (3001, 4)).astype(np.float32)
    for k in (1, 10, 100, 3001):
        got = ops.score_topk(q, ops.pack_items(v) if packed else v, k, backend=backend)
        close(got, brute(q, v, k))


def test_all_items_the_same(backend):
    rng = np.random.default_rng(1)
    v = np.repeat(rng.standard_normal((1, 33)), 5000, axis=0)
    scores, rows = ops.score_topk(rng.standard_normal((3, 33)), v, 20, backend=backend, deny=np.arange(5000) < 2)
    np.testing.assert_array_equal(rows, np.tile(np.arange(2, 22), (3, 1)))
    assert (scores == scores[:, :1]).all()


def test_zero_queries_rank_by_bias_then_row(backend):
    bias = np.tile(np.float32([0, 1]), 1000)
    rows = ops.score_topk(np.zeros((2, 8)), np.ones((2000, 8)), 5, bias=bias, backend=backend)[1]
    np.testing.assert_array_equal(rows, [[1, 3, 5, 7, 9]] * 2)


COMBINATIONS = [
    [name for bit, name in enumerate(("bias", "sparse", "seen", "allow", "deny")) if mask >> bit & 1]
    for mask in range(32)
]


@pytest.mark.parametrize("names", COMBINATIONS, ids="-".join)
@pytest.mark.parametrize("d", [0, 13])
def test_all_arguments_together(backend, names, d):
    rng = np.random.default_rng(len(names) + d)
    b, n, k = 11, 2111, 12
    q, v = rng.standard_normal((b, d)), rng.standard_normal((n, d))
    bias = rng.standard_normal(n).astype(np.float32)
    bias[rng.random(n) < 0.2] = -np.inf
    every = {
        "bias": bias,
        "sparse": (matrix(rng, b, 30, 10), matrix(rng, 30, n, 300)),
        "seen": lists(rng, b, n, 300),
        "allow": lists(rng, b, n, n),
        "deny": lists(rng, b, n, 40),
    }
    kwargs = {name: every[name] for name in names}
    got = ops.score_topk(q.astype(np.float32), v.astype(np.float32), k, backend=backend, threads=2, **kwargs)
    same(got, ops.score_topk(q, v, k, backend="reference", **kwargs))
    if backend != "reference":
        return
    close(got, brute(q.astype(np.float32), v.astype(np.float32), k, **kwargs))


def test_near_ties_that_float32_cannot_tell(level):
    """Float32 sums in order of d are wrong about most of these neighbours; the result must not be."""
    rng = np.random.default_rng(3)
    d = 257
    base = rng.standard_normal(d).astype(np.float32)
    v = np.repeat(base[None], 4000, axis=0)
    for i in range(1, 4000):  # moves by a few last places of float32 here and there
        at = rng.integers(0, d, 5)
        v[i, at] = np.nextafter(v[i, at], np.float32(rng.choice([-9, 9])))
    q = rng.standard_normal((9, d)).astype(np.float32) * np.float32(100)
    want = ops.score_topk(q, v, 50, backend="reference")
    same(ops.score_topk(q, v, 50, backend="cpu"), want)
    walked = np.zeros((9, 4000), np.float32)
    for i in range(d):
        walked += q[:, i : i + 1] * v[:, i]
    naive = np.argsort(-walked, axis=1, kind="stable")[:, :50]
    assert (naive != want[1]).mean() > 0.2, "the case is too easy to test the bound"


@pytest.mark.parametrize("scale", [1e-30, 1e-19, 1.0, 1e15])
def test_cancellation_and_offsets(level, scale):
    """A large part that cancels, and a bias that swallows the differences in float32."""
    rng = np.random.default_rng(4)
    v = rng.standard_normal((1500, 24)).astype(np.float32)
    v[:, 0] = v[:, 1] = np.float32(1e4)
    q = rng.standard_normal((10, 24)).astype(np.float32)
    q[:, 0], q[:, 1] = 1e4, -1e4
    q, v = q * np.float32(scale), v * np.float32(scale)
    for bias in (None, np.full(1500, np.float32(1e7 * scale))):
        got = ops.score_topk(q, v, 40, bias=bias, backend="cpu")
        same(got, ops.score_topk(q, v, 40, bias=bias, backend="reference"))


def test_denormal_scores(level):
    rng = np.random.default_rng(5)
    q = (rng.standard_normal((4, 9)) * 1e-20).astype(np.float32)
    v = (rng.standard_normal((700, 9)) * 1e-23).astype(np.float32)
    same(ops.score_topk(q, v, 9, backend="cpu"), ops.score_topk(q, v, 9, backend="reference"))


def test_rounding_of_the_start_counts_in_the_bound(level):
    """A large bias, and sparse and dense parts of a few of its last places: rounding twice decides the ties."""
    rng = np.random.default_rng(8)
    b, n = 9, 4000
    q = (rng.standard_normal((b, 8)) * 1e-2).astype(np.float32)
    v = (rng.standard_normal((n, 8)) * 1e-2).astype(np.float32)
    history, similarity = matrix(rng, b, 6, 6), matrix(rng, 6, n, n)
    similarity = Csr(similarity.indptr, similarity.indices, n, similarity.values * np.float32(1e-4))
    kwargs = {"bias": np.full(n, 1000, np.float32), "sparse": (history, similarity)}
    for k in (1, 5, 50, 700):
        got = ops.score_topk(q, v, k, backend="cpu", **kwargs)
        same(got, ops.score_topk(q, v, k, backend="reference", **kwargs))


def test_one_long_item(level):
    """max|v| is of one item: the bound is wide for all others, and the candidates many."""
    rng = np.random.default_rng(6)
    v = rng.standard_normal((9000, 12)).astype(np.float32)
    v[4321] *= 1e7
    q = rng.standard_normal((9, 12))
    same(ops.score_topk(q, v, 30, backend="cpu"), ops.score_topk(q, v, 30, backend="reference"))


def test_items_in_the_worst_order(level):
    """Every item beats all before it: each is a hit."""
    v = np.linspace(1, 2, 5003, dtype=np.float32)[:, None]
    rows = ops.score_topk(np.ones((9, 1)), v, 5, backend="cpu")[1]
    np.testing.assert_array_equal(rows, [[5002, 5001, 5000, 4999, 4998]] * 9)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_long_lists_of_a_user_who_is_not_walked_for(level, dtype):
    rng = np.random.default_rng(3)
    n = 20_000
    items, q = rng.standard_normal((n, 8), np.float32), rng.standard_normal((1, 8), np.float32)
    allow = np.sort(rng.choice(n, 2000, replace=False)).astype(np.int32)
    seen, ends = allow[::2].copy(), np.array([0, 2000])
    lists = {"allow": (ends, allow), "seen": (ends // 2, seen)}
    got = ops.score_topk(q, ops.pack_items(items, dtype=dtype), 10, **lists)
    same(got, ops.score_topk(q, items, 10, **lists, backend="reference"))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_every_second_row_is_denied(level, dtype):
    rng = np.random.default_rng(4)
    n = 10_240
    items, q = rng.standard_normal((n, 8), np.float32), rng.standard_normal((2, 8), np.float32)
    rows = np.arange(0, n, 2, dtype=np.int32)
    deny = (np.array([0, len(rows), 2 * len(rows)]), np.concatenate([rows, rows + 1]))
    for k in (3, 40):
        got = ops.score_topk(q, ops.pack_items(items, dtype=dtype), k, deny=deny)
        same(got, ops.score_topk(q, items, k, deny=deny, backend="reference"))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_bounds_far_apart(level, dtype):
    rng = np.random.default_rng(5)
    n = 3000
    q = (rng.standard_normal((3, 8)) * 5e17).astype(np.float32)
    items = (rng.standard_normal((n, 8)) * 3e17).astype(np.float32)
    for low, high in ((-1e37, 1e37), (-2.9e38, 2.9e38)):
        bias = np.zeros(n, np.float32)
        bias[5], bias[1000] = low, high
        got = ops.score_topk(q, ops.pack_items(items, dtype=dtype), 10, bias=bias)
        same(got, ops.score_topk(q, items, 10, bias=bias, backend="reference"))


def test_the_best_are_all_seen(level):
    """Seen items must not raise the threshold."""
    v = -np.arange(3000, dtype=np.float32)[:, None]
    seen = (np.array([0, 2000, 2000]), np.arange(2000, dtype=np.int32))
    rows = ops.score_topk(np.ones((2, 1)), v, 3, seen=seen, backend="cpu")[1]
    np.testing.assert_array_equal(rows, [[2000, 2001, 2002], [0, 1, 2]])


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    b=st.integers(0, 20),
    n=st.integers(0, 400),
    d=st.integers(0, 20),
    k=st.integers(1, 60),
    names=st.sets(st.sampled_from(["bias", "sparse", "seen", "allow", "deny"])),
    integers=st.booleans(),
    threads=st.integers(1, 3),
)
def test_random_everything(seed, b, n, d, k, names, integers, threads):
    rng = np.random.default_rng(seed)
    q, v = rng.standard_normal((b, d)), rng.standard_normal((n, d))
    bias = rng.standard_normal(n)
    if integers:
        q, v, bias = np.rint(q), np.rint(v), np.rint(bias)
    bias = np.where(rng.random(n) < 0.1, -np.inf, bias)
    sparse = (matrix(rng, b, 9, 9), matrix(rng, 9, n, 60))
    every = {"bias": bias, "sparse": sparse, "seen": lists(rng, b, n, 30)}
    every |= {"allow": lists(rng, b, n, n), "deny": rng.random(n) < 0.3}
    kwargs = {name: every[name] for name in names}
    got = ops.score_topk(q, v, k, backend="cpu", threads=threads, **kwargs)
    same(got, ops.score_topk(q, v, k, backend="reference", **kwargs))
    if "deny" in kwargs:
        kwargs["deny"] = (np.arange(b + 1) * every["deny"].sum(), np.tile(np.flatnonzero(every["deny"]), b))
    if n and not integers:
        close(got, brute(q.astype(np.float32), v.astype(np.float32), k, **kwargs))


def test_negative_zero_is_zero(backend):
    q, v = np.float32([[1e-30]]), np.float32([[-1e-30], [0.0], [1e-30]])
    scores, rows = ops.score_topk(q, v, 3, backend=backend)
    np.testing.assert_array_equal(rows, [[0, 1, 2]])
    assert not np.signbit(scores).any()


@pytest.mark.parametrize("d", [0, 1])
def test_similarity_with_repeated_columns_adds_up(backend, d):
    history = (np.array([0, 1]), np.array([0], np.int32), np.float32([2]))
    similarity = Csr(np.array([0, 3]), np.array([2, 1, 2], np.int32), 4, np.float32([1, 5, 10]))
    q, v, sparse = np.ones((1, d)), np.ones((4, d)), (history, similarity)
    scores, rows = ops.score_topk(q, v, 2, sparse=sparse, backend=backend)
    np.testing.assert_array_equal(rows, [[2, 1]])
    np.testing.assert_array_equal(scores, [[22 + d, 10 + d]])
    for listed in ([2], [2, 1, 0, 3, 2]):  # shorter and longer than the row of the similarity
        pairs = (np.array([0, len(listed)]), np.array(listed))
        got = ops.score_pairs(q, v, pairs, sparse=sparse, backend="auto" if backend == "torch" else backend)
        np.testing.assert_array_equal(got, [{2: 22, 1: 10}.get(i, 0) + d for i in listed])


@pytest.mark.parametrize(("name", "value"), [("FASTREC_SIMD", "scalar"), ("FASTREC_THREADS", "1")])
def test_the_short_way_leaves_settings_of_the_environment_to_the_long_one(name, value, monkeypatch):
    items, query = ops.pack_items(np.eye(3, dtype=np.float32)), np.eye(1, 3, dtype=np.float32)
    scores, rows = np.empty((1, 2), np.float32), np.empty((1, 2), np.int64)

    def short(threads):
        return items.view().search(query, 2, None, None, None, threads, 2, 3e38, scores, rows)

    for setting in ("FASTREC_SIMD", "FASTREC_THREADS"):
        monkeypatch.delenv(setting, raising=False)
    assert short(0)
    monkeypatch.setenv(name, value)
    assert not short(0)
    assert short(1) == (name == "FASTREC_THREADS"), "threads that were asked for come before those of the environment"
    monkeypatch.setenv(name, "")
    assert short(0)


def test_threads_of_the_environment_that_are_none(monkeypatch):
    monkeypatch.setenv("FASTREC_THREADS", "many")
    with pytest.raises(ConfigError, match="FASTREC_THREADS='many', expected a whole number of at least 1"):
        ops.score_topk(np.ones((1, 2), np.float32), ops.pack_items(np.ones((3, 2), np.float32)), 1)

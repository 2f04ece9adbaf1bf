"""score_topk at its front door: kinds of arrays, wrong input, threads, processes."""

import copy
import importlib
import multiprocessing
import os
import pickle
import threading
import warnings
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from fastrec import ops
from fastrec.errors import ConfigError, DataError
from fastrec.fuse import frozen
from fastrec.ops import _scoring
from fastrec.ops._cases import lists, matrix
from fastrec.types import Csr

RNG = np.random.default_rng(0)
Q, V = RNG.standard_normal((4, 6)).astype(np.float32), RNG.standard_normal((90, 6)).astype(np.float32)
SEEN = lists(RNG, 4, 90, 20)
WANT = ops.score_topk(Q, V, 5, backend="reference")


def same(got, want):
    np.testing.assert_array_equal(np.asarray(got[1]), want[1])
    np.testing.assert_array_equal(np.asarray(got[0]), want[0])


def test_tensors_give_tensors():
    got = ops.score_topk(torch.from_numpy(Q), torch.from_numpy(V).requires_grad_(), 5)
    assert all(isinstance(x, torch.Tensor) for x in got)
    assert got[0].dtype == torch.float32
    assert got[1].dtype == torch.int64
    same(got, WANT)
    mixed = ops.score_topk(Q, torch.from_numpy(V), 5)
    assert isinstance(mixed[0], np.ndarray)
    half = torch.from_numpy(Q).bfloat16()
    same(ops.score_topk(half, V, 5), ops.score_topk(half.float().numpy(), V, 5))


def test_dtypes_and_strides():
    same(ops.score_topk(Q.astype(np.float64), V.astype(np.float64), 5), WANT)
    same(ops.score_topk(np.asfortranarray(Q), np.repeat(V, 2, axis=0)[::2], np.int64(5)), WANT)
    whole = np.rint(Q).astype(np.int8)
    same(ops.score_topk(whole, V, 5), ops.score_topk(whole.astype(np.float32), V, 5))
    same(ops.score_topk(Q.tolist(), V, 5), WANT)


def test_kinds_of_lists_agree():
    indptr, rows = SEEN
    want = ops.score_topk(Q, V, 5, seen=SEEN)
    csr = sp.csr_matrix((np.ones(len(rows)), rows, indptr), shape=(4, 90))
    shuffled = np.concatenate([RNG.permutation(np.repeat(rows[a:b], 2)) for a, b in pairwise(indptr)])
    for seen in (
        Csr(indptr, rows, 90),
        csr,
        sp.csr_array(csr),
        (torch.from_numpy(indptr), torch.from_numpy(rows)),
        (indptr.astype(np.int32), rows.astype(np.int64)),
        (indptr * 2, shuffled),
    ):
        same(ops.score_topk(Q, V, 5, seen=seen), want)


def test_masks_are_lists_for_all():
    mask = RNG.random(90) < 0.5
    inside = np.flatnonzero(mask).astype(np.int32)
    everyone = (np.arange(5) * len(inside), np.tile(inside, 4))
    for name in ("seen", "allow", "deny"):
        same(ops.score_topk(Q, V, 5, **{name: mask}), ops.score_topk(Q, V, 5, **{name: everyone}))
        same(ops.score_topk(Q, V, 5, **{name: torch.from_numpy(mask)}), ops.score_topk(Q, V, 5, **{name: mask}))
    rows = ops.score_topk(Q, V, 90, allow=mask, deny=mask)[1]
    assert (rows == -1).all()


def test_unsorted_similarity_is_sorted_once():
    history, similarity = matrix(RNG, 4, 7, 7), matrix(RNG, 7, 90, 40)
    order = np.lexsort((-similarity.indices, np.repeat(np.arange(7), np.diff(similarity.indptr))))
    turned = Csr(similarity.indptr, similarity.indices[order], 90, similarity.values[order])
    want = ops.score_topk(Q, V, 5, sparse=(history, similarity))
    for _ in range(2):  # the second time from memory
        same(ops.score_topk(Q, V, 5, sparse=(history, turned)), want)
    triple = (turned.indptr, turned.indices, turned.values)
    same(ops.score_topk(Q, V, 5, sparse=((history.indptr, history.indices, history.values), triple)), want)
    as_scipy = sp.csr_matrix((turned.values, turned.indices, turned.indptr), shape=(7, 90))
    same(ops.score_topk(Q, V, 5, sparse=(history, as_scipy)), want)


def test_inputs_are_left_alone():
    indptr, rows = np.array([0, 3, 3, 3, 3]), np.array([5, 1, 5], np.int32)
    bias = np.zeros(90, np.float32)
    ops.score_topk(Q, V, 5, seen=(indptr, rows), deny=np.ones(90, bool), bias=bias)
    np.testing.assert_array_equal(rows, [5, 1, 5])
    assert not bias.any()


def changed(array, at, value):
    array = np.array(array, np.float64)
    array[at] = value
    return array


I32 = np.int32
BAD = [
    ({"queries": changed(Q, (2, 3), np.nan)}, r"queries row 2 holds nan at column 3, expected finite"),
    ({"queries": changed(Q, (1, 0), np.inf)}, r"queries row 1 holds inf"),
    ({"queries": changed(Q, (1, 0), 1e300)}, r"queries row 1 holds inf"),
    ({"items": changed(V, (17, 5), np.nan)}, r"items row 17 holds nan at column 5"),
    ({"items": changed(V, (89, 0), -np.inf)}, r"items row 89 holds -inf"),
    ({"queries": Q[0]}, r"queries has shape \(6,\), expected shape \[any, 6\]"),
    ({"queries": Q[:, :5]}, r"queries has shape \(4, 5\), expected shape \[any, 6\]"),
    ({"items": V[0]}, r"items has shape \(6,\), expected two dimensions"),
    ({"queries": Q.astype(str)}, r"queries has dtype <U32, expected numbers"),
    ({"queries": [[1.0], [1.0, 2.0]]}, r"queries is no array"),
    ({"items": V.astype(complex)}, r"items has dtype complex128"),
    ({"bias": np.zeros(89)}, r"bias has shape \(89,\), expected \(90,\)"),
    ({"bias": changed(np.zeros(90), 7, np.nan)}, r"bias row 7 is nan, expected finite numbers or -inf"),
    ({"bias": changed(np.zeros(90), 8, np.inf)}, r"bias row 8 is inf"),
    (
        {"seen": (np.array([0, 1, 1, 1, 1]), np.array([90], I32))},
        r"seen row 0 holds 90, expected values in \[0, 90\)",
    ),
    ({"deny": (np.array([0, 0, 1, 1, 1]), np.array([-1], I32))}, r"deny row 1 holds -1"),
    ({"seen": (np.array([0, 1]), np.array([1], I32))}, r"seen indptr has length 2, expected 5"),
    ({"seen": (np.array([0, 1, 0, 1, 1]), np.array([1], I32))}, r"seen indptr falls at row 1"),
    (
        {"seen": (np.array([0, 1, 1, 1, 2]), np.array([1], I32))},
        r"seen indptr goes from 0 to 2, expected from 0 to 1",
    ),
    ({"seen": (np.array([1, 1, 1, 1, 1]), np.array([1], I32))}, r"seen indptr goes from 1"),
    (
        {"seen": (np.array([0, 1, 1, 1, 1]), np.array([1.5]))},
        r"seen rows has dtype float64, expected integers",
    ),
    ({"seen": (np.array(["a"] * 5), np.array([1], I32))}, r"seen indptr has dtype <U1, expected integers"),
    (
        {"seen": (np.zeros((5, 1), int), np.array([1], I32))},
        r"seen indptr has shape \(5, 1\), expected one dim",
    ),
    ({"seen": np.zeros(90)}, r"seen is an array of dtype float64 and shape \(90,\), expected \(indptr"),
    ({"allow": np.zeros(89, bool)}, r"allow is an array of dtype bool and shape \(89,\)"),
    (
        {"allow": Csr(np.zeros(5, np.int64), np.empty(0, I32), 91)},
        r"allow has shape \(4, 91\), expected \(4, 90\)",
    ),
    ({"seen": (np.zeros(5),)}, r"seen is a tuple of 1"),
    ({"deny": sp.csc_matrix((4, 90))}, r"deny is a scipy csc matrix, expected csr"),
    ({"sparse": 3}, r"sparse is int, expected \(history, similarity\)"),
    ({"sparse": ((np.zeros(5, int), np.empty(0, I32)), matrix(RNG, 3, 90, 2))}, r"history has no values"),
    (
        {"sparse": (matrix(RNG, 4, 8, 2), matrix(RNG, 7, 90, 2))},
        r"history has shape \(4, 8\), expected \(4, 7\)",
    ),
    (
        {"sparse": (matrix(RNG, 4, 1, 0), (np.array([0, 1]), np.array([0], I32), [np.nan]))},
        r"similarity row 0 holds nan, expected finite",
    ),
    (
        {"sparse": ((np.array([0, 0, 0, 0, 1]), np.array([0], I32), [np.inf]), matrix(RNG, 1, 90, 0))},
        r"history row 3 holds inf, expected finite",
    ),
    ({"queries": Q * 1e25, "items": V * 1e25}, r"scores of queries row \d may reach .*, beyond float32"),
    ({"bias": np.full(90, 3.3e38)}, r"scores of queries row \d may reach 3.3e\+38"),
]


@pytest.mark.parametrize(("bad", "message"), BAD, ids=[m[:40] for _, m in BAD])
def test_bad_input_is_named(bad, message):
    arguments = {"queries": Q, "items": V, "k": 3} | bad
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=r"^\[score_topk\] " + message):
            ops.score_topk(**arguments)


@pytest.mark.parametrize("k", [0, -1, 2.0, True, "3", None])
def test_bad_k(k):
    with pytest.raises(ConfigError, match=r"\[score_topk\] k="):
        ops.score_topk(Q, V, k)


def test_the_row_is_an_attribute():
    with pytest.raises(DataError) as caught:
        ops.score_topk(Q, changed(V, (17, 5), np.nan), 3)
    assert (caught.value.column, caught.value.row) == ("items", 17)


def big(seed=0, b=37, n=20011, d=24):
    rng = np.random.default_rng(seed)
    q, v = rng.standard_normal((b, d)).astype(np.float32), rng.standard_normal((n, d)).astype(np.float32)
    sparse = (matrix(rng, b, 50, 20), matrix(rng, 50, n, 500))
    allow = [lists(rng, 1, n, m)[1] for m in rng.choice([30, 3000, n], b)]
    indptr = np.concatenate([[0], np.cumsum([len(a) for a in allow])])
    lists_ = {"seen": lists(rng, b, n, 200), "allow": (indptr, np.concatenate(allow))}
    return q, ops.pack_items(v), dict(sparse=sparse, bias=rng.standard_normal(n).astype(np.float32), **lists_)


def pick(csr, u):
    """The list or matrix of user u alone."""
    if isinstance(csr, Csr):
        span = slice(csr.indptr[u], csr.indptr[u + 1])
        return Csr(csr.indptr[u : u + 2] - csr.indptr[u], csr.indices[span], csr.n_cols, csr.values[span])
    return csr[0][u : u + 2] - csr[0][u], csr[1][csr[0][u] : csr[0][u + 1]]


def test_alone_as_in_the_batch_at_every_level_and_thread_count(level):
    q, items, extra = big()
    want = ops.score_topk(q, items, 30, backend="numba", **extra)
    for threads in (1, 2, 3, 8):
        same(ops.score_topk(q, items, 30, threads=threads, backend="cpu", **extra), want)
    for u in range(0, len(q), 5):
        alone = {name: pick(extra[name], u) for name in ("seen", "allow")}
        alone |= {"bias": extra["bias"], "sparse": (pick(extra["sparse"][0], u), extra["sparse"][1])}
        for threads in (1, 2, 3):
            got = ops.score_topk(q[u : u + 1], items, 30, threads=threads, backend="cpu", **alone)
            same(got, (want[0][u : u + 1], want[1][u : u + 1]))


def test_several_python_threads_at_once():
    q, items, extra = big(1)
    want = ops.score_topk(q, items, 10, threads=1, **extra)
    failures = []

    def work():
        for _ in range(5):
            try:
                same(ops.score_topk(q, items, 10, threads=2, **extra), want)
            except BaseException as error:
                failures.append(error)

    workers = [threading.Thread(target=work) for _ in range(6)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not failures


def _child(queue):
    q, items, extra = big(2)
    queue.put(ops.score_topk(q, items, 10, threads=2, backend="cpu", **extra))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_a_pool_of_its_own():
    q, items, extra = big(2)
    want = ops.score_topk(q, items, 10, threads=2, backend="cpu", **extra)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_child, args=(queue,))
    child.start()
    same(queue.get(timeout=60), want)
    child.join(60)
    assert child.exitcode == 0
    same(ops.score_topk(q, items, 10, threads=2, backend="cpu", **extra), want)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_memory_maps_serve_as_items(tmp_path, dtype):
    packed = ops.pack_items(V, dtype=dtype)

    def mapped(name, array):
        array.tofile(tmp_path / name)
        return np.memmap(tmp_path / name, array.dtype, "r", shape=array.shape)

    codes = mapped("codes", packed.screen.codes)
    screen = ops.Screen(dtype, codes, packed.screen.scales, packed.screen.errors)
    same(ops.score_topk(Q, ops.PackedItems(mapped("rows", packed.rows), screen, packed.max_norm), 5), WANT)


def test_ctrl_c_ends_a_long_call():
    import signal

    rng = np.random.default_rng(0)
    items = ops.pack_items(rng.standard_normal((100_000, 64), dtype=np.float32))
    queries = rng.standard_normal((20_000, 64), dtype=np.float32)

    def stop(*_):
        raise TimeoutError("alarm")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(TimeoutError, match="alarm"):
            ops.score_topk(queries, items, 10, threads=2)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def plain(monkeypatch, *args, **kwargs):
    """score_topk, and whether the short way gave the answer."""
    short = importlib.import_module("fastrec.ops.score_topk")
    gave, way = [], short._plain
    monkeypatch.setattr(short, "_plain", lambda *given: gave.append(way(*given)) or gave[-1])
    got = ops.score_topk(*args, **kwargs)
    monkeypatch.undo()
    return got, bool(gave) and gave[0] is not None


@pytest.mark.skipif("FASTREC_SIMD" in os.environ, reason="a forced level takes the long way")
@pytest.mark.parametrize("dtype", ["int8", "bfloat16"])
@pytest.mark.parametrize("n_users", [0, 1, 4])
def test_the_short_way_gives_the_same_bits(monkeypatch, dtype, n_users):
    items, q = ops.pack_items(V, dtype=dtype), Q[:n_users].copy()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        given = {name: lists(rng, n_users, 90, 30) for name in ("seen", "deny", "allow") if rng.random() < 0.5}
        got, short = plain(monkeypatch, q, items, 7, **given)
        assert short
        same(got, ops.score_topk(q, items, 7, backend="reference", **given))
    seen = lists(rng, n_users, 90, 30)
    got, short = plain(monkeypatch, q, items, 7, seen=Csr(*seen, 90))
    assert short
    same(got, ops.score_topk(q, items, 7, backend="reference", seen=seen))


@pytest.mark.skipif("FASTREC_SIMD" in os.environ, reason="a forced level takes the long way")
def test_the_short_way_leaves_the_rest_to_the_long_one(monkeypatch):
    items, (indptr, rows) = ops.pack_items(V), SEEN
    unordered = (indptr, rows[::-1].copy())
    for seen in (unordered, (indptr.astype(np.int32), rows), (indptr, rows.astype(np.int64)), np.zeros(90, bool)):
        assert not plain(monkeypatch, Q, items, 5, seen=seen)[1]
    for q in (Q.astype(np.float64), np.asfortranarray(Q), np.repeat(Q, 2, axis=0)[::2], Q.astype(">f4"), Q.tolist()):
        got, short = plain(monkeypatch, q, items, 5)
        assert not short
        same(got, WANT)
    for q in (Q * np.float32(np.inf), np.full_like(Q, np.nan)):
        with np.errstate(invalid="ignore"), pytest.raises(DataError, match="queries row 0 holds"):
            ops.score_topk(q, items, 5)
    for seen in ((indptr[:-1], rows), (indptr, rows + 90), (indptr + 1, rows), (indptr, rows, None, 1), Csr(*SEEN, 91)):
        with pytest.raises(DataError, match="seen"):
            ops.score_topk(Q, items, 5, seen=seen)


def test_the_short_way_refuses_what_the_long_one_does_to_the_last_bit():
    items = ops.pack_items(np.eye(3, 2, dtype=np.float32))
    first = RNG.uniform(1e38, 2.9e38, 10_000).astype(np.float32)
    lengths = 3e38 / items.max_norm * RNG.uniform(1 - 2e-9, 1 + 2e-9, 10_000)
    second = np.sqrt(lengths**2 - first.astype(np.float64) ** 2).astype(np.float32)
    near = np.abs(np.hypot(first.astype(np.float64), second.astype(np.float64)) / 3e38 - 1) < 3e-9
    for q in np.stack([first, second], 1)[near][:200, None].copy():
        answers = []
        for backend in ("auto", "cpu"):
            try:
                answers.append(ops.score_topk(q, items, 1, backend=backend)[0].tolist())
            except DataError as error:
                answers.append(str(error))
        assert answers[0] == answers[1]


def test_items_may_be_pickled_and_copied_after_a_search():
    items = ops.pack_items(V, dtype="int8")
    want = ops.score_topk(Q, items, 5)
    for other in (pickle.loads(pickle.dumps(items)), copy.copy(items), copy.deepcopy(items)):
        same(ops.score_topk(Q, other, 5), want)


def test_a_bias_is_looked_at_once_only_where_nobody_can_write_to_it():
    known = _scoring._biases

    def kept(bias):
        same(ops.score_topk(Q, V, 5, bias=bias), ops.score_topk(Q, V, 5, bias=bias.copy(), backend="reference"))
        return id(bias) in known

    bias = RNG.standard_normal(90).astype(np.float32)
    assert not kept(bias)
    view = bias[:]
    view.setflags(write=False)
    assert not kept(view)  # the owner can still write
    bias[8] = 3e38
    with pytest.raises(DataError, match="beyond float32"):
        ops.score_topk(Q, V, 5, bias=view)
    bias[8] = 60
    bias.setflags(write=False)
    assert not kept(bias)  # and may be allowed to again
    bias = frozen(bias)
    assert kept(bias)
    assert kept(bias)
    key = id(bias)
    del bias
    assert key not in known
    bad = frozen(np.full(90, np.nan, np.float32))
    for _ in range(2):
        with pytest.raises(DataError, match="bias row 0 is nan"):
            ops.score_topk(Q, V, 5, bias=bad)

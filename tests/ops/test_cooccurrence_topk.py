"""The best neighbours of every item against sums of dense matrices, and what is refused."""

import signal

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from fastrec import ops
from fastrec.errors import ConfigError, DataError
from fastrec.ops import _arrays
from fastrec.ops._sparse import Matrix
from fastrec.ops.cooccurrence_topk import Problem
from fastrec.types import Csr


def entries(seed, n_users, n_items, most, repeats=False):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, most + 1, n_users)
    rows = [rng.choice(n_items, min(s, n_items), replace=repeats) for s in sizes]
    indptr = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)
    rows = np.concatenate([np.empty(0, np.int64), *rows]).astype(np.int32)
    return Csr(indptr, rows, n_items, rng.integers(1, 5, len(rows)).astype(np.float32))


def full(csr):
    return sp.csr_matrix((csr.values, csr.indices, csr.indptr), (csr.n_rows, csr.n_cols)).toarray()


@pytest.mark.parametrize("shape", [(50, 30, 8), (200, 3000, 20), (1500, 40, 12)])  # few and most columns are met
@pytest.mark.parametrize("repeats", [False, True])
def test_is_the_product_of_matrices(shape, repeats, backend):
    m = entries(0, *shape, repeats)
    dense = full(m).astype(np.float64)  # entries of one column add up here, as their products do
    want = dense.T @ dense
    np.fill_diagonal(want, 0)
    norms = np.sqrt((dense**2).sum(axis=0)).astype(np.float32)
    want = want / (np.outer(norms, norms) + 2.0)
    got = ops.cooccurrence_topk(m, shape[1], norms=norms, shrinkage=2.0, backend=backend)
    np.testing.assert_allclose(full(got), want, rtol=1e-5)
    best = full(ops.cooccurrence_topk(m, 3, norms=norms, shrinkage=2.0, backend=backend))
    assert ((best > 0).sum(axis=1) == np.minimum((want > 0).sum(axis=1), 3)).all()
    np.testing.assert_allclose(np.sort(best)[:, -3:], np.sort(want)[:, -3:], rtol=1e-5)


def test_steps_look_ahead_and_not_beyond_the_user(backend):
    m = Csr(np.array([0, 3, 5]), np.array([0, 1, 2, 3, 0], np.int32), 4, np.float32([1, 2, 1, 1, 4]))
    got = full(ops.cooccurrence_topk(m, 4, norms=np.ones(4), steps=[1.0, 0.5], backend=backend))
    want = np.zeros((4, 4))
    want[0, 1], want[0, 2], want[1, 2], want[3, 0] = 2, 0.5, 2, 4
    np.testing.assert_array_equal(got, want)


def test_steps_beyond_the_longest_user_cost_nothing(backend, monkeypatch):
    module, m = cooccurrence_module(), entries(2, 30, 20, 5)
    want = ops.cooccurrence_topk(m, 20, norms=np.ones(20), steps=np.ones(4), backend=backend)
    seen = []
    monkeypatch.setattr(module, "Problem", lambda *args: seen.append(args) or Problem(*args))
    got = ops.cooccurrence_topk(m, 20, norms=np.ones(20), steps=np.ones(10_000), backend=backend)
    np.testing.assert_array_equal(full(got), full(want))
    assert len(seen[0][-1]) == 4


def test_steps_come_as_tensors_of_any_kind(backend):
    torch = pytest.importorskip("torch")
    m = entries(2, 30, 20, 5)
    want = ops.cooccurrence_topk(m, 20, norms=np.ones(20), steps=[1.0, 0.5], backend=backend)
    for steps in (torch.tensor([1.0, 0.5], requires_grad=True), torch.tensor([1.0, 0.5], dtype=torch.bfloat16)):
        got = ops.cooccurrence_topk(m, 20, norms=np.ones(20), steps=steps, backend=backend)
        np.testing.assert_array_equal(full(got), full(want))


def test_more_users_than_int32_counts_are_refused():
    indptr = np.broadcast_to(np.int64(0), 2**31 + 2)
    m = Matrix(indptr, np.empty(0, np.int32), np.empty(0, np.float32), 3, 0.0, 1)
    problem = Problem(m, 2, np.ones(3, np.float32), np.float32(0), None)
    with pytest.raises(DataError, match=r"more than 2\^31 users"):
        cooccurrence_module()._by_column(problem)


def test_the_smaller_of_equal_ones_and_none_with_itself(backend):
    m = Csr(np.array([0, 6]), np.arange(6, dtype=np.int32)[::-1].copy(), 6, np.ones(6, np.float32))
    got = ops.cooccurrence_topk(m, 2, norms=np.ones(6), backend=backend)
    assert got.indices.reshape(6, 2).tolist() == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1], [0, 1]]


@pytest.mark.parametrize(("n", "users"), [(600, 75), (150, 100)])  # the columns that were met are noted, and are not
@pytest.mark.parametrize("ties", [False, True])
def test_far_more_columns_than_are_kept(n, users, ties, backend):
    rng = np.random.default_rng(n)
    rows = np.concatenate([rng.permutation(n)[:40] for _ in range(users)]).astype(np.int32)
    values = rng.integers(1, 3, len(rows)) if ties else rng.random(len(rows))
    m = Csr(np.arange(users + 1, dtype=np.int64) * 40, rows, n, values.astype(np.float32))
    for k in (1, 3):
        got, want = (ops.cooccurrence_topk(m, k, norms=np.ones(n), backend=b) for b in (backend, "reference"))
        for name in ("indptr", "indices", "values"):
            np.testing.assert_array_equal(getattr(got, name), getattr(want, name))


def test_ctrl_c_in_the_midst_leaves_nothing_behind():
    rng = np.random.default_rng(0)
    users, n = 150_000, 2000
    rows = rng.integers(0, n, 40 * users, np.int32)
    m = Csr(np.arange(users + 1, dtype=np.int64) * 40, rows, n, np.ones(len(rows), np.float32))
    few = Csr(m.indptr[:101], rows[:4000], n, m.values[:4000])
    want = ops.cooccurrence_topk(few, 5, norms=np.ones(n), threads=2)

    def stop(signum, frame):
        raise TimeoutError("alarm")

    def again_and_again():
        while True:
            ops.cooccurrence_topk(m, 5, norms=np.ones(n), threads=2)

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(TimeoutError, match="alarm"):
            again_and_again()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    got = ops.cooccurrence_topk(few, 5, norms=np.ones(n), threads=2)
    np.testing.assert_array_equal(got.indices, want.indices)
    np.testing.assert_array_equal(got.values, want.values)


def test_likenesses_that_are_no_numbers_are_left_out(backend):
    m = Csr(np.array([0, 3]), np.arange(3, dtype=np.int32), 3, np.float32([0.0, 3e38, 3e38]))
    norms = np.float32([1, 0, 0])
    assert not len(ops.cooccurrence_topk(m, 3, norms=norms, backend=backend).indices)


def test_zeros_with_a_sign_are_zeros(backend):
    values = np.float32([-0.0, 1, -0.0, 2])
    m = Csr(np.array([0, 4]), np.array([0, 1, 0, 2], np.int32), 3, values)
    got = full(ops.cooccurrence_topk(m, 3, norms=np.float32([1, -0.0, 1]), shrinkage=1.0, backend=backend))
    assert got.tolist() == [[0, 0, 0], [0, 0, 2], [0, 2, 0]]


@pytest.mark.parametrize("cells", [1, 40, 333])
@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_and_threads_change_no_bit(cells, threads, monkeypatch, backend):
    m = entries(3, 400, 90, 30)
    norms = np.linspace(1, 2, 90)
    whole = ops.cooccurrence_topk(m, 7, norms=norms, backend=backend, threads=1)
    monkeypatch.setattr(cooccurrence_module(), "_CELLS", cells)
    again = ops.cooccurrence_topk(m, 7, norms=norms, backend=backend, threads=threads)
    for name in ("indptr", "indices", "values"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))


def cooccurrence_module():
    import sys

    return sys.modules["fastrec.ops.cooccurrence_topk"]


@given(st.data())
def test_backends_agree_on_anything(data):
    n = data.draw(st.integers(1, 12))
    rows = data.draw(st.lists(st.lists(st.integers(0, n - 1), max_size=8), max_size=8))
    indptr = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)
    indices = np.array([c for r in rows for c in r], np.int32)
    numbers = st.sampled_from([0.0, -0.0, 1e-30, 0.1, 1.0, 3.0, 3e38])
    values = np.array(data.draw(st.lists(numbers, min_size=len(indices), max_size=len(indices))), np.float32)
    norms = data.draw(st.lists(numbers, min_size=n, max_size=n))
    steps = data.draw(st.none() | st.lists(numbers, min_size=1, max_size=4))
    k, shrinkage = data.draw(st.integers(1, n + 2)), data.draw(st.sampled_from([0.0, 1.0]))
    m = Csr(indptr, indices, n, values)
    want, *others = (
        ops.cooccurrence_topk(m, k, norms=norms, shrinkage=shrinkage, steps=steps, backend=b)
        for b in ("reference", "cpu", "numba")
    )
    for got in others:
        for name in ("indptr", "indices", "values"):
            np.testing.assert_array_equal(getattr(got, name), getattr(want, name))


def test_without_the_native_module_the_entries_are_sorted_in_numpy(monkeypatch):
    from fastrec import _native

    m = entries(5, 60, 20, 9)
    want = ops.cooccurrence_topk(m, 4, norms=np.ones(20))
    monkeypatch.setattr(_native, "_C", None)
    got = ops.cooccurrence_topk(m, 4, norms=np.ones(20))
    np.testing.assert_array_equal(got.indices, want.indices)
    np.testing.assert_array_equal(got.values, want.values)


def test_every_cell_up_to_a_count_is_written(monkeypatch, backend):
    monkeypatch.setattr(_arrays, "empty", lambda shape, dtype: np.full(shape, 77, dtype))
    m = entries(7, 100, 50, 9)
    got = ops.cooccurrence_topk(m, 60, norms=np.ones(50), backend=backend)
    assert got.values.max() < 77 and got.indices.max() < 50


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": 0}, ConfigError, r"^\[cooccurrence_topk\] k=0, expected a whole number of at least 1"),
        ({"k": True}, ConfigError, "k=True"),
        ({"shrinkage": -1.0}, ConfigError, r"shrinkage=-1.0, expected a number of at least 0"),
        ({"shrinkage": np.nan}, ConfigError, "shrinkage=nan"),
        ({"shrinkage": 1e39}, ConfigError, r"shrinkage=1e\+39, expected a number of at least 0 that float32 can hold"),
        ({"shrinkage": None}, ConfigError, "shrinkage=None"),
        ({"shrinkage": True}, ConfigError, "shrinkage=True"),
        ({"shrinkage": "1"}, ConfigError, "shrinkage='1'"),
        ({"norms": np.ones(3)}, DataError, r"norms has shape \(3,\), expected \(4,\)"),
        ({"norms": [1, 1, np.nan, 1]}, DataError, "norms holds nan at 2, expected finite numbers of at least 0"),
        ({"steps": [[1.0], [1.0, 2.0]]}, DataError, "steps is no array"),
        ({"steps": []}, DataError, "steps is empty"),
        ({"steps": [1.0, -1.0]}, DataError, "steps holds -1.0 at 1"),
        ({"steps": [np.inf]}, DataError, "steps holds inf at 0"),
        ({"entries": Csr(np.array([0, 1]), np.int32([0]), 4, np.float32([-2]))}, DataError, "entries holds -2.0 at 0"),
        ({"entries": Csr(np.array([0, 1]), np.int32([4]), 4, np.float32([1]))}, DataError, "row 0 holds 4"),
        ({"entries": Csr(np.array([0, 1]), np.int32([0]), 4)}, DataError, "entries has no values"),
        ({"entries": np.ones(4)}, DataError, "entries is ndarray, expected a Csr or a scipy CSR"),
        ({"entries": [[1.0]]}, DataError, "entries is list, expected a Csr or a scipy CSR"),
        ({"backend": "cuda"}, ConfigError, "backend is 'cuda'"),
    ],
)
def test_what_is_refused(change, error, message):
    given_ = {"entries": entries(0, 5, 4, 3), "k": 2, "norms": np.ones(4), **change}
    with pytest.raises(error, match=message):
        ops.cooccurrence_topk(given_.pop("entries"), given_.pop("k"), **given_)

"""The ridge solver against LAPACK, at every level and as numba compiles it, and where numbers vanish."""

import ctypes
import mmap
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fastrec import _native, profiles, ridge
from fastrec.models.als import Als
from fastrec.types import Interactions

LEVELS = [*_native.module("tests").simd_levels(), "numba"]


@pytest.fixture(params=LEVELS)
def level(request, monkeypatch):
    """How the systems are solved: natively at a level, or by numba where the native module is missing."""
    if request.param == "numba":
        monkeypatch.setattr(_native, "_C", None)
    else:
        monkeypatch.setenv("FASTREC_SIMD", request.param)
    return request.param


def systems(seed, rows, others, dims, most):
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((others, dims)).astype(np.float32) / np.sqrt(dims)
    sizes = rng.integers(0, most + 1, rows)
    sizes[::5] = 0
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    indices = rng.integers(0, others, indptr[-1]).astype(np.int32)
    extra = rng.uniform(0.1, 4, indptr[-1]).astype(np.float32)
    return y, (y.T @ y + np.eye(dims, dtype=np.float32)), indptr, indices, extra


def exactly(y, gram, indptr, indices, right, extra):
    out = np.zeros((len(indptr) - 1, y.shape[1]))
    y, gram = y.astype(np.float64), gram.astype(np.float64)
    for u in range(len(out)):
        span = slice(indptr[u], indptr[u + 1])
        mine = y[indices[span]]
        left = gram + (mine * extra[span, None]).T @ mine
        out[u] = np.linalg.solve(left, mine.T @ right[span].astype(np.float64)) if len(mine) else 0
    return out


@pytest.mark.parametrize("dims", [1, 15, 16, 17, 33, 64, 128, 129, 160, 200])
@pytest.mark.parametrize("given_right", [True, False])
def test_solves_every_system(dims, given_right, level):
    y, gram, indptr, indices, extra = systems(dims, 23, 40, dims, 30)
    right = np.random.default_rng(1).uniform(0.5, 2, len(extra)).astype(np.float32) if given_right else None
    x = np.full((23, dims), 0.1, np.float32)
    ridge.solve(x, y, gram, indptr, indices, right, extra, 200)
    want = exactly(y, gram, indptr, indices, 1 + extra if right is None else right, extra)
    np.testing.assert_allclose(x, want, atol=2e-4 * np.abs(want).max())
    assert (x[::5] == 0).all(), "rows without entries are 0, whatever the guess was"


@pytest.mark.parametrize("dims", [7, 48, 130])
def test_few_steps_are_those_of_numba(dims, monkeypatch, level):
    parts = systems(3, 60, 50, dims, 12)
    guess = np.random.default_rng(0).normal(0, 0.01, (60, dims)).astype(np.float32)
    x = guess.copy()
    ridge.solve(x, *parts[:4], None, parts[4], 3)
    monkeypatch.setattr(_native, "_C", None)
    want = guess.copy()
    ridge.solve(want, *parts[:4], None, parts[4], 3)
    assert np.abs(want - guess).max() > 0.1
    np.testing.assert_allclose(x, want, atol=1e-5)


@pytest.mark.parametrize("dims", [16, 37])
def test_neighbours_threads_and_batches_change_no_bit(dims, monkeypatch, level):
    y, gram, indptr, indices, extra = systems(5, 300, 80, dims, 20)
    guess = np.random.default_rng(0).normal(0, 0.01, (300, dims)).astype(np.float32)
    whole = guess.copy()
    monkeypatch.setenv("FASTREC_THREADS", "1")
    ridge.solve(whole, y, gram, indptr, indices, None, extra, 4)
    monkeypatch.setenv("FASTREC_THREADS", "3")
    again = guess.copy()
    ridge.solve(again, y, gram, indptr, indices, None, extra, 4)
    np.testing.assert_array_equal(again, whole)
    for first, last in ((0, 1), (1, 4), (2, 13), (299, 300)):
        part, span = guess[first:last].copy(), slice(indptr[first], indptr[last])
        ridge.solve(part, y, gram, indptr[first : last + 1] - indptr[first], indices[span], None, extra[span], 4)
        np.testing.assert_array_equal(part, whole[first:last])


def test_other_types_of_indices_and_rows_that_do_not_lie_together(level):
    y, gram, indptr, indices, extra = systems(2, 30, 20, 8, 6)
    want, got = np.zeros((30, 8), np.float32), np.zeros((30, 8), np.float32)
    ridge.solve(want, y, gram, indptr, indices, None, extra, 5)
    wide = np.repeat(y, 2, axis=1)[:, ::2]
    assert not wide.flags.c_contiguous
    ridge.solve(got, wide, gram.T, indptr.astype(np.int32), indices.astype(np.int64), None, extra, 5)
    np.testing.assert_allclose(got, want, atol=1e-6)


def problem(seed, rows=23, n=40, d=6, scale=1.0):
    rng = np.random.default_rng(seed)
    others = (rng.normal(size=(n, d)) * scale).astype(np.float32)
    counts = rng.integers(0, 9, rows)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    indices = rng.integers(0, n, indptr[-1]).astype(np.int32)
    right, extra = rng.random((2, indptr[-1])).astype(np.float32)
    gram = (others.T @ others + 0.5 * np.eye(d)).astype(np.float32)
    return others, gram, indptr, indices, right, extra


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("start", [0.0, np.nan])
def test_against_lapack(seed, start, level):
    others, gram, indptr, indices, right, extra = problem(seed)
    x = np.zeros((len(indptr) - 1, others.shape[1]), np.float32)
    empty = np.flatnonzero(np.diff(indptr) == 0)
    x[empty] = start  # rows without entries are set, whatever stood there
    ridge.solve(x, others, gram, indptr, indices, right, extra, 100)
    for u in range(len(x)):
        span = slice(indptr[u], indptr[u + 1])
        y = others[indices[span]].astype(float)
        want = np.linalg.solve(gram + (y.T * extra[span]) @ y, right[span] @ y)
        np.testing.assert_allclose(x[u], want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e-38, 1e-45])
def test_vanishing_rows_give_zero_and_no_error(scale, level):
    others, gram, indptr, indices, right, extra = problem(0, scale=scale)
    x = np.zeros((len(indptr) - 1, others.shape[1]), np.float32)
    ridge.solve(x, others, gram, indptr, indices, right, extra, 100)
    assert (x == 0).all()


def test_vanishing_weights_give_zero_and_no_error(level):
    others, gram, indptr, indices, right, extra = problem(1)
    x = np.zeros((len(indptr) - 1, others.shape[1]), np.float32)
    ridge.solve(x, others, gram, indptr, indices, right * np.float32(1e-42), extra * np.float32(1e-42), 100)
    assert (x == 0).all()


def test_no_rows(level):
    others, gram, *_ = problem(2)
    x = np.empty((0, others.shape[1]), np.float32)
    ridge.solve(x, others, gram, np.zeros(1, np.int64), np.empty(0, np.int32), *np.empty((2, 0), np.float32), 10)


def test_ctrl_c_in_the_midst_of_long_rows():
    n, rows, dims = 300_000, 8, 64
    rng = np.random.default_rng(0)
    y = rng.standard_normal((1000, dims), np.float32) * np.geomspace(1, 1e-3, dims, dtype=np.float32)
    indices = rng.integers(0, len(y), n * rows).astype(np.int32)
    x = np.full((rows, dims), 7, np.float32)

    def stop(signum, frame):
        raise TimeoutError("alarm")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(TimeoutError, match="alarm"):
            ridge.solve(
                x,
                y,
                np.eye(dims) * 1e-6,
                np.arange(rows + 1) * n,
                indices,
                None,
                np.ones(len(indices), np.float32),
                100,
            )
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (x == 7).all(), "the only group was ended before its last step"


@pytest.mark.parametrize("dims", [5, 64, 130])
def test_long_rows_are_sums_of_pieces(dims, level):
    rng = np.random.default_rng(0)
    y = rng.standard_normal((7, dims)).astype(np.float32) / np.sqrt(dims)
    sizes = np.array([4095, 0, 4096, 4097, 8192, 8193])
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    indices = rng.integers(0, len(y), indptr[-1]).astype(np.int32)
    extra = rng.uniform(0, 1e-3, len(indices)).astype(np.float32)
    x, gram = np.zeros((len(sizes), dims), np.float32), np.eye(dims, dtype=np.float32)
    ridge.solve(x, y, gram, indptr, indices, None, extra, 100)
    want = exactly(y, gram, indptr, indices, 1 + extra, extra)
    np.testing.assert_allclose(x, want, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("row", [0, 3, 7, 8, 18])
@pytest.mark.parametrize("place", ["guess", "other", "right", "extra"])
def test_numbers_that_are_none_spoil_no_neighbour(place, row, level):
    rng = np.random.default_rng(0)
    y = rng.standard_normal((40, 19)).astype(np.float32)
    gram, indptr = y.T @ y + np.eye(19, dtype=np.float32), np.arange(20) * 5
    indices, extra = rng.integers(0, 39, 95).astype(np.int32), rng.random(95, np.float32)
    want = np.zeros((19, 19), np.float32)
    ridge.solve(want, y, gram, indptr, indices, 1 + extra, extra, 6)
    for bad in (np.nan, np.inf, -np.inf, 3e38, 1e20):
        parts = {"guess": np.zeros_like(want), "other": y.copy(), "right": 1 + extra, "extra": extra.copy()}
        parts[place].reshape(-1)[{"guess": row * 19, "other": 39 * 19}.get(place, row * 5)] = bad
        mine = indices.copy()
        if place == "other":
            mine[row * 5] = 39
        ridge.solve(parts["guess"], parts["other"], gram, indptr, mine, parts["right"], parts["extra"], 6)
        neighbours = np.arange(19) != row
        np.testing.assert_array_equal(parts["guess"][neighbours], want[neighbours])
        assert place == "guess" or np.isfinite(parts["guess"][row]).all()


@pytest.mark.parametrize("ridge_of_gram", [1e-12, 1e-20, 1e-30])
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e-11])
def test_systems_without_a_ridge_to_speak_of_end_while_they_are_numbers(scale, ridge_of_gram, level):
    y, _, indptr, indices, extra = systems(1, 20, 20, 32, 8)
    y *= np.float32(scale)
    x, gram = np.zeros((20, 32), np.float32), y.T @ y + np.float32(ridge_of_gram) * np.eye(32, dtype=np.float32)
    ridge.solve(x, y, gram, indptr, indices, None, extra, 100)
    assert np.isfinite(x).all()


@pytest.mark.parametrize("weight", [1e6, 1e20, 1e30, 1e37])
def test_a_weight_beyond_all_others_gives_a_query_of_numbers(weight, level):
    rng = np.random.default_rng(0)
    items = np.concatenate([rng.choice(60, 6, replace=False) for _ in range(40)]).astype(np.int32)
    weights = np.ones(240, np.float32)
    weights[0] = weight
    likes = Interactions(np.arange(41) * 6, items, np.arange(240.0), weights, 60)
    source = Als(factors=8).fit(likes, None, "next")
    assert source is not None
    assert np.isfinite(source.vectors).all()
    assert np.isfinite(profiles.profiles(source, likes)).all()


def test_a_result_that_could_not_be_written_is_refused(level):
    y, gram, indptr, indices, extra = systems(2, 30, 20, 8, 6)
    x = np.zeros((30, 8), np.float32)
    x.flags.writeable = False
    with pytest.raises(AssertionError, match="read-only"):
        ridge.solve(x, y, gram, indptr, indices, None, extra, 5)
    assert (x == 0).all()


def at_the_end_of_a_page(array):
    """A read-only copy; the pages before and behind it cannot be read."""
    libc = ctypes.CDLL(None, use_errno=True)
    size = -(-array.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, size + 2 * mmap.PAGESIZE)
    copy = np.frombuffer(memory, array.dtype, array.size, mmap.PAGESIZE + size - array.nbytes).reshape(array.shape)
    copy[...] = array
    page = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for start, length, may in (
        (page, mmap.PAGESIZE, 0),
        (page + mmap.PAGESIZE, size, mmap.PROT_READ),
        (page + mmap.PAGESIZE + size, mmap.PAGESIZE, 0),
    ):
        assert libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(length), may) == 0
    copy.flags.writeable = False
    return copy


@pytest.mark.skipif(not hasattr(mmap, "PROT_READ"), reason="mprotect is of POSIX")
@pytest.mark.parametrize("dims", [1, 7, 8, 9, 16, 17, 63, 65, 127, 128, 129, 144, 257])
def test_nothing_behind_an_array_is_read(dims, level):
    y, gram, indptr, indices, extra = systems(0, 9, 5, dims, 8)
    indices[-1] = 4
    given = (y, gram, indptr, indices, 1 + extra, extra)
    want, got = np.zeros((2, 9, dims), np.float32)
    ridge.solve(want, *given, 5)
    ridge.solve(got, *map(at_the_end_of_a_page, given), 5)
    np.testing.assert_array_equal(got, want)


def test_threads_of_python_change_no_bit(level):
    y, gram, indptr, indices, extra = systems(4, 300, 80, 33, 20)
    want = np.zeros((300, 33), np.float32)
    ridge.solve(want, y, gram, indptr, indices, None, extra, 4)

    def again(_):
        x = np.zeros_like(want)
        ridge.solve(x, y, gram, indptr, indices, None, extra, 4)
        return x

    with ThreadPoolExecutor(8) as pool:
        for got in pool.map(again, range(40)):
            np.testing.assert_array_equal(got, want)


def test_no_steps_leave_the_guess(level):
    y, gram, indptr, indices, extra = systems(4, 20, 30, 12, 5)
    x = np.full((20, 12), 3, np.float32)
    ridge.solve(x, y, gram, indptr, indices, None, extra, 0)
    assert (x == np.where(np.diff(indptr) > 0, 3, 0)[:, None]).all()

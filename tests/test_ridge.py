"""The ridge solver against LAPACK, and where numbers vanish."""

import numpy as np
import pytest

from fastrec import ridge


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
def test_against_lapack(seed, start):
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
def test_vanishing_rows_give_zero_and_no_error(scale):
    others, gram, indptr, indices, right, extra = problem(0, scale=scale)
    x = np.zeros((len(indptr) - 1, others.shape[1]), np.float32)
    ridge.solve(x, others, gram, indptr, indices, right, extra, 100)
    assert (x == 0).all()


def test_vanishing_weights_give_zero_and_no_error():
    others, gram, indptr, indices, right, extra = problem(1)
    x = np.zeros((len(indptr) - 1, others.shape[1]), np.float32)
    ridge.solve(x, others, gram, indptr, indices, right * np.float32(1e-42), extra * np.float32(1e-42), 100)
    assert (x == 0).all()


def test_no_rows():
    others, gram, *_ = problem(2)
    x = np.empty((0, others.shape[1]), np.float32)
    ridge.solve(x, others, gram, np.zeros(1, np.int64), np.empty(0, np.int32), *np.empty((2, 0), np.float32), 10)

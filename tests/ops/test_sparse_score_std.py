import numpy as np
import pytest
import scipy.sparse as sp

from fastrec import ops
from fastrec.errors import DataError
from fastrec.ops._cases import matrix


def as_scipy(m):
    return sp.csr_matrix((m.values.astype(np.float64), m.indices, m.indptr), shape=(m.n_rows, m.n_cols))


def test_is_the_spread_of_the_scores(backend):
    rng = np.random.default_rng(0)
    history, similarity = matrix(rng, 50, 80, 30), matrix(rng, 80, 333, 60)
    want = (as_scipy(history) @ as_scipy(similarity)).toarray().std(axis=1)
    got = ops.sparse_score_std(history, similarity, backend=backend)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-15)
    for threads in (1, 2, 5):
        again = ops.sparse_score_std(history, similarity, backend=backend, threads=threads)
        np.testing.assert_array_equal(again, got)
    triple = (similarity.indptr, similarity.indices, similarity.values)
    np.testing.assert_array_equal(ops.sparse_score_std(history, triple, n_items=333, backend=backend), got)
    np.testing.assert_array_equal(ops.sparse_score_std(history, as_scipy(similarity), backend=backend), got)


def test_scores_that_are_all_alike(backend):
    """E[s^2] - E[s]^2 would give noise of 1e-5 here."""
    history = (np.array([0, 1]), np.array([0]), np.float32([1]))
    similarity = (np.array([0, 3]), np.arange(3), np.float32([1000.1] * 3))
    assert ops.sparse_score_std(history, similarity, n_items=3, backend=backend)[0] < 1e-12


def test_bad_input():
    rng = np.random.default_rng(0)
    history, similarity = matrix(rng, 5, 8, 3), matrix(rng, 8, 9, 3)
    triple = (similarity.indptr, similarity.indices, similarity.values)
    with pytest.raises(DataError, match=r"^\[sparse_score_std\] similarity is a tuple .* expected n_items=N"):
        ops.sparse_score_std(history, triple)
    with pytest.raises(DataError, match=r"n_items is 7, expected 9"):
        ops.sparse_score_std(history, similarity, n_items=7)
    with pytest.raises(DataError, match=r"history has shape \(5, 7\), expected \(5, 8\)"):
        ops.sparse_score_std(matrix(rng, 5, 7, 3), similarity)

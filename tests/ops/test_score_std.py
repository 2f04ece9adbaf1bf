import numpy as np
import pytest
import torch

from fastrec import ops
from fastrec.errors import DataError


def test_is_the_spread_of_the_scores(backend):
    rng = np.random.default_rng(0)
    items, q = rng.standard_normal((500, 19)), rng.standard_normal((31, 19)).astype(np.float32)
    covariance = np.cov(items.T, bias=True)
    got = ops.score_std(q, covariance, backend=backend)
    np.testing.assert_allclose(got, (q @ items.T).std(axis=1), rtol=1e-6)
    for u in range(31):  # alone as in the batch, at any number of threads
        assert ops.score_std(q[u : u + 1], covariance, backend=backend)[0] == got[u]
    np.testing.assert_array_equal(ops.score_std(q, covariance, backend=backend, threads=2), got)


def test_not_below_zero(backend):
    np.testing.assert_array_equal(ops.score_std([[1.0], [0.0]], np.array([[-1e-9]]), backend=backend), [0, 0])


def test_tensors():
    got = ops.score_std(torch.eye(2), torch.eye(2) * 4)
    assert torch.equal(got, torch.tensor([2.0, 2.0], dtype=torch.float64))


def test_bad_input():
    with pytest.raises(DataError, match=r"^\[score_std\] covariance is float64 \(2, 3\), expected .* \(2, 2\)"):
        ops.score_std(np.ones((1, 2)), np.ones((2, 3)))
    with pytest.raises(DataError, match=r"covariance row 1 holds nan at column 0"):
        ops.score_std(np.ones((1, 2)), np.array([[1, 0], [np.nan, 1]]))
    with pytest.raises(DataError, match=r"queries row 0 holds inf at column 1"):
        ops.score_std(np.array([[1, np.inf]]), np.eye(2))

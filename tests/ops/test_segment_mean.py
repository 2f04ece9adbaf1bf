import numpy as np
import pytest
import scipy.sparse as sp
import torch

from fastrec import ops
from fastrec.errors import DataError
from fastrec.ops._cases import matrix


@pytest.mark.parametrize("normalize", [True, False])
def test_against_scipy(backend, normalize):
    rng = np.random.default_rng(0)
    values, segments = rng.standard_normal((300, 37)).astype(np.float32), matrix(rng, 70, 300, 40)
    as_scipy = sp.csr_matrix((segments.values, segments.indices, segments.indptr), shape=(70, 300))
    exact = as_scipy.astype(np.float64)
    want = exact @ values.astype(np.float64)
    divisor = np.linalg.norm(want, axis=1) if normalize else np.asarray(exact.sum(axis=1)).ravel()
    want = np.divide(want, divisor[:, None], out=np.zeros_like(want), where=divisor[:, None] != 0)
    for given in (segments, as_scipy):
        got = ops.segment_mean(values, given, normalize=normalize, backend=backend)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_empty_and_cancelling_segments_are_zero(backend):
    values = np.float32([[1, 2], [1, 2]])
    segments = (np.array([0, 0, 2, 3]), np.array([0, 1, 1], np.int32), np.float32([1, -1, 0]))
    for normalize in (True, False):
        got = ops.segment_mean(values, segments, normalize=normalize, backend=backend)
        np.testing.assert_array_equal(got, np.zeros((3, 2), np.float32))


def test_extreme_sizes_do_not_lose_the_direction(backend):
    for scale in (1e-38, 5e37):
        segments = (np.array([0, 1]), np.array([0], np.int32), np.float32([scale]))
        got = ops.segment_mean(np.float32([[3, 4]]) * np.float32(scale), segments, backend=backend)
        np.testing.assert_allclose(got, [[0.6, 0.8]], rtol=1e-6)


def test_tensors():
    segments = (torch.tensor([0, 2]), torch.tensor([0, 1]), torch.tensor([1.0, 1.0]))
    got = ops.segment_mean(torch.eye(2), segments, normalize=False)
    assert torch.equal(got, torch.tensor([[0.5, 0.5]]))


def test_bad_input(backend):
    values = np.ones((3, 2), np.float32)
    one = np.float32([1])

    def fails(message, values=values, rows=(0,), weights=one):
        with pytest.raises(DataError, match=r"^\[segment_mean\] " + message):
            ops.segment_mean(values, (np.array([0, 0, 1]), np.array(rows), weights), backend=backend)

    fails(r"segments row 1 holds 3, expected values in \[0, 3\)", rows=[3])
    fails(r"segments row 1 holds nan, expected finite", weights=np.float32([np.nan]))
    fails(r"segments values has shape \(2,\), expected \(1,\)", weights=np.ones(2))
    fails(r"segments has no values", weights=None)
    fails(r"values row 2 is not finite", values=np.float32([[0, 0], [np.nan, 0], [0, np.inf]]), rows=[2])
    # What no segment asks for does not matter.
    one_of_two = (np.array([0, 1]), np.array([0]), one)
    got = ops.segment_mean(np.float32([[1], [np.nan]]), one_of_two, backend=backend)
    assert np.isfinite(got).all()


def test_a_mean_beyond_float32(backend):
    segments = (np.array([0, 2]), np.array([0, 1]), np.float32([1, -0.9999999]))
    with pytest.raises(DataError, match=r"the mean of segments row 0 is beyond float32"):
        ops.segment_mean(np.float32([[3e38], [-3e38]]), segments, normalize=False, backend=backend)

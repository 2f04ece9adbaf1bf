import numpy as np
import pytest
import torch

from fastrec import ops
from fastrec.errors import DataError
from fastrec.ops._cases import lists, matrix


@pytest.mark.parametrize("d", [0, 1, 63])
@pytest.mark.parametrize("extras", [False, True])
def test_the_bits_of_score_topk(backend, d, extras):
    rng = np.random.default_rng(d)
    b, n, k = 7, 1009, 200
    q = rng.standard_normal((b, d)).astype(np.float32)
    items = ops.pack_items(rng.standard_normal((n, d)))
    kwargs = {}
    if extras:
        sparse = (matrix(rng, b, 30, 20), matrix(rng, 30, n, 400))
        kwargs = {"bias": rng.standard_normal(n).astype(np.float32), "sparse": sparse}
    scores, rows = ops.score_topk(q, items, k, backend="reference", **kwargs)
    order = rng.permuted(np.tile(np.arange(k), (b, 1)), axis=1)
    shuffled = np.take_along_axis(rows, order, 1)
    pairs = (np.arange(b + 1) * k, shuffled.ravel().astype(np.int32))
    for threads in (1, 2):
        got = ops.score_pairs(q, items, pairs, backend=backend, threads=threads, **kwargs)
        np.testing.assert_array_equal(got, np.take_along_axis(scores, order, 1).ravel(), strict=True)


def test_repeats_and_masked_items(backend):
    pairs = (np.array([0, 4, 4]), np.array([2, 0, 2, 1], np.int32))
    bias = np.float32([0, -np.inf, 1])
    got = ops.score_pairs(np.ones((2, 2)), np.ones((3, 2)), pairs, bias=bias, backend=backend)
    np.testing.assert_array_equal(got, np.float32([3, 2, 3, -np.inf]))


def test_tensors():
    pairs = (torch.tensor([0, 2]), torch.tensor([1, 0]))
    got = ops.score_pairs(torch.ones(1, 2), torch.tensor([[1.0, 1], [2, 2]]), pairs)
    assert torch.equal(got, torch.tensor([4.0, 2.0]))


def test_many_pairs_are_not_slow():
    rng = np.random.default_rng(0)
    pairs = lists(rng, 300, 5000, 2000)
    got = ops.score_pairs(rng.standard_normal((300, 32)), rng.standard_normal((5000, 32)), pairs)
    assert np.isfinite(got).all()


def test_bad_pairs():
    with pytest.raises(DataError, match=r"^\[score_pairs\] pairs row 0 holds 3, expected values in \[0, 3\)"):
        ops.score_pairs(np.ones((1, 2)), np.ones((3, 2)), (np.array([0, 1]), np.array([3])))
    with pytest.raises(DataError, match=r"^\[score_pairs\] pairs is int"):
        ops.score_pairs(np.ones((1, 2)), np.ones((3, 2)), 3)
    with pytest.raises(DataError, match=r"^\[score_pairs\] items row 1 holds nan"):
        ops.score_pairs(np.ones((1, 1)), np.float32([[1], [np.nan]]), (np.array([0, 1]), np.array([0])))

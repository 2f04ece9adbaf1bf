import numpy as np
import pytest
import torch

from fastrec import ops
from fastrec.errors import ConfigError, DataError

BACKENDS = ["cpu", "numpy", "reference"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_gather_scale_and_normalise(backend):
    a, b = np.float32([[1, 2], [3, 4]]), np.float32([[1], [2], [3]])
    parts = [(a, None, np.array([2.0, 0.0])), (b, np.array([2, 2]), None)]
    got = ops.fuse_features(parts, backend=backend)
    np.testing.assert_array_equal(got, np.float32([[2, 4, 3], [0, 0, 3]]), strict=True)
    got = ops.fuse_features(parts, normalize=True, backend=backend)
    np.testing.assert_array_equal(got, np.float32([np.array([2, 4, 3]) / np.sqrt(29), [0, 0, 1]]))
    zero = ops.fuse_features([(a * 0, None, None)], normalize=True, backend=backend)
    np.testing.assert_array_equal(zero, a * 0)


def test_every_half_and_the_middles_between_them():
    """As float64 scales, so that the numbers between two float32 count too."""
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    middles = (halves[1:] + halves[:-1]) / 2
    numbers = np.concatenate([halves, middles, middles * (1 + 2.0**-50), middles * (1 - 2.0**-50)])
    numbers = np.concatenate([numbers, -numbers])
    got = ops.fuse_features([(np.ones((len(numbers), 1)), None, numbers)], dtype="float16", backend="cpu")
    np.testing.assert_array_equal(
        got.view(np.uint16)[:, 0], (numbers.astype(np.float16) + np.float16(0)).view(np.uint16)
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_bad_input(backend):
    ones = np.ones((3, 2))

    def fails(message, *parts, **kwargs):
        with pytest.raises(DataError, match=r"^\[fuse_features\] " + message):
            ops.fuse_features(list(parts), backend=backend, **kwargs)

    fails("parts is empty")
    fails("part 0 is tuple, expected", (ones, None))
    fails(r"rows 0 holds 3 at 1, expected values in \[0, 3\)", (ones, [0, 3], None))
    fails(r"rows 0 holds -1 at 0", (ones, [-1], None))
    fails("rows 0 has dtype float64", (ones, [0.5], None))
    fails("part 1 has 2 rows and 2 scales, expected 3", (ones, None, None), (ones, [0, 1], None))
    fails("part 0 has 3 rows and 2 scales", (ones, None, [1.0, 2.0]))
    fails("scales 0 has shape", (ones, None, [1.0, np.nan, 1.0]))
    fails("values 0 row 2 is not finite", (np.float32([[0], [0], [np.inf]]), [0, 2], None))
    fails("row 1 of the result is beyond float16", (ones, None, [1.0, 1e5, 1.0]), dtype="float16")
    with pytest.raises(ConfigError, match=r"\[fuse_features\] dtype is 'int8'"):
        ops.fuse_features([(ones, None, None)], dtype="int8", backend=backend)


def test_tensors():
    got = ops.fuse_features([(torch.eye(2), torch.tensor([1, 1]), torch.tensor([1.0, 3.0]))])
    assert torch.equal(got, torch.tensor([[0.0, 1.0], [0.0, 3.0]]))

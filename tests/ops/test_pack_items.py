import pickle

import numpy as np
import pytest
import torch

from fastrec import ops
from fastrec.errors import DataError


@pytest.mark.parametrize(("n", "d"), [(0, 4), (1, 1), (16, 3), (17, 64), (4099, 130)])
def test_round_trip(n, d):
    items = np.random.default_rng(n).standard_normal((n, d)).astype(np.float32)
    packed = ops.pack_items(items)
    assert packed.panels.shape == (-(-n // 16), d, 16)
    assert n == 0 or packed.panels.ctypes.data % 64 == 0
    np.testing.assert_array_equal(packed.unpack(), items, strict=True)
    assert not packed.panels.transpose(0, 2, 1).reshape(-1, d)[n:].any()
    norms = np.linalg.norm(items.astype(np.float64), axis=1)
    assert packed.max_norm >= norms.max(initial=0.0)
    assert packed.max_norm == pytest.approx(norms.max(initial=0.0), rel=1e-6)
    again = pickle.loads(pickle.dumps(packed))
    np.testing.assert_array_equal(again.unpack(), items)


def test_large_panels_begin_at_a_huge_page():
    assert ops.pack_items(np.zeros((20_000, 64))).panels.ctypes.data % (2 << 20) == 0


def test_tensors_and_packed_items():
    items = torch.arange(12.0).reshape(4, 3)
    packed = ops.pack_items(items)
    np.testing.assert_array_equal(packed.unpack(), items.numpy())
    assert ops.pack_items(packed) is packed


@pytest.mark.parametrize("threads", [1, 2])
def test_bad_values_name_the_first_row(threads):
    items = np.zeros((5000, 3))
    items[4000, 1], items[4500, 2] = np.nan, np.inf
    with pytest.raises(DataError, match=r"^\[pack_items\] items row 4000 holds nan at column 1"):
        ops.pack_items(items, threads=threads)


def test_bad_panels():
    panels = np.zeros((2, 3, 16), np.float32)
    with pytest.raises(DataError, match=r"expected contiguous float32 \(1, D, 16\)"):
        ops.PackedItems(panels, 16, 0.0)
    with pytest.raises(DataError, match="float64"):
        ops.PackedItems(panels.astype(np.float64), 32, 0.0)
    with pytest.raises(DataError, match="max_norm is nan"):
        ops.PackedItems(panels, 32, float("nan"))

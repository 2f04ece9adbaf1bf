import importlib
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
    assert (packed.n_items, packed.dims) == (n, d)
    assert n == 0 or packed.screen.codes.ctypes.data % 64 == 0
    np.testing.assert_array_equal(packed.rows, items, strict=True)
    assert not np.shares_memory(packed.rows, items)
    norms = np.linalg.norm(items.astype(np.float64), axis=1)
    assert packed.max_norm >= norms.max(initial=0.0)
    assert packed.max_norm == pytest.approx(norms.max(initial=0.0), rel=1e-6)
    again = pickle.loads(pickle.dumps(packed))
    np.testing.assert_array_equal(again.rows, items)
    np.testing.assert_array_equal(again.screen.codes, packed.screen.codes)


def test_large_arrays_begin_at_a_huge_page():
    packed = ops.pack_items(np.zeros((20_000, 64)))
    assert packed.rows.ctypes.data % (2 << 20) == 0
    assert packed.screen.codes.ctypes.data % (2 << 20) == 0


def test_tensors_and_packed_items():
    items = torch.arange(12.0).reshape(4, 3)
    packed = ops.pack_items(items)
    np.testing.assert_array_equal(packed.rows, items.numpy())
    assert ops.pack_items(packed) is packed


@pytest.mark.parametrize("threads", [1, 2])
def test_bad_values_name_the_first_row(threads):
    items = np.zeros((5000, 3))
    items[4000, 1], items[4500, 2] = np.nan, np.inf
    with pytest.raises(DataError, match=r"^\[pack_items\] items row 4000 holds nan at column 1"):
        ops.pack_items(items, threads=threads)


def test_bad_arrays():
    packed = ops.pack_items(np.zeros((32, 3)))
    with pytest.raises(DataError, match=r"rows: float64 \(32, 3\), expected contiguous float32"):
        ops.PackedItems(packed.rows.astype(np.float64), packed.screen, 0.0)
    with pytest.raises(DataError, match="does not fit rows"):
        ops.PackedItems(packed.rows[:16], packed.screen, 0.0)
    with pytest.raises(DataError, match="max_norm is nan"):
        ops.PackedItems(packed.rows, packed.screen, float("nan"))


def test_auto_takes_int8_where_it_is_large_and_close(monkeypatch):
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((4000, 64)).astype(np.float32)
    assert ops.pack_items(normal, dtype="auto").screen.dtype == "bfloat16"
    monkeypatch.setattr(importlib.import_module("fastrec.ops.pack_items"), "_CACHE", 2 * normal.size - 1)
    packed = ops.pack_items(normal, dtype="auto")
    assert packed.screen.dtype == "int8"
    again = ops.pack_items(ops.pack_items(normal), dtype="auto")
    np.testing.assert_array_equal(again.screen.codes, packed.screen.codes)
    outliers = normal.copy()
    outliers[:, 3] *= 30
    assert ops.pack_items(outliers, dtype="auto").screen.dtype == "bfloat16"
    assert ops.pack_items(np.zeros_like(normal), dtype="auto").screen.dtype == "int8"

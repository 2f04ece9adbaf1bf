"""Cells spare items only where their bounds prove it: cases that use the bounds up, and cells that are wrong."""

import numpy as np
import pytest

from fastrec import ops
from fastrec.errors import DataError
from fastrec.fuse import frozen
from fastrec.retrieve import cells


def cells_of(v, dtype, groups, middles=None):
    """Packed items whose cells are these groups of rows, in this order."""
    begins = np.concatenate([[0], np.cumsum([-(-len(rows) // 16) for rows in groups])]).astype(np.int64)
    order = np.full(begins[-1] * 16, -1, np.int32)
    coarse = np.zeros((len(groups), v.shape[1] + 1), np.float32)
    for c, rows in enumerate(groups):
        order[begins[c] * 16 : begins[c] * 16 + len(rows)] = rows
        if len(rows):
            coarse[c, :-1] = v[rows].mean(axis=0) if middles is None else middles[c]
            off = np.linalg.norm(v[rows].astype(np.float64) - coarse[c, :-1], axis=1).max()
            coarse[c, -1] = np.nextafter(np.float32(off * (1 + 1e-6)), np.float32(np.inf))
    arranged = np.zeros((len(order), v.shape[1]), np.float32)
    arranged[order >= 0] = v[order[order >= 0]]
    packed = ops.pack_items(v, dtype=dtype)
    screen, coarse = ops.pack_items(arranged, dtype=dtype).screen, ops.pack_items(coarse, dtype=dtype)
    found = ops.Cells(begins, order.reshape(-1, 16), screen, coarse)
    return ops.PackedItems(packed.rows, packed.screen, packed.max_norm, found)


def agree(q, items, k, **kwargs):
    got = ops.score_topk(q, items, k, backend="cpu", **kwargs)
    want = ops.score_topk(q, items.rows, k, backend="reference", **kwargs)
    np.testing.assert_array_equal(got[1], want[1])
    np.testing.assert_array_equal(got[0], want[0])


def test_panels_of_cells_have_errors_of_their_own(level):
    """A long item beside one with long codes: the width of the two is beyond float32, though no item of the catalogue
    as it lay comes near that. What such a hit is at least, nobody knows."""
    dims, size = 1 << 14, np.float32(7e36)
    v = np.zeros((156, dims), np.float32)
    v[:6] = 1e33  # one for each panel of the cell, and all but one hidden
    v[6:66, -1] = 0.01
    v[66:, 0] = size
    bias = np.zeros(156)
    bias[1:6] = -np.inf
    q = np.full((24, dims), 0.51 / 127, np.float32)
    q[:, 0] *= -1
    q[:, -1] = 1
    groups = [np.concatenate([np.r_[i, 66 + 15 * i : 81 + 15 * i] for i in range(6)]), np.arange(6, 66)]
    middles = np.zeros((2, dims), np.float32)
    middles[0, -1] = 1000
    agree(q, cells_of(v, level.split("-")[1], groups, middles), 2, bias=frozen(bias))


def test_wrong_cells():
    rng = np.random.default_rng(0)
    v = rng.standard_normal((64, 6)).astype(np.float32)
    good = cells_of(v, "int8", [np.arange(20), np.arange(20, 64)])
    order = good.cells.order.copy()
    order[0, 0] = 1  # twice, and 0 never
    wrong = ops.Cells(good.cells.begins, order, good.cells.screen, good.cells.coarse)
    with pytest.raises(DataError, match="cells of 64 items do not fit 64 items"):
        ops.PackedItems(good.rows, good.screen, good.max_norm, wrong)
    narrow = ops.pack_items(np.ones((80, 2), np.float32), dtype="int8").screen  # would be read beyond its end
    wrong = ops.Cells(good.cells.begins, good.cells.order, narrow, good.cells.coarse)
    with pytest.raises(DataError, match="do not fit"):
        ops.PackedItems(good.rows, good.screen, good.max_norm, wrong)
    every_other = np.repeat(good.cells.begins, 2)[::2]
    with pytest.raises(DataError, match="do not fit"):
        ops.Cells(every_other, good.cells.order, good.cells.screen, good.cells.coarse)


@pytest.mark.parametrize("size", [1, 3, 256])
def test_arranging_odd_catalogues(size):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((700, 3)).astype(np.float32)
    odd = [x[:2], x[:1], x[:5, :1], np.tile(x[:1], (700, 1)), np.zeros((700, 3), np.float32), x * np.float32(1e-42)]
    odd += [x * np.float32(1e37), np.float32([[2.9e38]] * 30 + [[-2.9e38]] * 5)]
    for v in odd:
        scale = np.abs(v).max(initial=0)
        q = np.ones((24, v.shape[1]), np.float32) / np.float32(max(scale, 1))
        q[::5] = 0
        for dtype in ("bfloat16", "int8"):
            agree(q, cells.arrange(ops.pack_items(v, dtype=dtype), size=size), max(len(v) // 64, 1))


def test_a_bias_that_may_change_is_arranged_anew():
    rng = np.random.default_rng(0)
    v = (rng.standard_normal((20, 8))[rng.integers(0, 20, 2000)] + 0.05 * rng.standard_normal((2000, 8))).astype(
        np.float32
    )
    q, packed = v[:30], cells.arrange(ops.pack_items(v), size=50)
    bias = rng.standard_normal(2000).astype(np.float32)
    for at in (7, 90):
        bias.setflags(write=False)
        agree(q, packed, 5, bias=bias)
        bias.setflags(write=True)  # an owner can do that
        bias[at] = 50

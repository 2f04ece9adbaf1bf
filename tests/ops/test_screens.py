"""The walk may be wrong by its bound and no more: cases that use the bound up, for every screen."""

import math

import numpy as np
import pytest

from fastrec import ops
from fastrec.errors import ConfigError, DataError
from fastrec.ops import Screen


def agree(q, v, k, **kwargs):
    got = ops.score_topk(q, v, k, backend="cpu", **kwargs)
    want = ops.score_topk(q, v, k, backend="reference", **kwargs)
    np.testing.assert_array_equal(got[1], want[1])
    np.testing.assert_array_equal(got[0], want[0])
    return got


def query_max(level):
    """The largest code of a query at this level."""
    return 63 if level.startswith(("avx2", "avx512-")) else 127


@pytest.mark.parametrize("decoys", [12, 200])
@pytest.mark.parametrize("up", [0.999, 1.001])
def test_float32_sums_that_round_to_one_side(level, decoys, up):
    """Every product is just under (or over) half a last place of the sum so far, and is lost (or doubled)."""
    d, k = 256, 10
    q = np.full((9, d), 2.0**-12, np.float32)
    q[:, 0] = 1
    v = np.zeros((32 * 16, d), np.float32)
    lost = np.arange(0, 160, 16)  # their score is 1 + up * (d - 1) * 2^-24, the walk gives 1, or twice the second
    v[lost] = up * 2.0**-12
    v[lost, 0] = 1
    exact = np.arange(200, 200 + decoys)
    v[exact, 0] = 1 + (0.9 if up < 1 else 1.1) * (d - 1) * 2.0**-24
    rows = agree(q, v, k)[1]
    np.testing.assert_array_equal(rows[0], lost if up < 1 else exact[:k])


@pytest.mark.parametrize("decoys", [12, 200])
def test_errors_of_items_along_the_query(level, decoys):
    """Coordinates just under half a step: int8 sees zeros; and just under half a last place of bfloat16."""
    d, k = 64, 10
    for step, first in ((0.49, 127.0), (1 + 0.49 * 2.0**-7, 1.0)):
        q = np.ones((9, d), np.float32)
        q[:, 0] = 0
        v = np.zeros((40 * 16, d), np.float32)
        hidden = np.arange(0, 160, 16)
        v[hidden], v[hidden, 0] = step, first
        exact = np.arange(304, 304 + decoys)
        rounded = 0.0 if step < 0.5 else 1.0
        v[exact, 1:] = np.float32(rounded + 0.9 * (step - rounded))
        v[exact[::2]] *= np.float32(1 - 2.0**-20)
        rows = agree(q, v, k)[1]
        np.testing.assert_array_equal(rows[0], hidden)
        # Items that int8 holds without an error: nothing but the bound of the others keeps these in.
        v[exact] = 0
        v[exact, 0], v[exact, 1] = 127, 0.9 * (d - 1) * step
        v[exact, 1] = np.minimum(np.rint(v[exact, 1]), 127)
        agree(q, v, k)


def test_errors_of_queries_along_the_items(level):
    d, k = 65, 10
    q = np.full((9, d), 0.49, np.float32)
    q[:, 0] = query_max(level)
    v = np.zeros((40 * 16, d), np.float32)
    hidden = np.arange(0, 160, 16)
    v[hidden, 1:] = 1
    exact = np.arange(304, 504)
    v[exact, 0] = 0.93 * 0.49 * (d - 1) / query_max(level)
    np.testing.assert_array_equal(agree(q, v, k)[1][0], hidden)


def test_items_of_all_lengths(level):
    rng = np.random.default_rng(0)
    v = rng.standard_normal((3000, 24)).astype(np.float32)
    v *= (10.0 ** rng.uniform(-30, 6, (3000, 1))).astype(np.float32)
    v[77] *= 1e8
    v[100:140] = 0
    bias = rng.standard_normal(3000).astype(np.float32)
    q = rng.standard_normal((9, 24)).astype(np.float32)
    q[3] = 0
    for b in (None, bias, bias * np.float32(1e-6)):
        agree(q, v, 40, bias=b)


@pytest.mark.parametrize("scale", [1e-42, 1e-36, 1e-28, 1e-10, 1e10, 1e18])
def test_queries_and_items_of_extreme_size(level, scale):
    rng = np.random.default_rng(1)
    q = (rng.standard_normal((5, 9)) * scale).astype(np.float32)
    v = rng.standard_normal((900, 9)).astype(np.float32)
    agree(q, v, 20)
    agree(q, v * np.float32(min(1 / scale, 1e37)), 20)
    agree(np.float32(rng.standard_normal((5, 9))), v * np.float32(scale), 20)


def test_zero_queries_and_items_longer_than_float32_reaches(level):
    agree(np.zeros((9, 4), np.float32), np.full((300, 4), 2.9e38, np.float32), 3)


def test_equal_items_and_near_ties(level):
    rng = np.random.default_rng(2)
    base = rng.standard_normal((1, 100)).astype(np.float32)
    q = rng.standard_normal((9, 100)).astype(np.float32)
    rows = agree(q, np.repeat(base, 3000, axis=0), 25)[1]
    np.testing.assert_array_equal(rows, np.tile(np.arange(25), (9, 1)))
    v = base + rng.standard_normal((3000, 100)).astype(np.float32) * np.float32(1e-5)
    agree(q, v, 25)


@pytest.mark.parametrize("dims", [1, 2, 3, 4, 5, 7, 8, 9, 31, 33, 130])
def test_every_remainder_of_the_dimensions(level, dims):
    rng = np.random.default_rng(dims)
    for b in range(1, 18, 3):
        agree(
            rng.standard_normal((b, dims)).astype(np.float32),
            rng.standard_normal((500, dims)).astype(np.float32),
            7,
            bias=rng.standard_normal(500).astype(np.float32),
        )


@pytest.mark.parametrize("dtype", ["int8", "bfloat16"])
@pytest.mark.parametrize(("n", "dims"), [(0, 3), (1, 1), (17, 5), (100, 0), (1000, 64)])
def test_codes_and_their_errors(dtype, n, dims):
    rng = np.random.default_rng(n)
    v = (rng.standard_normal((n, dims)) * 10.0 ** rng.uniform(-40, 30, (n, 1))).astype(np.float32)
    packed = ops.pack_items(v, dtype=dtype)
    screen, other = packed.screen, ops.pack_items(v, dtype=dtype, backend="numpy").screen
    assert screen.codes.ctypes.data % 64 == 0 or not screen.codes.size
    np.testing.assert_array_equal(screen.codes, other.codes)
    np.testing.assert_array_equal(screen.scales, other.scales)
    np.testing.assert_allclose(screen.errors, other.errors, rtol=1e-5)
    np.testing.assert_array_equal(packed.rows, v)
    if dtype == "int8":
        codes = screen.codes.astype(np.float64) - 128
    else:
        codes = (screen.codes.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    codes = codes.transpose(0, 2, 1, 3).reshape(len(screen.scales) * 16, math.prod(codes.shape[1::2]))[:n, :dims]
    scales = screen.scales.astype(np.float64).reshape(-1, 1)[:n]
    off = np.linalg.norm(v.astype(np.float64) / scales - codes, axis=1)
    errors = np.repeat(screen.errors, 16, axis=0)[:n]
    assert (off <= errors[:, 0]).all()
    assert (np.linalg.norm(codes, axis=1) <= errors[:, 1]).all()
    longest = np.linalg.norm(v.astype(np.float64), axis=1).max(initial=0)
    half = np.sqrt(dims) / 2 if dtype == "int8" else 2.0**-8 * longest
    assert (off <= half * (1 + 1e-6) + 1e-38).all()


def test_another_screen_of_the_same_rows():
    packed = ops.pack_items(np.ones((40, 6)))
    assert packed.screen.dtype == "bfloat16"
    screened = ops.pack_items(packed, dtype="int8")
    assert screened.screen.dtype == "int8"
    assert screened.rows is packed.rows
    assert ops.pack_items(screened, dtype="int8") is screened
    assert ops.pack_items(screened, dtype="bfloat16").screen.dtype == "bfloat16"


def test_wrong_screens():
    with pytest.raises(ConfigError, match=r"\[pack_items\] dtype is 'int4', expected one of"):
        ops.pack_items(np.ones((4, 4)), dtype="int4")
    screen = ops.pack_items(np.ones((40, 6)), dtype="int8").screen
    with pytest.raises(DataError, match="int8 codes uint16"):
        Screen("int8", screen.codes.astype(np.uint16), screen.scales, screen.errors)
    with pytest.raises(DataError, match="dtype of a screen is 'fp4'"):
        Screen("fp4", screen.codes, screen.scales, screen.errors)
    with pytest.raises(DataError, match="int8 codes uint8"):
        Screen("int8", screen.codes, screen.scales, screen.errors * np.float32(np.nan))


def test_bad_values_are_found_at_packing():
    items = np.ones((50, 3))
    items[44, 1] = np.nan
    with pytest.raises(DataError, match=r"items row 44 holds nan at column 1"):
        ops.pack_items(items, dtype="int8")

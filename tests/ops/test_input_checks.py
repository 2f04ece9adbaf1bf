"""The one native pass over inputs against the same checks in numpy, which find the words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrec import _native
from fastrec.errors import DataError
from fastrec.ops import _arrays, _sparse

pytestmark = pytest.mark.skipif(_native._C is None, reason="the native module is not built")


def outcome(indptr, rows, n_rows, n_cols):
    try:
        return [np.asarray(x).tolist() for x in _sparse._check_structure("op", "seen", indptr, rows, n_rows, n_cols)]
    except DataError as error:
        return str(error)


@given(
    st.lists(st.lists(st.integers(-1, 6), max_size=5), max_size=6),
    st.integers(0, 7),
    st.sampled_from(["good", "first", "last", "falls", "short", "int32"]),
    st.booleans(),
)
def test_lists_are_judged_alike(lists, n_cols, fault, ordered):
    lists = [sorted(x) for x in lists] if ordered else lists
    indptr = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    rows = np.array([row for x in lists for row in x], np.int32)
    if fault == "first":
        indptr[0] = 1
    elif fault == "last":
        indptr[-1] += 1
    elif fault == "falls" and len(indptr) > 2:
        indptr[1] = indptr[-1] + 1
    elif fault == "int32":
        indptr = indptr.astype(np.int32)
    n_rows = len(lists) + (fault == "short")
    got = outcome(indptr, rows, n_rows, n_cols)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_sparse, "_known_order", lambda *_: 0)
        assert got == outcome(indptr, rows, n_rows, n_cols)


@pytest.mark.parametrize("shape", [(0, 3), (1, 0), (3, 1), (5, 7), (4, 8), (2, 131)])
def test_lengths(shape):
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    got, largest = _arrays.scaled_lengths("op", "queries", values, 3.0)
    want = 3.0 * np.linalg.norm(values.astype(np.float64), axis=1)
    np.testing.assert_allclose(got, want, rtol=1e-14)
    assert largest == got.max(initial=0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 4])
def test_lengths_name_the_row_that_is_not_finite(bad, row):
    values = np.full((5, 9), 3e38, np.float32)
    assert np.isfinite(_arrays.scaled_lengths("op", "queries", values, 1.0)[1])
    values[row, 8] = bad
    with pytest.raises(DataError, match=rf"queries row {row} holds {bad} at column 8"):
        _arrays.scaled_lengths("op", "queries", values, 1.0)


def test_addresses():
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert _native.ptr(values, np.float32) == values.ctypes.data
    assert _native.ptr(None, np.float32) == 0
    other = np.arange(3, dtype=np.longlong)  # the same as int64, under another number
    assert _native.ptr(other, np.int64) == other.ctypes.data
    for wrong in (values[:, :2], values.T, values.astype(np.float64), values.astype(">f4")):
        with pytest.raises(AssertionError, match="expected contiguous float32"):
            _native.ptr(wrong, np.float32)

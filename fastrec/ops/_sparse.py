"""The front door for compressed sparse rows: lists of rows per user, and matrices with values."""

import sys
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastrec import _native
from fastrec.errors import DataError
from fastrec.ops._arrays import as_float_vector, to_numpy
from fastrec.types import F32, I32, I64, Csr


@dataclass(frozen=True, eq=False)
class Lists:
    """Rows per user: indptr int64 [B+1], rows int32 [nnz]."""

    indptr: I64
    rows: I32

    def of(self, u: int) -> I32:
        return self.rows[self.indptr[u] : self.indptr[u + 1]]


@dataclass(frozen=True, eq=False)
class Matrix:
    """A checked sparse matrix [R, n_cols].

    largest: the largest absolute value in it
    repeats: the most entries of one column in one row, where the columns ascend
    """

    indptr: I64
    rows: I32
    values: F32
    n_cols: int
    largest: float
    repeats: int


#: Matrices checked before. A Csr is frozen, so one that was good stays good; a similarity matrix has millions
#: of entries, and checking it at every call would cost more than the search.
_checked: "weakref.WeakKeyDictionary[Csr, Matrix]" = weakref.WeakKeyDictionary()


def addresses(lists: "Lists | Matrix | None") -> tuple[int, int, int]:
    """(indptr, rows, values) as the native module takes them; zeros for None."""
    if lists is None:
        return (0, 0, 0)
    values = lists.values if isinstance(lists, Matrix) else None
    return (
        _native.ptr(lists.indptr, np.int64),
        _native.ptr(lists.rows, np.int32),
        _native.ptr(values, np.float32),
    )


def _is_scipy(x: object) -> bool:
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and bool(sparse.issparse(x))


def _parts(where: str, name: str, x: Any, n_rows: int | None, n_cols: int, backend: str) -> tuple[Any, Any, Any]:
    """(indptr, indices, values or None) of a Csr, a scipy CSR or a tuple."""
    if isinstance(x, Csr):
        shape: tuple[int, int] = (x.n_rows, x.n_cols)
        parts = (x.indptr, x.indices, x.values)
    elif _is_scipy(x):
        if x.format != "csr":
            raise DataError(f"[{where}] {name} is a scipy {x.format} matrix, expected csr; call .tocsr()")
        shape = x.shape
        parts = (x.indptr, x.indices, x.data)
    elif isinstance(x, tuple) and len(x) in (2, 3):
        values = x[2] if len(x) == 3 else None
        indptr = to_numpy(where, f"{name} indptr", x[0], backend)
        indices = to_numpy(where, f"{name} rows", x[1], backend)
        return indptr, indices, values
    else:
        what = f"a tuple of {len(x)}" if isinstance(x, tuple) else type(x).__name__
        raise DataError(f"[{where}] {name} is {what}, expected (indptr, rows), a Csr or a scipy CSR")
    want = shape[0] if n_rows is None else n_rows
    if shape != (want, n_cols):
        raise DataError(f"[{where}] {name} has shape {shape}, expected ({want}, {n_cols})")
    return parts


#: What is known of the order of the rows in each segment, as in csrc/ops.h.
_BROKEN, _UNORDERED, _ASCENDING, _STRICT = range(4)


def _check_structure(
    where: str, name: str, indptr: npt.NDArray[Any], rows: npt.NDArray[Any], n_rows: int | None, n_cols: int
) -> tuple[I64, I32, int]:
    """The two arrays as contiguous int64 and int32, and the order of the rows; or DataError."""
    order = _known_order(where, indptr, rows, n_rows, n_cols)
    if order != _BROKEN:
        return indptr, rows, order
    indptr, rows = _checked_slowly(where, name, indptr, rows, n_rows, n_cols)
    if not _ascends(indptr, rows, strictly=False):
        return indptr, rows, _UNORDERED
    return indptr, rows, _STRICT if _ascends(indptr, rows, strictly=True) else _ASCENDING


def _known_order(where: str, indptr: npt.NDArray[Any], rows: npt.NDArray[Any], n_rows: int | None, n_cols: int) -> int:
    """The order of good arrays of the right types, by one native pass; _BROKEN: look closer."""
    if _native.missing_cpu() is not None or indptr.dtype != np.int64 or rows.dtype != np.int32:
        return _BROKEN
    flat = indptr.ndim == 1 and rows.ndim == 1 and indptr.flags.c_contiguous and rows.flags.c_contiguous
    if not flat or not len(indptr) or (n_rows is not None and len(indptr) != n_rows + 1):
        return _BROKEN
    addresses = _native.ptr(indptr, np.int64), _native.ptr(rows, np.int32)
    order: int = _native.module(where).check_lists(addresses[0], len(indptr) - 1, addresses[1], len(rows), n_cols)
    return order


def _checked_slowly(
    where: str, name: str, indptr: npt.NDArray[Any], rows: npt.NDArray[Any], n_rows: int | None, n_cols: int
) -> tuple[I64, I32]:
    """The two arrays as contiguous int64 and int32, or DataError for what is wrong with them."""
    for part, array in (("indptr", indptr), ("rows", rows)):
        if array.ndim != 1:
            raise DataError(f"[{where}] {name} {part} has shape {array.shape}, expected one dimension")
        if array.dtype.kind not in "iu" and len(array):
            raise DataError(f"[{where}] {name} {part} has dtype {array.dtype}, expected integers")
    if not len(indptr) or (n_rows is not None and len(indptr) != n_rows + 1):
        expected = "at least 1" if n_rows is None else n_rows + 1
        raise DataError(f"[{where}] {name} indptr has length {len(indptr)}, expected {expected}")
    indptr = np.ascontiguousarray(indptr, np.int64)
    if indptr[0] != 0 or indptr[-1] != len(rows):
        raise DataError(
            f"[{where}] {name} indptr goes from {indptr[0]} to {indptr[-1]}, expected from 0 to {len(rows)}"
        )
    falls = indptr[1:] < indptr[:-1]
    if falls.any():
        at = int(falls.argmax())
        raise DataError(f"[{where}] {name} indptr falls at row {at}, expected it never to", column=name, row=at)
    if len(rows) and (rows.min() < 0 or rows.max() >= n_cols):
        at = int(((rows < 0) | (rows >= n_cols)).argmax())
        owner = int(np.searchsorted(indptr, at, side="right")) - 1
        raise DataError(
            f"[{where}] {name} row {owner} holds {rows[at]}, expected values in [0, {n_cols})",
            column=name,
            row=owner,
        )
    return indptr, np.ascontiguousarray(rows, np.int32)


def _ascends(indptr: I64, rows: I32, strictly: bool) -> bool:
    """Whether the rows of every segment ascend."""
    if len(rows) < 2:
        return True
    falls = rows[1:] <= rows[:-1] if strictly else rows[1:] < rows[:-1]
    inner = indptr[1:-1]
    falls[inner[(inner > 0) & (inner < len(rows))] - 1] = False
    return not falls.any()


def _repeats(indptr: I64, rows: I32) -> int:
    """The most entries of one column in one row, of columns that ascend."""
    if _ascends(indptr, rows, strictly=True):
        return 1
    new = np.ones(len(rows) + 1, bool)
    new[1:-1] = rows[1:] != rows[:-1]
    new[indptr] = True
    return int(np.diff(np.flatnonzero(new)).max())


def owners(indptr: I64) -> I64:
    """The segment of every entry, int64 [nnz]."""
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))


def as_lists(
    where: str, name: str, x: Any, n_rows: int, n_cols: int, backend: str = "auto", *, ordered: bool = True
) -> Lists:
    """Rows per user; with ``ordered`` ascending and without repeats. Stored values do not matter."""
    indptr, rows, _ = _parts(where, name, x, n_rows, n_cols, backend)
    indptr, rows, order = _check_structure(where, name, indptr, rows, n_rows, n_cols)
    if ordered and order != _STRICT:
        users = owners(indptr)
        sorting = np.lexsort((rows, users))
        users, rows = users[sorting], rows[sorting]
        first = np.ones(len(rows), bool)
        first[1:] = (rows[1:] != rows[:-1]) | (users[1:] != users[:-1])
        rows = rows[first]
        counts = np.bincount(users[first], minlength=n_rows)
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Lists(indptr, rows)


def as_matrix(
    where: str,
    name: str,
    x: Any,
    n_rows: int | None,
    n_cols: int,
    backend: str = "auto",
    *,
    ordered: bool,
    keep: bool = False,
) -> Matrix:
    """A matrix with finite values; with ``ordered`` columns ascend (repeats stay in their order).

    keep: remember the result for this Csr
    """
    known = _checked.get(x) if keep and isinstance(x, Csr) else None
    if known is not None and (n_rows is None or len(known.indptr) == n_rows + 1) and known.n_cols == n_cols:
        return known
    indptr, rows, values = _parts(where, name, x, n_rows, n_cols, backend)
    indptr, rows, order = _check_structure(where, name, indptr, rows, n_rows, n_cols)
    if values is None:
        raise DataError(f"[{where}] {name} has no values, expected (indptr, rows, values) or a Csr with values")
    values = as_float_vector(where, f"{name} values", values, len(rows), backend)
    largest = float(max(values.max(), -values.min())) if len(values) else 0.0  # NaN comes through
    if not np.isfinite(largest):
        at = int(np.argmin(np.isfinite(values)))
        owner = int(np.searchsorted(indptr, at, side="right")) - 1
        raise DataError(
            f"[{where}] {name} row {owner} holds {values[at]}, expected finite values", column=name, row=owner
        )
    if ordered and order == _UNORDERED:
        sorting = np.lexsort((rows, owners(indptr)))  # stable
        rows, values = rows[sorting], values[sorting]
    repeats = _repeats(indptr, rows) if ordered and order != _STRICT else 1
    matrix = Matrix(indptr, rows, values, n_cols, largest, repeats)
    if keep and isinstance(x, Csr):
        _checked[x] = matrix
    return matrix

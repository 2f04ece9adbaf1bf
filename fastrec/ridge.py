"""Many small ridge regressions over the rows of one matrix, by conjugate gradients: the work of ALS.

    (gram + sum_j extra_j y_j y_j') x = sum_j right_j y_j        for the rows j that each user or item has

Source of the solver: Hestenes and Stiefel 1952; of its use with few steps, Takacs, Pilaszy and Tikk 2011.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fastrec import _native, config
from fastrec.ops import _arrays
from fastrec.types import F32, I32

#: Systems of one task of a thread: enough to keep the interpreter out of the way.
_TASK = 256
#: A residual this small beside the right side ends a row.
_TOLERANCE = 1e-5
#: A right side whose squared length is below this is nothing: its squares would be lost among denormal numbers.
_NOTHING = 1e-24
_LARGEST = np.finfo(np.float32).max
#: What numba may do to sums; NaN stays what it is.
_MATH = {"reassoc", "contract", "nsz"}


def solve(
    x: F32,
    others: F32,
    gram: F32,
    indptr: npt.NDArray[Any],
    indices: I32,
    right: F32 | None,
    extra: F32,
    steps: int,
) -> None:
    """Improve x [R, D] in place by at most ``steps`` steps for each row; rows without entries become 0.

    x, others: float32 [R, D] and [N, D], contiguous; gram: float32 [D, D], positive definite
    indptr [R + 1], indices int32 [nnz], right and extra float32 [nnz]: the entries of each row; no right: 1 + extra
    Every row is solved by itself in one order, so that batches and threads change no bit. Without the native module
    numba compiles the same loops.
    """
    gram = np.ascontiguousarray(gram, np.float32)
    if not x.flags.writeable:
        raise AssertionError("x is read-only")
    if _native.missing_cpu() is None:
        _solve(x, others, gram, indptr, indices, right, extra, steps)
        return
    run = _kernel()
    right = 1 + extra if right is None else right

    def task(first: int) -> None:
        run(x, others, gram, indptr, indices, right, extra, first, min(first + _TASK, len(x)), steps)

    if len(x) <= _TASK:
        task(0)
        return
    with ThreadPoolExecutor(config.threads()) as pool:
        list(pool.map(task, range(0, len(x), _TASK)))


def _solve(
    x: F32, others: F32, gram: F32, indptr: npt.NDArray[Any], indices: I32, right: F32 | None, extra: F32, steps: int
) -> None:
    """The native solver, csrc/ridge_kernel.h."""
    indptr, indices = np.ascontiguousarray(indptr, np.int64), np.ascontiguousarray(indices, np.int32)
    others = np.ascontiguousarray(others, np.float32)
    _native.module("ridge").ridge_solve(
        x=_native.ptr(x, np.float32),
        others=_native.ptr(others, np.float32),
        gram=_native.ptr(gram, np.float32),
        indptr=_native.ptr(indptr, np.int64),
        indices=_native.ptr(indices, np.int32),
        right=_native.ptr(right, np.float32),
        extra=_native.ptr(extra, np.float32),
        n_rows=len(x),
        dims=x.shape[1],
        steps=steps,
        threads=config.threads(),
        simd=_arrays.simd("ridge"),
    )


@cache
def _kernel() -> Any:
    """The compiled solver; numba is imported with the first call, not with the package."""
    import numba

    @numba.njit(nogil=True, fastmath=_MATH, cache=True, error_model="numpy")
    def product(x, others, gram, indices, extra, out):  # type: ignore[no-untyped-def]  # pragma: no cover
        """out = (gram + sum_j extra_j y_j y_j') x"""
        for f in range(len(x)):
            s = np.float32(0)
            for g in range(len(x)):
                s += gram[f, g] * x[g]
            out[f] = s
        for e in range(len(indices)):
            y = others[indices[e]]
            s = np.float32(0)
            for f in range(len(x)):
                s += y[f] * x[f]
            s *= extra[e]
            for f in range(len(x)):
                out[f] += s * y[f]

    @numba.njit(nogil=True, fastmath=_MATH, cache=True, error_model="numpy")
    def run(  # type: ignore[no-untyped-def]  # pragma: no cover
        rows, others, gram, indptr, indices, right, extra, first, last, steps
    ):
        d = rows.shape[1]
        b, r, p, ap = (
            np.empty(d, np.float32),
            np.empty(d, np.float32),
            np.empty(d, np.float32),
            np.empty(d, np.float32),
        )
        for u in range(first, last):
            begin, end = indptr[u], indptr[u + 1]
            x, mine, mine_extra = rows[u], indices[begin:end], extra[begin:end]
            b[:] = 0
            for e in range(begin, end):
                y = others[indices[e]]
                for f in range(d):
                    b[f] += right[e] * y[f]
            bb = np.float32(0)
            for f in range(d):
                bb += b[f] * b[f]
            if bb < _NOTHING:
                x[:] = 0
                continue
            product(x, others, gram, mine, mine_extra, ap)
            rr = np.float32(0)
            for f in range(d):
                r[f] = b[f] - ap[f]
                p[f] = r[f]
                rr += r[f] * r[f]
            for _ in range(steps):
                if rr <= _TOLERANCE * _TOLERANCE * bb:
                    break
                product(p, others, gram, mine, mine_extra, ap)
                pap = np.float32(0)
                for f in range(d):
                    pap += p[f] * ap[f]
                a = rr / pap
                if not (a > 0 and a < _LARGEST):  # float32 gives no more
                    break
                after = np.float32(0)
                for f in range(d):
                    x[f] += a * p[f]
                    r[f] -= a * ap[f]
                    after += r[f] * r[f]
                beta = after / rr
                for f in range(d):
                    p[f] = r[f] + beta * p[f]
                rr = after

    return run

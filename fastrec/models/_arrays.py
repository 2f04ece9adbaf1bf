"""``als`` and ``item_item`` on arrays of any library that keeps the array API standard: CuPy on a GPU, NumPy in tests.

Only functions of the standard (2023.12) are used that CuPy has under the same name, and no sparse matrix: histories
become padded blocks, which is what a GPU wants. What a host does faster (sorting events, filling blocks) is done there.
CuPy itself has never run this code: the machines of the project have no GPU that it could use.
"""

from typing import Any

import numpy as np
import scipy.sparse as sp

from fastrec.errors import BackendUnavailable
from fastrec.types import F32

#: Numbers of a padded block, at most.
_CELLS = 64_000_000
#: A residual this small beside the right side ends a row, as in ``fastrec.ridge``.
_TOLERANCE = 1e-5
#: Users whose histories are one dense block of a product.
_USERS = 2048

Array = Any


def cupy(model: str) -> Any:
    """The namespace of CuPy; BackendUnavailable where it is missing or sees no device."""
    remedy = "device='cpu', or pip install 'fastrec-engine[gpu]' and an NVIDIA driver"
    try:
        import cupy as xp
    except ImportError as error:
        raise BackendUnavailable(model, "cuda", f"CuPy cannot be imported ({error})", remedy) from error
    try:
        devices = xp.cuda.runtime.getDeviceCount()
    except Exception as error:
        raise BackendUnavailable(model, "cuda", f"CuPy finds no driver ({error})", remedy) from error
    if not devices:
        raise BackendUnavailable(model, "cuda", "CuPy sees no CUDA device", remedy)
    return xp


def host(array: Array) -> Any:
    """The array as NumPy's."""
    return array.get() if hasattr(array, "get") else np.from_dlpack(array) if _foreign(array) else array


def _foreign(array: Array) -> bool:
    return not isinstance(array, np.ndarray)


def als(
    xp: Any, extra: "sp.csr_matrix", users: F32, items: F32, regularization: float, iterations: int, steps: int
) -> F32:
    """The item factors after ``iterations`` rounds, float32 [N, D].

    extra: [U, N], confidence of every event beyond 1; users, items: the first factors
    """
    by_item = extra.T.tocsr()
    x, y = xp.asarray(users), xp.asarray(items)
    ridge = xp.asarray(np.eye(users.shape[1], dtype=np.float32) * np.float32(regularization))
    plans = [_Plan(xp, m, users.shape[1]) for m in (extra, by_item)]
    for _ in range(iterations):
        x = plans[0].solve(x, y, xp.matmul(y.T, y) + ridge, steps)
        y = plans[1].solve(y, x, xp.matmul(x.T, x) + ridge, steps)
    return np.ascontiguousarray(host(y), np.float32)


class _Plan:
    """The rows of a sparse matrix by their length, in blocks that are filled up to their longest."""

    def __init__(self, xp: Any, matrix: "sp.csr_matrix", width: int) -> None:
        self.xp = xp
        lengths = np.diff(matrix.indptr)
        order = np.argsort(-lengths, kind="stable")
        self.order = xp.asarray(order)
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        self.back = xp.asarray(back)
        self.blocks: list[tuple[int, int, Array, Array]] = []  # first, last, indices [R, L], confidences [R, L]
        first = 0
        while first < len(order):
            longest = max(int(lengths[order[first]]), 1)
            last = min(len(order), first + max(1, _CELLS // (longest * width)))
            rows = order[first:last]
            at = matrix.indptr[rows][:, None] + np.arange(longest)
            there = np.arange(longest) < lengths[rows][:, None]
            at = np.where(there, at, 0)
            indices = np.where(there, matrix.indices[at], 0) if matrix.nnz else np.zeros(at.shape)
            data = np.where(there, matrix.data[at], 0) if matrix.nnz else np.zeros(at.shape)
            pair = xp.asarray(indices.astype(np.int64)), xp.asarray(data.astype(np.float32))
            self.blocks.append((first, last, *pair))
            first = last

    def solve(self, x: Array, others: Array, gram: Array, steps: int) -> Array:
        """As ``ridge.solve`` with 1 + confidence on the right side; rows without entries become 0."""
        xp = self.xp
        x = xp.take(x, self.order, axis=0)
        out = xp.zeros_like(x)
        for first, last, indices, extra in self.blocks:
            shape = (last - first, indices.shape[1], x.shape[1])
            near = xp.reshape(xp.take(others, xp.reshape(indices, (-1,)), axis=0), shape)
            there = xp.asarray(extra > 0, dtype=extra.dtype)
            out[first:last, :] = _descend(xp, x[first:last, :], near, there + extra, extra, gram, steps)
        return xp.take(out, self.back, axis=0)


def _descend(xp: Any, x: Array, near: Array, right: Array, extra: Array, gram: Array, steps: int) -> Array:
    """Conjugate gradients for R systems at once; near: [R, L, D], right, extra: [R, L]."""
    R, L, D = near.shape

    def weighted(w: Array) -> Array:
        return xp.reshape(xp.matmul(xp.reshape(w, (R, 1, L)), near), (R, D))

    def product(v: Array) -> Array:
        inner = xp.reshape(xp.matmul(near, xp.reshape(v, (R, D, 1))), (R, L))
        return xp.matmul(v, gram) + weighted(extra * inner)

    def dot(a: Array, b: Array) -> Array:
        return xp.sum(a * b, axis=1, keepdims=True)

    b = weighted(right)
    bb = dot(b, b)
    zero, one = xp.zeros_like(bb), xp.ones_like(bb)
    r = b - product(x)
    p, rr = r, dot(r, r)
    for _ in range(steps):
        going = rr > _TOLERANCE * _TOLERANCE * bb
        ap = product(p)
        pap = dot(p, ap)
        a = xp.where(going, rr / xp.where(pap > 0, pap, one), zero)
        x, r = x + a * p, r - a * ap
        after = dot(r, r)
        p = r + xp.where(going, after / xp.where(rr > 0, rr, one), zero) * p
        rr = after
    return xp.where(bb > 0, x, xp.zeros_like(x))


def likenesses(xp: Any, weighted: "sp.csr_matrix", first: int, last: int) -> F32:
    """Rows ``first`` to before ``last`` of weighted' weighted, float32 [last - first, N]."""
    total = xp.zeros((last - first, weighted.shape[1]), dtype=xp.float32)
    for start in range(0, weighted.shape[0], _USERS):
        block = weighted[start : start + _USERS]
        if not block.nnz:
            continue
        dense = xp.asarray(block.toarray().astype(np.float32))
        total = total + xp.matmul(dense[:, first:last].T, dense)
    return np.asarray(host(total), np.float32)

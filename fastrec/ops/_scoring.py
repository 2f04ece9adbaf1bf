"""What score_topk and score_pairs share: the definition of a score, and the check of its inputs.

    score(u, i) = float32( dense + sparse + bias ),  all sums in float64 and in this order:

    dense   sum over d = 0 .. D-1 of q[u, d] * v[i, d]; the product of two float32 is exact in float64
    sparse  sum over the entries j of the history, in their order, of a[u, j] * S[j, i]
    bias    b[i]

A score of -0.0 counts, and is returned, as 0.0. As every step is fixed, every backend, instruction set, batch
size and number of threads gives the same bits.
"""

import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrec.errors import DataError
from fastrec.ops._arrays import (
    LARGEST_SCORE,
    as_float_matrix,
    as_float_vector,
    is_frozen,
    scaled_lengths,
)
from fastrec.ops._sparse import Matrix, as_matrix, owners
from fastrec.ops.pack_items import PackedItems, pack
from fastrec.types import F32, F64, I32


@dataclass(frozen=True, eq=False)
class Scoring:
    """Checked inputs: B users against N items.

    queries: float32 [B, D]
    items: packed [N, D]
    bias: float32 [N] or None, without NaN and +inf; -inf: the item can never be returned
    history, similarity: [B, M] and [M, N], both None or neither
    dense_bound, init_bound: float64 [B], at least |dense| and the sum of |sparse terms| and |bias| of every finite item
    """

    queries: F32
    items: PackedItems
    bias: F32 | None
    history: Matrix | None
    similarity: Matrix | None
    dense_bound: F64
    init_bound: F64


def scoring(where: str, queries: Any, items: Any, bias: Any, sparse: Any, backend: str, threads: int | None) -> Scoring:
    """The inputs checked, or DataError naming ``where``, the argument and the row."""
    packed = pack(where, "items", items, backend, threads)
    n = packed.n_items
    q = as_float_matrix(where, "queries", queries, backend, packed.dims)
    dense_bound, largest = scaled_lengths(where, "queries", q, (1 + 1e-9) * packed.max_norm)
    b, largest_bias = (None, 0.0) if bias is None else check_bias(where, bias, n, backend)
    history, similarity = (None, None) if sparse is None else check_sparse(where, sparse, len(q), n, backend)
    init_bound = init_bounds(len(q), largest_bias, history, similarity)
    started = b is not None or history is not None
    if largest + (init_bound.max(initial=0.0) if started else 0.0) > LARGEST_SCORE:  # perhaps of two users
        _check_total(where, dense_bound + init_bound)
    return Scoring(q, packed, b, history, similarity, dense_bound, init_bound)


def _check_total(where: str, total: F64) -> None:
    row = int(total.argmax())
    if total[row] > LARGEST_SCORE:
        raise DataError(
            f"[{where}] scores of queries row {row} may reach {total[row]:.3g}, beyond float32; "
            f"expected |query| * |item| + |sparse| + |bias| below {LARGEST_SCORE:.0e}",
            column="queries",
            row=row,
        )


def init_bounds(n_users: int, largest_bias: float, history: Matrix | None, similarity: Matrix | None) -> F64:
    """float64 [B]: at least the sum of |sparse terms| and |bias| of every finite item."""
    init_bound = np.full(n_users, largest_bias)
    if history is not None and similarity is not None:
        absolute = np.bincount(owners(history.indptr), np.abs(history.values), n_users)
        init_bound += absolute * ((1 + 1e-9) * similarity.largest * similarity.repeats)
    return init_bound


#: By id, what was found of a bias that nobody can write to: looking at all items costs more than a search among few.
_biases: dict[int, tuple["weakref.ref[F32]", float]] = {}


def check_bias(where: str, bias: Any, n: int, backend: str) -> tuple[F32, float]:
    """float32 [N] without NaN and +inf, and the largest |bias| of the finite ones; or DataError."""
    b = as_float_vector(where, "bias", bias, n, backend)
    known = _biases.get(id(b))
    if known is not None and known[0]() is b and is_frozen(b):
        return b, known[1]
    if n and not b.max() < np.inf:  # NaN is not, either
        row = int((~(b < np.inf)).argmax())
        raise DataError(
            f"[{where}] bias row {row} is {b[row]}, expected finite numbers or -inf", column="bias", row=row
        )
    largest = max(0.0, float(b.max(initial=-np.inf)), -float(b.min(initial=0.0, where=np.isfinite(b))))
    if is_frozen(b):
        key = id(b)
        _biases[key] = weakref.ref(b, lambda _: _biases.pop(key, None)), largest
    return b, largest


def check_sparse(where: str, sparse: Any, n_users: int, n_items: int, backend: str) -> tuple[Matrix, Matrix]:
    """(history [B, M], similarity [M, N]), or DataError."""
    if not isinstance(sparse, tuple) or len(sparse) != 2:
        raise DataError(f"[{where}] sparse is {type(sparse).__name__}, expected (history, similarity)")
    similarity = as_matrix(where, "similarity", sparse[1], None, n_items, backend, ordered=True, keep=True)
    n_rows = len(similarity.indptr) - 1
    return as_matrix(where, "history", sparse[0], n_users, n_rows, backend, ordered=False), similarity


def reference_scores(s: Scoring, u: int) -> F32:
    """The scores of user u for all items, by the definition, float32 [N]."""
    items = s.items.rows.astype(np.float64)
    dense = np.zeros(len(items))
    for d in range(s.items.dims):
        dense += float(s.queries[u, d]) * items[:, d]
    return finish(s, u, dense)


def finish(s: Scoring, u: int, dense: F64) -> F32:
    """float32(dense + sparse + bias) for user u, float32 [N]."""
    total = dense
    if s.history is not None and s.similarity is not None:
        sparse = np.zeros(len(dense))
        for h in range(s.history.indptr[u], s.history.indptr[u + 1]):
            j = s.history.rows[h]
            span = slice(s.similarity.indptr[j], s.similarity.indptr[j + 1])
            terms = float(s.history.values[h]) * s.similarity.values[span].astype(np.float64)
            np.add.at(sparse, s.similarity.rows[span], terms)
        total = total + sparse
    if s.bias is not None:
        total = total + s.bias.astype(np.float64)
    return total.astype(np.float32) + np.float32(0.0)


def numba_dense(query: F32, items: F32, out: F64) -> None:
    """out [N]: <query, item> in float64 and in order of d, 16 items side by side; compiled by numba."""
    n, dims = items.shape
    for first in range(0, n, 16):
        last = min(first + 16, n)
        for i in range(first, last):
            out[i] = 0.0
        for d in range(dims):
            q = np.float64(query[d])
            for i in range(first, last):
                out[i] += q * np.float64(items[i, d])


def numba_pairs(query: F32, items: F32, rows: I32, out: F64) -> None:
    """out [n]: the same for listed rows."""
    for i in range(len(rows)):
        total = 0.0
        for d in range(items.shape[1]):
            total += np.float64(query[d]) * np.float64(items[rows[i], d])
        out[i] = total

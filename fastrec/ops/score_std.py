"""score_std: how widely a dense source's scores spread over the catalogue, without computing them.

Over the items, the scores <q, v> have variance q' Cov(v) q.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrec import _native, config
from fastrec.errors import DataError
from fastrec.ops import _arrays
from fastrec.ops._op import Backend, Op
from fastrec.types import F32, F64


@dataclass(frozen=True, eq=False)
class Problem:
    """What every backend takes: queries [B, D], covariance [D, D]."""

    queries: F32
    covariance: F64


def score_std(queries: Any, covariance: Any, *, backend: str = "auto", threads: int | None = None) -> Any:
    """sqrt(max(0, q' C q)) per query, float64 [B].

    queries: [B, D], numpy or torch; the result is of the same kind
    covariance: float64 [D, D]
    The bits of a user do not depend on the batch. Raises DataError for wrong shapes and dtypes, NaN and inf.
    """
    where = "score_std"
    run = OP.choose(backend)
    n_threads = config.threads(threads)
    q = _arrays.as_float_matrix(where, "queries", queries, backend)
    _arrays.check_rows_finite(where, "queries", q, _arrays.squared_norms(q))
    c = _arrays.to_numpy(where, "covariance", covariance, backend)
    dims = q.shape[1]
    if c.shape != (dims, dims) or c.dtype.kind not in "fiu":
        raise DataError(f"[{where}] covariance is {c.dtype} {c.shape}, expected float64 ({dims}, {dims})")
    c = np.ascontiguousarray(c, np.float64)
    # q is at most 3.4e38 in size, so that a covariance below 1e200 keeps every sum finite.
    wild = ~(np.abs(c) < 1e200)
    if wild.any():
        row, column = np.unravel_index(int(wild.argmax()), c.shape)
        raise DataError(
            f"[{where}] covariance row {row} holds {c[row, column]} at column {column}, expected numbers "
            f"below 1e200 in size",
            column="covariance",
            row=int(row),
        )
    return _arrays.like(queries, run(Problem(q, c), n_threads))


def score_std_reference(problem: Problem, threads: int = 1) -> F64:
    """The definition: row by row of C, then one coordinate after the other."""
    out = np.zeros(len(problem.queries))
    for u, query in enumerate(problem.queries.astype(np.float64)):
        products = np.zeros(len(query))
        for i in range(len(query)):
            products += query[i] * problem.covariance[i]
        variance = np.cumsum(products * query)[-1] if len(query) else 0.0
        out[u] = np.sqrt(max(0.0, variance))
    return out


def _numba_kernel(queries: F32, covariance: F64, first: int, last: int, out: F64) -> None:
    dims = queries.shape[1]
    products = np.zeros(dims)
    for u in range(first, last):
        products[:] = 0.0
        for i in range(dims):
            q = np.float64(queries[u, i])
            for j in range(dims):
                products[j] += q * covariance[i, j]
        variance = 0.0
        for j in range(dims):
            variance += products[j] * np.float64(queries[u, j])
        out[u] = np.sqrt(variance) if variance > 0.0 else 0.0


def _numba(problem: Problem, threads: int) -> F64:
    out = _arrays.empty(len(problem.queries), np.float64)
    run = _arrays.jit(_numba_kernel)
    _arrays.over_blocks(
        len(out), 64, threads, lambda first, last: run(problem.queries, problem.covariance, first, last, out)
    )
    return out


def _cpu(problem: Problem, threads: int) -> F64:
    out = _arrays.empty(len(problem.queries), np.float64)
    _native.module("score_std").score_std(
        queries=_native.ptr(problem.queries, np.float32),
        B=len(out),
        dims=problem.queries.shape[1],
        covariance=_native.ptr(problem.covariance, np.float64),
        threads=threads,
        out=_native.ptr(out, np.float64),
    )
    return out


OP = Op(
    "score_std",
    reference=score_std_reference,
    backends={
        "cpu": Backend(_cpu, "cpu", _native.missing_cpu),
        "numba": Backend(_numba, "cpu", _arrays.missing_numba),
    },
    cases=[{"B": b, "D": d} for b, d in [(0, 3), (1, 1), (3, 0), (5, 17), (33, 63), (130, 16)]],
)

__all__ = ["score_std"]

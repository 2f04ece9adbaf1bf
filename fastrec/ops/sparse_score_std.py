"""sparse_score_std: how widely a sparse source's scores spread over the catalogue."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrec import _native, config
from fastrec.errors import DataError
from fastrec.ops import _arrays
from fastrec.ops._op import Backend, Op
from fastrec.ops._sparse import Matrix, addresses, as_matrix
from fastrec.types import F32, F64, I32, I64


@dataclass(frozen=True, eq=False)
class Problem:
    """What every backend takes: history [B, M], similarity [M, N]."""

    history: Matrix
    similarity: Matrix


def sparse_score_std(
    history: Any,
    similarity: Any,
    *,
    n_items: int | None = None,
    backend: str = "auto",
    threads: int | None = None,
) -> F64:
    """Standard deviation over all N items of sum_j history[u, j] * similarity[j, i], float64 [B].

    history: [B, M], similarity: [M, N]; each a types.Csr, a scipy CSR or (indptr, indices, values)
    n_items: N, needed where the similarity is a tuple, which does not tell it

    It is that of the population. Only touched items are visited; the sums go over them in ascending order, in
    float64, so that the bits of a user do not depend on the batch. Raises DataError for wrong shapes and
    dtypes, rows out of range, NaN and inf.
    """
    where = "sparse_score_std"
    run = OP.choose(backend)
    n_threads = config.threads(threads)
    columns = getattr(similarity, "n_cols", None)
    if columns is None and hasattr(similarity, "indptr"):
        columns = similarity.shape[1]
    if columns is None:
        columns = n_items
    if columns is None:
        raise DataError(f"[{where}] similarity is a tuple without a number of columns, expected n_items=N as well")
    if n_items is not None and n_items != columns:
        raise DataError(f"[{where}] n_items is {n_items}, expected {columns} as in the similarity")
    s = as_matrix(where, "similarity", similarity, None, int(columns), backend, ordered=True, keep=True)
    h = as_matrix(where, "history", history, None, len(s.indptr) - 1, backend, ordered=False)
    out: F64 = run(Problem(h, s), n_threads)
    return out


def sparse_score_std_reference(problem: Problem, threads: int = 1) -> F64:
    """All scores of a user, then the mean and the deviations from it."""
    h, s = problem.history, problem.similarity
    out = np.zeros(len(h.indptr) - 1)
    for u in range(len(out)):
        scores, touched = np.zeros(s.n_cols), np.zeros(s.n_cols, bool)
        for e in range(h.indptr[u], h.indptr[u + 1]):
            span = slice(s.indptr[h.rows[e]], s.indptr[h.rows[e] + 1])
            np.add.at(scores, s.rows[span], float(h.values[e]) * s.values[span].astype(np.float64))
            touched[s.rows[span]] = True
        scores = scores[touched]
        if len(scores):
            mean = np.cumsum(scores)[-1] / s.n_cols
            squares = np.cumsum((scores - mean) ** 2)[-1] + (s.n_cols - len(scores)) * (mean * mean)
            out[u] = np.sqrt(squares / s.n_cols)
    return out


def _numba_kernel(
    indptr: I64,
    rows: I32,
    weights: F32,
    s_indptr: I64,
    s_rows: I32,
    s_values: F32,
    n: int,
    first: int,
    last: int,
    out: F64,
) -> None:
    scores = np.zeros(n)
    seen = np.zeros(n, np.uint8)
    touched = np.empty(n, np.int32)
    for u in range(first, last):
        count = 0
        for h in range(indptr[u], indptr[u + 1]):
            weight = np.float64(weights[h])
            for e in range(s_indptr[rows[h]], s_indptr[rows[h] + 1]):
                column = s_rows[e]
                if seen[column] == 0:
                    seen[column] = 1
                    touched[count] = column
                    count += 1
                scores[column] += weight * np.float64(s_values[e])
        listed = np.sort(touched[:count])
        total = 0.0
        for column in listed:
            total += scores[column]
        mean = total / n if n > 0 else 0.0
        squares = 0.0
        for column in listed:
            deviation = scores[column] - mean
            squares += deviation * deviation
            scores[column] = 0.0
            seen[column] = 0
        squares += (n - count) * (mean * mean)
        out[u] = np.sqrt(squares / n) if n > 0 else 0.0


def _numba(problem: Problem, threads: int) -> F64:
    h, s = problem.history, problem.similarity
    out = _arrays.empty(len(h.indptr) - 1, np.float64)
    run = _arrays.jit(_numba_kernel)

    def block(first: int, last: int) -> None:
        run(h.indptr, h.rows, h.values, s.indptr, s.rows, s.values, s.n_cols, first, last, out)

    _arrays.over_blocks(len(out), 256, threads, block)
    return out


def _cpu(problem: Problem, threads: int) -> F64:
    out = _arrays.empty(len(problem.history.indptr) - 1, np.float64)
    _native.module("sparse_score_std").sparse_score_std(
        history=addresses(problem.history),
        similarity=addresses(problem.similarity),
        B=len(out),
        N=problem.similarity.n_cols,
        threads=threads,
        out=_native.ptr(out, np.float64),
    )
    return out


OP = Op(
    "sparse_score_std",
    reference=sparse_score_std_reference,
    backends={
        "cpu": Backend(_cpu, "cpu", _native.missing_cpu),
        "numba": Backend(_numba, "cpu", _arrays.missing_numba),
    },
    cases=[{"B": b, "N": n, "M": m} for b, n, m in [(0, 3, 2), (1, 1, 1), (5, 17, 17), (33, 1023, 101), (2, 0, 3)]],
)

__all__ = ["sparse_score_std"]

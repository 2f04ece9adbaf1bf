"""segment_mean: weighted means of rows per segment, a user's profile out of the vectors of a history."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrec import _native, config
from fastrec.errors import DataError
from fastrec.ops import _arrays, _cuda, _cuda_features
from fastrec.ops._op import Backend, Op
from fastrec.ops._sparse import Matrix, addresses, as_matrix
from fastrec.types import F32, F64, I32, I64


@dataclass(frozen=True, eq=False)
class Problem:
    """What every backend takes: values [N, D], segments [B, N]."""

    values: F32
    segments: Matrix
    normalize: bool


def segment_mean(
    values: Any, segments: Any, *, normalize: bool = True, backend: str = "auto", threads: int | None = None
) -> Any:
    """Per segment the sum of weight * values[row], made a unit vector or divided by the weights: [B, D].

    values: [N, D], numpy or torch; the result is of the same kind
    segments: (indptr int64 [B+1], rows int32, weights), a types.Csr or a scipy CSR; any order of rows
    normalize: divide by the L2 norm of the sum (a zero sum stays zero), else by the sum of the weights (where
        that is 0, the result is 0)

    Sums are in float64 and in the order of the entries. Raises DataError for wrong shapes and dtypes, rows
    out of range, weights that are not finite, and results that are not (NaN or inf in a row, or too large).
    """
    where = "segment_mean"
    kind, values = values, _arrays.adopt(values)
    run = OP.choose(backend, "cuda" if _arrays.on_gpu(values) else "cpu")
    resident = run is _cuda_features.segment_mean and _arrays.on_gpu(values)
    n_threads = config.threads(threads)
    if not resident:
        matrix = _arrays.as_float_matrix(where, "values", values, backend)
    elif values.ndim != 2 or not values.dtype.is_floating_point:
        raise DataError(
            f"[{where}] values has dtype {values.dtype}, shape {tuple(values.shape)}, expected floats [N, D]"
        )
    else:
        matrix = values.detach().float().contiguous()
    if len(matrix) > np.iinfo(np.int32).max:
        raise DataError(f"[{where}] values has {len(matrix)} rows, expected at most {np.iinfo(np.int32).max}")
    lists = as_matrix(where, "segments", segments, None, len(matrix), backend, ordered=False)
    out: Any = run(Problem(matrix, lists, bool(normalize)), n_threads)
    # The rows that count are found in the result: checking all values would cost more than the means.
    finite = _cuda_features.finite_rows(out)
    if not finite.all():
        _explain(where, matrix, lists, int(np.argmin(finite)))
    return _arrays.give_back(kind, out) if resident else _arrays.like(values, out)


def _explain(where: str, values: F32, segments: Matrix, b: int) -> None:
    rows = segments.rows[segments.indptr[b] : segments.indptr[b + 1]]
    for row in rows:
        if not _cuda_features.finite_rows(values[int(row) : int(row) + 1]).all():
            raise DataError(
                f"[{where}] values row {row} is not finite, expected finite numbers",
                column="values",
                row=int(row),
            )
    raise DataError(f"[{where}] the mean of segments row {b} is beyond float32", column="segments", row=b)


def segment_mean_reference(problem: Problem, threads: int = 1) -> F32:
    """The definition."""
    values, segments = problem.values, problem.segments
    out = np.zeros((len(segments.indptr) - 1, values.shape[1]), np.float32)
    for b in range(len(out)):
        total, weights = np.zeros(values.shape[1]), 0.0
        for e in range(segments.indptr[b], segments.indptr[b + 1]):
            weight = float(segments.values[e])
            with np.errstate(invalid="ignore"):
                total += weight * values[segments.rows[e]].astype(np.float64)
            weights += weight
        divisor = _norm(total) if problem.normalize else weights
        if divisor != 0.0:
            with np.errstate(over="ignore", invalid="ignore"):
                out[b] = (total / divisor).astype(np.float32) + np.float32(0.0)
    return out


def _norm(total: F64) -> float:
    """L2 norm, the squares summed one after the other (numpy's own sum goes by pairs)."""
    with np.errstate(invalid="ignore"):
        return float(np.sqrt(np.cumsum(total * total)[-1])) if len(total) else 0.0


def _numba_kernel(
    values: F32, indptr: I64, rows: I32, weights: F32, normalize: bool, first: int, last: int, out: F32
) -> None:
    total = np.zeros(values.shape[1])
    for b in range(first, last):
        total[:] = 0.0
        divisor = 0.0
        for e in range(indptr[b], indptr[b + 1]):
            weight = np.float64(weights[e])
            divisor += weight
            for d in range(values.shape[1]):
                total[d] += weight * np.float64(values[rows[e], d])
        if normalize:
            square = 0.0
            for d in range(values.shape[1]):
                square += total[d] * total[d]
            divisor = np.sqrt(square)
        for d in range(values.shape[1]):
            out[b, d] = np.float32(0.0)
            if divisor != 0.0:
                out[b, d] = np.float32(total[d] / divisor) + np.float32(0.0)


def _numba(problem: Problem, threads: int) -> F32:
    s = problem.segments
    out = _arrays.empty((len(s.indptr) - 1, problem.values.shape[1]), np.float32)
    run = _arrays.jit(_numba_kernel)

    def block(first: int, last: int) -> None:
        run(problem.values, s.indptr, s.rows, s.values, problem.normalize, first, last, out)

    _arrays.over_blocks(len(out), 256, threads, block)
    return out


def _cpu(problem: Problem, threads: int) -> F32:
    n_segments, dims = len(problem.segments.indptr) - 1, problem.values.shape[1]
    out = _arrays.empty((n_segments, dims), np.float32)
    _native.module("segment_mean").segment_mean(
        values=_native.ptr(problem.values, np.float32),
        dims=dims,
        segments=addresses(problem.segments),
        B=n_segments,
        normalize=problem.normalize,
        threads=threads,
        out=_native.ptr(out, np.float32),
    )
    return out


OP = Op(
    "segment_mean",
    reference=segment_mean_reference,
    backends={
        "cpu": Backend(_cpu, "cpu", _native.missing_cpu),
        "numba": Backend(_numba, "cpu", _arrays.missing_numba),
        "cuda": Backend(_cuda_features.segment_mean, "cuda", _cuda.missing),
    },
    cases=[
        {"B": b, "N": n, "D": d, "normalize": normalize}
        for b, n, d in [(0, 3, 2), (1, 1, 1), (5, 17, 0), (33, 101, 63), (257, 1023, 16)]
        for normalize in (True, False)
    ],
)

__all__ = ["segment_mean"]

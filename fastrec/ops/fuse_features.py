"""fuse_features: the vectors of several sources gathered, scaled, put beside one another, normalised and cast."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastrec import _native, config
from fastrec.errors import ConfigError, DataError
from fastrec.ops import _arrays, _cuda, _cuda_features
from fastrec.ops._op import Backend, Op
from fastrec.types import F32, F64, I64

_DTYPES: dict[str, type[np.floating[Any]]] = {"float32": np.float32, "float16": np.float16}


@dataclass(frozen=True, eq=False)
class Part:
    """values [N, D], rows [B] into them or None for all in order, scales [B] or None for 1."""

    values: F32
    rows: I64 | None
    scales: F64 | None


@dataclass(frozen=True, eq=False)
class Problem:
    """What every backend takes: B rows of parts."""

    parts: Sequence[Part]
    n_rows: int
    normalize: bool
    dtype: str


def fuse_features(
    parts: Sequence[tuple[Any, Any, Any]],
    *,
    normalize: bool = False,
    dtype: str = "float32",
    backend: str = "auto",
    threads: int | None = None,
) -> Any:
    """out[b] = the vectors scales_i[b] * values_i[rows_i[b]] of all parts i beside one another: [B, sum of D_i].

    parts: (values, rows, scales) each: values [N_i, D_i] finite floats, numpy or torch; rows int [B] in [0, N_i), or
        None for the rows of values in order; scales float [B], or None for 1. The result is of the kind of the first
        values
    normalize: divide by the L2 norm over all parts (a zero vector stays zero)
    dtype: "float32" or "float16"

    Products, norm and quotient are float64, rounded once at the end. Raises ConfigError for dtype, DataError for wrong
    shapes, rows out of range and results that are not finite (NaN or inf in a row, or too large for the dtype).
    """
    where = "fuse_features"
    resident = bool(parts) and isinstance(parts[0], tuple) and _arrays.on_gpu(_arrays.adopt(parts[0][0]))
    run = OP.choose(backend, "cuda" if resident else "cpu")
    resident = resident and run is _cuda_features.fuse_features
    if dtype not in _DTYPES:
        raise ConfigError(f"[{where}] dtype is {dtype!r}, expected one of {[*_DTYPES]}")
    if not parts:
        raise DataError(f"[{where}] parts is empty, expected at least one (values, rows, scales)")
    checked = [_part(where, i, part, backend, resident) for i, part in enumerate(parts)]
    sizes = [len(p.values if p.rows is None else p.rows) for p in checked]
    for i, (part, size) in enumerate(zip(checked, sizes, strict=True)):
        scales = size if part.scales is None else len(part.scales)
        if size != sizes[0] or scales != sizes[0]:
            raise DataError(f"[{where}] part {i} has {size} rows and {scales} scales, expected {sizes[0]} of each")
    out = run(Problem(checked, sizes[0], bool(normalize), dtype), config.threads(threads))
    # The rows that count are found in the result: checking all values would cost more than fusing some.
    finite = _cuda_features.finite_rows(out)
    if not finite.all():
        _explain(where, checked, int(finite.argmin()), dtype)
    return _arrays.give_back(parts[0][0], out) if resident else _arrays.like(parts[0][0], out)


def _part(where: str, i: int, part: Any, backend: str, resident: bool) -> Part:
    if not isinstance(part, tuple) or len(part) != 3:
        raise DataError(f"[{where}] part {i} is {type(part).__name__}, expected (values, rows or None, scales or None)")
    values = _arrays.adopt(part[0])
    if not (resident and _arrays.on_gpu(values)):
        values = _arrays.as_float_matrix(where, f"values {i}", values, backend)
    elif values.ndim != 2 or not values.dtype.is_floating_point:
        raise DataError(f"[{where}] values {i} has dtype {values.dtype}, shape {tuple(values.shape)}, expected [N, D]")
    else:
        values = values.detach().float().contiguous()
    rows, scales = None, None
    if part[1] is not None:
        rows = _arrays.to_numpy(where, f"rows {i}", part[1], backend)
        if rows.ndim != 1 or (rows.dtype.kind not in "iu" and len(rows)):
            raise DataError(f"[{where}] rows {i} has dtype {rows.dtype} and shape {rows.shape}, expected integers [B]")
        rows = np.ascontiguousarray(rows, np.int64)
        wrong = (rows < 0) | (rows >= len(values))
        if wrong.any():
            at = int(wrong.argmax())
            raise DataError(f"[{where}] rows {i} holds {rows[at]} at {at}, expected values in [0, {len(values)})")
    if part[2] is not None:
        scales = _arrays.to_numpy(where, f"scales {i}", part[2], backend)
        if scales.ndim != 1 or scales.dtype.kind not in "fiu" or not np.isfinite(scales).all():
            raise DataError(f"[{where}] scales {i} has shape {scales.shape}, expected finite numbers [B]")
        scales = np.ascontiguousarray(scales, np.float64)
    return Part(values, rows, scales)


def _explain(where: str, parts: Sequence[Part], b: int, dtype: str) -> None:
    for i, part in enumerate(parts):
        row = b if part.rows is None else int(part.rows[b])
        if not _cuda_features.finite_rows(part.values[row : row + 1]).all():
            raise DataError(f"[{where}] values {i} row {row} is not finite, expected finite numbers", row=row)
    raise DataError(f"[{where}] row {b} of the result is beyond {dtype}", row=b)


def fuse_features_reference(problem: Problem, threads: int = 1) -> npt.NDArray[Any]:
    """The definition."""
    columns = []
    for part in problem.parts:
        values = (part.values if part.rows is None else part.values[part.rows]).astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            columns.append(values if part.scales is None else part.scales[:, None] * values)
    fused = np.concatenate(columns, axis=1)
    if problem.normalize and fused.shape[1]:
        with np.errstate(invalid="ignore"):
            norms = np.sqrt(np.cumsum(fused * fused, axis=1)[:, -1:])  # one after the other, not by pairs
        fused = np.divide(fused, norms, out=fused, where=norms > 0)
    with np.errstate(over="ignore", invalid="ignore"):
        out: npt.NDArray[Any] = fused.astype(_DTYPES[problem.dtype]) + _DTYPES[problem.dtype](0)  # no negative zero
    return out


def _cpu(problem: Problem, threads: int) -> npt.NDArray[Any]:
    dims = sum(part.values.shape[1] for part in problem.parts)
    out = _arrays.empty((problem.n_rows, dims), _DTYPES[problem.dtype])
    parts = [
        (
            _native.ptr(p.values, np.float32),
            p.values.shape[1],
            _native.ptr(p.rows, np.int64),
            _native.ptr(p.scales, np.float64),
        )
        for p in problem.parts
    ]
    _native.module("fuse_features").fuse_features(
        parts=parts,
        B=problem.n_rows,
        normalize=problem.normalize,
        half=problem.dtype == "float16",
        threads=threads,
        out=_native.ptr(out, _DTYPES[problem.dtype]),
    )
    return out


OP = Op(
    "fuse_features",
    reference=fuse_features_reference,
    backends={
        "cpu": Backend(_cpu, "cpu", _native.missing_cpu),
        "cuda": Backend(_cuda_features.fuse_features, "cuda", _cuda.missing),
        "numpy": Backend(fuse_features_reference, "cpu", lambda: None),
    },
    cases=[
        {"B": b, "dims": dims, "normalize": normalize, "dtype": dtype}
        for b, dims in [(0, (2,)), (1, (1,)), (5, (0, 3)), (33, (63, 16, 1)), (300, (17,))]
        for normalize, dtype in ((True, "float32"), (False, "float16"))
    ],
)

__all__ = ["fuse_features"]

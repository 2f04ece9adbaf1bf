"""pool_normalize: one vector per packed sequence of token vectors."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrec import _native, config
from fastrec.errors import ConfigError, DataError
from fastrec.ops import _arrays, _packed, _triton
from fastrec.ops._op import Backend, Op
from fastrec.types import F32, I64

#: The numbers that csrc/encode_ops.h has for them.
KINDS = {"mean": 0, "cls": 1, "lasttoken": 2}


@dataclass(frozen=True, eq=False)
class Problem:
    """What every backend takes: x [T, D], cu [S+1], pooling of KINDS."""

    x: F32
    cu: I64
    pooling: str
    normalize: bool


def pool_normalize(
    x: Any,
    cu_seqlens: Any,
    *,
    pooling: str = "mean",
    normalize: bool = True,
    backend: str = "auto",
    threads: int | None = None,
) -> Any:
    """The mean, first or last row of every sequence, divided by its L2 norm where asked: [S, D] in x's dtype.

    x: [T, D], numpy or torch, float32 or bfloat16 (computed in float32)
    cu_seqlens: integers [S+1], sequence s has the rows cu_seqlens[s] .. cu_seqlens[s + 1] - 1, at least one
    pooling: "mean", "cls" (the first row) or "lasttoken"
    normalize: a zero vector stays zero

    Raises DataError for shapes and offsets that do not fit or an empty sequence, ConfigError for another pooling.
    """
    where = "pool_normalize"
    if pooling not in KINDS:
        raise ConfigError(f"[{where}] pooling={pooling!r}, expected one of {', '.join(KINDS)}")
    run, resident = _triton.choose(OP, backend, x)
    n_threads = config.threads(threads)
    if resident and x.ndim != 2:
        raise DataError(f"[{where}] x has shape {tuple(x.shape)}, expected [T, D]")
    matrix = x if resident else _arrays.as_float_matrix(where, "x", x, backend)
    cu = _packed.offsets(where, cu_seqlens, len(matrix), backend)
    if (np.diff(cu) == 0).any():
        raise DataError(f"[{where}] sequence {int(np.argmin(np.diff(cu)))} is empty, expected at least one row")
    out = run(Problem(matrix, cu, pooling, bool(normalize)), n_threads)
    return out if resident else _packed.like(x, out)


def pool_normalize_reference(p: Problem, threads: int = 1) -> F32:
    """The definition."""
    out = np.empty((len(p.cu) - 1, p.x.shape[1]), np.float32)
    for s, (first, last) in enumerate(zip(p.cu[:-1], p.cu[1:], strict=True)):
        rows = p.x[first:last].astype(np.float64)
        row = {"mean": rows.mean(axis=0), "cls": rows[0], "lasttoken": rows[-1]}[p.pooling]
        out[s] = row / max(float(np.linalg.norm(row)), 1e-12) if p.normalize else row
    return out


@_packed.torch_backend
def _torch(torch: Any, p: Problem) -> Any:
    x, cu = torch.from_numpy(p.x), torch.from_numpy(p.cu)
    if len(cu) == 1:
        return x.new_empty(0, x.shape[1])
    if p.pooling == "mean":
        rows = torch.segment_reduce(x, "mean", lengths=cu.diff())
    else:
        rows = x[cu[:-1]] if p.pooling == "cls" else x[cu[1:] - 1]
    return torch.nn.functional.normalize(rows, dim=1) if p.normalize else rows


def _cpu(p: Problem, threads: int) -> F32:
    out = _arrays.empty((len(p.cu) - 1, p.x.shape[1]), np.float32)
    _packed.call(
        "pool_normalize",
        x=_native.ptr(p.x, np.float32),
        cu=_native.ptr(p.cu, np.int64),
        S=len(out),
        D=out.shape[1],
        pooling=KINDS[p.pooling],
        normalize=p.normalize,
        out=_native.ptr(out, np.float32),
        threads=threads,
    )
    return out


OP = Op(
    "pool_normalize",
    reference=pool_normalize_reference,
    backends={
        "cpu": Backend(_cpu, "cpu", _native.missing_cpu),
        "torch": Backend(_torch, "cpu", _packed.missing_torch),
        "triton": Backend(_triton.pool_normalize, "cuda", _triton.missing),
    },
    cases=[
        {"lengths": lengths, "D": d, "pooling": pooling, "normalize": normalize}
        for lengths, d in [((), 3), ((1,), 1), ((3, 1, 19, 130), 63), ((7, 64), 384)]
        for pooling in KINDS
        for normalize in (True, False)
    ],
    exact=False,
)

__all__ = ["pool_normalize"]

"""add_layer_norm: the sum of a layer's output, its bias and the residual, normalised."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrec import _native, config
from fastrec.errors import ConfigError, DataError
from fastrec.ops import _arrays, _packed, _triton
from fastrec.ops._op import Backend, Op
from fastrec.types import F32


@dataclass(frozen=True, eq=False)
class Problem:
    """What every backend takes: x, residual [T, D] (or None); bias (or None), weight, shift [D]."""

    x: F32
    bias: F32 | None
    residual: F32 | None
    weight: F32
    shift: F32
    eps: float


def add_layer_norm(
    x: Any,
    weight: Any,
    shift: Any,
    *,
    bias: Any = None,
    residual: Any = None,
    eps: float = 1e-12,
    backend: str = "auto",
    threads: int | None = None,
) -> Any:
    """(s - mean(s)) / sqrt(var(s) + eps) * weight + shift by rows, s = x + bias + residual: [T, D] in x's dtype.

    x: [T, D], numpy or torch, float32 or bfloat16 (computed in float32)
    weight, shift: [D]
    bias, residual: [D] and [T, D], or None for none
    eps: above 0

    Raises DataError for shapes that do not fit, ConfigError for eps. NaN and infinity are passed on.
    """
    where = "add_layer_norm"
    if not (isinstance(eps, float) and 0 < eps < np.inf):
        raise ConfigError(f"[{where}] eps={eps!r}, expected a number above 0")
    run, resident = _triton.choose(OP, backend, x)
    n_threads = config.threads(threads)
    if resident:
        return _resident(run, x, weight, shift, bias, residual, eps)
    matrix = _arrays.as_float_matrix(where, "x", x, backend)
    T, D = matrix.shape
    rows = [_arrays.as_float_vector(where, n, v, D, backend) for n, v in (("weight", weight), ("shift", shift))]
    if bias is not None:
        bias = _arrays.as_float_vector(where, "bias", bias, D, backend)
    if residual is not None:
        residual = _arrays.as_float_matrix(where, "residual", residual, backend, columns=D)
        if len(residual) != T:
            raise DataError(f"[{where}] residual has shape {residual.shape}, expected {matrix.shape}")
    return _packed.like(x, run(Problem(matrix, bias, residual, rows[0], rows[1], eps), n_threads))


def _resident(run: Any, x: Any, weight: Any, shift: Any, bias: Any, residual: Any, eps: float) -> Any:
    """The same for tensors on a device, which stay there."""
    shapes = [None if a is None else tuple(a.shape) for a in (x, weight, shift, bias, residual)]
    row = tuple(x.shape[1:])
    if x.ndim != 2 or shapes[1:3] != [row, row] or shapes[3] not in (None, row) or shapes[4] not in (None, shapes[0]):
        raise DataError(f"[add_layer_norm] shapes are {shapes}, expected [T, D], [D], [D], [D] or None, [T, D] or None")
    return run(Problem(x, bias, residual, weight, shift, eps))


def add_layer_norm_reference(p: Problem, threads: int = 1) -> F32:
    """The definition."""
    s = p.x.astype(np.float64) + (0.0 if p.bias is None else p.bias) + (0.0 if p.residual is None else p.residual)
    if not s.shape[1]:
        return np.empty(s.shape, np.float32)
    s = s - s.mean(axis=1, keepdims=True)
    out: F32 = (s / np.sqrt((s * s).mean(axis=1, keepdims=True) + p.eps) * p.weight + p.shift).astype(np.float32)
    return out


@_packed.torch_backend
def _torch(torch: Any, p: Problem) -> Any:
    s = torch.from_numpy(p.x)
    for more in (p.bias, p.residual):
        s = s if more is None else s + torch.from_numpy(more)
    if not s.numel():
        return s.clone()
    rows = (torch.from_numpy(p.weight), torch.from_numpy(p.shift))
    return torch.nn.functional.layer_norm(s, (s.shape[1],), *rows, p.eps)


def _cpu(p: Problem, threads: int) -> F32:
    out = _arrays.empty(p.x.shape, np.float32)
    _packed.call(
        "add_layer_norm",
        x=_native.ptr(p.x, np.float32),
        bias=_native.ptr(p.bias, np.float32),
        residual=_native.ptr(p.residual, np.float32),
        weight=_native.ptr(p.weight, np.float32),
        shift=_native.ptr(p.shift, np.float32),
        eps=p.eps,
        T=p.x.shape[0],
        D=p.x.shape[1],
        out=_native.ptr(out, np.float32),
        threads=threads,
    )
    return out


OP = Op(
    "add_layer_norm",
    reference=add_layer_norm_reference,
    backends={
        "cpu": Backend(_cpu, "cpu", _native.missing_cpu),
        "torch": Backend(_torch, "cpu", _packed.missing_torch),
        "triton": Backend(_triton.add_layer_norm, "cuda", _triton.missing),
    },
    cases=[
        {"T": t, "D": d, "bias": bias, "residual": residual}
        for t, d in [(0, 4), (1, 1), (3, 0), (65, 63), (130, 384), (5, 1023)]
        for bias, residual in ((False, False), (True, True))
    ],
    exact=False,
)

__all__ = ["add_layer_norm"]

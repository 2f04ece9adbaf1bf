"""bias_gelu: x + bias through GELU, as it stands between the two layers of a transformer's feed-forward block."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrec import _native, config
from fastrec.errors import ConfigError, DataError
from fastrec.ops import _arrays, _packed, _triton
from fastrec.ops._op import Backend, Op
from fastrec.types import F32

#: The numbers that csrc/encode.h has for them.
KINDS = {"erf": 1, "tanh": 2}


@dataclass(frozen=True, eq=False)
class Problem:
    """What every backend takes: x [T, D], bias [D] or None, kind of KINDS."""

    x: F32
    bias: F32 | None
    kind: str


def bias_gelu(x: Any, bias: Any = None, *, kind: str = "erf", backend: str = "auto", threads: int | None = None) -> Any:
    """GELU of x + bias, [T, D] in the dtype of x.

    x: [T, D], numpy or torch, float32 or bfloat16 (computed in float32)
    bias: [D], or None for none
    kind: "erf", the definition, or "tanh", the approximation of GPT-2

    Right to 4e-7 * |x|. Raises DataError for shapes that do not fit, ConfigError for another kind.
    """
    where = "bias_gelu"
    if kind not in KINDS:
        raise ConfigError(f"[{where}] kind={kind!r}, expected one of {', '.join(KINDS)}")
    run, resident = _triton.choose(OP, backend, x)
    n_threads = config.threads(threads)
    if resident:
        if x.ndim != 2 or (bias is not None and tuple(bias.shape) != (x.shape[1],)):
            raise DataError(f"[{where}] x has shape {tuple(x.shape)}, expected [T, D] and a bias [D]")
        return run(Problem(x, bias, kind))
    matrix = _arrays.as_float_matrix(where, "x", x, backend)
    if bias is not None:
        bias = _arrays.as_float_vector(where, "bias", bias, matrix.shape[1], backend)
    return _packed.like(x, run(Problem(matrix, bias, kind), n_threads))


def bias_gelu_reference(p: Problem, threads: int = 1) -> F32:
    """The definition."""
    x = p.x.astype(np.float64) + (0.0 if p.bias is None else p.bias)
    if p.kind == "tanh":
        half = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    else:
        half = np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2))
    out: F32 = (0.5 * x * (1 + half)).astype(np.float32)
    return out


@_packed.torch_backend
def _torch(torch: Any, p: Problem) -> Any:
    x = torch.from_numpy(p.x)
    x = x if p.bias is None else x + torch.from_numpy(p.bias)
    return torch.nn.functional.gelu(x, approximate="tanh" if p.kind == "tanh" else "none")


def _cpu(p: Problem, threads: int) -> F32:
    out = _arrays.empty(p.x.shape, np.float32)
    out[:] = p.x
    _packed.call(
        "bias_gelu",
        x=_native.ptr(out, np.float32),
        T=out.shape[0],
        D=out.shape[1],
        bias=_native.ptr(p.bias, np.float32),
        activation=KINDS[p.kind],
        threads=threads,
    )
    return out


OP = Op(
    "bias_gelu",
    reference=bias_gelu_reference,
    backends={
        "cpu": Backend(_cpu, "cpu", _native.missing_cpu),
        "torch": Backend(_torch, "cpu", _packed.missing_torch),
        "triton": Backend(_triton.bias_gelu, "cuda", _triton.missing),
    },
    cases=[
        {"T": t, "D": d, "bias": bias, "kind": kind}
        for t, d, bias in [(0, 3, True), (1, 1, True), (65, 63, True), (7, 1023, False), (129, 48, True)]
        for kind in KINDS
    ],
    exact=False,
)

__all__ = ["bias_gelu"]

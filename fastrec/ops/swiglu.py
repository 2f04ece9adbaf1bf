"""swiglu: silu(a) * b, the gated unit between the layers of a feed-forward block. Source: Shazeer 2020."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrec import config
from fastrec.errors import DataError
from fastrec.ops import _arrays, _packed, _triton
from fastrec.ops._op import Backend, Op
from fastrec.types import F32


@dataclass(frozen=True, eq=False)
class Problem:
    """What every backend takes: ab [T, 2 D], a beside b."""

    ab: F32


def swiglu(ab: Any, *, backend: str = "auto", threads: int | None = None) -> Any:
    """a / (1 + exp(-a)) * b by rows, [T, D] in the dtype of ab; differentiable for tensors on a GPU.

    ab: [T, 2 D], numpy or torch, floats (computed in float32): the halves of a row are a and b

    Raises DataError for a shape that does not fit. NaN and infinity are passed on.
    """
    where = "swiglu"
    run, resident = _triton.choose(OP, backend, ab)
    n_threads = config.threads(threads)
    matrix = ab if resident else _arrays.as_float_matrix(where, "ab", ab, backend)
    if matrix.ndim != 2 or matrix.shape[1] % 2:
        raise DataError(f"[{where}] ab has shape {tuple(matrix.shape)}, expected [T, 2 D]")
    out = run(Problem(matrix), n_threads)
    return out if resident else _packed.like(ab, out)


def swiglu_reference(p: Problem, threads: int = 1) -> F32:
    """The definition."""
    a, b = np.split(p.ab.astype(np.float64), 2, axis=1)
    with np.errstate(over="ignore"):
        out: F32 = (a / (1 + np.exp(-a)) * b).astype(np.float32)
    return out


@_packed.torch_backend
def _torch(torch: Any, p: Problem) -> Any:
    a, b = torch.from_numpy(p.ab).chunk(2, 1)
    return torch.nn.functional.silu(a) * b


OP = Op(
    "swiglu",
    reference=swiglu_reference,
    backends={
        "torch": Backend(_torch, "cpu", _packed.missing_torch),
        "triton": Backend(_triton.swiglu, "cuda", _triton.missing),
    },
    cases=[{"T": t, "D": d} for t, d in [(0, 3), (1, 1), (65, 63), (7, 1023)]],
    exact=False,
)

__all__ = ["swiglu"]

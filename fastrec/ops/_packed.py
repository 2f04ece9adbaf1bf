"""What the operators over packed tokens share: checked offsets, tensors in and out, the level that runs."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastrec import _native
from fastrec.errors import DataError
from fastrec.ops import _arrays
from fastrec.types import F32, I64


def offsets(where: str, x: Any, n_tokens: int, backend: str) -> I64:
    """cu_seqlens as int64 [S+1] that ascends from 0 to the number of tokens."""
    cu = _arrays.to_numpy(where, "cu_seqlens", x, backend)
    if cu.ndim != 1 or cu.dtype.kind not in "iu" or not len(cu):
        raise DataError(f"[{where}] cu_seqlens has dtype {cu.dtype} and shape {cu.shape}, expected integers [S+1]")
    cu = np.ascontiguousarray(cu, np.int64)
    if cu[0] != 0 or cu[-1] != n_tokens or (np.diff(cu) < 0).any():
        raise DataError(f"[{where}] cu_seqlens goes from {cu[0]} to {cu[-1]}, expected to ascend from 0 to {n_tokens}")
    return cu


def heads(where: str, name: str, x: Any, backend: str) -> F32:
    """float32 [T, H, d] whose heads lie together; tokens may lie apart, as in a slice of [T, 3, H, d]."""
    array = _arrays.to_numpy(where, name, x, backend)
    if array.ndim != 3 or array.dtype.kind not in "fiu":
        raise DataError(f"[{where}] {name} has dtype {array.dtype} and shape {array.shape}, expected floats [T, H, d]")
    out: F32 = array.astype(np.float32, copy=False)
    item, d = out.itemsize, out.shape[2]
    packed = out.strides[2] == item and out.strides[1] == d * item and out.strides[0] % item == 0
    return out if packed and out.strides[0] > 0 else np.ascontiguousarray(out)


def like(x: Any, result: F32) -> Any:
    """The result in the kind, device and dtype of x; float32 for numpy."""
    out = _arrays.like(x, result)
    return out.to(x.dtype) if _arrays.is_torch(x) and x.is_floating_point() else out


def missing_torch() -> tuple[str, str] | None:
    """None where torch is installed, else (reason, remedy)."""
    from importlib.util import find_spec

    return None if find_spec("torch") else ("torch is not installed", "pip install torch")


def torch_backend(run: Callable[..., Any]) -> Callable[..., F32]:
    """A function (torch, problem) -> tensor as a backend; float32, like the native one."""

    def backend(problem: Any, threads: int) -> F32:
        import torch

        with torch.inference_mode():
            out: F32 = run(torch, problem).numpy()
        return out

    return backend


def call(where: str, **arguments: Any) -> None:
    """Run the native operator ``where`` at the level that FASTREC_SIMD asks for."""
    getattr(_native.module(where), where)(**arguments, simd=_arrays.simd(where))

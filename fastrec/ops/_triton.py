"""The operators over packed tokens by the Triton kernels of ``fastrec.kernels``.

Each takes the problem of its operator in arrays of the host, which are copied to the device and back, or in tensors of
a device, which stay there; float16 and bfloat16 are kept, and attention, swiglu and the loss have gradients.
"""

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrec.errors import BackendUnavailable
from fastrec.ops import _arrays, _cuda

if TYPE_CHECKING:
    from fastrec.ops._op import Op

#: Columns that the kernels hold in registers.
MOST = {"add_layer_norm": 8192, "pool_normalize": 4096, "sampled_softmax": 256, "attention_varlen": 256}


def missing() -> tuple[str, str] | None:
    """None where Triton and a device are there, else (reason, remedy)."""
    if find_spec("triton") is None:
        return ("triton is not installed", "pip install 'fastrec-engine[gpu]'")
    return _cuda.RUNTIME.device_gap()


def choose(op: "Op", backend: str, x: Any) -> tuple[Any, bool]:
    """(the function to run, whether tensors stay on the device of x)."""
    if not _arrays.on_gpu(x):
        return op.choose(backend), False
    gap = missing()
    if backend == "auto" and gap is not None:
        op.tell(f"[{op.name}] backend 'triton' is unavailable ({gap[0]}); falling back to the CPU")
        return op.choose(backend), False
    run = op.choose(backend, "cuda")
    return run, run is op.backends["triton"].run


def _kernel(name: str, columns: int = 0) -> Any:
    most = MOST.get(name, columns)
    if columns > most:
        reason = f"{columns} columns, the kernel takes at most {most}"
        raise BackendUnavailable(name, "triton", reason, "another backend")
    return importlib.import_module(f"fastrec.kernels.{name}")


def _put(x: Any) -> tuple[Any, Any]:
    """(function that puts an array or None on the device of x, function that brings a result back to where x is)."""
    if _arrays.is_torch(x):
        return lambda a: None if a is None else _cuda.to_device(a, x.device), lambda out: out
    device = _cuda.RUNTIME.device()
    return lambda a: None if a is None else _cuda.to_device(a, device), lambda out: out.cpu().numpy()


def _offsets(put: Any, cu: Any) -> Any:
    return put(cu.astype(np.int32))


def attention_varlen(p: Any, threads: int = 1) -> Any:
    """[T, H, d] in the dtype of q"""
    put, back = _put(p.q)
    kernel = _kernel("attention_varlen", p.q.shape[2])
    q, k, v = (x if x.stride(2) == 1 else x.contiguous() for x in (put(p.q), put(p.k), put(p.v)))
    relative = put(p.relative)
    how = {"causal": p.causal, "scale": p.scale, "relative": relative}
    longest = int(np.diff(p.cu).max(initial=0))
    with _cuda.on(q.device):
        return back(kernel.attention_varlen(q, k, v, _offsets(put, p.cu), longest, **how))


def add_layer_norm(p: Any, threads: int = 1) -> Any:
    """[T, D] in the dtype of x"""
    put, back = _put(p.x)
    kernel = _kernel("add_layer_norm", p.x.shape[1])
    x = put(p.x).contiguous()
    residual = put(p.residual)
    rows = (None if r is None else put(r).float().contiguous() for r in (p.weight, p.shift, p.bias))
    with _cuda.on(x.device):
        return back(kernel.add_layer_norm(x, *rows, None if residual is None else residual.contiguous(), p.eps))


def bias_gelu(p: Any, threads: int = 1) -> Any:
    """[T, D] in the dtype of x"""
    put, back = _put(p.x)
    x, bias = put(p.x).contiguous(), put(p.bias)
    with _cuda.on(x.device):
        return back(_kernel("bias_gelu").bias_gelu(x, None if bias is None else bias.float().contiguous(), p.kind))


def swiglu(p: Any, threads: int = 1) -> Any:
    """[T, D] in the dtype of ab"""
    put, back = _put(p.ab)
    ab = put(p.ab).contiguous()
    with _cuda.on(ab.device):
        return back(_kernel("bias_gelu").swiglu(ab))


def pool_normalize(p: Any, threads: int = 1) -> Any:
    """[S, D] in the dtype of x"""
    put, back = _put(p.x)
    kernel = _kernel("pool_normalize", p.x.shape[1])
    x = put(p.x).contiguous()
    kind = ("mean", "cls", "lasttoken").index(p.pooling)
    with _cuda.on(x.device):
        return back(kernel.pool_normalize(x, _offsets(put, p.cu), kind, p.normalize))


def sampled_softmax(p: Any, threads: int = 1) -> Any:
    """(loss [T], d_states, d_wanted, d_others)"""
    put, back = _put(p.states)
    kernel = _kernel("sampled_softmax", p.states.shape[1])
    names = ("states", "wanted", "others", "targets", "drawn", "correction")
    arrays = [put(getattr(p, name)).contiguous() for name in names]
    with _cuda.on(arrays[0].device):
        return tuple(map(back, kernel.sampled_softmax(*arrays, p.scale)))

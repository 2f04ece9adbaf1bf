"""attention_varlen: softmax attention within each of several packed sequences."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrec import _native, config
from fastrec.errors import ConfigError, DataError
from fastrec.ops import _arrays, _packed, _triton
from fastrec.ops._op import Backend, Op
from fastrec.types import F32, I64


@dataclass(frozen=True, eq=False)
class Problem:
    """What every backend takes: q [T, H, d], k and v [T, H_kv, d], cu [S+1], relative [H, 2 R - 1] or None."""

    q: F32
    k: F32
    v: F32
    cu: I64
    causal: bool
    scale: float
    relative: F32 | None


def attention_varlen(
    q: Any,
    k: Any,
    v: Any,
    cu_seqlens: Any,
    *,
    causal: bool = False,
    scale: float | None = None,
    relative: Any = None,
    backend: str = "auto",
    threads: int | None = None,
) -> Any:
    """softmax(scale * q k' + relative) v within every sequence, [T, H, d] in the dtype of q.

    On a GPU it is differentiable in q, k and v.

    q: [T, H, d], numpy or torch, float32 or bfloat16 (computed in float32); slices of [T, 3, H, d] are read in place
    k, v: [T, H_kv, d]; H is a multiple of H_kv, and H / H_kv neighbouring heads of q share one of k and v
    cu_seqlens: integers [S+1], sequence s has the tokens cu_seqlens[s] .. cu_seqlens[s + 1] - 1
    causal: token i sees tokens 0 .. i of its sequence, else all of them
    scale: None: 1 / sqrt(d)
    relative: None, or float [H, 2 R - 1] added to the score of query i and key j at [R - 1 + j - i]

    Raises DataError for shapes and offsets that do not fit, ConfigError for a scale that is not finite. NaN and
    infinity are passed on.
    """
    where = "attention_varlen"
    run, resident = _triton.choose(OP, backend, q)
    n_threads = config.threads(threads)
    arrays = (
        [q, k, v] if resident else [_packed.heads(where, n, x, backend) for n, x in zip("qkv", (q, k, v), strict=True)]
    )
    if resident and (any(x.ndim != 3 for x in arrays) or len({x.dtype for x in arrays}) > 1):
        kinds = ", ".join(f"{x.dtype} {tuple(x.shape)}" for x in arrays)
        raise DataError(f"[{where}] q, k, v are {kinds}, expected [T, H, d] and one dtype")
    T, H, d = arrays[0].shape
    kv = arrays[1].shape
    if kv != arrays[2].shape or kv[0] != T or kv[2] != d or d == 0 or kv[1] == 0 or H % kv[1]:
        shapes = ", ".join(str(tuple(a.shape)) for a in arrays)
        raise DataError(f"[{where}] q, k, v have shapes {shapes}, expected [T, H, d] and twice [T, H / n, d]")
    if not resident and arrays[1].strides != arrays[2].strides:
        arrays[1:] = [np.ascontiguousarray(a) for a in arrays[1:]]
    cu = _packed.offsets(where, cu_seqlens, T, backend)
    scale = d**-0.5 if scale is None else float(scale)
    if not np.isfinite(scale):
        raise ConfigError(f"[{where}] scale={scale}, expected a finite number")
    if relative is not None:
        relative = _arrays.as_float_matrix(where, "relative", relative, backend)
        longest = int(np.diff(cu).max(initial=0))
        if len(relative) != H or relative.shape[1] % 2 == 0 or relative.shape[1] < 2 * longest - 1:
            raise DataError(f"[{where}] relative has shape {relative.shape}, expected [{H}, 2 R - 1], R >= {longest}")
    out = run(Problem(arrays[0], arrays[1], arrays[2], cu, bool(causal), scale, relative), n_threads)
    return out if resident else _packed.like(q, out)


def attention_varlen_reference(p: Problem, threads: int = 1) -> F32:
    """The definition."""
    out = np.empty(p.q.shape, np.float32)
    group = p.q.shape[1] // p.k.shape[1]
    for first, last in zip(p.cu[:-1], p.cu[1:], strict=True):
        place = np.arange(last - first)
        offset = place[None, :] - place[:, None]
        for head in range(p.q.shape[1]):
            q, k, v = (
                a[first:last, h].astype(np.float64)
                for a, h in ((p.q, head), (p.k, head // group), (p.v, head // group))
            )
            scores = p.scale * q @ k.T
            if p.relative is not None:
                scores = scores + p.relative[head][p.relative.shape[1] // 2 + offset]
            if p.causal:
                scores = np.where(offset > 0, -np.inf, scores)
            weights = np.exp(scores - scores.max(axis=1, keepdims=True, initial=-np.inf))
            out[first:last, head] = weights / weights.sum(axis=1, keepdims=True) @ v
    return out


@_packed.torch_backend
def _torch(torch: Any, p: Problem) -> Any:
    q, k, v = (torch.from_numpy(np.ascontiguousarray(a)) for a in (p.q, p.k, p.v))
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    out = torch.empty_like(q)
    for first, last in zip(p.cu[:-1].tolist(), p.cu[1:].tolist(), strict=True):
        place = torch.arange(last - first)
        offset = place[None, :] - place[:, None]
        mask = None
        if p.relative is not None:
            mask = torch.from_numpy(p.relative)[:, p.relative.shape[1] // 2 + offset]
        if p.causal:
            mask = torch.zeros(1, *offset.shape) if mask is None else mask
            mask = mask.masked_fill(offset > 0, -np.inf)
        one = (x[first:last].transpose(0, 1) for x in (q, k, v))
        attended = torch.nn.functional.scaled_dot_product_attention(*one, attn_mask=mask, scale=p.scale)
        out[first:last] = attended.transpose(0, 1)
    return out


def _cpu(p: Problem, threads: int) -> F32:
    T, H, d = p.q.shape
    out = _arrays.empty((T, H, d), np.float32)
    _packed.call(
        "attention_varlen",
        q=p.q.ctypes.data,
        k=p.k.ctypes.data,
        v=p.v.ctypes.data,
        q_stride=p.q.strides[0] // 4,
        kv_stride=p.k.strides[0] // 4,
        cu=_native.ptr(p.cu, np.int64),
        S=len(p.cu) - 1,
        heads=H,
        kv_heads=p.k.shape[1],
        dims=d,
        scale=p.scale,
        causal=p.causal,
        relative=_native.ptr(p.relative, np.float32),
        reach=0 if p.relative is None else p.relative.shape[1] // 2 + 1,
        out=_native.ptr(out, np.float32),
        threads=threads,
    )
    return out


OP = Op(
    "attention_varlen",
    reference=attention_varlen_reference,
    backends={
        "cpu": Backend(_cpu, "cpu", _native.missing_cpu),
        "torch": Backend(_torch, "cpu", _packed.missing_torch),
        "triton": Backend(_triton.attention_varlen, "cuda", _triton.missing),
    },
    cases=[
        {"lengths": lengths, "H": h, "H_kv": h_kv, "d": d, "causal": causal, "relative": relative}
        for lengths, h, h_kv, d in [
            ((), 1, 1, 4),
            ((1,), 2, 2, 8),
            ((19, 0, 1, 63), 3, 1, 32),
            ((257, 5), 2, 1, 17),
            ((600,), 1, 1, 64),
        ]
        for causal, relative in ((False, False), (True, False), (False, True))
    ],
    exact=False,
)

__all__ = ["attention_varlen"]

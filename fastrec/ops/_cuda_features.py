"""fuse_features, segment_mean and mmr on CUDA.

A problem's large arrays may lie on the device or on the host; the result is where they are.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from fastrec.ops import _arrays, _cuda

if TYPE_CHECKING:
    from fastrec.ops.fuse_features import Problem as FuseProblem
    from fastrec.ops.mmr import Problem as MmrProblem
    from fastrec.ops.segment_mean import Problem as MeanProblem


def _place(x: Any) -> tuple[Any, bool]:
    """(device to run on, whether the result stays there)"""
    if _arrays.is_torch(x):
        return x.device, True
    return _cuda.RUNTIME.device(), False


def _result(out: Any, stays: bool) -> Any:
    return out if stays else out.cpu().numpy()


def finite_rows(out: Any) -> Any:
    """bool [B] on the host: whether every number of a row is finite. Waits for the device."""
    if isinstance(out, np.ndarray):
        return np.isfinite(out).all(axis=1)
    return out.isfinite().all(1).cpu().numpy()


def fuse_features(problem: "FuseProblem", threads: int = 1) -> Any:
    """out [B, sum of dims] of the problem's dtype"""
    import torch

    native = _cuda.RUNTIME.native()
    dims = sum(int(p.values.shape[1]) for p in problem.parts)
    _cuda.most("fuse_features", "parts", len(problem.parts), native.most_parts)
    _cuda.most("fuse_features", "dimensions", dims, native.most_dims)
    device, stays = _place(problem.parts[0].values)
    parts, alive = [], []
    for p in problem.parts:
        arrays = [None if x is None else _cuda.to_device(x, device) for x in (p.values, p.rows, p.scales)]
        alive += arrays
        parts.append((_cuda.address(arrays[0]), p.values.shape[1], _cuda.address(arrays[1]), _cuda.address(arrays[2])))
    half = problem.dtype == "float16"
    out = _cuda.empty((problem.n_rows, dims), torch.float16 if half else torch.float32, device)
    _cuda.call(
        "fuse_features",
        device,
        parts=parts,
        B=problem.n_rows,
        normalize=problem.normalize,
        half=half,
        out=_cuda.address(out),
    )
    return _result(out, stays)


def segment_mean(problem: "MeanProblem", threads: int = 1) -> Any:
    """out float32 [B, D]"""
    import torch

    dims = int(problem.values.shape[1])
    _cuda.most("segment_mean", "dimensions", dims, _cuda.RUNTIME.native().most_dims)
    device, stays = _place(problem.values)
    values, segments = _cuda.to_device(problem.values, device), _cuda.Csr(problem.segments, device)
    B = len(problem.segments.indptr) - 1
    out = _cuda.empty((B, dims), torch.float32, device)
    _cuda.call(
        "segment_mean",
        device,
        values=_cuda.address(values),
        D=dims,
        segments=segments.addresses(),
        B=B,
        normalize=problem.normalize,
        out=_cuda.address(out),
    )
    return _result(out, stays)


def mmr(problem: "MmrProblem", threads: int = 1) -> Any:
    """picks int64 [B, k]"""
    import torch

    B, P = problem.pool.shape
    _cuda.most("mmr", "pool", P, _cuda.RUNTIME.native().most_pool)
    device, stays = _place(problem.vectors)
    arrays = [_cuda.to_device(x, device) for x in (problem.vectors, problem.pool, problem.relevance)]
    picks = _cuda.empty((B, problem.k), torch.int32, device)
    _cuda.call(
        "mmr",
        device,
        vectors=_cuda.address(arrays[0]),
        D=problem.vectors.shape[1],
        pool=_cuda.address(arrays[1]),
        relevance=_cuda.address(arrays[2]),
        B=B,
        P=P,
        k=problem.k,
        diversity=problem.diversity,
        picks=_cuda.address(picks),
    )
    return _result(picks.long(), stays)

"""add_layer_norm: (s - mean(s)) / sqrt(var(s) + eps) * weight + shift by rows, s = x + bias + residual.

Shape legend: T rows, D columns. Sums are in float32.
"""

from typing import Any

import torch
import triton
import triton.language as tl

#: Columns that one program holds in registers.
MOST_COLUMNS = 8192


@triton.jit
def _add_layer_norm(
    x_ptr,  # (T, D), contiguous, f32, f16 or bf16
    residual_ptr,  # (T, D), read only if RESIDUAL
    bias_ptr,  # (D,) f32, read only if BIAS
    weight_ptr,  # (D,) f32
    shift_ptr,  # (D,) f32
    out_ptr,  # (T, D), contiguous
    n_columns,
    eps,
    BLOCK_D: tl.constexpr,
    BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column_D = tl.arange(0, BLOCK_D)
    inside_D = column_D < n_columns
    at_D = row * n_columns + column_D
    s_D = tl.load(x_ptr + at_D, mask=inside_D, other=0.0).to(tl.float32)
    if BIAS:
        s_D += tl.load(bias_ptr + column_D, mask=inside_D, other=0.0)
    if RESIDUAL:
        s_D += tl.load(residual_ptr + at_D, mask=inside_D, other=0.0).to(tl.float32)
    mean = tl.sum(s_D, 0) / n_columns
    centred_D = tl.where(inside_D, s_D - mean, 0.0)
    variance = tl.sum(centred_D * centred_D, 0) / n_columns
    weight_D = tl.load(weight_ptr + column_D, mask=inside_D, other=0.0)
    shift_D = tl.load(shift_ptr + column_D, mask=inside_D, other=0.0)
    out_D = centred_D / tl.sqrt(variance + eps) * weight_D + shift_D
    tl.store(out_ptr + at_D, out_D.to(out_ptr.dtype.element_ty), mask=inside_D)


def add_layer_norm(x: Any, weight: Any, shift: Any, bias: Any, residual: Any, eps: float, out: Any = None) -> Any:
    """out (T, D) in the dtype of x; no gradient."""
    n_rows, n_columns = x.shape
    out = torch.empty_like(x) if out is None else out
    if x.numel() == 0:
        return out
    block = triton.next_power_of_2(n_columns)
    _add_layer_norm[(n_rows,)](
        x,
        x if residual is None else residual,
        weight if bias is None else bias,
        weight,
        shift,
        out,
        n_columns,
        eps,
        BLOCK_D=block,
        BIAS=bias is not None,
        RESIDUAL=residual is not None,
        num_warps=4 if block <= 2048 else 8,
    )
    return out

"""bias_gelu and swiglu: what stands between the two layers of a feed-forward block, in one pass.

Shape legend: T rows, D columns. Computed in float32, cast on store.
"""

from typing import Any

import torch
import triton
import triton.language as tl

BLOCK = 1024


@triton.jit
def _bias_gelu(
    x_ptr,  # (T, D), contiguous, f32, f16 or bf16
    bias_ptr,  # (D,) f32, read only if BIAS
    out_ptr,  # (T, D), contiguous
    n_columns,
    BLOCK_D: tl.constexpr,
    BIAS: tl.constexpr,
    TANH: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column_D = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside_D = column_D < n_columns
    at_D = row * n_columns + column_D
    x_D = tl.load(x_ptr + at_D, mask=inside_D, other=0.0).to(tl.float32)
    if BIAS:
        x_D += tl.load(bias_ptr + column_D, mask=inside_D, other=0.0)
    if TANH:
        u_D = 0.7978845608028654 * (x_D + 0.044715 * x_D * x_D * x_D)
        decay_D = tl.exp(-2.0 * tl.abs(u_D))  # never overflows
        half_D = tl.where(u_D < 0.0, -1.0, 1.0) * (1.0 - decay_D) / (1.0 + decay_D)
    else:
        half_D = tl.erf(x_D * 0.7071067811865476)
    out_D = 0.5 * x_D * (1.0 + half_D)
    tl.store(out_ptr + at_D, out_D.to(out_ptr.dtype.element_ty), mask=inside_D)


def bias_gelu(x: Any, bias: Any, kind: str, out: Any = None) -> Any:
    """out (T, D) in the dtype of x; kind "erf" or "tanh"; no gradient."""
    n_rows, n_columns = x.shape
    out = torch.empty_like(x) if out is None else out
    if x.numel() == 0:
        return out
    block = min(BLOCK, triton.next_power_of_2(n_columns))
    _bias_gelu[(n_rows, triton.cdiv(n_columns, block))](
        x, x if bias is None else bias, out, n_columns, BLOCK_D=block, BIAS=bias is not None, TANH=kind == "tanh"
    )
    return out


@triton.jit
def _swiglu(
    ab_ptr,  # (T, 2 D), contiguous: a beside b
    out_ptr,  # (T, D)
    n_columns,
    BLOCK_D: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column_D = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside_D = column_D < n_columns
    a_D = tl.load(ab_ptr + row * 2 * n_columns + column_D, mask=inside_D, other=0.0).to(tl.float32)
    b_D = tl.load(ab_ptr + row * 2 * n_columns + n_columns + column_D, mask=inside_D, other=0.0).to(tl.float32)
    out_D = a_D * tl.sigmoid(a_D) * b_D
    tl.store(out_ptr + row * n_columns + column_D, out_D.to(out_ptr.dtype.element_ty), mask=inside_D)


@triton.jit
def _swiglu_backward(
    ab_ptr,  # (T, 2 D)
    dout_ptr,  # (T, D)
    dab_ptr,  # (T, 2 D)
    n_columns,
    BLOCK_D: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column_D = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside_D = column_D < n_columns
    at_a_D = row * 2 * n_columns + column_D
    at_b_D = at_a_D + n_columns
    a_D = tl.load(ab_ptr + at_a_D, mask=inside_D, other=0.0).to(tl.float32)
    b_D = tl.load(ab_ptr + at_b_D, mask=inside_D, other=0.0).to(tl.float32)
    dout_D = tl.load(dout_ptr + row * n_columns + column_D, mask=inside_D, other=0.0).to(tl.float32)
    gate_D = tl.sigmoid(a_D)
    da_D = dout_D * b_D * gate_D * (1.0 + a_D * (1.0 - gate_D))
    db_D = dout_D * a_D * gate_D
    tl.store(dab_ptr + at_a_D, da_D.to(dab_ptr.dtype.element_ty), mask=inside_D)
    tl.store(dab_ptr + at_b_D, db_D.to(dab_ptr.dtype.element_ty), mask=inside_D)


class _Swiglu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ab: Any) -> Any:
        ctx.save_for_backward(ab)
        n_rows, n_columns = ab.shape[0], ab.shape[1] // 2
        out = torch.empty((n_rows, n_columns), dtype=ab.dtype, device=ab.device)
        if out.numel():
            block = min(BLOCK, triton.next_power_of_2(n_columns))
            _swiglu[(n_rows, triton.cdiv(n_columns, block))](ab, out, n_columns, BLOCK_D=block)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (ab,) = ctx.saved_tensors
        n_rows, n_columns = ab.shape[0], ab.shape[1] // 2
        dab = torch.empty_like(ab)
        if dab.numel():
            block = min(BLOCK, triton.next_power_of_2(n_columns))
            grid = (n_rows, triton.cdiv(n_columns, block))
            _swiglu_backward[grid](ab, grads[0].contiguous(), dab, n_columns, BLOCK_D=block)
        return dab


def swiglu(ab: Any) -> Any:
    """silu(a) * b for ab (T, 2 D), contiguous: (T, D), differentiable."""
    return _Swiglu.apply(ab)

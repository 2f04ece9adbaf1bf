"""pool_normalize: the mean, first or last row of every packed sequence, divided by its L2 norm where asked.

Shape legend: T rows, B sequences, D columns, N rows of one tile. Sums are in float32.
"""

from typing import Any

import torch
import triton
import triton.language as tl

MOST_COLUMNS = 4096


@triton.jit
def _pool_normalize(
    x_ptr,  # (T, D), contiguous, f32, f16 or bf16
    cu_seqlens_ptr,  # (B + 1,) int32; no sequence is empty
    out_ptr,  # (B, D), contiguous
    n_columns,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    POOLING: tl.constexpr,  # 0 mean, 1 first, 2 last
    NORMALIZE: tl.constexpr,
):
    sequence = tl.program_id(0).to(tl.int64)
    start = tl.load(cu_seqlens_ptr + sequence).to(tl.int64)
    end = tl.load(cu_seqlens_ptr + sequence + 1).to(tl.int64)
    column_D = tl.arange(0, BLOCK_D)
    inside_D = column_D < n_columns
    if POOLING == 0:
        sum_D = tl.zeros([BLOCK_D], tl.float32)
        for first in range(start, end, BLOCK_N):
            row_N = first + tl.arange(0, BLOCK_N)
            mask_ND = (row_N < end)[:, None] & inside_D[None, :]
            tile_ND = tl.load(x_ptr + row_N[:, None] * n_columns + column_D[None, :], mask=mask_ND, other=0.0)
            sum_D += tl.sum(tile_ND.to(tl.float32), 0)
        pooled_D = sum_D / (end - start).to(tl.float32)
    else:
        row = start if POOLING == 1 else end - 1
        pooled_D = tl.load(x_ptr + row * n_columns + column_D, mask=inside_D, other=0.0).to(tl.float32)
    if NORMALIZE:
        # Scaled by the largest entry first, or the squares of large numbers would be infinite.
        largest = tl.max(tl.abs(pooled_D), 0)
        scaled_D = pooled_D / tl.where(largest > 0.0, largest, 1.0)
        norm = tl.sqrt(tl.sum(scaled_D * scaled_D, 0))
        pooled_D = tl.where(largest < 1e-12, pooled_D / 1e-12, scaled_D / tl.where(norm > 0.0, norm, 1.0))
    tl.store(out_ptr + sequence * n_columns + column_D, pooled_D.to(out_ptr.dtype.element_ty), mask=inside_D)


def pool_normalize(x: Any, cu_seqlens: Any, pooling: int, normalize: bool, out: Any = None) -> Any:
    """out (B, D) in the dtype of x; pooling 0 mean, 1 first, 2 last row; no gradient."""
    n_sequences, n_columns = cu_seqlens.numel() - 1, x.shape[1]
    out = torch.empty((n_sequences, n_columns), dtype=x.dtype, device=x.device) if out is None else out
    if out.numel() == 0:
        return out
    block = triton.next_power_of_2(n_columns)
    _pool_normalize[(n_sequences,)](
        x,
        cu_seqlens,
        out,
        n_columns,
        BLOCK_N=max(1, min(16, 8192 // block)),
        BLOCK_D=block,
        POOLING=pooling,
        NORMALIZE=normalize,
        num_warps=4 if block <= 1024 else 8,
    )
    return out

"""attention_varlen: softmax(scale * q k' + relative) v for sequences packed one after another, forward and backward.

Shape legend: T tokens of all sequences together, B sequences, H heads of q, G heads of k and v, D head size,
M rows (queries) and N columns (keys) of one tile.

    q, out, dout, dq     (T, H, D)  f32, f16 or bf16; last dimension contiguous
    k, v, dk, dv         (T, G, D)  H / G neighbouring heads of q share one of k and v
    cu_seqlens           (B + 1,)   int32, ascending from 0 to T; sequence b is rows [cu[b], cu[b + 1])
    relative             (H, 2 R - 1)  f32, added to the score of query i and key j at [R - 1 + j - i]
    cos, sin             (T, D / 2)    f32, rotary positions: x -> x cos + (-x2, x1) sin for the halves x1, x2 of x
    lse, delta           (H, T)     f32: log of the sum of 2^score by row, and the row sums of out * dout

Online softmax and recomputation after Dao et al., FlashAttention (NeurIPS 2022). Sums are in float32 and cast once, on
store. Empty sequences are allowed. No atomic: the same input gives the same bits.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from fastrec.kernels.attention_backward import backward
from fastrec.kernels.attention_common import LOG2_E, _bounds, _rotated, _scores, _tile, block_of


@triton.jit
def _attention_forward(
    q_ptr,  # (T, H, D)
    k_ptr,  # (T, G, D)
    v_ptr,  # (T, G, D)
    out_ptr,  # (T, H, D), contiguous
    lse_ptr,  # (H, T) f32
    cu_seqlens_ptr,  # (B + 1,) int32
    relative_ptr,  # (H, 2 reach - 1) f32, read only if RELATIVE
    cos_ptr,  # (T, D / 2) f32, read only if ROTARY
    sin_ptr,
    n_tokens,
    reach,
    q_stride_t,
    q_stride_h,
    k_stride_t,
    k_stride_h,
    v_stride_t,
    v_stride_h,
    scale_log2,  # scale * log2(e): the softmax works in powers of two
    N_HEADS: tl.constexpr,
    GROUP: tl.constexpr,  # H / G
    HEAD_SIZE: tl.constexpr,
    BLOCK_D: tl.constexpr,  # HEAD_SIZE rounded up to a power of two
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr,
    RELATIVE: tl.constexpr,
    ROTARY: tl.constexpr,
    KEEP_LSE: tl.constexpr,
):
    # One program: BLOCK_M query rows of one head of one sequence.
    head = tl.program_id(1).to(tl.int64)
    start, length = _bounds(cu_seqlens_ptr, tl.program_id(2))
    first_row = tl.program_id(0) * BLOCK_M
    if first_row >= length:
        return

    row_M = first_row + tl.arange(0, BLOCK_M)
    dim_D = tl.arange(0, BLOCK_D)
    in_head_D = dim_D < HEAD_SIZE
    mask_MD = (row_M < length)[:, None] & in_head_D[None, :]
    token_M1 = (start + row_M)[:, None]
    q_MD = _tile(q_ptr, token_M1, q_stride_t, head, q_stride_h, dim_D, mask_MD)
    if ROTARY:
        q_MD = _rotated(
            q_MD, q_ptr, token_M1, q_stride_t, head, q_stride_h, dim_D, cos_ptr, sin_ptr, mask_MD, HEAD_SIZE // 2
        )
    max_M = tl.full([BLOCK_M], float("-inf"), tl.float32)
    sum_M = tl.zeros([BLOCK_M], tl.float32)
    acc_MD = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)

    last_col = tl.minimum(first_row + BLOCK_M, length) if CAUSAL else length
    for first_col in range(0, last_col, BLOCK_N):
        col_N = first_col + tl.arange(0, BLOCK_N)
        mask_ND = (col_N < length)[:, None] & in_head_D[None, :]
        token_N1 = (start + col_N)[:, None]
        k_ND = _tile(k_ptr, token_N1, k_stride_t, head // GROUP, k_stride_h, dim_D, mask_ND)
        v_ND = _tile(v_ptr, token_N1, v_stride_t, head // GROUP, v_stride_h, dim_D, mask_ND)
        if ROTARY:
            k_ND = _rotated(
                k_ND, k_ptr, token_N1, k_stride_t, head // GROUP, k_stride_h, dim_D, cos_ptr, sin_ptr, mask_ND,
                HEAD_SIZE // 2,
            )  # fmt: skip
        score_MN = _scores(q_MD, k_ND, row_M, col_N, length, head, relative_ptr, reach, scale_log2, CAUSAL, RELATIVE)
        # Every row that counts sees column 0 in the first tile, so that its maximum is finite from there on; those
        # behind the end see nothing, and 0 keeps NaN out of them.
        new_max_M = tl.maximum(max_M, tl.max(score_MN, 1))
        finite_M = tl.where(new_max_M == float("-inf"), 0.0, new_max_M)
        p_MN = tl.exp2(score_MN - finite_M[:, None])
        rescale_M = tl.exp2(max_M - finite_M)
        sum_M = sum_M * rescale_M + tl.sum(p_MN, 1)
        acc_MD = acc_MD * rescale_M[:, None]
        acc_MD += tl.dot(p_MN.to(v_ND.dtype), v_ND, input_precision="ieee")
        max_M = new_max_M

    sum_M = tl.where(sum_M == 0.0, 1.0, sum_M)  # rows behind the end
    out_MD = acc_MD / sum_M[:, None]
    at_MD = (token_M1 * N_HEADS + head) * HEAD_SIZE + dim_D[None, :]
    tl.store(out_ptr + at_MD, out_MD.to(out_ptr.dtype.element_ty), mask=mask_MD)
    if KEEP_LSE:
        tl.store(lse_ptr + head * n_tokens + start + row_M, max_M + tl.log2(sum_M), mask=row_M < length)


def tile_of(dtype: torch.dtype, block_d: int, rotary: bool) -> tuple[int, int, int]:
    """(BLOCK_M, BLOCK_N, warps) forward: of those tried, the largest that spill no register on any architecture."""
    if dtype == torch.float32:
        if rotary:
            return (32, 16, 4) if block_d <= 64 else (16, 16, 8)
        return (32, 32, 4) if block_d <= 128 else (16, 16, 8)
    return (64, 32, 4) if block_d <= (64 if rotary else 128) else (32, 32, 4)


def forward(
    q: Any, k: Any, v: Any, cu_seqlens: Any, max_seqlen: int, *, causal: bool = False, scale: float | None = None,
    relative: Any = None, rotary: Any = None, out: Any = None, keep_lse: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """(out, lse or None). ``max_seqlen`` only sizes the grid: a Python int, so that the device need not be asked.

    rotary: None or (cos, sin), each f32 (T, D / 2), contiguous
    """
    n_tokens, n_heads, head_size = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device) if out is None else out
    lse = torch.empty((n_heads, n_tokens), dtype=torch.float32, device=q.device) if keep_lse else None
    n_sequences = cu_seqlens.numel() - 1
    if n_sequences == 0 or max_seqlen == 0:
        return out, lse
    block_d = block_of(head_size)
    block_m, block_n, warps = tile_of(q.dtype, block_d, rotary is not None)
    cos, sin = (q, q) if rotary is None else rotary
    _attention_forward[(triton.cdiv(max_seqlen, block_m), n_heads, n_sequences)](
        q,
        k,
        v,
        out,
        lse if keep_lse else out,
        cu_seqlens,
        q if relative is None else relative,
        cos,
        sin,
        n_tokens,
        0 if relative is None else relative.shape[1] // 2 + 1,
        *q.stride()[:2],
        *k.stride()[:2],
        *v.stride()[:2],
        (head_size**-0.5 if scale is None else scale) * LOG2_E,
        N_HEADS=n_heads,
        GROUP=n_heads // k.shape[1],
        HEAD_SIZE=head_size,
        BLOCK_D=block_d,
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        CAUSAL=causal,
        RELATIVE=relative is not None,
        ROTARY=rotary is not None,
        KEEP_LSE=keep_lse,
        num_warps=warps,
        num_stages=2,
    )
    return out, lse


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Any, k: Any, v: Any, cu_seqlens: Any, max_seqlen: int, causal: bool, scale: float, relative: Any
    ) -> Any:
        out, lse = forward(
            q, k, v, cu_seqlens, max_seqlen, causal=causal, scale=scale, relative=relative, keep_lse=True
        )
        ctx.save_for_backward(q, k, v, out, lse, cu_seqlens, relative)
        ctx.how = (max_seqlen, causal, scale)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        q, k, v, out, lse, cu_seqlens, relative = ctx.saved_tensors
        max_seqlen, causal, scale = ctx.how
        found = backward(
            q, k, v, out, grads[0], lse, cu_seqlens, max_seqlen, causal=causal, scale=scale, relative=relative
        )
        return (*found, None, None, None, None, None)


def _turned(x: Any, cos: Any, sin: Any) -> Any:
    """Rotary positions in torch, for the backward pass."""
    first, second = x.float().chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


def attention_varlen(
    q: Any, k: Any, v: Any, cu_seqlens: Any, max_seqlen: int, *, causal: bool = False, scale: float | None = None,
    relative: Any = None, rotary: Any = None,
) -> Any:  # fmt: skip
    """out (T, H, D), differentiable in q, k and v.

    Where a gradient is wanted, torch turns q and k by ``rotary`` beforehand; else the kernel does on its way.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        if rotary is not None:
            q, k = (_turned(x, *rotary) for x in (q, k))
        return _Attention.apply(q, k, v, cu_seqlens, max_seqlen, causal, scale, relative)
    return forward(q, k, v, cu_seqlens, max_seqlen, causal=causal, scale=scale, relative=relative, rotary=rotary)[0]

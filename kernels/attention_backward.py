"""The backward pass of attention_varlen; its shape legend holds here."""

from typing import Any

import torch
import triton
import triton.language as tl
from fastrec.kernels.attention_common import _bounds, _scores, _tile, block_of


@triton.jit
def _attention_backward_q(
    q_ptr,  # (T, H, D), contiguous, as all below
    k_ptr,  # (T, G, D)
    v_ptr,  # (T, G, D)
    dout_ptr,  # (T, H, D)
    dq_ptr,  # (T, H, D)
    lse_ptr,  # (H, T) f32
    delta_ptr,  # (H, T) f32
    cu_seqlens_ptr,  # (B + 1,) int32
    relative_ptr,  # (H, 2 reach - 1) f32
    n_tokens,
    reach,
    scale,
    N_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr,
    RELATIVE: tl.constexpr,
    RELOAD: tl.constexpr,  # read what stays the same again, or float32 spills: it is multiplied from registers
):
    # One program: the gradient of BLOCK_M query rows of one head of one sequence.
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
    q_MD = _tile(q_ptr, token_M1, N_HEADS * HEAD_SIZE, head, HEAD_SIZE, dim_D, mask_MD)
    dout_MD = _tile(dout_ptr, token_M1, N_HEADS * HEAD_SIZE, head, HEAD_SIZE, dim_D, mask_MD)
    lse_M = tl.load(lse_ptr + head * n_tokens + start + row_M, mask=row_M < length, other=0.0)
    delta_M = tl.load(delta_ptr + head * n_tokens + start + row_M, mask=row_M < length, other=0.0)
    dq_MD = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    last_col = tl.minimum(first_row + BLOCK_M, length) if CAUSAL else length
    for first_col in range(0, last_col, BLOCK_N):
        col_N = first_col + tl.arange(0, BLOCK_N)
        mask_ND = (col_N < length)[:, None] & in_head_D[None, :]
        token_N1 = (start + col_N)[:, None]
        if RELOAD:
            q_MD = _tile(q_ptr, token_M1, N_HEADS * HEAD_SIZE, head, HEAD_SIZE, dim_D, mask_MD)
            dout_MD = _tile(dout_ptr, token_M1, N_HEADS * HEAD_SIZE, head, HEAD_SIZE, dim_D, mask_MD)
        k_ND = _tile(k_ptr, token_N1, N_HEADS // GROUP * HEAD_SIZE, head // GROUP, HEAD_SIZE, dim_D, mask_ND)
        v_ND = _tile(v_ptr, token_N1, N_HEADS // GROUP * HEAD_SIZE, head // GROUP, HEAD_SIZE, dim_D, mask_ND)
        score_MN = _scores(
            q_MD, k_ND, row_M, col_N, length, head, relative_ptr, reach, scale * 1.4426950408889634, CAUSAL, RELATIVE
        )
        p_MN = tl.exp2(score_MN - lse_M[:, None])
        dp_MN = tl.dot(dout_MD, tl.trans(v_ND), input_precision="ieee")
        ds_MN = p_MN * (dp_MN - delta_M[:, None])
        dq_MD += tl.dot(ds_MN.to(k_ND.dtype), k_ND, input_precision="ieee")
    at_MD = (token_M1 * N_HEADS + head) * HEAD_SIZE + dim_D[None, :]
    tl.store(dq_ptr + at_MD, (dq_MD * scale).to(dq_ptr.dtype.element_ty), mask=mask_MD)


@triton.jit
def _attention_backward_kv(
    q_ptr,  # (T, H, D), contiguous, as all below
    k_ptr,  # (T, G, D)
    v_ptr,  # (T, G, D)
    dout_ptr,  # (T, H, D)
    dk_ptr,  # (T, G, D)
    dv_ptr,  # (T, G, D)
    lse_ptr,  # (H, T) f32
    delta_ptr,  # (H, T) f32
    cu_seqlens_ptr,  # (B + 1,) int32
    relative_ptr,  # (H, 2 reach - 1) f32
    n_tokens,
    reach,
    scale,
    N_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr,
    RELATIVE: tl.constexpr,
    RELOAD: tl.constexpr,  # read what stays the same again, or float32 spills: it is multiplied from registers
):
    # One program: the gradients of BLOCK_N key rows of one head of k and v, over all heads of q that share it.
    shared = tl.program_id(1).to(tl.int64)
    start, length = _bounds(cu_seqlens_ptr, tl.program_id(2))
    first_col = tl.program_id(0) * BLOCK_N
    if first_col >= length:
        return
    col_N = first_col + tl.arange(0, BLOCK_N)
    dim_D = tl.arange(0, BLOCK_D)
    in_head_D = dim_D < HEAD_SIZE
    mask_ND = (col_N < length)[:, None] & in_head_D[None, :]
    token_N1 = (start + col_N)[:, None]
    k_ND = _tile(k_ptr, token_N1, N_HEADS // GROUP * HEAD_SIZE, shared, HEAD_SIZE, dim_D, mask_ND)
    v_ND = _tile(v_ptr, token_N1, N_HEADS // GROUP * HEAD_SIZE, shared, HEAD_SIZE, dim_D, mask_ND)
    dk_ND = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dv_ND = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    begin = first_col // BLOCK_M * BLOCK_M if CAUSAL else 0
    for member in range(GROUP):
        head = shared * GROUP + member
        for first_row in range(begin, length, BLOCK_M):
            row_M = first_row + tl.arange(0, BLOCK_M)
            mask_MD = (row_M < length)[:, None] & in_head_D[None, :]
            token_M1 = (start + row_M)[:, None]
            if RELOAD:
                k_ND = _tile(k_ptr, token_N1, N_HEADS // GROUP * HEAD_SIZE, shared, HEAD_SIZE, dim_D, mask_ND)
                v_ND = _tile(v_ptr, token_N1, N_HEADS // GROUP * HEAD_SIZE, shared, HEAD_SIZE, dim_D, mask_ND)
            q_MD = _tile(q_ptr, token_M1, N_HEADS * HEAD_SIZE, head, HEAD_SIZE, dim_D, mask_MD)
            dout_MD = _tile(dout_ptr, token_M1, N_HEADS * HEAD_SIZE, head, HEAD_SIZE, dim_D, mask_MD)
            lse_M = tl.load(lse_ptr + head * n_tokens + start + row_M, mask=row_M < length, other=0.0)
            delta_M = tl.load(delta_ptr + head * n_tokens + start + row_M, mask=row_M < length, other=0.0)
            score_MN = _scores(
                q_MD, k_ND, row_M, col_N, length, head, relative_ptr, reach, scale * 1.4426950408889634, CAUSAL,
                RELATIVE,
            )  # fmt: skip
            p_MN = tl.exp2(score_MN - lse_M[:, None])
            dv_ND += tl.dot(tl.trans(p_MN).to(dout_MD.dtype), dout_MD, input_precision="ieee")
            dp_MN = tl.dot(dout_MD, tl.trans(v_ND), input_precision="ieee")
            ds_MN = p_MN * (dp_MN - delta_M[:, None])
            dk_ND += tl.dot(tl.trans(ds_MN).to(q_MD.dtype), q_MD, input_precision="ieee")
    at_ND = (token_N1 * (N_HEADS // GROUP) + shared) * HEAD_SIZE + dim_D[None, :]
    tl.store(dk_ptr + at_ND, (dk_ND * scale).to(dk_ptr.dtype.element_ty), mask=mask_ND)
    tl.store(dv_ptr + at_ND, dv_ND.to(dv_ptr.dtype.element_ty), mask=mask_ND)


def backward_tile_of(dtype: torch.dtype, block_d: int) -> tuple[int, int, int]:
    """(BLOCK_M, BLOCK_N, warps) backward, by the rule of the forward pass."""
    if dtype == torch.float32:
        return (32, 32, 4) if block_d <= 32 else (32, 16, 4) if block_d <= 64 else (16, 16, 4)
    return (64, 32, 4) if block_d <= 64 else (32, 32, 8)


def backward(
    q: Any, k: Any, v: Any, out: Any, dout: Any, lse: Any, cu_seqlens: Any, max_seqlen: int, *, causal: bool,
    scale: float | None, relative: Any = None,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """(dq, dk, dv); relative has no gradient here."""
    q, k, v, dout = (x.contiguous() for x in (q, k, v, dout))
    dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
    n_tokens, n_heads, head_size = q.shape
    n_sequences = cu_seqlens.numel() - 1
    if n_sequences == 0 or max_seqlen == 0:
        return dq, dk, dv
    delta = (out.float() * dout.float()).sum(-1).T.contiguous()
    block_d = block_of(head_size)
    block_m, block_n, warps = backward_tile_of(q.dtype, block_d)
    common = (lse, delta, cu_seqlens, q if relative is None else relative, n_tokens)
    common += (0 if relative is None else relative.shape[1] // 2 + 1, head_size**-0.5 if scale is None else scale)
    meta: dict[str, Any] = {"N_HEADS": n_heads, "GROUP": n_heads // k.shape[1], "HEAD_SIZE": head_size}
    meta |= {"BLOCK_D": block_d, "BLOCK_M": block_m, "BLOCK_N": block_n, "CAUSAL": causal}
    meta |= {"RELATIVE": relative is not None, "num_warps": warps, "num_stages": 1}
    meta["RELOAD"] = q.dtype == torch.float32
    meta["maxnreg"] = 255  # else ptxas spills a few bytes at 64 to 128 registers, for the sake of occupancy
    grid = (triton.cdiv(max_seqlen, block_m), n_heads, n_sequences)
    _attention_backward_q[grid](q, k, v, dout, dq, *common, **meta)
    grid = (triton.cdiv(max_seqlen, block_n), k.shape[1], n_sequences)
    _attention_backward_kv[grid](q, k, v, dout, dk, dv, *common, **meta)
    return dq, dk, dv

"""What the forward and the backward pass of attention_varlen share. Shape legend: that of attention_varlen."""

import triton
import triton.language as tl

LOG2_E = 1.4426950408889634


@triton.jit
def _bounds(cu_seqlens_ptr, sequence):
    """(first token, length) of a sequence."""
    start = tl.load(cu_seqlens_ptr + sequence).to(tl.int64)
    return start, (tl.load(cu_seqlens_ptr + sequence + 1) - start).to(tl.int32)


@triton.jit
def _tile(ptr, token_M1, stride_t, head, stride_h, dim_D, mask_MD):
    """Rows of one head, [M, D]; 0 where the mask is false."""
    return tl.load(ptr + token_M1 * stride_t + head * stride_h + dim_D[None, :], mask=mask_MD, other=0.0)


@triton.jit
def _rotated(x_MD, ptr, token_M1, stride_t, head, stride_h, dim_D, cos_ptr, sin_ptr, mask_MD, HALF: tl.constexpr):
    """x cos + (-x2, x1) sin: the other half is read from memory again."""
    first_D = dim_D < HALF
    other_D = tl.where(first_D, dim_D + HALF, dim_D - HALF)
    angle_D = tl.where(first_D, dim_D, dim_D - HALF)
    other_MD = tl.load(ptr + token_M1 * stride_t + head * stride_h + other_D[None, :], mask=mask_MD, other=0.0)
    cos_MD = tl.load(cos_ptr + token_M1 * HALF + angle_D[None, :], mask=mask_MD, other=0.0)
    sin_MD = tl.load(sin_ptr + token_M1 * HALF + angle_D[None, :], mask=mask_MD, other=0.0)
    sign_D = tl.where(first_D, -1.0, 1.0)
    turned_MD = x_MD.to(tl.float32) * cos_MD + sign_D[None, :] * other_MD.to(tl.float32) * sin_MD
    return turned_MD.to(x_MD.dtype)


@triton.jit
def _scores(
    q_MD, k_ND, row_M, col_N, length, head, relative_ptr, reach, scale_log2,
    CAUSAL: tl.constexpr, RELATIVE: tl.constexpr,
):  # fmt: skip
    """Scores in powers of two, [M, N]; -inf where the key is not seen."""
    score_MN = tl.dot(q_MD, tl.trans(k_ND), input_precision="ieee") * scale_log2
    seen_MN = (col_N < length)[None, :] & (row_M < length)[:, None]
    if RELATIVE:
        offset_MN = col_N[None, :] - row_M[:, None] + reach - 1
        at_MN = head * (2 * reach - 1) + offset_MN
        score_MN += tl.load(relative_ptr + at_MN, mask=seen_MN, other=0.0) * 1.4426950408889634
    if CAUSAL:
        seen_MN = seen_MN & (col_N[None, :] <= row_M[:, None])
    return tl.where(seen_MN, score_MN, float("-inf"))


def block_of(head_size: int) -> int:
    """BLOCK_D of a head size."""
    return max(16, triton.next_power_of_2(head_size))

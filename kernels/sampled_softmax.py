"""sampled_softmax: the loss over a target and shared negatives and its gradients; no logit is written to memory.

    logit_j = scale * <state, other_j> - correction_j        own = scale * <state, wanted>
    loss    = log(exp(own) + sum_j exp(logit_j)) - own

Shape legend: T tokens, S sets of negatives, K negatives of a set, D columns; M tokens and N negatives of one tile.
Token t uses the set t // rows; a negative that is the token's own target is left out. Sums are in float32. The walk is
that of FlashAttention (Dao et al. 2022): the state is the query, the negatives are keys and values.
"""

from typing import Any

import torch
import triton
import triton.language as tl

MOST_COLUMNS = 256


@triton.jit
def _logits(
    state_MD, others_ptr, drawn_ptr, correction_ptr, target_M, first, group, n_negatives, n_columns, scale,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """(logits [M, N], others [N, D]) of the negatives first .. first + N - 1 of a set."""
    negative_N = first + tl.arange(0, BLOCK_N)
    column_D = tl.arange(0, BLOCK_D)
    inside_N = negative_N < n_negatives
    at_N = group * n_negatives + negative_N
    other_ND = tl.load(
        others_ptr + at_N[:, None] * n_columns + column_D[None, :],
        mask=inside_N[:, None] & (column_D < n_columns)[None, :],
        other=0.0,
    )
    item_N = tl.load(drawn_ptr + at_N, mask=inside_N, other=-1)
    correction_N = tl.load(correction_ptr + at_N, mask=inside_N, other=0.0)
    logit_MN = tl.dot(state_MD, tl.trans(other_ND), input_precision="ieee") * scale - correction_N[None, :]
    counts_MN = inside_N[None, :] & (item_N[None, :] != target_M[:, None])
    return tl.where(counts_MN, logit_MN, float("-inf")), other_ND


@triton.jit
def _sampled_softmax_states(
    states_ptr,  # (T, D), contiguous, f32, f16 or bf16, as wanted and others
    wanted_ptr,  # (T, D)
    others_ptr,  # (S, K, D)
    targets_ptr,  # (T,) int64
    drawn_ptr,  # (S, K) int64
    correction_ptr,  # (S, K) f32
    loss_ptr,  # (T,) f32
    lse_ptr,  # (T,) f32
    d_states_ptr,  # (T, D)
    d_wanted_ptr,  # (T, D)
    n_tokens,
    n_negatives,
    n_columns,
    rows,  # tokens of a set
    scale,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    RELOAD: tl.constexpr,
):
    # One program: BLOCK_M tokens of one set; loss, and the gradients of states and wanted.
    group = tl.program_id(1).to(tl.int64)
    within_M = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    token_M = group * rows + within_M
    inside_M = (within_M < rows) & (token_M < n_tokens)
    column_D = tl.arange(0, BLOCK_D)
    mask_MD = inside_M[:, None] & (column_D < n_columns)[None, :]
    at_MD = token_M[:, None] * n_columns + column_D[None, :]
    state_MD = tl.load(states_ptr + at_MD, mask=mask_MD, other=0.0)
    wanted_MD = tl.load(wanted_ptr + at_MD, mask=mask_MD, other=0.0)
    target_M = tl.load(targets_ptr + token_M, mask=inside_M, other=-2)
    own_M = tl.sum(state_MD.to(tl.float32) * wanted_MD.to(tl.float32), 1) * scale

    # The target starts the sums: the maximum is finite from the beginning.
    max_M = own_M
    sum_M = tl.full([BLOCK_M], 1.0, tl.float32)
    acc_MD = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for first in range(0, n_negatives, BLOCK_N):
        if RELOAD:  # float32 has no tensor cores: the tile would stay in registers over the loop, and spill
            state_MD = tl.load(states_ptr + at_MD, mask=mask_MD, other=0.0)
        logit_MN, other_ND = _logits(
            state_MD, others_ptr, drawn_ptr, correction_ptr, target_M, first, group, n_negatives, n_columns, scale,
            BLOCK_N, BLOCK_D,
        )  # fmt: skip
        new_max_M = tl.maximum(max_M, tl.max(logit_MN, 1))
        p_MN = tl.exp(logit_MN - new_max_M[:, None])
        rescale_M = tl.exp(max_M - new_max_M)
        sum_M = sum_M * rescale_M + tl.sum(p_MN, 1)
        acc_MD = acc_MD * rescale_M[:, None]
        acc_MD += tl.dot(p_MN.to(other_ND.dtype), other_ND, input_precision="ieee")
        max_M = new_max_M
    lse_M = max_M + tl.log(sum_M)
    miss_M = (tl.exp(own_M - lse_M) - 1.0) * scale
    d_state_MD = acc_MD * (scale / sum_M)[:, None] + wanted_MD.to(tl.float32) * miss_M[:, None]
    d_wanted_MD = state_MD.to(tl.float32) * miss_M[:, None]
    tl.store(loss_ptr + token_M, lse_M - own_M, mask=inside_M)
    tl.store(lse_ptr + token_M, lse_M, mask=inside_M)
    tl.store(d_states_ptr + at_MD, d_state_MD.to(d_states_ptr.dtype.element_ty), mask=mask_MD)
    tl.store(d_wanted_ptr + at_MD, d_wanted_MD.to(d_wanted_ptr.dtype.element_ty), mask=mask_MD)


@triton.jit
def _sampled_softmax_others(
    states_ptr,  # (T, D)
    others_ptr,  # (S, K, D)
    targets_ptr,  # (T,) int64
    drawn_ptr,  # (S, K) int64
    correction_ptr,  # (S, K) f32
    lse_ptr,  # (T,) f32
    d_others_ptr,  # (S, K, D)
    n_tokens,
    n_negatives,
    n_columns,
    rows,
    scale,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    # One program: the gradient of BLOCK_N negatives of one set, over all of its tokens.
    group = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0) * BLOCK_N
    negative_N = first + tl.arange(0, BLOCK_N)
    column_D = tl.arange(0, BLOCK_D)
    acc_ND = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for begin in range(0, rows, BLOCK_M):
        within_M = begin + tl.arange(0, BLOCK_M)
        token_M = group * rows + within_M
        inside_M = (within_M < rows) & (token_M < n_tokens)
        at_MD = token_M[:, None] * n_columns + column_D[None, :]
        mask_MD = inside_M[:, None] & (column_D < n_columns)[None, :]
        state_MD = tl.load(states_ptr + at_MD, mask=mask_MD, other=0.0)
        target_M = tl.load(targets_ptr + token_M, mask=inside_M, other=-2)
        lse_M = tl.load(lse_ptr + token_M, mask=inside_M, other=float("inf"))  # exp(. - inf) = 0: no token, no part
        logit_MN, _ = _logits(
            state_MD, others_ptr, drawn_ptr, correction_ptr, target_M, first, group, n_negatives, n_columns, scale,
            BLOCK_N, BLOCK_D,
        )  # fmt: skip
        p_MN = tl.exp(logit_MN - lse_M[:, None])
        acc_ND += tl.dot(tl.trans(p_MN).to(state_MD.dtype), state_MD, input_precision="ieee")
    at_ND = (group * n_negatives + negative_N)[:, None] * n_columns + column_D[None, :]
    mask_ND = (negative_N < n_negatives)[:, None] & (column_D < n_columns)[None, :]
    tl.store(d_others_ptr + at_ND, (acc_ND * scale).to(d_others_ptr.dtype.element_ty), mask=mask_ND)


def tile_of(dtype: torch.dtype, block_d: int) -> tuple[int, int, int]:
    """(BLOCK_M, BLOCK_N, warps): of those tried, the largest that spill no register on any architecture."""
    if dtype == torch.float32:
        return (32, 32, 4) if block_d <= 64 else (16, 16, 8)
    return (64, 32, 4) if block_d <= 64 else (32, 32, 4) if block_d <= 128 else (16, 16, 4)


def sampled_softmax(
    states: Any, wanted: Any, others: Any, targets: Any, drawn: Any, correction: Any, scale: float
) -> tuple[Any, Any, Any, Any]:
    """(loss (T,) f32, d_states, d_wanted, d_others) of the sum of the losses; all contiguous."""
    n_tokens, n_columns = states.shape
    n_sets, n_negatives = drawn.shape
    loss, lse = (torch.empty(n_tokens, dtype=torch.float32, device=states.device) for _ in range(2))
    d_states, d_wanted, d_others = (torch.empty_like(x) for x in (states, wanted, others))
    if n_tokens == 0:
        return loss, d_states, d_wanted, d_others.zero_()
    rows = triton.cdiv(n_tokens, n_sets)
    block_d = max(16, triton.next_power_of_2(n_columns))
    block_m, block_n, warps = tile_of(states.dtype, block_d)
    sizes = (n_tokens, n_negatives, n_columns, rows, scale)
    meta = {"BLOCK_M": block_m, "BLOCK_N": block_n, "BLOCK_D": block_d, "num_warps": warps, "num_stages": 1}
    if states.dtype == torch.float32:
        meta["maxnreg"] = 255  # else ptxas spills a few bytes at 64 registers, for the sake of occupancy
    reload = states.dtype == torch.float32
    _sampled_softmax_states[(triton.cdiv(rows, block_m), n_sets)](
        states, wanted, others, targets, drawn, correction, loss, lse, d_states, d_wanted, *sizes, RELOAD=reload, **meta
    )
    if n_negatives:
        _sampled_softmax_others[(triton.cdiv(n_negatives, block_n), n_sets)](
            states, others, targets, drawn, correction, lse, d_others, *sizes, **meta
        )
    return loss, d_states, d_wanted, d_others

"""Softmax over the target and shared negatives, with the correction for how they were drawn.

    loss = sum_t -log( e^(s_t) / (e^(s_t) + sum_j e^(s_j - log E_j)) ),  s = <state, item> / temperature

with E_j the expected number of draws of negative j: the sum estimates that over the whole catalogue. A negative that is
the target itself is left out. Sources: Jean et al. 2015; Yi et al. 2019 (logQ).
"""

from typing import Any

import torch
from torch import Tensor

from fastrec import ops
from fastrec.ops import _arrays, _triton


class _SampledSoftmax(torch.autograd.Function):
    """The gradients are computed with the loss, one set of negatives at a time: its logits stay in the cache."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, wanted: Tensor, others: Tensor, targets: Tensor, drawn: Tensor, correction: Tensor,
        scale: float,
    ) -> Tensor:  # fmt: skip
        T = len(states)
        if _arrays.on_gpu(states) and _triton.missing() is None and states.shape[1] <= _triton.MOST["sampled_softmax"]:
            loss, *grads = ops.sampled_softmax(states, wanted, others, targets, drawn, correction, scale=scale)
            ctx.save_for_backward(*grads)
            total: Tensor = loss.sum()
            return total
        rows = -(-T // len(others))
        d_states, d_wanted, d_others = torch.empty_like(states), torch.empty_like(wanted), torch.zeros_like(others)
        total = states.new_zeros(())
        for number, negatives in enumerate(others):
            span = slice(number * rows, min((number + 1) * rows, T))
            if span.start >= T:
                break
            state, own = states[span], wanted[span]
            logits = torch.addmm(-correction[number], state, negatives.T, alpha=scale)
            logits.masked_fill_(targets[span, None] == drawn[number], -torch.inf)
            mine = (state * own).sum(1, keepdim=True) * scale
            top = torch.maximum(logits.amax(1, keepdim=True), mine)
            p = logits.sub_(top).exp_()
            p_own = (mine - top).exp()
            mass = p.sum(1, keepdim=True) + p_own
            total += (mass.log() + top - mine).sum()
            p.mul_(scale / mass)
            miss = (p_own / mass - 1) * scale
            torch.addmm(own * miss, p, negatives, out=d_states[span])
            torch.mul(state, miss, out=d_wanted[span])
            torch.mm(p.T, state, out=d_others[number])
        ctx.save_for_backward(d_states, d_wanted, d_others)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*(part.mul_(grads[0]) for part in ctx.saved_tensors), None, None, None, None)


def sampled_softmax(
    states: Tensor, items: Tensor, targets: Tensor, drawn: Tensor, log_expected: Tensor, temperature: float
) -> Tensor:
    """The summed loss of T states; neighbouring tokens share a set of negatives.

    states: [T, D]; items: [N, D]; targets: int64 [T]; drawn: int64 [G, K]; log_expected: [N]
    """
    wanted, others = torch.nn.functional.embedding(targets, items), torch.nn.functional.embedding(drawn, items)
    correction = log_expected[drawn]
    loss: Tensor = _SampledSoftmax.apply(  # type: ignore[no-untyped-call]
        states, wanted, others, targets, drawn, correction, 1 / temperature
    )
    return loss

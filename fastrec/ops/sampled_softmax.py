"""sampled_softmax: the loss over a target and shared negatives, with its gradients.

    own = scale * <state, wanted>    logit_j = scale * <state, other_j> - correction_j
    loss = -log( e^own / (e^own + sum_j e^logit_j) )

Sources: Jean et al. 2015; Yi et al. 2019 (logQ). ``models/_loss.py`` has the loss of a training step around it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrec import config
from fastrec.errors import ConfigError, DataError
from fastrec.ops import _arrays, _packed, _triton
from fastrec.ops._op import Backend, Op
from fastrec.types import F32, I64


@dataclass(frozen=True, eq=False)
class Problem:
    """states, wanted [T, D]; others [S, K, D]; targets [T]; drawn, correction [S, K]."""

    states: F32
    wanted: F32
    others: F32
    targets: I64
    drawn: I64
    correction: F32
    scale: float


def sampled_softmax(
    states: Any,
    wanted: Any,
    others: Any,
    targets: Any,
    drawn: Any,
    correction: Any,
    *,
    scale: float = 1.0,
    backend: str = "auto",
    threads: int | None = None,
) -> tuple[Any, Any, Any, Any]:
    """(loss [T] float32, and the gradients of its sum by states, wanted and others).

    states, wanted: [T, D], numpy or torch, of one dtype with others; wanted is the vector of each target
    others: [S, K, D], S sets of negatives; token t uses set t // ceil(T / S)
    targets, drawn: int [T] and [S, K], which items those are; a negative that is the target itself is left out
    correction: float [S, K], taken off the logits, such as the log of the expected number of draws

    Raises DataError for shapes that do not fit, ConfigError for a scale that is not finite.
    """
    where = "sampled_softmax"
    if not np.isfinite(scale):
        raise ConfigError(f"[{where}] scale={scale}, expected a finite number")
    run, resident = _triton.choose(OP, backend, states)
    n_threads = config.threads(threads)
    arrays: Any = [states, wanted, others, targets, drawn, correction]
    if not resident:
        kinds = [np.float32] * 3 + [np.int64] * 2 + [np.float32]
        names = ("states", "wanted", "others", "targets", "drawn", "correction")
        arrays = [
            np.ascontiguousarray(_arrays.to_numpy(where, name, x, backend), kind)
            for name, x, kind in zip(names, arrays, kinds, strict=True)
        ]
    shapes = [tuple(x.shape) for x in arrays]
    if len(shapes[0]) == 2 and len(shapes[4]) == 2:
        T, D = shapes[0]
        wanted_shapes = [(T, D), (T, D), (*shapes[4], D), (T,), shapes[4], shapes[4]]
    if len(shapes[0]) != 2 or len(shapes[4]) != 2 or shapes != wanted_shapes or (T and not shapes[4][0]):
        raise DataError(f"[{where}] shapes are {shapes}, expected [T, D], [T, D], [S, K, D], [T], [S, K], [S, K]")
    problem = Problem(arrays[0], arrays[1], arrays[2], arrays[3], arrays[4], arrays[5], float(scale))
    found = run(problem, n_threads)
    a, b, c, d = found if resident else (_arrays.like(states, part) for part in found)
    return a, b, c, d


def sampled_softmax_reference(p: Problem, threads: int = 1) -> tuple[F32, F32, F32, F32]:
    """The definition, in float64."""
    T, rows = len(p.states), -(-len(p.states) // max(len(p.others), 1))
    loss, d_states, d_wanted = np.zeros(T), np.zeros(p.states.shape), np.zeros(p.wanted.shape)
    d_others = np.zeros(p.others.shape)
    for t in range(T):
        s = t // rows
        state, wanted, others = (x.astype(np.float64) for x in (p.states[t], p.wanted[t], p.others[s]))
        own = p.scale * state @ wanted
        logits = p.scale * others @ state - p.correction[s]
        logits[p.drawn[s] == p.targets[t]] = -np.inf
        top = max(own, logits.max(initial=-np.inf))
        mass = np.exp(own - top) + np.exp(logits - top).sum()
        probability, miss = np.exp(logits - top) / mass, np.exp(own - top) / mass - 1
        loss[t] = np.log(mass) + top - own
        d_states[t] = p.scale * (probability @ others + miss * wanted)
        d_wanted[t] = p.scale * miss * state
        d_others[s] += p.scale * probability[:, None] * state
    return tuple(x.astype(np.float32) for x in (loss, d_states, d_wanted, d_others))  # type: ignore[return-value]


def _torch(p: Problem, threads: int = 1) -> tuple[F32, F32, F32, F32]:
    import torch

    parts = [torch.tensor(x, requires_grad=True) for x in (p.states, p.wanted, p.others)]
    group = torch.arange(len(p.states)) // max(-(-len(p.states) // max(len(p.others), 1)), 1)
    logits = torch.einsum("td,tkd->tk", parts[0], parts[2][group]) * p.scale - torch.from_numpy(p.correction)[group]
    logits = logits.masked_fill(torch.from_numpy(p.targets)[:, None] == torch.from_numpy(p.drawn)[group], -torch.inf)
    own = (parts[0] * parts[1]).sum(1, keepdim=True) * p.scale
    loss = torch.cat([own, logits], 1).logsumexp(1) - own[:, 0]
    grads = torch.autograd.grad(loss.sum(), parts)
    return tuple(x.detach().numpy() for x in (loss, *grads))  # type: ignore[return-value]


OP = Op(
    "sampled_softmax",
    reference=sampled_softmax_reference,
    backends={
        "torch": Backend(_torch, "cpu", _packed.missing_torch),
        "triton": Backend(_triton.sampled_softmax, "cuda", _triton.missing),
    },
    cases=[{"T": t, "S": s, "K": k, "D": d} for t, s, k, d in [(1, 1, 1, 1), (5, 2, 7, 20), (70, 2, 40, 64)]],
    exact=False,
)

__all__ = ["sampled_softmax"]

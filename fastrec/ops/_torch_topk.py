"""score_topk by matrix products of torch, for queries on a GPU and wherever torch runs.

The products are float32 in whatever order the library sums. What may be lost by that is bounded as in
csrc/topk_bounds.h, so that the candidates hold every item of the answer; score_pairs then gives them their exact
scores.
"""

import contextlib
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrec.ops._arrays import empty
from fastrec.ops._scoring import Scoring
from fastrec.ops._sparse import Lists, owners
from fastrec.ops.pack_items import PackedItems
from fastrec.types import F32, F64, I64

if TYPE_CHECKING:
    from fastrec.ops.score_topk import Problem as TopkProblem

_CELLS = 1 << 26  # scores that are held at once

#: (device, items [N, D]) of packed items used before: a catalogue is copied to the GPU once
_on_device: "weakref.WeakKeyDictionary[PackedItems, tuple[Any, Any]]" = weakref.WeakKeyDictionary()


def missing_torch() -> tuple[str, str] | None:
    """None where torch is installed, else (reason, remedy)."""
    from importlib.util import find_spec

    return None if find_spec("torch") else ("torch is not installed", "pip install torch")


def score_topk_torch(problem: "TopkProblem", threads: int, device: Any = None) -> tuple[F32, I64]:
    """device: None: a GPU where there is one"""
    import torch

    s, k = problem.scoring, problem.k
    n_users, n = len(s.queries), s.items.n_items
    scores, rows = empty((n_users, k), np.float32), empty((n_users, k), np.int64)
    scores[:], rows[:] = -np.inf, -1
    if n_users == 0 or n == 0:
        return scores, rows
    if device is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    items = _items_on(s.items, device)
    pad = error_bound(s)
    size = max(1, _CELLS // n)
    with _full_precision(), torch.no_grad():
        for first in range(0, n_users, size):
            last = min(n_users, first + size)
            found = _walk(problem, first, last, items, device)
            kth = found.topk(min(k, n), dim=1).values[:, -1]
            cut = kth.double() - 2 * torch.from_numpy(pad[first:last]).to(device)
            users, candidates = ((found.double() >= cut[:, None]) & (found > -torch.inf)).nonzero(as_tuple=True)
            _settle(problem, first, last, users.cpu().numpy(), candidates.cpu().numpy(), threads, scores, rows)
    return scores, rows


def error_bound(s: Scoring) -> F64:
    """The pad of every query for sums in any order, float64 [B]: |walk - score| <= pad."""
    steps = (s.items.dims + 6) * 2.0**-24
    if steps > 0.5:
        return np.full(len(s.queries), np.inf)
    pad: F64 = steps / (1 - steps) * s.dense_bound + 4 * 2.0**-24 * s.init_bound + (s.items.dims + 4) * 2.0**-126
    return pad


def _items_on(items: PackedItems, device: Any) -> Any:
    import torch

    known = _on_device.get(items)
    if known is None or known[0] != device:
        known = (device, torch.from_numpy(items.rows).to(device))
        _on_device[items] = known
    return known[1]


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """No TF32 and no bfloat16 in the products."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _walk(problem: "TopkProblem", first: int, last: int, items: Any, device: Any) -> Any:
    """float32 [last - first, N]: about the scores; -inf where the user must not get the item."""
    import torch

    s = problem.scoring
    n = s.items.n_items
    start = torch.zeros((last - first, n), dtype=torch.float64, device=device)
    if s.history is not None and s.similarity is not None:
        part = slice(s.history.indptr[first], s.history.indptr[last])
        sizes = np.diff(s.similarity.indptr)[s.history.rows[part]]
        entries = np.repeat(s.similarity.indptr[s.history.rows[part]] - np.cumsum(sizes) + sizes, sizes)
        entries += np.arange(len(entries))
        users = np.repeat(owners(s.history.indptr[first : last + 1]), sizes)
        terms = np.repeat(s.history.values[part].astype(np.float64), sizes) * s.similarity.values[entries]
        places = torch.from_numpy(users * n + s.similarity.rows[entries]).to(device)
        start.view(-1).index_add_(0, places, torch.from_numpy(terms).to(device))
    if s.bias is not None:
        start += torch.from_numpy(s.bias).to(device).double()
    found = torch.from_numpy(s.queries[first:last]).to(device) @ items.T + start.float()
    if problem.allow is not None:
        allowed = torch.zeros_like(found, dtype=torch.bool)
        allowed[_pairs(problem.allow, first, last, device)] = True
        found.masked_fill_(~allowed, -torch.inf)
    for banned in (problem.seen, problem.deny):
        if banned is not None:
            found[_pairs(banned, first, last, device)] = -torch.inf
    return found


def _pairs(lists: Lists, first: int, last: int, device: Any) -> tuple[Any, Any]:
    """(users from 0, rows) of the lists of some users, as tensors."""
    import torch

    rows = lists.rows[lists.indptr[first] : lists.indptr[last]].astype(np.int64)
    return torch.from_numpy(owners(lists.indptr[first : last + 1])).to(device), torch.from_numpy(rows).to(device)


def _settle(
    problem: "TopkProblem", first: int, last: int, users: I64, candidates: I64, threads: int, scores: F32, rows: I64
) -> None:
    """Exact scores of the candidates, and the best k of each user into the results."""
    from fastrec.ops.score_pairs import OP, Problem

    counts = np.bincount(users + first, minlength=len(scores))
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    pairs = Lists(indptr, candidates.astype(np.int32))
    exact = OP.choose("auto")(Problem(problem.scoring, pairs), threads)
    order = np.lexsort((candidates, -exact, users))
    users, candidates, exact = users[order] + first, candidates[order], exact[order]
    rank = np.arange(len(users)) - indptr[users]
    best = rank < problem.k
    scores[users[best], rank[best]] = exact[best]
    rows[users[best], rank[best]] = candidates[best]

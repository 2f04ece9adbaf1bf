"""score_topk: the k best items per user over the whole catalogue, exactly, in one pass.

The native backends screen in fewer bits with a certified bound and score what is left by the definition
(csrc/topk_bounds.h has the proof), after the two-step search of Teflioudi et al., LEMP, SIGMOD 2015.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastrec import _native, config
from fastrec.ops import _arrays, _cuda, _cuda_topk, _scoring
from fastrec.ops._cells import NO_CELLS
from fastrec.ops._op import Backend, Op
from fastrec.ops._scoring import Scoring, scoring
from fastrec.ops._sparse import Lists, addresses, as_lists
from fastrec.ops._torch_topk import missing_torch
from fastrec.ops.pack_items import PackedItems, pack
from fastrec.types import F32, I64, Bool, Csr


@dataclass(frozen=True, eq=False)
class Problem:
    """What every backend takes; masks over all users are -inf in the bias already."""

    scoring: Scoring
    k: int
    seen: Lists | None
    deny: Lists | None
    allow: Lists | None


def score_topk(
    queries: Any,
    items: Any,
    k: int,
    *,
    bias: Any = None,
    sparse: Any = None,
    seen: Any = None,
    allow: Any = None,
    deny: Any = None,
    backend: str = "auto",
    threads: int | None = None,
) -> tuple[Any, Any]:
    """The k best items of each user: (scores float32 [B, k], rows int64 [B, k]).

    score(u, i) = <queries[u], items[i]> + sum_j history[u, j] * similarity[j, i] + bias[i], summed in float64
    in this order and rounded once. Order: score descending, then the smaller row. Where fewer than k items
    remain, -inf and -1 follow. The same bits for any backend, batch size and number of threads.

    queries: [B, D], floats or ints; numpy, torch, or CuPy on a GPU (by DLPack, without a copy). The results are of the
        same kind and on the same device
    items: [N, D], or what pack_items made of it, which saves the packing at every call. On a GPU float16 and bfloat16
        are read as they are
    bias: [N]; -inf: this item can never be returned
    sparse: (history [B, M], similarity [M, N]), each a types.Csr, a scipy CSR or (indptr, indices, values).
        A similarity in a types.Csr is checked at its first use only
    seen, deny: items that the user must not get; allow: the only ones that the user may get. Each a
        types.Csr, (indptr int64 [B+1], rows int32), a scipy CSR (stored entries) or a bool mask [N] for
        all users
    backend: "auto", "cpu", "numba", "cuda" (k up to 1024), "torch" or "reference"; for queries on a GPU "auto" takes
        cuda, else torch
    threads: at most so many; None: see FASTREC_THREADS

    Raises ConfigError (k, threads, backend), DataError (shape, dtype, rows out of range, NaN or inf, scores
    beyond float32), BackendUnavailable.
    """
    where = "score_topk"
    if type(k) is not int or k < 1:
        k = config.check_k(where, k)
    if backend == "auto" and bias is None and sparse is None and type(queries) is np.ndarray:
        found = _plain(queries, items, k, seen, deny, allow, threads)
        if found is not None:
            return found
    kind = queries
    queries, items, bias = _arrays.adopt(queries), _arrays.adopt(items), _arrays.adopt(bias)
    run = OP.choose(backend, "cuda" if _arrays.on_gpu(queries) else "cpu")
    n_threads = config.threads(threads)
    if run is _cuda_topk.of_host and backend == "auto" and k > _cuda.RUNTIME.native().most_topk:
        run = _torch  # it knows no such limit
    if run is _cuda_topk.of_host and _arrays.on_gpu(queries):
        found = _on_device(where, queries, items, k, bias, sparse, {"seen": seen, "deny": deny, "allow": allow})
        return _arrays.give_back(kind, found[0]), _arrays.give_back(kind, found[1])
    if run is _torch:
        backend = "torch"  # the checks may take arrays from any device
    s = scoring(where, queries, items, bias, sparse, backend, threads)
    n_users, n = len(s.queries), s.items.n_items
    lists, banned = _lists(where, {"seen": seen, "deny": deny, "allow": allow}, n_users, n, backend)
    if banned is not None:
        masked = np.where(banned, np.float32(-np.inf), np.float32(0.0) if s.bias is None else s.bias)
        s = Scoring(s.queries, s.items, masked, s.history, s.similarity, s.dense_bound, s.init_bound)
    problem = Problem(s, k, lists["seen"], lists["deny"], lists["allow"])
    scores, rows = _torch(problem, n_threads, queries) if run is _torch else run(problem, n_threads)
    return _arrays.like(queries, scores), _arrays.like(queries, rows)


def _plain(
    queries: npt.NDArray[Any], items: Any, k: int, seen: Any, deny: Any, allow: Any, threads: int | None
) -> tuple[F32, I64] | None:
    """The answer where all arguments are as the native module wants them, checked there in one step; else None.

    For one user and a small catalogue, or where Python's memory has left the cache, checks one by one cost as much as
    the search: even the settings of the environment are looked up there.
    """
    if not isinstance(items, PackedItems) or queries.ndim != 2 or _native.missing_cpu():
        return None
    asked = 0 if threads is None else config.threads(threads)
    n = len(items.rows)
    lists = [(x.indptr, x.indices) if isinstance(x, Csr) and x.n_cols == n else x for x in (seen, deny, allow)]
    scores = _arrays.empty((len(queries), k), np.float32)
    rows = _arrays.empty((len(queries), k), np.int64)
    limits = asked, config.cgroup_cpus(), _arrays.LARGEST_SCORE
    return (scores, rows) if items.view().search(queries, k, *lists, *limits, scores, rows) else None


def _lists(
    where: str, given: dict[str, Any], n_users: int, n: int, backend: str
) -> tuple[dict[str, Lists | None], Bool | None]:
    """Rows per user by name, and which items the masks over all users take away, bool [N]."""
    lists: dict[str, Lists | None] = {}
    banned: Bool | None = None
    for name, x in given.items():
        lists[name] = None
        if x is None:
            continue
        mask = _arrays.as_mask(where, name, x, n, backend)
        if mask is None:
            lists[name] = as_lists(where, name, x, n_users, n, backend)
        else:
            mask = ~mask if name == "allow" else mask
            banned = mask if banned is None else banned | mask
    return lists, banned


def _on_device(
    where: str, queries: Any, items: Any, k: int, bias: Any, sparse: Any, given: dict[str, Any]
) -> tuple[Any, Any]:
    """score_topk for queries on a GPU: neither they nor items that lie there are copied; lists are checked here."""
    import torch

    device = queries.device
    if _arrays.on_gpu(items):
        on_device = _cuda_topk.of_tensor(where, items)
    else:
        on_device = _cuda_topk.of_packed(pack(where, "items", items, "cuda"), device)
    n_users, n = len(queries), len(on_device.rows)
    history, similarity = (None, None) if sparse is None else _scoring.check_sparse(where, sparse, n_users, n, "cuda")
    lists, banned = _lists(where, given, n_users, n, "cuda")
    checked, largest_bias = (None, 0.0) if bias is None else _scoring.check_bias(where, bias, n, "cuda")
    init_bound = _scoring.init_bounds(n_users, largest_bias, history, similarity)
    if banned is not None:
        checked = np.where(banned, np.float32(-np.inf), np.float32(0.0) if checked is None else checked)
    on_host = torch.from_numpy(init_bound).to(device)
    queries = _cuda_topk.check_queries(where, queries, on_device, on_host)
    offsets = None if checked is None else _cuda.to_device(checked, device)
    return _cuda_topk.search(
        queries, on_device, k, offsets, on_host, history, similarity, lists["seen"], lists["deny"], lists["allow"]
    )


def _torch(problem: Problem, threads: int, queries: Any = None) -> tuple[F32, I64]:
    from fastrec.ops._torch_topk import score_topk_torch

    device = queries.device if _arrays.is_torch(queries) and queries.device.type == "cuda" else None
    return score_topk_torch(problem, threads, device)


def score_topk_reference(problem: Problem, threads: int = 1) -> tuple[F32, I64]:
    """The definition, one user after the other."""
    s, k = problem.scoring, problem.k
    scores = np.full((len(s.queries), k), -np.inf, np.float32)
    rows = np.full((len(s.queries), k), -1, np.int64)
    for u in range(len(s.queries)):
        found = _scoring.reference_scores(s, u)
        candidates = np.flatnonzero(_may_get(problem, u, found))
        order = np.lexsort((candidates, -found[candidates]))[:k]
        rows[u, : len(order)] = candidates[order]
        scores[u, : len(order)] = found[candidates[order]]
    return scores, rows


def _may_get(problem: Problem, u: int, scores: F32) -> Bool:
    """Which items user u may get, bool [N]."""
    free: Bool = scores > -np.inf
    if problem.allow is not None:
        allowed = np.zeros(len(scores), bool)
        allowed[problem.allow.of(u)] = True
        free &= allowed
    for banned in (problem.seen, problem.deny):
        if banned is not None:
            free[banned.of(u)] = False
    return free


def _numba(problem: Problem, threads: int) -> tuple[F32, I64]:
    s, k = problem.scoring, problem.k
    scores = _arrays.empty((len(s.queries), k), np.float32)
    rows = _arrays.empty((len(s.queries), k), np.int64)
    dense_scores = _arrays.jit(_scoring.numba_dense)

    def search(first: int, last: int) -> None:
        dense = np.empty(s.items.n_items, np.float64)
        for u in range(first, last):
            dense_scores(s.queries[u], s.items.rows, dense)
            found = _scoring.finish(s, u, dense)
            found[~_may_get(problem, u, found)] = -np.inf
            best = _best(found, k)
            rows[u, : len(best)], rows[u, len(best) :] = best, -1
            scores[u, : len(best)], scores[u, len(best) :] = found[best], -np.inf

    _arrays.over_blocks(len(s.queries), 16, threads, search)
    return scores, rows


def _best(scores: F32, k: int) -> I64:
    """Rows of the k best finite scores, in order."""
    if k < len(scores):
        kth = np.partition(scores, len(scores) - k)[len(scores) - k]
        rows = np.flatnonzero(scores >= kth)  # ascending, so that a stable sort settles the ties
    else:
        rows = np.arange(len(scores))
    rows = rows[scores[rows] > -np.inf]
    best: I64 = rows[np.argsort(-scores[rows], kind="stable")[:k]]
    return best


def _cpu(problem: Problem, threads: int) -> tuple[F32, I64]:
    s, k = problem.scoring, problem.k
    n_users = len(s.queries)
    scores = _arrays.empty((n_users, k), np.float32)
    rows = _arrays.empty((n_users, k), np.int64)
    cells, biases = s.items.cells, None
    if cells is not None and s.history is None and problem.allow is None:
        biases = cells.under(s.bias, n_users, threads)
    _native.module("score_topk").score_topk(
        **native_scoring(s),
        k=k,
        seen=addresses(problem.seen),
        deny=addresses(problem.deny),
        allow=addresses(problem.allow),
        dense_bound=_native.ptr(s.dense_bound, np.float64),
        init_bound=_native.ptr(s.init_bound, np.float64),
        repeats=1 if s.similarity is None else s.similarity.repeats,
        screen=s.items.screen.native(),
        cells=NO_CELLS if cells is None or biases is None else cells.native(biases),
        threads=threads,
        simd=_arrays.simd("score_topk"),
        scores=_native.ptr(scores, np.float32),
        rows=_native.ptr(rows, np.int64),
    )
    return scores, rows


def native_scoring(s: Scoring) -> dict[str, Any]:
    """The arguments of the native operators that stand for a Scoring."""
    return {
        "queries": _native.ptr(s.queries, np.float32),
        "items": _native.ptr(s.items.rows, np.float32),
        "B": len(s.queries),
        "N": s.items.n_items,
        "D": s.items.dims,
        "bias": _native.ptr(s.bias, np.float32),
        "history": addresses(s.history),
        "similarity": addresses(s.similarity),
    }


_SIZES = [(1, 0, 3, 2), (0, 5, 3, 2), (3, 1, 1, 1), (2, 15, 0, 3), (5, 16, 16, 4), (7, 17, 63, 20)]
_SIZES += [(9, 63, 7, 63), (17, 1023, 33, 10), (2, 1023, 64, 1500), (64, 4099, 16, 100), (33, 1009, 101, 7)]
OP = Op(
    "score_topk",
    reference=score_topk_reference,
    backends={
        "cpu": Backend(_cpu, "cpu", _native.missing_cpu),
        "numba": Backend(_numba, "cpu", _arrays.missing_numba),
        "cuda": Backend(_cuda_topk.of_host, "cuda", _cuda.missing),
        "torch": Backend(_torch, "cuda", missing_torch),
    },
    cases=[{"B": b, "N": n, "D": d, "k": k} for b, n, d, k in _SIZES],
)

__all__ = ["score_topk"]

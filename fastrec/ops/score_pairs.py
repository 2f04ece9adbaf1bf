"""score_pairs: the exact scores of given items per user, with the bits of score_topk."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrec import _native, config
from fastrec.ops import _arrays, _scoring
from fastrec.ops._op import Backend, Op
from fastrec.ops._scoring import Scoring, scoring
from fastrec.ops._sparse import Lists, addresses, as_lists
from fastrec.ops.score_topk import native_scoring
from fastrec.types import F32


@dataclass(frozen=True, eq=False)
class Problem:
    """What every backend takes."""

    scoring: Scoring
    pairs: Lists


def score_pairs(
    queries: Any,
    items: Any,
    pairs: Any,
    *,
    bias: Any = None,
    sparse: Any = None,
    backend: str = "auto",
    threads: int | None = None,
) -> Any:
    """The scores of the listed items, float32 [nnz] in the order of the list.

    pairs: (indptr int64 [B+1], rows int32 [nnz]), a types.Csr or a scipy CSR; any order, repeats are fine
    The other arguments, the definition of a score and the errors are those of score_topk; a bias of -inf
    gives a score of -inf.
    """
    where = "score_pairs"
    run = OP.choose(backend)
    n_threads = config.threads(threads)
    s = scoring(where, queries, items, bias, sparse, backend, threads)
    lists = as_lists(where, "pairs", pairs, len(s.queries), s.items.n_items, backend, ordered=False)
    return _arrays.like(queries, run(Problem(s, lists), n_threads))


def score_pairs_reference(problem: Problem, threads: int = 1) -> F32:
    """The scores of all items, then those of the listed ones."""
    s, pairs = problem.scoring, problem.pairs
    parts = [_scoring.reference_scores(s, u)[pairs.of(u)] for u in range(len(s.queries))]
    return np.concatenate([np.empty(0, np.float32), *parts])


def _numba(problem: Problem, threads: int) -> F32:
    s, pairs = problem.scoring, problem.pairs
    out = _arrays.empty(len(pairs.rows), np.float32)
    pair_scores = _arrays.jit(_scoring.numba_pairs)

    def score(first: int, last: int) -> None:
        for u in range(first, last):
            rows = pairs.of(u)
            listed = np.empty(len(rows), np.float64)
            pair_scores(s.queries[u], s.items.rows, rows, listed)
            dense = np.zeros(s.items.n_items)
            dense[rows] = listed
            out[pairs.indptr[u] : pairs.indptr[u + 1]] = _scoring.finish(s, u, dense)[rows]

    _arrays.over_blocks(len(s.queries), 16, threads, score)
    return out


def _cpu(problem: Problem, threads: int) -> F32:
    out = _arrays.empty(len(problem.pairs.rows), np.float32)
    _native.module("score_pairs").score_pairs(
        **native_scoring(problem.scoring),
        pairs=addresses(problem.pairs),
        threads=threads,
        simd=_arrays.simd("score_pairs"),
        scores=_native.ptr(out, np.float32),
    )
    return out


OP = Op(
    "score_pairs",
    reference=score_pairs_reference,
    backends={
        "cpu": Backend(_cpu, "cpu", _native.missing_cpu),
        "numba": Backend(_numba, "cpu", _arrays.missing_numba),
    },
    cases=[
        {"B": b, "N": n, "D": d, "each": each}
        for b, n, d, each in [
            (0, 5, 3, 0),
            (1, 1, 1, 1),
            (3, 17, 0, 5),
            (5, 1023, 63, 40),
            (33, 101, 16, 300),
        ]
    ],
)

__all__ = ["score_pairs"]

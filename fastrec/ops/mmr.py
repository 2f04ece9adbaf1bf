"""mmr: maximal marginal relevance, a greedy choice of items that are good and unlike each other.

Source: Carbonell and Goldstein, SIGIR 1998.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrec import config
from fastrec.errors import ConfigError, DataError
from fastrec.ops import _arrays, _cuda, _cuda_features
from fastrec.ops._op import Backend, Op
from fastrec.types import F32, F64, I64


@dataclass(frozen=True, eq=False)
class Problem:
    """What every backend takes: vectors [N, D], pool [B, P], relevance [B, P]."""

    vectors: F32
    pool: I64
    relevance: F64
    k: int
    diversity: float


def mmr(
    vectors: Any,
    pool: Any,
    scores: Any,
    k: int,
    *,
    diversity: float,
    backend: str = "auto",
    threads: int | None = None,
) -> I64:
    """Places in the pool that are picked, in the order of picking: int64 [B, k], -1 behind the last.

    Every pick is the largest (1 - diversity) * relevance - diversity * largest cosine to what is already picked, at
    equal values the smaller place; relevance is the score, scaled to [0, 1] over the user's pool.

    vectors: [N, D], numpy or torch; a zero vector is like nothing
    pool: int [B, P], rows of vectors, best first, -1 behind the last
    scores: [B, P], descending; those behind the last row do not matter
    k: at least 1
    diversity: in [0, 1]

    Computed in float64. Raises ConfigError for k and diversity, DataError for shapes, rows out of range, a -1 before a
    row and scores that are not finite.
    """
    where = "mmr"
    k = config.check_k(where, k)
    if isinstance(diversity, bool) or not isinstance(diversity, (int, float)) or not 0 <= diversity <= 1:
        raise ConfigError(f"[{where}] diversity={diversity!r}, expected a number in [0, 1]")
    vectors = _arrays.adopt(vectors)
    run = OP.choose(backend, "cuda" if _arrays.on_gpu(vectors) else "cpu")
    n_threads = config.threads(threads)
    if run is _cuda_features.mmr and _arrays.on_gpu(vectors):
        matrix = vectors.detach().float().contiguous()
    else:
        matrix = _arrays.as_float_matrix(where, "vectors", vectors, backend)
    rows = _arrays.to_numpy(where, "pool", pool, backend)
    if rows.ndim != 2 or (rows.dtype.kind not in "iu" and rows.size):
        raise DataError(f"[{where}] pool has dtype {rows.dtype} and shape {rows.shape}, expected integers [B, P]")
    rows = np.ascontiguousarray(rows, np.int64)
    if rows.size and (rows.min() < -1 or rows.max() >= len(matrix)):
        worst = rows.max() if rows.max() >= len(matrix) else rows.min()
        raise DataError(f"[{where}] pool holds {worst}, expected values in [-1, {len(matrix)})")
    free = rows >= 0
    if (free[:, 1:] & ~free[:, :-1]).any():
        raise DataError(
            f"[{where}] pool row {int((free[:, 1:] & ~free[:, :-1]).any(1).argmax())} has a -1 before a row"
        )
    given = _arrays.to_numpy(where, "scores", scores, backend)
    if given.shape != rows.shape or given.dtype.kind not in "fiu" or not np.isfinite(given[free]).all():
        raise DataError(f"[{where}] scores has shape {given.shape}, expected finite numbers {rows.shape}")
    problem = Problem(matrix, rows, _relevance(given.astype(np.float64), free), k, float(diversity))
    picks: I64 = np.asarray(run(problem, n_threads))
    return picks


def _relevance(scores: F64, free: Any) -> F64:
    """Scores scaled to [0, 1] by the first and the last of every pool; 0 behind the last."""
    scores = np.where(free, scores, 0.0)
    if not scores.shape[1]:
        return scores
    last = scores[np.arange(len(scores)), np.maximum(free.sum(axis=1) - 1, 0)]
    spread = np.maximum(scores[:, 0] - last, 1e-12)
    out: F64 = np.where(free, (scores - last[:, None]) / spread[:, None], 0.0)
    return out


def mmr_reference(p: Problem, threads: int = 1) -> I64:
    """The definition, one user after the other."""
    picks = np.full((len(p.pool), p.k), -1, np.int64)
    for u in range(len(p.pool)):
        pool = p.pool[u][p.pool[u] >= 0]
        v = p.vectors[pool].astype(np.float64)
        v /= np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12)
        similar = np.zeros(len(pool))
        free = np.ones(len(pool), np.bool_)
        for place in range(min(p.k, len(pool))):
            value = (1 - p.diversity) * p.relevance[u, : len(pool)] - p.diversity * similar
            best = int(np.where(free, value, -np.inf).argmax())
            picks[u, place], free[best] = best, False
            similar = np.maximum(similar, v @ v[best])
    return picks


OP = Op(
    "mmr",
    reference=mmr_reference,
    backends={
        "numpy": Backend(mmr_reference, "cpu", lambda: None),
        "cuda": Backend(_cuda_features.mmr, "cuda", _cuda.missing),
    },
    cases=[
        {"B": b, "N": n, "D": d, "P": p, "k": k}
        for b, n, d, p, k in [
            (0, 3, 2, 4, 2),
            (1, 1, 1, 1, 1),
            (3, 40, 17, 33, 8),
            (2, 300, 0, 5, 9),
            (5, 90, 63, 200, 20),
        ]
    ],
)

__all__ = ["mmr"]

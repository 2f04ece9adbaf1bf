"""Inputs of the operators for their own cases: the tests and the benchmarks both take them from here."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastrec.ops.pack_items import pack_items
from fastrec.types import F32, I32, I64, Csr


def make(name: str, case: dict[str, Any], seed: int = 0) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(positional arguments, keywords) for the public function of operator ``name``."""
    args, kwargs = _MAKERS[name](np.random.default_rng(seed), **case)
    return args, kwargs


def lists(rng: np.random.Generator, n_rows: int, n_cols: int, most: int) -> tuple[I64, I32]:
    """Up to ``most`` ascending rows for each of n_rows."""
    sizes = rng.integers(0, min(most, n_cols) + 1, n_rows)
    parts = [np.sort(rng.choice(n_cols, size, replace=False)) for size in sizes]
    indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return indptr, np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int32)


def matrix(rng: np.random.Generator, n_rows: int, n_cols: int, most: int) -> Csr:
    """The same with normal values."""
    indptr, rows = lists(rng, n_rows, n_cols, most)
    return Csr(indptr, rows, n_cols, rng.standard_normal(len(rows)).astype(np.float32))


def _vectors(rng: np.random.Generator, n: int, dims: int) -> F32:
    return rng.standard_normal((n, dims)).astype(np.float32)


def _pack_items(rng: np.random.Generator, N: int, D: int) -> Any:
    return (_vectors(rng, N, D),), {}


def _score_topk(rng: np.random.Generator, B: int, N: int, D: int, k: int) -> Any:
    bias = rng.standard_normal(N).astype(np.float32)
    bias[rng.random(N) < 0.1] = -np.inf
    extra = {
        "bias": bias,
        "seen": lists(rng, B, N, 100),
        "sparse": (matrix(rng, B, 20, 10), matrix(rng, 20, N, 50)),
    }
    return (_vectors(rng, B, D), pack_items(_vectors(rng, N, D)), k), extra


def _score_pairs(rng: np.random.Generator, B: int, N: int, D: int, each: int) -> Any:
    pairs = (np.arange(B + 1) * each, rng.integers(0, N, B * each).astype(np.int32))
    extra = {
        "bias": rng.standard_normal(N).astype(np.float32),
        "sparse": (matrix(rng, B, 20, 10), matrix(rng, 20, N, 50)),
    }
    return (_vectors(rng, B, D), pack_items(_vectors(rng, N, D)), pairs), extra


def _segment_mean(rng: np.random.Generator, B: int, N: int, D: int, normalize: bool) -> Any:
    return (_vectors(rng, N, D), matrix(rng, B, N, 50)), {"normalize": normalize}


def _score_std(rng: np.random.Generator, B: int, D: int) -> Any:
    half = rng.standard_normal((D, D))
    return (_vectors(rng, B, D), half @ half.T), {}


def _sparse_score_std(rng: np.random.Generator, B: int, N: int, M: int) -> Any:
    return (matrix(rng, B, M, 10), matrix(rng, M, N, 30)), {}


_MAKERS: dict[str, Callable[..., Any]] = {
    "pack_items": _pack_items,
    "score_pairs": _score_pairs,
    "score_std": _score_std,
    "score_topk": _score_topk,
    "segment_mean": _segment_mean,
    "sparse_score_std": _sparse_score_std,
}

"""Inputs of the operators for their own cases: the tests and the benchmarks both take them from here."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastrec.ops.pack_items import pack_items
from fastrec.ops.packed_linear import pack_linear
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


def _cooccurrence_topk(rng: np.random.Generator, U: int, N: int, most: int, k: int, steps: int) -> Any:
    indptr, rows = lists(rng, U, N, most)
    for u in range(U):
        rng.shuffle(rows[indptr[u] : indptr[u + 1]])
    # Many equal values: so there are equal likenesses.
    values = rng.choice(np.array([0.0, 1.0, 1.0, 2.5], np.float32), len(rows))
    extra = {
        "norms": rng.choice(np.array([0.5, 1.0], np.float32), N),
        "shrinkage": 0.3,
        "steps": np.exp(-np.arange(steps) / 3).astype(np.float32) if steps else None,
    }
    return (Csr(indptr, rows, N, values), k), extra


def _fuse_features(rng: np.random.Generator, B: int, dims: tuple[int, ...], normalize: bool, dtype: str) -> Any:
    parts: list[tuple[Any, Any, Any]] = [(_vectors(rng, B, dims[0]), None, rng.standard_normal(B))]
    for d in dims[1:]:
        parts.append((_vectors(rng, 40, d) * 10.0 ** rng.uniform(-6, 3), rng.integers(0, 40, B), None))
    return (parts,), {"normalize": normalize, "dtype": dtype}


def _segment_mean(rng: np.random.Generator, B: int, N: int, D: int, normalize: bool) -> Any:
    return (_vectors(rng, N, D), matrix(rng, B, N, 50)), {"normalize": normalize}


def _mmr(rng: np.random.Generator, B: int, N: int, D: int, P: int, k: int) -> Any:
    pool = rng.integers(0, N, (B, P))
    pool[::2, P - P // 4 :] = -1
    scores = -np.sort(-rng.standard_normal((B, P)), axis=1)
    return (_vectors(rng, N, D), pool, scores, k), {"diversity": 0.4}


def _score_std(rng: np.random.Generator, B: int, D: int) -> Any:
    half = rng.standard_normal((D, D))
    return (_vectors(rng, B, D), half @ half.T), {}


def _sparse_score_std(rng: np.random.Generator, B: int, N: int, M: int) -> Any:
    return (matrix(rng, B, M, 10), matrix(rng, M, N, 30)), {}


def _offsets(lengths: tuple[int, ...]) -> I64:
    return np.cumsum([0, *lengths]).astype(np.int64)


def _attention_varlen(
    rng: np.random.Generator, lengths: tuple[int, ...], H: int, H_kv: int, d: int, causal: bool, relative: bool
) -> Any:
    tokens, reach = sum(lengths), max(lengths, default=0) + 2
    q, k, v = (rng.standard_normal((tokens, heads, d)).astype(np.float32) for heads in (H, H_kv, H_kv))
    bias = _vectors(rng, H, 2 * reach - 1) if relative else None
    return (q, k, v, _offsets(lengths)), {"causal": causal, "relative": bias}


def _bias_gelu(rng: np.random.Generator, T: int, D: int, bias: bool, kind: str) -> Any:
    return (3 * _vectors(rng, T, D), _vectors(rng, 1, D)[0] if bias else None), {"kind": kind}


def _add_layer_norm(rng: np.random.Generator, T: int, D: int, bias: bool, residual: bool) -> Any:
    extra = {"bias": _vectors(rng, 1, D)[0] if bias else None, "residual": _vectors(rng, T, D) if residual else None}
    return (_vectors(rng, T, D), *_vectors(rng, 2, D)), extra


def _pool_normalize(rng: np.random.Generator, lengths: tuple[int, ...], D: int, pooling: str, normalize: bool) -> Any:
    return (_vectors(rng, sum(lengths), D), _offsets(lengths)), {"pooling": pooling, "normalize": normalize}


def _swiglu(rng: np.random.Generator, T: int, D: int) -> Any:
    return (3 * _vectors(rng, T, 2 * D),), {}


def _sampled_softmax(rng: np.random.Generator, T: int, S: int, K: int, D: int) -> Any:
    parts = [_vectors(rng, n, D) / D**0.5 for n in (T, T, S * K)]
    drawn = rng.integers(0, 9, (S, K))
    return (*parts[:2], parts[2].reshape(S, K, D), rng.integers(0, 9, T), drawn, _vectors(rng, S, K)), {"scale": 5.0}


def _packed_linear(rng: np.random.Generator, T: int, K: int, N: int, precision: str) -> Any:
    weights = pack_linear(_vectors(rng, N, K), _vectors(rng, 1, N)[0], precision=precision)
    return (_vectors(rng, T, K), weights), {}


_MAKERS: dict[str, Callable[..., Any]] = {
    "add_layer_norm": _add_layer_norm,
    "attention_varlen": _attention_varlen,
    "bias_gelu": _bias_gelu,
    "cooccurrence_topk": _cooccurrence_topk,
    "fuse_features": _fuse_features,
    "mmr": _mmr,
    "pack_items": _pack_items,
    "packed_linear": _packed_linear,
    "pool_normalize": _pool_normalize,
    "sampled_softmax": _sampled_softmax,
    "score_pairs": _score_pairs,
    "score_std": _score_std,
    "score_topk": _score_topk,
    "segment_mean": _segment_mean,
    "sparse_score_std": _sparse_score_std,
    "swiglu": _swiglu,
}

"""Cells of an index: spherical k-means (Dhillon and Modha 2001), with score_topk to find the nearest centroid.

That search is exact, and several times as fast as a product in float32; groups of centroids and k-means in two levels
were faster still, but cut through clusters, so that many more cells had to be looked at. All of it is deterministic.

Shape legend: N vectors, D dimensions, C cells.
"""

import numpy as np

from fastrec import ops
from fastrec.types import F32, I64, Csr

_ROUNDS = 8


def nearest(vectors: F32, centroids: "F32 | ops.PackedItems") -> I64:
    """int64 [N]: for each vector [N, D] the centroid [C, D] with the largest inner product."""
    rows: I64 = ops.score_topk(vectors, centroids, 1)[1][:, 0]
    return rows


def means(values: F32, cell: I64, count: int) -> F32:
    """float32 [C]: the mean of the values [N] of each cell; of all values where it has none."""
    sizes = np.bincount(cell, minlength=count)
    total = np.bincount(cell, values, minlength=count)
    out: F32 = np.where(sizes > 0, total / np.maximum(sizes, 1), values.mean(dtype=np.float64)).astype(np.float32)
    return out


def train(sample: F32, count: int, seed: int) -> F32:
    """``count`` centroids of length 1 (or 0, for zeros), float32 [C, D], from a sample [N, D] with N >= C >= 1."""
    rng = np.random.default_rng(seed)
    # A longer centroid than the others would draw all vectors to it.
    centroids = _of_length_1(sample[np.sort(rng.permutation(len(sample))[:count])])
    for _ in range(_ROUNDS):
        cell = nearest(sample, ops.pack_items(centroids, dtype="int8"))
        sizes = np.bincount(cell, minlength=count)
        # A cell that nobody is nearest to takes a vector of one of the largest.
        empty = np.flatnonzero(sizes == 0)
        largest = np.resize(np.argsort(-sizes, kind="stable")[: count - len(empty)], len(empty))
        order = np.argsort(cell, kind="stable")
        starts = np.concatenate([[0], np.cumsum(sizes)])
        members = Csr(starts, order.astype(np.int32), len(sample), np.ones(len(sample), np.float32))
        centroids = ops.segment_mean(sample, members, normalize=True)
        centroids[empty] = _of_length_1(sample[order[starts[largest] + sizes[largest] // 2]])
    return centroids


def _of_length_1(vectors: F32) -> F32:
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))[:, None]
    out: F32 = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0, casting="same_kind")
    return out

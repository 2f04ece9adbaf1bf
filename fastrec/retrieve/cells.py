"""Cells of an index: spherical k-means (Dhillon and Modha 2001), with score_topk to find the nearest centroid.

That search is exact, and several times as fast as a product in float32; groups of centroids and k-means in two levels
were faster still, but cut through clusters, so that many more cells had to be looked at. All of it is deterministic.

Shape legend: N vectors, D dimensions, C cells.
"""

import numpy as np

from fastrec import ops
from fastrec.types import F32, I64, Csr

_ROUNDS = 8
#: Cells of an arranged catalogue, and what they are trained with: more of it makes them little better.
_MOST, _PER_CELL, _FEW_ROUNDS = 1 << 14, 24, 4
#: Distances between longer ones might be beyond float32.
_LONGEST = 1e37


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


def train(sample: F32, count: int, seed: int, rounds: int = _ROUNDS) -> F32:
    """``count`` centroids of length 1 (or 0, for zeros), float32 [C, D], from a sample [N, D] with N >= C >= 1."""
    rng = np.random.default_rng(seed)
    # A longer centroid than the others would draw all vectors to it.
    centroids = _of_length_1(sample[np.sort(rng.permutation(len(sample))[:count])])
    for _ in range(rounds):
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


def arrange(items: ops.PackedItems, *, size: int = 256, seed: int = 0) -> ops.PackedItems:
    """The same items with cells of about ``size`` of them, for exact searches of several users at once."""
    rows, dtype = np.asarray(items.rows), items.screen.dtype
    n, dims = rows.shape
    if n < 2 or dims == 0 or items.max_norm > _LONGEST:
        return items
    count = int(min(max(n // size, 1), _MOST))
    sample = rows[np.sort(np.random.default_rng(seed).permutation(n)[: _PER_CELL * count])]
    cell = nearest(rows, ops.pack_items(train(sample, count, seed, _FEW_ROUNDS), dtype="int8"))
    sizes = np.bincount(cell, minlength=count)
    begins = np.concatenate([[0], np.cumsum(-(-sizes // 16))]).astype(np.int64)
    order = np.full(int(begins[-1]) * 16, -1, np.int32)
    by_cell = np.argsort(cell, kind="stable").astype(np.int32)
    starts = np.cumsum(sizes) - sizes
    order[np.arange(n) + np.repeat(begins[:-1] * 16 - starts, sizes)] = by_cell
    arranged = np.zeros((len(order), dims), np.float32)
    middles, radius = np.zeros((count, dims + 1), np.float32), np.zeros(count)
    for c in range(0, count, 256):
        part = slice(int(begins[c]) * 16, int(begins[min(c + 256, count)]) * 16)
        here = order[part]
        there = np.flatnonzero(here >= 0)
        vectors = rows[here[there]]
        arranged[part][there] = vectors
        owner = np.repeat(np.arange(c, min(c + 256, count)), sizes[c : c + 256]) - c
        held = np.flatnonzero(sizes[c : c + 256])
        first = (starts[c : c + 256] - starts[c])[held]
        middle = np.add.reduceat(vectors, first, axis=0, dtype=np.float64) / sizes[c : c + 256][held][:, None]
        middles[c + held, :dims] = middle
        off = vectors.astype(np.float64) - middles[c + owner, :dims]
        radius[c + held] = np.maximum.reduceat(np.sqrt((off**2).sum(axis=1)), first)
    middles[:, dims] = np.nextafter((radius * (1 + 1e-6)).astype(np.float32), np.float32(np.inf))
    screen = ops.pack_items(arranged, dtype=dtype).screen
    found = ops.Cells(begins, order.reshape(-1, 16), screen, ops.pack_items(middles, dtype=dtype))
    return ops.PackedItems(items.rows, items.screen, items.max_norm, found)

"""Cells of an index and of a catalogue: spherical k-means (Dhillon and Modha 2001), with score_topk to find the nearest
centroid.

That search is exact, and several times as fast as a product in float32; groups of centroids and k-means in two levels
were faster still, but cut through clusters, so that many more cells had to be looked at. All of it is deterministic.

A catalogue with cells is searched exactly, and faster for many users, where its items lie in clusters.

Shape legend: N vectors, D dimensions, C cells, P panels of 16 places.
"""

import dataclasses

import numpy as np

from fastrec import ops
from fastrec.ops.pack_items import aligned
from fastrec.retrieve import exact
from fastrec.types import F32, I64, Csr, Features, Queries

_ROUNDS = 8
#: Cells of a catalogue, their items, and what they are trained with: more of it makes them little better.
_MOST, _SIZE, _PER_CELL, _FEW_ROUNDS = 1 << 14, 256, 24, 4
#: Numbers in the items from which cells are tried, users and results for it, and the share of the items that may stand
#: in cells that have to be looked into: with more a plain walk is no slower.
LEAST_NUMBERS, _USERS, _RESULTS, _LEFT = 1 << 27, 64, 10, 0.2
#: Cells, and rows in float64, at once: one cell may hold most of a catalogue, as of equal items.
_AT_ONCE, _ROWS = 256, 1 << 14
#: Lengths of items beyond which squares of distances might leave float32.
_LONGEST = 1e15


def nearest(vectors: F32, centroids: "F32 | ops.PackedItems", *, by_distance: bool = False) -> I64:
    """int64 [N]: for each vector [N, D] the centroid [C, D] with the largest inner product, or the closest one."""
    bias = None
    if by_distance:
        packed = centroids if isinstance(centroids, ops.PackedItems) else ops.pack_items(centroids)
        centroids, c = packed, packed.rows
        bias = (-0.5 * np.einsum("ij,ij->i", c, c, dtype=np.float64)).astype(np.float32)
    rows: I64 = ops.score_topk(vectors, centroids, 1, bias=bias)[1][:, 0]
    return rows


def means(values: F32, cell: I64, count: int) -> F32:
    """float32 [C]: the mean of the values [N] of each cell; of all values where it has none."""
    sizes = np.bincount(cell, minlength=count)
    total = np.bincount(cell, values, minlength=count)
    out: F32 = np.where(sizes > 0, total / np.maximum(sizes, 1), values.mean(dtype=np.float64)).astype(np.float32)
    return out


def train(sample: F32, count: int, seed: int, rounds: int = _ROUNDS, *, by_distance: bool = False) -> F32:
    """``count`` centroids, float32 [C, D], from a sample [N, D] with N >= C >= 1.

    Of length 1 (or 0, for zeros), for the largest inner product; by_distance: the means of what is closest to them.
    """
    rng = np.random.default_rng(seed)
    # A longer centroid than the others would draw all vectors to it, where distances do not hold it back.
    made = np.asarray if by_distance else _of_length_1
    centroids = made(sample[np.sort(rng.permutation(len(sample))[:count])])
    for _ in range(rounds):
        cell = nearest(sample, ops.pack_items(centroids, dtype="int8"), by_distance=by_distance)
        sizes = np.bincount(cell, minlength=count)
        # A cell that nobody is nearest to takes a vector of one of the largest.
        empty = np.flatnonzero(sizes == 0)
        largest = np.resize(np.argsort(-sizes, kind="stable")[: count - len(empty)], len(empty))
        order = np.argsort(cell, kind="stable")
        starts = np.concatenate([[0], np.cumsum(sizes)])
        members = Csr(starts, order.astype(np.int32), len(sample), np.ones(len(sample), np.float32))
        centroids = ops.segment_mean(sample, members, normalize=not by_distance)
        centroids[empty] = made(sample[order[starts[largest] + sizes[largest] // 2]])
    return centroids


def _of_length_1(vectors: F32) -> F32:
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))[:, None]
    out: F32 = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0, casting="same_kind")
    return out


def fit(features: Features) -> bool:
    """Whether cells may pay: for many numbers, and where no similarity is added to the scores, of which they know
    nothing."""
    return features.items.rows.size >= LEAST_NUMBERS and features.similarity is None


def with_cells(features: Features, sample: Queries, *, seed: int = 0) -> Features:
    """The same space with cells of its items, where these spare a sample of users most of the items."""
    items = features.items
    if not len(sample.vectors):
        return features
    few = sample.take(np.arange(min(_USERS, len(sample.vectors))))
    arranged = arrange(items, seed=seed)
    if arranged.cells is None:
        return features
    found = exact.search(features, few, min(_RESULTS, items.n_items)).scores[:, -1]
    left = _left(arranged.cells, few.vectors, features.bias, found)
    return dataclasses.replace(features, items=arranged) if left <= _LEFT else features


def _left(cells: ops.Cells, queries: F32, bias: F32, least: F32) -> float:
    """The share of the items in cells that may have a score of ``least`` [B] for queries [B, D], by their bounds."""
    count = len(cells.begins) - 1
    owner = np.repeat(np.arange(count), np.diff(cells.begins) * 16)
    rows = cells.order.reshape(-1)
    largest = np.full(count, -np.inf, np.float32)
    np.maximum.at(largest, owner[rows >= 0], bias[rows[rows >= 0]])
    lengths = np.sqrt(np.einsum("ij,ij->i", queries, queries))[:, None]
    bounds = np.hstack([queries, lengths]) @ cells.coarse.rows.T + largest
    return float(((bounds > least[:, None]) @ np.diff(cells.begins)).sum() / (len(queries) * cells.begins[-1]))


def arrange(items: ops.PackedItems, *, size: int = _SIZE, seed: int = 0) -> ops.PackedItems:
    """The same items with cells of about ``size`` of them; as they are where there is nothing to arrange."""
    rows = np.asarray(items.rows)
    n, dims = rows.shape
    if n < 2 or dims == 0 or items.max_norm > _LONGEST:
        return items
    count = int(min(max(n // size, 1), _MOST))
    sample = rows[np.sort(np.random.default_rng(seed).permutation(n)[: _PER_CELL * count])]
    centroids = train(sample, count, seed, _FEW_ROUNDS, by_distance=True)
    cell = nearest(rows, ops.pack_items(centroids, dtype="int8"), by_distance=True)
    sizes = np.bincount(cell, minlength=count)
    begins = np.concatenate([[0], np.cumsum(-(-sizes // 16))]).astype(np.int64)
    starts = np.cumsum(sizes) - sizes
    order = np.full(int(begins[-1]) * 16, -1, np.int32)
    order[np.arange(n) + np.repeat(begins[:-1] * 16 - starts, sizes)] = np.argsort(cell, kind="stable")
    middles = np.zeros((count, dims + 1), np.float32)
    whole = items.screen
    codes = aligned((len(order) // 16, *whole.codes.shape[1:]), whole.codes.dtype.type)
    scales, errors = aligned((len(codes), 16)), aligned((len(codes), 2))
    for first in range(0, count, _AT_ONCE):  # some at a time, or the items would stand in memory once more
        last = min(first + _AT_ONCE, count)
        panels = slice(int(begins[first]), int(begins[last]))
        here = order[panels.start * 16 : panels.stop * 16]
        vectors = rows[here[here >= 0]]
        arranged = np.zeros((len(here), dims), np.float32)
        arranged[here >= 0] = vectors
        part = ops.pack_items(arranged, dtype=whole.dtype).screen
        codes[panels], scales[panels], errors[panels] = part.codes, part.scales, part.errors
        middles[first:last] = _middles(vectors, sizes[first:last])
    screen = ops.Screen(whole.dtype, codes, scales, errors)
    cells = ops.Cells(begins, order.reshape(-1, 16), screen, ops.pack_items(middles, dtype=whole.dtype))
    return ops.PackedItems(items.rows, items.screen, items.max_norm, cells)


def _middles(vectors: F32, sizes: I64) -> F32:
    """float32 [C, D + 1]: the middle of every cell, and at least the largest distance from it; the vectors of a cell
    stand behind one another."""
    out = np.zeros((len(sizes), vectors.shape[1] + 1), np.float32)
    held = np.flatnonzero(sizes)
    if len(held):
        first = (np.cumsum(sizes) - sizes)[held]
        out[held, :-1] = np.add.reduceat(vectors, first, axis=0, dtype=np.float64) / sizes[held, None]
        owner, off = np.repeat(np.arange(len(sizes)), sizes), np.empty(len(vectors))
        for i in range(0, len(vectors), _ROWS):
            part = slice(i, i + _ROWS)
            apart = vectors[part].astype(np.float64) - out[owner[part], :-1]
            off[part] = np.sqrt(np.einsum("ij,ij->i", apart, apart))
        radius = np.maximum.reduceat(off, first)
        out[held, -1] = np.nextafter((radius * (1 + 1e-6)).astype(np.float32), np.float32(np.inf))
    return out

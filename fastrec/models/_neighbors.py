"""From a sparse matrix of likenesses to the strongest neighbours of each item."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from fastrec.types import F32, I32, I64, Csr

Row = tuple[I32, F32]


def strongest(columns: I32, values: F32, item: int, most: int) -> Row:
    """The ``most`` largest positive values without the item itself, columns ascending; at equal values the smaller."""
    keep = (columns != item) & (values > 0)
    columns, values = columns[keep], values[keep]
    if len(columns) > most:
        # Sorted is only what may be among them: a popular item has met most of the others.
        near = values >= np.partition(values, len(values) - most)[len(values) - most]
        columns, values = columns[near], values[near]
        order = np.lexsort((columns, -values))[:most]
        columns, values = columns[order], values[order]
    order = np.argsort(columns)
    return columns[order].astype(np.int32), values[order].astype(np.float32)


def spans(costs: npt.NDArray[Any], most: float) -> I64:
    """Where blocks of rows begin and end: as many rows as cost ``most`` together, at least one; int64 [blocks + 1]."""
    ends = np.cumsum(costs, dtype=np.float64)
    edges = [0]
    while edges[-1] < len(costs):
        spent = ends[edges[-1] - 1] if edges[-1] else 0.0
        edges.append(max(edges[-1] + 1, int(np.searchsorted(ends, spent + most, side="right"))))
    return np.array(edges, np.int64)


def neighbors(blocks: Callable[[int, int], "sp.csr_matrix"], edges: I64, most: int) -> Csr:
    """The strongest neighbours of all items, [N, N].

    blocks: gives the likenesses of the items from a first to before a last one, [last - first, N]
    edges: where the blocks begin and end, from 0 to N
    """
    n_items = int(edges[-1])
    indptr = np.zeros(n_items + 1, np.int64)
    columns: list[I32] = [np.empty(0, np.int32)]
    values: list[F32] = [np.empty(0, np.float32)]
    for start, stop in itertools.pairwise(edges.tolist()):
        block = blocks(start, stop)
        found = [
            strongest(block.indices[a:b], block.data[a:b], start + i, most)
            for i, (a, b) in enumerate(itertools.pairwise(block.indptr.tolist()))
        ]
        indptr[start + 1 : stop + 1] = [len(row[0]) for row in found]
        columns.append(np.concatenate([row[0] for row in found]))
        values.append(np.concatenate([row[1] for row in found]))
    return Csr(np.cumsum(indptr), np.concatenate(columns), n_items, np.concatenate(values))

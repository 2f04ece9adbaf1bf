"""From a sparse matrix of likenesses to the strongest neighbours of each item."""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from fastrec.types import F32, I32, Csr

Row = tuple[I32, F32]


def strongest(columns: I32, values: F32, item: int, most: int) -> Row:
    """The ``most`` largest positive values without the item itself, columns ascending; at equal values the smaller."""
    keep = (columns != item) & (values > 0)
    columns, values = columns[keep], values[keep]
    if len(columns) > most:
        order = np.lexsort((columns, -values))[:most]
        columns, values = columns[order], values[order]
    order = np.argsort(columns)
    return columns[order].astype(np.int32), values[order].astype(np.float32)


def neighbors(blocks: Callable[[int, int], "sp.csr_matrix"], n_items: int, rows: int, most: int) -> Csr:
    """The strongest neighbours of all items, [N, N].

    blocks: gives the likenesses of the items from a first to before a last one, [last - first, N]
    rows: items of one block
    """
    indptr = np.zeros(n_items + 1, np.int64)
    columns: list[I32] = [np.empty(0, np.int32)]
    values: list[F32] = [np.empty(0, np.float32)]
    for start in range(0, n_items, rows):
        block = blocks(start, min(start + rows, n_items))
        for i in range(block.shape[0]):
            span = slice(block.indptr[i], block.indptr[i + 1])
            found = strongest(block.indices[span], block.data[span], start + i, most)
            indptr[start + i + 1] = len(found[0])
            columns.append(found[0])
            values.append(found[1])
    return Csr(np.cumsum(indptr), np.concatenate(columns), n_items, np.concatenate(values))

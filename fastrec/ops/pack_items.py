"""pack_items: the items in the layout that score_topk walks.

Panels of 16 items, [panel][d][16]: one vector register holds the same coordinate of 16 items, so that a dot
product needs no sum across lanes, and a walk over the catalogue reads memory strictly forward. The layout is
that of packed matrix products (Goto and van de Geijn 2008). A screen, the same in int8 or bfloat16, may stand
beside them: it is read in their place, and they give the exact scores of what is left.
"""

import contextlib
import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrec import _native, config
from fastrec.errors import ConfigError, DataError
from fastrec.ops._arrays import as_float_matrix, check_rows_finite, empty, squared_norms
from fastrec.ops._op import Backend, Op
from fastrec.ops._screen import KINDS, Screen, screen_of
from fastrec.types import F32, F64

LANES = 16
_HUGE = 2 << 20  # bytes of a huge page
_MOST_ITEMS = 2**31 - 1 - LANES  # rows are int32


@dataclass(frozen=True, eq=False)
class PackedItems:
    """Items [N, D] in panels, made by pack_items; the panels may be a memory map.

    panels: float32 [ceil(N / 16), D, 16]: item 16 p + l is panels[p, :, l]; lanes beyond N are zero
    n_items: N
    max_norm: the largest length of an item; score_topk relies on it to find every candidate
    screen: the items in fewer bits, or None; score_topk takes it where that is faster. Rows and scores are the same
    """

    panels: F32
    n_items: int
    max_norm: float
    screen: Screen | None = None

    def __post_init__(self) -> None:
        p = self.panels
        fits = p.dtype == np.float32 and p.ndim == 3 and p.flags.c_contiguous
        count = -(-self.n_items // LANES)
        if not fits or p.shape[::2] != (count, LANES):
            raise DataError(
                f"[pack_items] panels: {p.dtype} {p.shape}, expected contiguous float32 ({count}, D, {LANES})"
            )
        if not 0.0 <= self.max_norm < np.inf:
            raise DataError(f"[pack_items] max_norm is {self.max_norm}, expected a finite number >= 0")
        if self.screen is not None:
            group = KINDS[self.screen.dtype][1]
            if self.screen.codes.shape[:2] != (count, -(-self.dims // group)):
                raise DataError(f"[pack_items] screen {self.screen.codes.shape} does not fit panels {p.shape}")

    @property
    def dims(self) -> int:
        """D"""
        return int(self.panels.shape[1])

    def unpack(self) -> F32:
        """The items again, float32 [N, D]."""
        rows = np.ascontiguousarray(self.panels.transpose(0, 2, 1))
        return rows.reshape(len(self.panels) * LANES, self.dims)[: self.n_items]


def pack_items(items: Any, *, dtype: str = "float32", backend: str = "auto", threads: int | None = None) -> PackedItems:
    """Items [N, D] packed once, for many calls of score_topk and score_pairs.

    items: float [N, D], numpy or torch; float64 is rounded to float32. Or a PackedItems, which gets a screen
    dtype: "float32", or "int8" or "bfloat16" for a screen beside the float32 panels: a quarter or a half more
        memory, faster calls, the same rows and scores
    Raises DataError for a wrong shape or dtype and, naming the row, for NaN or inf; ConfigError for threads and dtype.
    """
    where = "pack_items"
    if dtype not in ("float32", *KINDS):
        raise ConfigError(f"[{where}] dtype is {dtype!r}, expected one of {['float32', *KINDS]}")
    OP.choose(backend)  # a name that is none must not pass
    packed = pack(where, "items", items, backend, threads)
    if dtype == "float32" or (packed.screen is not None and packed.screen.dtype == dtype):
        return packed
    native = OP.choose(backend) is _cpu
    screen = screen_of(packed.panels, dtype, config.threads(threads), native, aligned)
    return PackedItems(packed.panels, packed.n_items, packed.max_norm, screen)


def pack(where: str, name: str, items: Any, backend: str = "auto", threads: int | None = None) -> PackedItems:
    """pack_items on behalf of the operator ``where``; a PackedItems comes back as it is."""
    if isinstance(items, PackedItems):
        return items
    matrix = as_float_matrix(where, name, items, backend)
    if len(matrix) > _MOST_ITEMS:
        raise DataError(f"[{where}] {name} has {len(matrix)} rows, expected at most {_MOST_ITEMS}")
    # Other operators have backends of which packing knows nothing, and it makes no difference to them.
    run = OP.choose(backend if backend in (*OP.backends, "reference") else "auto")
    panels, squares = run(matrix, config.threads(threads))
    check_rows_finite(where, name, matrix, squares)
    # Rounded up: the bound in score_topk needs a number that no item exceeds.
    max_norm = float(np.sqrt(squares.max()) * (1 + 1e-9)) if len(squares) else 0.0
    return PackedItems(panels, len(matrix), max_norm)


def pack_items_reference(matrix: F32, threads: int = 1) -> tuple[F32, F64]:
    """(panels, squared length of every item)"""
    n, dims = matrix.shape
    count = -(-n // LANES)
    rows = np.zeros((count * LANES, dims), np.float32)
    rows[:n] = matrix
    panels = aligned((count, dims, LANES))
    panels[:] = rows.reshape(count, LANES, dims).transpose(0, 2, 1)
    return panels, squared_norms(matrix)


def _cpu(matrix: F32, threads: int) -> tuple[F32, F64]:
    n, dims = matrix.shape
    panels = aligned((-(-n // LANES), dims, LANES))
    squares = empty(n, np.float64)
    _native.module("pack_items").pack_items(
        items=_native.ptr(matrix, np.float32),
        n=n,
        dims=dims,
        panels=_native.ptr(panels, np.float32),
        squares=_native.ptr(squares, np.float64),
        threads=threads,
    )
    return panels, squares


def aligned(shape: tuple[int, ...], dtype: type[np.generic] = np.float32) -> Any:
    """Fresh memory: at 64 bytes, and from 2 MB on in huge pages, which spare TLB misses."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if size >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        memory = mmap.mmap(-1, size + _HUGE)
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
        raw = np.frombuffer(memory, np.uint8)
        start = -raw.ctypes.data % _HUGE
    else:
        raw = empty(size + 64, np.uint8)
        start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


OP = Op(
    "pack_items",
    reference=pack_items_reference,
    backends={
        "cpu": Backend(_cpu, "cpu", _native.missing_cpu),
        "numpy": Backend(pack_items_reference, "cpu", lambda: None),
    },
    cases=[{"N": n, "D": d} for n, d in [(0, 3), (1, 1), (15, 7), (16, 16), (17, 3), (1023, 63), (5, 0)]],
)

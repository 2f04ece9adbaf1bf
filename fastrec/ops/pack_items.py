"""pack_items: the items as score_topk wants them.

The float32 rows, which give the exact scores, and beside them the screen that is walked: the items in fewer bits, in
panels of 16, so that one vector register holds the same coordinates of 16 items and a walk reads memory strictly
forward. The panels are laid out as packed matrix products do it (Goto and van de Geijn 2008).
"""

import contextlib
import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrec import _native, config
from fastrec.errors import ConfigError, DataError
from fastrec.ops._arrays import as_float_matrix, check_rows_finite, empty, squared_norms
from fastrec.ops._cells import Cells
from fastrec.ops._op import Backend, Op
from fastrec.ops._screen import KINDS, Screen, screen_of
from fastrec.types import F32, F64

LANES = 16
_HUGE = 2 << 20  # bytes of a huge page
_CACHE = 32 << 20  # bytes of codes
#: Length of what int8 codes are off, in lengths of an item. Normal numbers come to .006; one of 16 among them to .02.
_CLOSE = 0.015
_MOST_ITEMS = 2**31 - 1 - LANES  # rows are int32


@dataclass(frozen=True, eq=False)
class PackedItems:
    """Items [N, D], made by pack_items; every array may be a memory map.

    rows: float32 [N, D]
    screen: the items in fewer bits
    max_norm: the largest length of an item; score_topk relies on it to find every candidate
    cells: the items once more by neighbourhood, which spares several users most of them, or None
    """

    rows: F32
    screen: Screen
    max_norm: float
    cells: Cells | None = None

    def __post_init__(self) -> None:
        rows = self.rows
        if rows.dtype != np.float32 or rows.ndim != 2 or not rows.flags.c_contiguous:
            raise DataError(f"[pack_items] rows: {rows.dtype} {rows.shape}, expected contiguous float32 (N, D)")
        if not 0.0 <= self.max_norm < np.inf:
            raise DataError(f"[pack_items] max_norm is {self.max_norm}, expected a finite number >= 0")
        group = KINDS[self.screen.dtype][1]
        if self.screen.codes.shape[:2] != (-(-len(rows) // LANES), -(-self.dims // group)):
            raise DataError(f"[pack_items] screen {self.screen.codes.shape} does not fit rows {rows.shape}")
        if self.cells is not None:
            self.cells.check(len(rows), self.dims, self.screen.dtype)

    def view(self) -> Any:
        """The items for the compiled module, made once; it keeps the arrays alive."""
        view = self.__dict__.get("_view")
        if view is None:
            kind, screen = KINDS[self.screen.dtype][0], self.screen
            arrays = (screen.codes, screen.scales, screen.errors)
            longest = (1 + 1e-9) * self.max_norm  # as for other arguments, in _scoring.scoring
            view = _native.module("pack_items").Items(self.rows, kind, *arrays, *screen.largest, longest)
            if self.cells is not None:
                view.set_cells(*self.cells.arrays())
            object.__setattr__(self, "_view", view)
        return view

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_view"}

    @property
    def n_items(self) -> int:
        """N"""
        return len(self.rows)

    @property
    def dims(self) -> int:
        """D"""
        return int(self.rows.shape[1])


def pack_items(items: Any, *, dtype: str = "float32", backend: str = "auto", threads: int | None = None) -> PackedItems:
    """Items [N, D] packed once, for many calls of score_topk and score_pairs. The items are copied.

    items: float [N, D], numpy or torch; float64 is rounded to float32. Or a PackedItems, which gets another screen
    dtype: what is walked: "bfloat16", the upper halves of the float32 numbers (6 bytes a number with the rows), which
        "float32" stands for too, or "int8" (5 bytes a number). The same rows and scores; "int8" reads half as much
        memory, and is the faster one where reading is the limit: for few users and many items. "auto": int8 where the
        codes of bfloat16 would not stay in a cache (32 MB) and those of int8 are close, by the mean over the items
    Raises DataError for a wrong shape or dtype and, naming the row, for NaN or inf; ConfigError for threads and dtype.
    """
    where = "pack_items"
    if dtype not in ("float32", "auto", *KINDS):
        raise ConfigError(f"[{where}] dtype is {dtype!r}, expected one of {['float32', 'auto', *KINDS]}")
    OP.choose(backend)  # a name that is none must not pass
    if dtype == "auto":
        packed = items if isinstance(items, PackedItems) else pack(where, "items", items, backend, threads, "int8")
        kept = 2 * packed.rows.size > _CACHE and _is_close(pack(where, "items", packed, backend, threads, "int8"))
        dtype, items = "int8" if kept else "bfloat16", packed
    return pack(where, "items", items, backend, threads, "bfloat16" if dtype == "float32" else dtype)


def _is_close(packed: PackedItems) -> bool:
    """Whether the int8 codes are so near that few items have to be looked at again: an outlier among the numbers of an
    item makes all its codes coarse."""
    screen = packed.screen
    errors = float((screen.scales.mean(axis=1, dtype=np.float64) * screen.errors[:, 0]).mean())
    lengths = float(np.sqrt(squared_norms(packed.rows)).mean())
    return errors <= _CLOSE * lengths


def pack(
    where: str, name: str, items: Any, backend: str = "auto", threads: int | None = None, dtype: str | None = None
) -> PackedItems:
    """pack_items on behalf of the operator ``where``; a PackedItems comes back as it is, but for another dtype."""
    if isinstance(items, PackedItems):
        if dtype in (None, items.screen.dtype):
            return items
        rows, max_norm = items.rows, items.max_norm
    else:
        matrix = as_float_matrix(where, name, items, backend)
        if len(matrix) > _MOST_ITEMS:
            raise DataError(f"[{where}] {name} has {len(matrix)} rows, expected at most {_MOST_ITEMS}")
        rows, squares = _run(backend)(matrix, config.threads(threads))
        check_rows_finite(where, name, matrix, squares)
        # Rounded up: the bound in score_topk needs a number that no item exceeds.
        max_norm = float(np.sqrt(squares.max()) * (1 + 1e-9)) if len(squares) else 0.0
    native = _run(backend) is _cpu
    return PackedItems(rows, screen_of(rows, dtype or "bfloat16", config.threads(threads), native, aligned), max_norm)


def _run(backend: str) -> Any:
    # Other operators have backends of which packing knows nothing, and it makes no difference to them.
    return OP.choose(backend if backend in (*OP.backends, "reference") else "auto")


def pack_items_reference(matrix: F32, threads: int = 1) -> tuple[F32, F64]:
    """(rows, squared length of every item)"""
    rows = aligned(matrix.shape)
    rows[:] = matrix
    return rows, squared_norms(matrix)


def _cpu(matrix: F32, threads: int) -> tuple[F32, F64]:
    rows, squares = aligned(matrix.shape), empty(len(matrix), np.float64)
    _native.module("pack_items").pack_items(
        items=_native.ptr(matrix, np.float32),
        n=len(matrix),
        dims=matrix.shape[1],
        rows=_native.ptr(rows, np.float32),
        squares=_native.ptr(squares, np.float64),
        threads=threads,
    )
    return rows, squares


def aligned(shape: tuple[int, ...], dtype: type[np.generic] = np.float32) -> Any:
    """Fresh memory: at 64 bytes, and from 2 MB on in huge pages, which spare TLB misses."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if size >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        # Private: the kernel has settings of its own for huge pages of shared memory, mostly "never".
        memory = mmap.mmap(-1, size + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
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

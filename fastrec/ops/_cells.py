"""The catalogue once more, by neighbourhood: what spares score_topk most of it where items lie in clusters.

The items of a cell lie within a distance of its middle, which bounds every score; csrc/topk_cells.h has the search.
``fastrec.retrieve.cells.arrange`` makes cells.

Shape legend: N items, D dimensions, C cells, P panels of 16 places.
"""

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrec import _native
from fastrec.errors import DataError
from fastrec.ops._arrays import empty, is_frozen
from fastrec.ops._screen import KINDS, Screen
from fastrec.types import F32, I32, I64

if TYPE_CHECKING:
    from fastrec.ops.pack_items import PackedItems

_LANES = 16
_MOST_PLACES = 2**31 - 1 - 16 * _LANES  # places are int32
#: Users of a call below which the plain walk is as good, and from which a bias is arranged that no call had before.
_FEW_USERS, _USERS_PER_BIAS = 3, 24
#: What the native module takes for no cells.
NO_CELLS = (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)


@dataclass(frozen=True, eq=False)
class Cells:
    """C cells of items.

    begins: int64 [C + 1], the panels of every cell
    order: int32 [P, 16]: the row of the item at every place, -1 where a cell has no more
    screen: of the items in that order
    coarse: the middle of every cell and the largest distance from it, packed items [C, D + 1], its screen of that kind
    """

    begins: I64
    order: I32
    screen: Screen
    coarse: "PackedItems"

    def __post_init__(self) -> None:
        count = len(self.order)
        fits = self.begins.dtype == np.int64 and self.begins.ndim == 1 and len(self.begins) > 1
        fits = fits and self.begins.flags.c_contiguous
        fits = fits and self.begins[0] == 0 and self.begins[-1] == count and bool((np.diff(self.begins) >= 0).all())
        fits = fits and self.order.dtype == np.int32 and self.order.shape == (count, _LANES)
        fits = fits and self.order.flags.c_contiguous and len(self.screen.codes) == count
        fits = fits and self.coarse.n_items == len(self.begins) - 1 and self.order.size <= _MOST_PLACES
        if not fits:
            raise DataError(f"[pack_items] cells {self.begins.shape} of places {self.order.shape} do not fit")

    def check(self, n: int, dims: int, dtype: str) -> None:
        """Raises DataError where these are not the cells of n items over a screen of that dtype."""
        rows = self.order[self.order >= 0]
        here = np.zeros(n, bool)  # every item once: no other would be found, or one twice
        fits = len(rows) == n and (n == 0 or int(rows.max()) < n)
        if fits:
            here[rows] = True
        fits = fits and bool(here.all()) and self.screen.codes.shape[1] == -(-dims // KINDS[self.screen.dtype][1])
        if not fits or self.coarse.dims != dims + 1 or {self.screen.dtype, self.coarse.screen.dtype} != {dtype}:
            raise DataError(
                f"[pack_items] {self.screen.dtype} cells of {len(rows)} items do not fit {n} items over {dtype}"
            )

    def under(self, bias: F32 | None, users: int, threads: int) -> tuple[F32, F32] | None:
        """The bias [N] as ``native`` wants it, or None where so many users gain less by cells than it costs to bring it
        into their order."""
        if users < _FEW_USERS or (users < _USERS_PER_BIAS and self._known(bias) is None):
            return None
        return self._arranged(bias, threads)

    def native(self, arranged: tuple[F32, F32]) -> tuple[Any, ...]:
        """The argument of the native module that stands for these cells; the caller keeps the biases alive."""
        return (*self._fixed(), *(_native.ptr(x, np.float32) for x in arranged))

    def arrays(self) -> tuple[Any, ...]:
        """The same without a bias, as arrays."""
        coarse = self.coarse.screen
        mine, theirs = ((s.codes, s.scales, s.errors) for s in (self.screen, coarse))
        return (self.begins, self.order, *mine, self._radii(), *theirs, *self._numbers(), *self._arranged(None, 1))

    def _radii(self) -> F32:
        radii = self.__dict__.get("_kept_radii")
        if radii is None:
            radii = np.ascontiguousarray(self.coarse.rows[:, -1])
            object.__setattr__(self, "_kept_radii", radii)
        found: F32 = radii
        return found

    def _numbers(self) -> tuple[float, ...]:
        return (*self.screen.largest, *self.coarse.screen.largest, (1 + 1e-9) * self.coarse.max_norm)

    def _fixed(self) -> tuple[Any, ...]:
        addresses = [_native.ptr(self.screen.codes, KINDS[self.screen.dtype][2])]
        coarse = self.coarse.screen
        addresses += [_native.ptr(x, np.float32) for x in (self.screen.scales, self.screen.errors, self._radii())]
        addresses += [_native.ptr(coarse.codes, KINDS[coarse.dtype][2])]
        addresses += [_native.ptr(x, np.float32) for x in (coarse.scales, coarse.errors)]
        places = _native.ptr(self.begins, np.int64), _native.ptr(self.order, np.int32)
        return (len(self.begins) - 1, *places, *addresses, *self._numbers())

    def _arranged(self, bias: F32 | None, threads: int) -> tuple[F32, F32]:
        """The bias [P, 16] by place, and the largest of every cell [C]; kept for one that nobody can write to."""
        found = self._known(bias)
        if found is not None:
            return found
        arranged, most = empty(self.order.shape, np.float32), empty(len(self.begins) - 1, np.float32)
        _native.module("score_topk").arrange_bias(
            cells=(*self._fixed(), 0, 0),
            bias=_native.ptr(bias, np.float32),
            threads=threads,
            arranged=_native.ptr(arranged, np.float32),
            most=_native.ptr(most, np.float32),
        )
        kept, key = self.__dict__.setdefault("_kept", {}), id(bias)
        if bias is None or is_frozen(bias):
            alive = None if bias is None else weakref.ref(bias, lambda _: kept.pop(key, None))
            kept[key] = alive, (arranged, most)
        return arranged, most

    def _known(self, bias: F32 | None) -> tuple[F32, F32] | None:
        known = self.__dict__.get("_kept", {}).get(id(bias))
        if known is None or not (bias is None or (known[0]() is bias and is_frozen(bias))):
            return None
        found: tuple[F32, F32] = known[1]
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_kept")}

"""The catalogue in fewer bits, which score_topk walks: what comes through gets its exact score from the float32 rows.

What a code may be off is kept with it, rounded up, so that the search stays exact (csrc/topk_bounds.h).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastrec import _native
from fastrec.errors import DataError
from fastrec.types import F32

#: dtype -> (number in the native module, dims of a group, type of a code)
KINDS: dict[str, tuple[int, int, type[np.generic]]] = {"int8": (1, 4, np.uint8), "bfloat16": (2, 2, np.uint16)}


@dataclass(frozen=True, eq=False)
class Screen:
    """Items = scales * codes and an error of known length, in panels of 16 items.

    dtype: "int8" or "bfloat16"
    codes: uint8 [panels, ceil(D / 4), 16, 4], 128 + the code, or uint16 [panels, ceil(D / 2), 16, 2], the upper
        halves of float32
    scales: float32 [panels, 16]; ones for bfloat16
    errors: float32 [panels, 2]: at least |item - scale * code| / scale and |code|, of every item of the panel
    """

    dtype: str
    codes: npt.NDArray[Any]
    scales: F32
    errors: F32

    def __post_init__(self) -> None:
        if self.dtype not in KINDS:
            raise DataError(f"[pack_items] dtype of a screen is {self.dtype!r}, expected one of {[*KINDS]}")
        _, group, code = KINDS[self.dtype]
        count = len(self.scales)
        fits = self.codes.dtype == code and self.codes.ndim == 4 and self.codes.flags.c_contiguous
        fits = fits and (len(self.codes), *self.codes.shape[2:]) == (count, 16, group)
        for array, shape in ((self.scales, (count, 16)), (self.errors, (count, 2))):
            fits = fits and array.dtype == np.float32 and array.shape == shape and array.flags.c_contiguous
        if not fits or not (self.errors >= 0).all():
            raise DataError(f"[pack_items] {self.dtype} codes {self.codes.dtype} {self.codes.shape} do not fit")
        reach = self.scales.astype(np.float64)[:, :, None] * self.errors.astype(np.float64)[:, None, :]
        largest = reach.max(axis=(0, 1), initial=0.0) * (1 + 1e-9)
        object.__setattr__(self, "_largest", (float(largest[0]), float(largest[1])))

    @property
    def largest(self) -> tuple[float, float]:
        """At least scale * error and scale * |code| of every item."""
        found: tuple[float, float] = self.__dict__["_largest"]
        return found

    def native(self) -> tuple[int, int, int, int, float, float]:
        """The argument of the native module that stands for this screen."""
        kind, _, code = KINDS[self.dtype]
        addresses = (
            _native.ptr(self.codes, code),
            _native.ptr(self.scales, np.float32),
            _native.ptr(self.errors, np.float32),
        )
        return kind, *addresses, *self.largest


def screen_of(rows: F32, dtype: str, threads: int, native: bool, empty: Any) -> Screen:
    """A screen of rows [N, D]; ``empty`` makes the memory."""
    number, group, code = KINDS[dtype]
    n, dims = rows.shape
    count, steps = -(-n // 16), -(-dims // group)
    codes = empty((count, steps, 16, group), code)
    # All three at cache lines: a scale that lies in two of them costs one user's walk a tenth.
    scales, errors = empty((count, 16)), empty((count, 2))
    scales.fill(1.0)
    errors.fill(0.0)
    if native:
        _native.module("pack_items").screen_items(
            items=_native.ptr(rows, np.float32),
            n=n,
            dims=dims,
            int8=number == 1,
            codes=_native.ptr(codes, code),
            scales=_native.ptr(scales, np.float32),
            errors=_native.ptr(errors, np.float32),
            threads=threads,
        )
        return Screen(dtype, codes, scales, errors)
    for p in range(0, count, 256):  # a part at a time: the float64 copies are large
        part = slice(p, min(p + 256, count))
        items = np.zeros((part.stop - p, 16, dims), np.float32)
        given = rows[p * 16 : part.stop * 16]
        items.reshape(len(items) * 16, dims)[: len(given)] = given
        _reference(items, dtype, codes[part], scales[part], errors[part])
    return Screen(dtype, codes, scales, errors)


def _reference(items: F32, dtype: str, codes: npt.NDArray[Any], scales: F32, errors: F32) -> None:
    """The definition of a screen of items [panels, 16, D], in numpy."""
    _, group, _ = KINDS[dtype]
    pad = -items.shape[2] % group
    values = np.pad(items, ((0, 0), (0, 0), (0, pad))).reshape(len(items), 16, -1, group).transpose(0, 2, 1, 3)
    if dtype == "int8":
        most = np.abs(items).max(axis=2, initial=0.0)
        scales[:] = np.maximum(most / np.float32(127), np.float32(2.0**-100))
        wide = scales[:, None, :, None]
        exact = np.clip(np.rint(values / wide), -127, 127).astype(np.float64)
        codes[:] = (exact + 128).astype(np.uint8)
    else:
        bits = np.ascontiguousarray(values).view(np.uint32)
        rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        rounded = np.where((rounded & np.uint32(0x7FFFFFFF)) >= np.uint32(0x7F800000), bits, rounded)
        # Denormal numbers are zeros: some instructions take them for that.
        rounded = np.where(rounded & np.uint32(0x7F800000), rounded, np.uint32(0))
        codes[:] = (rounded >> np.uint32(16)).astype(np.uint16)
        wide = np.ones(1, np.float32)
        exact = (codes.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
    off = values.astype(np.float64) / wide.astype(np.float64) - exact
    errors[:, 0] = _up(np.sqrt((off**2).sum(axis=(1, 3)).max(axis=1)))
    errors[:, 1] = _up(np.sqrt((exact**2).sum(axis=(1, 3)).max(axis=1)))


def _up(x: npt.NDArray[np.float64]) -> F32:
    """float32 not below x."""
    with np.errstate(over="ignore"):
        rounded = (x * (1 + 1e-6)).astype(np.float32)
    return np.where(rounded < x, np.nextafter(rounded, np.float32(np.inf)), rounded).astype(np.float32)

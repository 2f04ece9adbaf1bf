"""The front door that the operators share: arrays of any kind in, checked numpy arrays out.

Every function takes ``where`` (the operator) and ``name`` (the argument) for its messages.
"""

import logging
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fastrec import _native
from fastrec.errors import BackendUnavailable, ConfigError, DataError
from fastrec.ops import _cuda
from fastrec.types import F32, F64, Bool

log = logging.getLogger("fastrec")

F = TypeVar("F", bound=Callable[..., Any])

#: Scores stay clear of the largest float32, so that no sum on the way to them overflows either.
LARGEST_SCORE = 3.0e38
SIMD_LEVELS = ("scalar", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx")
_copies_told: set[str] = set()


def is_torch(x: object) -> bool:
    """Whether x is a tensor; torch is not imported to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def adopt(x: Any) -> Any:
    """A CUDA array of another library, such as CuPy, as a tensor over the same memory; anything else as it is."""
    if is_torch(x) or isinstance(x, np.ndarray) or not hasattr(x, "__dlpack_device__"):
        return x
    if x.__dlpack_device__()[0] != _cuda.RUNTIME.dlpack_type:
        return x
    import torch

    library: Any = torch
    return library.from_dlpack(x)


def give_back(x: Any, tensor: Any) -> Any:
    """The tensor in the kind of the array x that ``adopt`` took, over the same memory."""
    return tensor if is_torch(x) else x.__array_namespace__().from_dlpack(tensor)


def on_gpu(x: object) -> bool:
    """Whether x is a tensor in the memory of a GPU."""
    return is_torch(x) and _cuda.RUNTIME.is_on(x)


def to_numpy(where: str, name: str, x: Any, backend: str = "auto") -> npt.NDArray[Any]:
    """x as a numpy array, a CPU tensor without a copy; a CUDA tensor is copied for backend "auto" only."""
    if is_torch(x):
        x = x.detach()
        if x.device.type != "cpu":
            if backend not in ("auto", "torch", "cuda", "triton"):
                raise DataError(
                    f"[{where}] {name} is on {x.device}, expected a CPU array for backend {backend!r}; "
                    f"use backend='auto' or .cpu()"
                )
            if backend == "auto" and where not in _copies_told:
                _copies_told.add(where)
                log.warning(f"[{where}] no backend for {x.device}; its tensors are copied to the CPU and back")
            x = x.cpu()
        if x.is_floating_point() and x.element_size() < 4:
            x = x.float()
        return np.asarray(x.numpy())
    try:
        return np.asarray(x)
    except ValueError as error:  # a ragged list
        raise DataError(f"[{where}] {name} is no array ({error})") from None


def like(x: object, result: npt.NDArray[Any]) -> Any:
    """The result in the kind and on the device of the input x."""
    if not is_torch(x):
        return result
    torch: Any = sys.modules["torch"]
    tensor: Any = x
    return torch.from_numpy(result).to(tensor.device)


def empty(shape: int | tuple[int, ...], dtype: type[np.generic]) -> npt.NDArray[Any]:
    """Memory for an output; the tests put garbage into it, since every cell must be written."""
    return np.empty(shape, dtype)


def as_float_matrix(where: str, name: str, x: Any, backend: str = "auto", columns: int | None = None) -> F32:
    """float32 [R, D], contiguous; ints and other floats are converted. Values are not checked here."""
    array = to_numpy(where, name, x, backend)
    if array.ndim != 2 or (columns is not None and array.shape[1] != columns):
        expected = "two dimensions" if columns is None else f"shape [any, {columns}]"
        raise DataError(f"[{where}] {name} has shape {array.shape}, expected {expected}")
    return _as_float32(where, name, array)


def as_float_vector(where: str, name: str, x: Any, length: int, backend: str = "auto") -> F32:
    """float32 [length], contiguous. Values are not checked here."""
    array = to_numpy(where, name, x, backend)
    if array.shape != (length,):
        raise DataError(f"[{where}] {name} has shape {array.shape}, expected ({length},)")
    return _as_float32(where, name, array)


def _as_float32(where: str, name: str, array: npt.NDArray[Any]) -> F32:
    if array.dtype == np.float32 and array.flags.c_contiguous:
        return array
    if array.dtype.kind not in "fiu":
        raise DataError(f"[{where}] {name} has dtype {array.dtype}, expected numbers (float32)")
    with np.errstate(over="ignore"):  # becomes inf, which the check of the values reports
        return np.ascontiguousarray(array, np.float32)


def is_frozen(array: npt.NDArray[Any]) -> bool:
    """Whether nobody can ever write to the memory of the array: bytes, or a file that is mapped for reading. An array
    that owns its memory may be made writeable again."""
    view: Any = array
    while isinstance(view, np.ndarray):
        if view.flags.writeable:
            return False
        view = view.base
    return isinstance(view, bytes) or (isinstance(view, memoryview) and view.readonly)


def squared_norms(matrix: F32) -> F64:
    """Squared length of every row, float64 [R]; not finite exactly where the row has NaN or inf."""
    out: F64 = np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64)
    return out


def scaled_lengths(where: str, name: str, matrix: F32, scale: float) -> tuple[F64, float]:
    """``scale`` times the length of every row, float64 [R], and the largest; DataError for a row with NaN or inf."""
    if _native.missing_cpu() is not None:
        squares = squared_norms(matrix)
        check_rows_finite(where, name, matrix, squares)
        lengths: F64 = np.sqrt(squares) * scale
        return lengths, float(lengths.max(initial=0.0))
    out: F64 = np.empty(len(matrix))
    largest: float = _native.module(where).scaled_lengths(
        _native.ptr(matrix, np.float32), *matrix.shape, scale, _native.ptr(out, np.float64)
    )
    if largest != largest:  # NaN
        check_rows_finite(where, name, matrix, squared_norms(matrix))
    return out, largest


def check_rows_finite(where: str, name: str, matrix: F32, squares: F64) -> None:
    """DataError for the first row of ``matrix`` whose squared length is not finite."""
    if np.isfinite(squares).all():
        return
    row = int(np.argmin(np.isfinite(squares)))
    column = int(np.argmin(np.isfinite(matrix[row])))
    raise DataError(
        f"[{where}] {name} row {row} holds {matrix[row, column]} at column {column}, expected finite numbers",
        column=name,
        row=row,
    )


def as_mask(where: str, name: str, x: Any, length: int, backend: str = "auto") -> Bool | None:
    """x as bool [length] where it is a mask, None where it is something else."""
    if isinstance(x, tuple) or hasattr(x, "indptr"):
        return None
    array = to_numpy(where, name, x, backend)
    if array.dtype != np.bool_ or array.shape != (length,):
        raise DataError(
            f"[{where}] {name} is an array of dtype {array.dtype} and shape {array.shape}, expected "
            f"(indptr int64 [B+1], rows int32), a Csr, a scipy CSR or a bool mask ({length},)"
        )
    return array


def simd(where: str) -> str:
    """The level that FASTREC_SIMD forces, or "" for the best."""
    level = os.environ.get("FASTREC_SIMD", "")
    if not level:
        return ""
    if level not in SIMD_LEVELS:
        raise ConfigError(f"[{where}] FASTREC_SIMD={level!r}, expected one of {', '.join(SIMD_LEVELS)}")
    can: list[str] = _native.module(where).simd_levels()
    if level not in can:
        raise BackendUnavailable(
            where,
            "cpu",
            f"FASTREC_SIMD={level}, but this machine runs {', '.join(can)}",
            "unset FASTREC_SIMD",
        )
    return level


def missing_numba() -> tuple[str, str] | None:
    """None where numba is installed, else (reason, remedy)."""
    from importlib.util import find_spec

    return None if find_spec("numba") else ("numba is not installed", "pip install numba")


_compiled: dict[Callable[..., Any], Callable[..., Any]] = {}


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled by numba at its first use, with the GIL released and no reordering of floats."""
    if function not in _compiled:
        import numba

        try:
            _compiled[function] = numba.njit(nogil=True, cache=True)(function)
        except RuntimeError:  # no folder to keep the compiled code in
            _compiled[function] = numba.njit(nogil=True)(function)
    return _compiled[function]


def over_blocks(n: int, size: int, threads: int, body: Callable[[int, int], None]) -> None:
    """body(first, last) for blocks of ``size`` of n rows, on some threads; for the numba backends."""
    blocks = [(i, min(n, i + size)) for i in range(0, n, size)]
    if threads == 1 or len(blocks) <= 1:
        for first, last in blocks:
            body(first, last)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(threads, len(blocks))) as pool:
        list(pool.map(lambda block: body(*block), blocks))

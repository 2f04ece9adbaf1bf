"""The border to the compiled modules: pointers out of arrays, and why ``_C`` or ``_C_cuda`` is missing."""

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from fastrec.errors import BackendUnavailable

#: The first error of the import, kept because later ones hide it.
import_error: str | None = None
try:
    _C: ModuleType | None = importlib.import_module("fastrec._C")
except ImportError as error:  # built without a compiler, or for another Python
    _C = None
    import_error = f"{type(error).__name__}: {error}"

#: The same for the CUDA module, which is built where nvcc is; it loads without a driver.
cuda_import_error: str | None = None
try:
    _C_cuda: ModuleType | None = importlib.import_module("fastrec._C_cuda")
except ImportError as error:
    _C_cuda = None
    cuda_import_error = f"{type(error).__name__}: {error}"


def missing_cpu() -> tuple[str, str] | None:
    """None where the compiled CPU module is loaded, else (reason, remedy)."""
    if _C is not None:
        return None
    return (
        f"fastrec._C did not load ({import_error})",
        "reinstall from source with a C++17 compiler: pip install .",
    )


def module(op: str) -> Any:
    """The compiled module, or BackendUnavailable for ``op``."""
    gap = missing_cpu()
    if gap is not None:
        raise BackendUnavailable(op, "cpu", *gap)
    return _C


#: dtype -> its number in numpy
_NUMBERS: dict[type[np.generic], int] = {
    dtype: np.dtype(dtype).num
    for dtype in (np.float16, np.float32, np.float64, np.uint8, np.int8, np.uint16, np.int32, np.int64)
}


def ptr(array: npt.NDArray[Any] | None, dtype: type[np.generic]) -> int:
    """Address of the data of a C-contiguous array of this dtype; 0 for None.

    The caller keeps the array alive for the length of the native call.
    """
    if array is None:
        return 0
    # An operator has a dozen arrays, and numpy takes a microsecond and a half for the address of one.
    address: int = 0 if _C is None else _C.address(array, _NUMBERS[dtype])
    if address:
        return address
    if array.dtype != dtype or not array.flags.c_contiguous:  # of an equal type with another number it is none
        raise AssertionError(f"expected contiguous {np.dtype(dtype)}, got {array.dtype} {array.flags}")
    return int(array.ctypes.data)

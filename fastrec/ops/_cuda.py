"""The border to CUDA: what is missing, the memory of a device, and the operators of ``fastrec._C_cuda`` on it.

torch allocates and names the stream; the native module is given addresses. No kernel waits for another: the only
synchronisation is that of a result that is copied to the host.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrec import _native
from fastrec.errors import BackendUnavailable, KernelError

if TYPE_CHECKING:
    from fastrec.ops._sparse import Lists, Matrix

Gap = tuple[str, str] | None


class Runtime:
    """The device that kernels run on. The tests put an emulated one in its place."""

    #: What ``__dlpack_device__`` answers for memory of this device.
    dlpack_type = 2

    def native(self) -> Any:
        """The compiled module, or None."""
        return _native._C_cuda

    def native_gap(self) -> Gap:
        """Why the CUDA operators cannot run, and the remedy."""
        if self.native() is None:
            return (
                f"fastrec._C_cuda did not load ({_native.cuda_import_error})",
                "put nvcc of CUDA 13 on PATH and reinstall from source: pip install . -C cmake.define.FASTREC_CUDA=ON",
            )
        return self.device_gap()

    def device_gap(self) -> Gap:
        """Why no device can be used, and the remedy."""
        from importlib.util import find_spec

        if find_spec("torch") is None:
            return ("torch is not installed", "pip install torch")
        import torch

        if torch.version.cuda is None:
            return (f"torch {torch.__version__} is built without CUDA", "install a CUDA build of torch")
        if not torch.cuda.is_available():
            return (f"torch {torch.__version__} finds no CUDA device", "check the driver with nvidia-smi")
        return None

    def is_on(self, x: Any) -> bool:
        """Whether a tensor lies on such a device."""
        return bool(x.device.type == "cuda")

    def device(self) -> Any:
        """Where arrays of the host go."""
        import torch

        return torch.device("cuda", torch.cuda.current_device())

    def stream(self, device: Any) -> int:
        """Address of the caller's stream."""
        import torch

        stream: int = torch.cuda.current_stream(device).cuda_stream
        return stream

    def has_tf32(self, device: Any) -> bool:
        """Whether its tensor cores multiply tf32: those of compute capability 8.0 and later do."""
        import torch

        return bool(torch.cuda.get_device_capability(device) >= (8, 0))

    def processors(self, device: Any) -> int:
        """Multiprocessors, which the walk is split over."""
        import torch

        count: int = torch.cuda.get_device_properties(device).multi_processor_count
        return count


RUNTIME = Runtime()


def missing() -> Gap:
    """None where the CUDA operators can run, else (reason, remedy)."""
    return RUNTIME.native_gap()


def to_device(array: Any, device: Any, dtype: Any = None) -> Any:
    """A tensor on the device; one that lies there already is not copied."""
    import torch

    if isinstance(array, np.ndarray):
        if not array.flags.writeable:  # torch wants to be able to write: a memory map is copied on its way anyway
            array = array.copy()
        array = torch.from_numpy(np.ascontiguousarray(array))
    return array.to(device=device, dtype=dtype, non_blocking=False)


def empty(shape: tuple[int, ...], dtype: Any, device: Any) -> Any:
    """Memory for an output; the tests put NaN into it."""
    import torch

    return torch.empty(shape, dtype=dtype, device=device)


def address(tensor: Any) -> int:
    """Address of a contiguous tensor; 0 for None."""
    if tensor is None:
        return 0
    if not tensor.is_contiguous():
        raise AssertionError(f"expected a contiguous tensor, got strides {tensor.stride()} of {tuple(tensor.shape)}")
    where: int = tensor.data_ptr()
    return where


class Csr:
    """Lists or a matrix on the device; keeps the tensors alive."""

    def __init__(self, lists: "Lists | Matrix | None", device: Any) -> None:
        names = ("indptr", "rows", "values")
        parts = [None if lists is None else getattr(lists, name, None) for name in names]
        self.parts = [None if part is None else to_device(part, device) for part in parts]

    def addresses(self) -> tuple[int, ...]:
        """(indptr, rows, values); 0 for what is missing."""
        return tuple(address(part) for part in self.parts)


def call(op: str, device: Any, **arguments: Any) -> None:
    """Run the native operator on the caller's stream of the device."""
    gap = RUNTIME.native_gap()
    if gap is not None:
        raise BackendUnavailable(op, "cuda", *gap)
    run: Callable[..., None] = getattr(RUNTIME.native(), op)
    with on(device):
        try:
            run(**arguments, stream=RUNTIME.stream(device))
        except RuntimeError as error:
            raise KernelError(f"[{op}] the CUDA kernel was not launched: {error}") from error


def on(device: Any) -> Any:
    """A context: a kernel goes to the current device, so the one of its arrays must be that."""
    import contextlib

    import torch

    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def most(op: str, what: str, value: int, limit: int) -> None:
    """BackendUnavailable where a kernel's limit is passed."""
    if value > limit:
        raise BackendUnavailable(op, "cuda", f"{what}={value}, the kernel takes at most {limit}", "another backend")


def splits(n_users: int, n_items: int, device: Any) -> int:
    """Parts of the catalogue that are walked side by side: enough blocks for all processors, and none too small."""
    native = RUNTIME.native()
    user_tiles = math.ceil(n_users / native.user_tile)
    wanted = 4 * RUNTIME.processors(device) // max(user_tiles, 1)
    parts: int = max(1, min(wanted, math.ceil(n_items / (8 * native.item_tile)), 65535))
    return parts

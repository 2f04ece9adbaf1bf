"""Arrays that grow: in memory while they are small, in files without a name once they are not.

The files lie where ``tempfile`` puts them (TMPDIR) and are gone with the process, however it ends. What is read back is
a map of the file, of which the kernel keeps in memory what is used and what there is room for.
"""

import contextlib
import mmap
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

#: Events from which columns go to disk.
_WIDE = 1 << 24


def spilled(n: int) -> bool:
    """Whether columns of n events go to disk."""
    return n > _WIDE


@contextlib.contextmanager
def _room() -> Iterator[None]:
    """What a full disk says, with what helps."""
    try:
        yield
    except OSError as error:
        folder = tempfile.gettempdir()
        raise OSError(
            error.errno,
            f"[fit] {error.strerror or error}: the columns of a large table lie in {folder}; make space there, or set "
            "TMPDIR to another folder",
        ) from error


class Column:
    """An array of one dimension, made of parts."""

    def __init__(self, dtype: npt.DTypeLike, on_disk: bool) -> None:
        self._dtype: np.dtype[Any] = np.dtype(dtype)
        self._parts: list[npt.NDArray[Any]] = []
        self._file: Any = tempfile.TemporaryFile(prefix="fastrec-") if on_disk else None  # noqa: SIM115
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def append(self, part: npt.NDArray[Any]) -> None:
        """Behind what is there; cast to the type of the column."""
        part = np.ascontiguousarray(part, self._dtype)
        self._n += len(part)
        if self._file is None:
            self._parts.append(part)
        else:
            with _room():  # not ``tofile``, which says nothing where the last bytes of a part found no room
                self._file.write(part.data)

    def array(self) -> npt.NDArray[Any]:
        """All parts behind one another, read only where they are on disk; nothing can be appended after."""
        if self._file is None or not self._n:
            parts, self._parts = self._parts, []
            return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, self._dtype), *parts])
        with _room():
            self._file.flush()
        mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)  # it keeps the file
        self._file.close()
        return np.frombuffer(mapped, self._dtype)

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()

"""A checksum of a file that is read at the speed of memory, for what is looked at each time a model is loaded.

    file -> blocks of 4096 bytes -> 16 bytes each by NH (csrc/block_sums_cpu.cpp) -> SHA-256 of them and the length

SHA-256 of a whole file takes half a second a GB and core. This is for damage, which knows nothing of the key below: two
files of one length that differ have the same checksum with a chance of 2^-64. Who wants another file to pass can write
another manifest as well, against which there is encryption (``fastrec.store.seal``).
"""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from fastrec import _native, config

BLOCK = 4096
_WORDS, _SHIFT = BLOCK // 4, 4
#: Of everybody, and always the same: it must only be unlike any damage.
_KEY = np.frombuffer(hashlib.shake_128(b"fastrec artifact checksum").digest(4 * (_WORDS + _SHIFT)), "<u4").astype(
    np.uint32
)


def checksum(data: Any, threads: int | None = None, backend: str = "auto") -> str:
    """64 hexadecimal digits of a bytes-like object of any length."""
    raw = np.frombuffer(data, np.uint8)
    sums: npt.NDArray[Any]
    if backend == "numpy" or _native.missing_cpu() is not None:
        sums = sums_reference(raw)
    else:
        sums = np.empty((-(-len(raw) // BLOCK), 2), np.uint64)
        _native.module("checksum").block_sums(
            data=raw.ctypes.data,
            bytes=len(raw),
            key=_KEY.ctypes.data,
            threads=config.threads(threads),
            simd=backend == "auto",
            out=sums.ctypes.data,
        )
    ends = len(raw).to_bytes(8, "little")  # zeros at the end are not the same as none
    return hashlib.sha256(sums.astype("<u8", copy=False).tobytes() + ends).hexdigest()


def sums_reference(raw: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """The definition: uint64 [ceil(n / 4096), 2]."""
    padded = np.zeros(-(-len(raw) // BLOCK) * BLOCK, np.uint8)
    padded[: len(raw)] = raw
    words = padded.view("<u4").reshape(-1, _WORDS)
    out = np.empty((len(words), 2), np.uint64)
    for i in range(2):
        t = (words + _KEY[i * _SHIFT : i * _SHIFT + _WORDS]).astype(np.uint64)
        out[:, i] = (t[:, 0::2] * t[:, 1::2]).sum(axis=1, dtype=np.uint64)
    return out

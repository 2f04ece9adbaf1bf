"""Vectors of an endless list of texts, chunk by chunk: into a file that a later run goes on with, or to a function.

The file is ``<out>.part`` until the last text, then an ordinary .npy of that name. ``<out>.state`` says how many rows
are safely on disk, and by which model and texts; it is replaced only after they are.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fastrec.errors import ArtifactError, DataError
from fastrec.types import F32

_HEADER = 128  # bytes, the header of every .npy up to 10^60 rows


def to_function(encode: Callable[[list[Any]], F32], texts: Iterable[Any], out: Callable[[F32], object], n: int) -> int:
    """Call ``out`` with float32 [<= n, D] for n texts at a time, in order; the number of texts."""
    total = 0
    for chunk in _chunks(texts, n):
        out(_encoded(encode, chunk, total))
        total += len(chunk)
    return total


def to_file(
    encode: Callable[[list[Any]], F32], texts: Iterable[Any], out: Path, n: int, fingerprint: str, dimension: int
) -> int:
    """Write float32 [texts, D] as .npy, going on where an earlier run of the same texts and model ended.

    Raises DataError where the first texts are not those of the earlier run, ArtifactError where its state is damaged.
    """
    part, state = Path(f"{out}.part"), Path(f"{out}.state")
    kind = {"fingerprint": fingerprint, "dimension": dimension, "chunk": n}
    done, chain = _resume(part, state, kind)
    total, digest = 0, ""
    part.parent.mkdir(parents=True, exist_ok=True)
    with open(part, "r+b" if done else "w+b") as file:
        file.truncate(_HEADER + 4 * dimension * done if done else 0)
        if not done:
            file.write(_header(0, dimension))
        file.seek(0, os.SEEK_END)
        for chunk in _chunks(texts, n):
            digest = _chained(digest, chunk)
            total += len(chunk)
            if total <= done:
                if total == done and digest != chain:
                    raise DataError(
                        f"[encode] the first {done} texts are not those of {state}: delete it to begin anew"
                    )
                continue
            file.write(_encoded(encode, chunk, total - len(chunk)).astype("<f4", copy=False).tobytes())
            _sync(file)
            _replace(state, json.dumps({**kind, "rows": total, "chain": digest}))
        if total < done:
            raise DataError(f"[encode] {total} texts, but {state} has {done} already: delete it to begin anew")
        file.seek(0)
        file.write(_header(total, dimension))
        _sync(file)
    os.replace(part, out)
    state.unlink(missing_ok=True)
    return total


def _chunks(texts: Iterable[Any], n: int) -> Iterator[list[Any]]:
    iterator = iter(texts)
    while chunk := list(islice(iterator, n)):
        yield chunk


def _encoded(encode: Callable[[list[Any]], F32], chunk: list[Any], first: int) -> F32:
    try:
        return encode(chunk)
    except DataError as error:
        if error.row is None:
            raise
        raise DataError(f"[encode] from row {first} on: {error}", row=first + error.row) from error


def _resume(part: Path, state: Path, kind: dict[str, Any]) -> tuple[int, str]:
    """(rows that count, chain of their texts); (0, "") where there is nothing to go on with."""
    try:
        found = json.loads(state.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return 0, ""
    except (OSError, ValueError) as error:
        raise ArtifactError(f"[encode] {state} cannot be read: {error}; delete it to begin anew") from error
    if not isinstance(found, dict) or any(found.get(key) != value for key, value in kind.items()):
        raise ArtifactError(f"[encode] {state} is of another model or chunk; delete it to begin anew")
    rows = int(found["rows"])
    if not part.is_file() or part.stat().st_size < _HEADER + 4 * kind["dimension"] * rows:
        raise ArtifactError(f"[encode] {part} has fewer than the {rows} rows of {state}; delete both to begin anew")
    return rows, str(found["chain"])


def _chained(digest: str, chunk: list[Any]) -> str:
    state = hashlib.blake2b(digest.encode(), digest_size=16)
    for text in chunk:
        data = b"" if text is None else str(text).encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "little") + data)
    return state.hexdigest()


def _header(rows: int, dimension: int) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dimension}), }}"
    return np.lib.format.magic(1, 0) + (_HEADER - 10).to_bytes(2, "little") + f"{text:<{_HEADER - 11}}\n".encode()


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _replace(path: Path, text: str) -> None:
    fresh = Path(f"{path}.new")
    with open(fresh, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)

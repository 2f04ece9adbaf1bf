"""Whatever a caller gives as an encoder, as one kind of object."""

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from fastrec.encode.encoder import Encoder, distinct, unit_rows
from fastrec.errors import ConfigError, DataError
from fastrec.types import F32


class TextEncoder(Protocol):
    """What the rest of FastRec needs of an encoder.

    name: for messages and reports
    fingerprint: changes when the vectors may; None where nobody can tell
    dimension: D
    """

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str | None: ...

    @property
    def dimension(self) -> int: ...

    def encode(self, texts: Sequence[str | None]) -> F32:
        """float32 [n, D]; None and blank texts give the zero vector."""


class FunctionEncoder:
    """A function list[str] -> array [n, D] as an encoder.

    It is called once per call of ``encode``, with the distinct texts that are not blank, in their order. Its
    result is checked and L2-normalised, and never cached, since nobody knows when it changes.
    """

    fingerprint: str | None = None

    def __init__(self, function: Callable[[list[str]], Any], name: str) -> None:
        self.name = name
        self._function = function
        self._dimension: int | None = None

    @property
    def dimension(self) -> int:
        """D; before the first text it is found by encoding one word."""
        if self._dimension is None:
            self.encode(["text"])
        assert self._dimension is not None
        return self._dimension

    def encode(self, texts: Sequence[str | None]) -> F32:
        """float32 [n, D], of length 1 or 0. Raises DataError where the function gives something else.

        What the function itself raises is passed on.
        """
        rows, unique = distinct(texts)
        if not unique:
            return np.zeros((len(rows), self.dimension), np.float32)
        vectors = self._check(self._function(unique), unique)
        self._dimension = vectors.shape[1]
        return np.concatenate([unit_rows(vectors), np.zeros((1, vectors.shape[1]), np.float32)])[rows]

    def _check(self, result: Any, texts: list[str]) -> F32:
        where = f"[encode] encoder {self.name}"
        if hasattr(result, "detach"):  # a torch tensor, on whatever device
            result = result.detach().cpu().float().numpy()
        try:
            vectors = np.asarray(result, np.float32)
        except (TypeError, ValueError) as error:
            raise DataError(f"{where} gave what is no array of numbers: {error}") from error
        wanted = f"({len(texts)}, {self._dimension or 'D'})"
        if vectors.ndim != 2 or vectors.shape[0] != len(texts) or vectors.shape[1] == 0:
            raise DataError(f"{where} gave shape {vectors.shape}, expected {wanted}")
        if self._dimension not in (None, vectors.shape[1]):
            raise DataError(f"{where} gave shape {vectors.shape}, expected {wanted} as in its first call")
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(bad):
            raise DataError(f"{where} gave NaN or infinity for the text {texts[bad[0]]!r:.60}")
        return vectors


def as_encoder(
    spec: object,
    *,
    device: str = "auto",
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> TextEncoder | None:
    """An encoder from None (no texts), a name or folder, an Encoder, or a function list[str] -> array [n, D].

    An object with a method ``encode`` of that form, such as a SentenceTransformer, counts as such a
    function. ``device``, ``cache_dir`` and ``progress`` apply to a name or folder only.
    Raises ConfigError for anything else.
    """
    if spec is None or isinstance(spec, (Encoder, FunctionEncoder)):
        return spec
    if isinstance(spec, (str, os.PathLike)):
        return Encoder(spec, device=device, cache_dir=cache_dir, progress=progress)
    if not isinstance(spec, type):  # a class has encode, too
        function = getattr(spec, "encode", spec)
        if callable(function):
            return FunctionEncoder(function, getattr(spec, "__name__", type(spec).__name__))
    raise ConfigError(
        f"[encode] encoder={spec!r}, expected 'minilm', a model id or folder, an Encoder, "
        "a function list[str] -> array [n, D], or None"
    )

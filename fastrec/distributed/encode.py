"""Texts to vectors by a pool of actors, each with the whole language model."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastrec import config
from fastrec.distributed.pool import Pool
from fastrec.encode import as_encoder
from fastrec.encode.adapters import FunctionEncoder
from fastrec.types import F32

#: Texts of a task.
_CHUNK = 2048


class _Worker:
    """Holds the language model, or the function."""

    def __init__(self, spec: Any, device: str, cache_dir: str | None) -> None:
        if isinstance(spec, (str, os.PathLike)):
            encoder = as_encoder(spec, device=device, cache_dir=cache_dir)
            assert encoder is not None
            self.encode = encoder.encode
        else:
            self.encode = getattr(spec, "encode", spec)

    def vectors(self, texts: list[str]) -> F32:
        found = self.encode(texts)
        return np.asarray(found.detach().cpu().float() if hasattr(found, "detach") else found, np.float32)


class RayEncoder(FunctionEncoder):
    """An encoder for ``Recommender(encoder=RayEncoder(...))``: the vectors of the embedded one, from several actors.

    encoder: as in Recommender: "minilm", a model id or folder, or a function list[str] -> array [n, D] that can be
        pickled and looks at each text alone
    workers: actors; each loads the model
    gpus: of each actor, a share of one or more; 0: they compute on CPUs
    cache_dir: folder for vectors, on the machine of each actor; None: FASTREC_CACHE, else ~/.cache/fastrec
    The actors start with the first texts and end with ``close``. A model that was fitted with it is loaded by
    ``fastrec.load(folder, encoder="minilm")`` (or what the encoder was).
    """

    def __init__(
        self,
        encoder: str | Callable[[list[str]], Any] = "minilm",
        *,
        workers: int = 2,
        gpus: float = 0,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        named = isinstance(encoder, (str, os.PathLike))
        super().__init__(self._vectors, f"RayEncoder({encoder if named else getattr(encoder, '__name__', encoder)})")
        self._spec, self._named = encoder, named
        self._workers, self._gpus = config.check_k("RayEncoder", workers, name="workers"), gpus
        self._cache_dir = None if cache_dir is None else os.path.abspath(cache_dir)
        self._pool: Pool | None = None

    def encode(self, texts: Sequence[str | None]) -> F32:
        """float32 [n, D]."""
        # A language model checks and normalises by itself; once more would be other bits.
        return self._vectors(list(texts)) if self._named else super().encode(texts)

    def _vectors(self, texts: list[Any]) -> F32:
        chunks = [texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK)]
        parts: list[F32] = self.pool.map("vectors", chunks or [[]])
        return np.concatenate(parts)

    @property
    def pool(self) -> Pool:
        """The actors, started at first use."""
        if self._pool is None:
            device = "cuda" if self._gpus else "cpu"
            self._pool = Pool(
                "RayEncoder", self._workers, _Worker, self._spec, device, self._cache_dir, gpus=self._gpus
            )
        return self._pool

    def close(self) -> None:
        """End the actors; the next texts start new ones."""
        if self._pool is not None:
            self._pool.close()
        self._pool = None

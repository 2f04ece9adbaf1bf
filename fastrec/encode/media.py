"""Encoders of images and sounds: the same cache, batching and errors as those of texts."""

import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrec import modelfiles
from fastrec.config import cache_dir as default_cache_dir
from fastrec.encode import decoding
from fastrec.encode.cache import VectorCache
from fastrec.encode.decoding import Unreadable
from fastrec.encode.encoder import unit_rows
from fastrec.errors import ArtifactError, ConfigError, DataError
from fastrec.progress import Progress
from fastrec.side import Media
from fastrec.types import F32, Catalog

if TYPE_CHECKING:
    from fastrec.encode.towers import Tower

_LOG = logging.getLogger("fastrec.encode")

KINDS = ("image", "audio")
_FORMAT = b"fastrec-media-1"
#: Images of a batch and their pixels, about, and seconds of sound with their padding.
_IMAGES, _PIXELS, _SECONDS = 32, 1 << 25, 120.0
#: Files that are read at once, and their bytes, about.
_CHUNK, _CHUNK_BYTES = 64, 1 << 26
#: Items that a report, or the log of one call, tells of by id.
_TOLD = 1000


class MediaEncoder:
    """Vectors of images or sounds by a model of transformers, L2-normalised.

    kind: "image" or "audio"
    model: a folder or a Hugging Face model id: CLIP, SigLIP, ViT, DINO; CLAP, Wav2Vec2, HuBERT and their like
    device: "auto", "cpu" or "cuda"
    cache, cache_dir, cache_bytes, progress: as those of ``Encoder``; the key is the content, whatever its path is

    The model is loaded at the first input that the cache does not hold. Safe to share between threads.
    """

    def __init__(
        self,
        kind: str,
        model: Any,
        *,
        device: str = "auto",
        cache: bool = True,
        cache_dir: Any = None,
        cache_bytes: int | None = 8 << 30,
        progress: bool = False,
    ) -> None:
        if kind not in KINDS:
            raise ConfigError(f"[encode] kind={kind!r}, expected one of {', '.join(KINDS)}")
        modelfiles.check_name(model, "encode", f"{kind}_encoder")
        self.kind, self.name, self._device = kind, str(model), device
        self._use_cache, self._cache_dir, self._cache_bytes, self._progress = cache, cache_dir, cache_bytes, progress
        self._lock = threading.RLock()
        self._folder: Path | None = None
        self._fingerprint: str | None = None
        self._tower: Tower | None = None
        self._cache: VectorCache | None = None

    def __repr__(self) -> str:
        return f"MediaEncoder({self.kind!r}, {self.name!r})"

    @property
    def dimension(self) -> int:
        """D. Reads the settings of the model, does not load it."""
        folder = self._located()
        config = modelfiles.read_json(folder / "config.json")
        if config is None:
            raise ArtifactError(f"[encode] {folder} has no config.json: no folder of a transformers model")
        width = _width(config)
        if width is None:  # what is as usual is left out of some files
            from transformers import AutoConfig

            try:
                width = _width(AutoConfig.from_pretrained(folder, local_files_only=True).to_dict(), whole=True)
            except Exception as error:  # transformers raises what it likes
                raise ArtifactError(f"[encode] {folder}/config.json: {modelfiles.line(error)}") from error
        if width is None:
            raise ArtifactError(f"[encode] {folder}/config.json names no projection_dim or hidden_size")
        return width

    @property
    def fingerprint(self) -> str:
        """32 hex digits that change with the files of the model. Does not load it."""
        with self._lock:
            if self._fingerprint is None:
                salt = _FORMAT + self.kind.encode()
                self._fingerprint = modelfiles.digest(self._located(), salt, "encode")
            return self._fingerprint

    @property
    def weights_fingerprint(self) -> str:
        """The same: it is computed in float32 everywhere."""
        return self.fingerprint

    @property
    def saved_name(self) -> str:
        """What an artifact names it by."""
        return self.name

    @property
    def reads_text(self) -> bool:
        """Whether ``encode_text`` gives vectors of the same space. Loads the model."""
        return self._load().reads_text

    def encode(self, values: Sequence[str | bytes | None]) -> tuple[F32, dict[int, str]]:
        """(vectors float32 [n, D], {row: why it cannot be read}); None and what cannot be read give the zero vector."""
        out = np.zeros((len(values), self.dimension), np.float32)
        bad: dict[int, str] = {}
        cache = self._open_cache()
        waiting: dict[int, bytes] = {}
        with Progress(f"encode {self.kind}", len(values), self._progress) as progress:
            for row, value in enumerate(values):
                progress.add(1)
                if value is None or value in ("", b""):
                    continue
                try:
                    waiting[row] = decoding.content(value)
                except Unreadable as error:
                    bad[row] = str(error)
                if len(waiting) >= _CHUNK or sum(map(len, waiting.values())) >= _CHUNK_BYTES:
                    self._chunk(waiting, out, bad, cache)
                    waiting = {}
            self._chunk(waiting, out, bad, cache)
        return out, bad

    def encode_text(self, texts: Sequence[str]) -> F32:
        """Vectors of texts in the space of the images or sounds, L2-normalised; zero for a blank one.

        Raises ConfigError for a model without a text tower.
        """
        tower = self._load()
        if not tower.reads_text:
            raise ConfigError(f"[encode] {self.name!r} has no text tower: its vectors cannot be compared with texts")
        out = np.zeros((len(texts), self.dimension), np.float32)
        some = [i for i, text in enumerate(texts) if text.strip()]
        for start in range(0, len(some), _IMAGES):
            part = some[start : start + _IMAGES]
            with self._lock:
                out[part] = unit_rows(tower.text([texts[i] for i in part]))
        return out

    def _chunk(self, data: dict[int, bytes], out: F32, bad: dict[int, str], cache: VectorCache | None) -> None:
        """Write the vectors of these files into out, from the cache or the model, and the reasons against into bad."""
        keys = {row: hashlib.blake2b(content, digest_size=16).digest() for row, content in data.items()}
        found = cache.get(list(set(keys.values()))) if cache is not None else {}
        first = {key: row for row, key in reversed(keys.items()) if key not in found}

        def decoded() -> Iterator[tuple[int, Any]]:
            for row in sorted(first.values()):
                try:
                    yield row, self._decode(data[row])
                except Unreadable as error:
                    bad.update({other: str(error) for other, key in keys.items() if key == keys[row]})

        for batch in _batches(decoded(), self.kind, self._load().rate if first else 0):
            with self._lock:
                vectors = unit_rows(self._load().forward([value for _, value in batch]))
            if vectors.shape[1] != out.shape[1]:
                message = f"{self._located()}: vectors of {vectors.shape[1]} dimensions, its config.json says"
                raise ArtifactError(f"[encode] {message} {out.shape[1]}")
            found |= {keys[row]: vector for (row, _), vector in zip(batch, vectors, strict=True)}
            if cache is not None:
                cache.put([keys[row] for row, _ in batch], vectors)
        for row, key in keys.items():
            if key in found:
                out[row] = found[key]

    def _decode(self, data: bytes) -> Any:
        if self.kind == "image":
            return decoding.image(data)
        tower = self._load()
        samples = decoding.sound(data, tower.rate)
        if len(samples) < tower.least:
            raise Unreadable(f"{len(samples)} samples at {tower.rate:,} a second, the model needs {tower.least}")
        return samples

    def _located(self) -> Path:
        with self._lock:
            if self._folder is None:
                self._folder = modelfiles.locate(self.name, "encode", f"{self.kind}_encoder")
            return self._folder

    def _load(self) -> "Tower":
        with self._lock:
            if self._tower is None:
                from fastrec.encode.towers import Tower

                self._tower = Tower(self._located(), self.kind, self._device)
            return self._tower

    def _open_cache(self) -> VectorCache | None:
        if not self._use_cache:
            return None
        with self._lock:
            if self._cache is None:
                folder = default_cache_dir(self._cache_dir) / "embeddings"
                self._cache = VectorCache(folder, self.fingerprint, self.dimension, self._cache_bytes)
            return self._cache


def _width(config: dict[str, Any], whole: bool = False) -> int | None:
    """D of a model by its settings; None where they do not tell. Only of the ``whole`` settings what is not there says
    something: that the two towers end in one space without a projection."""
    towers = [config[name] for name in ("vision_config", "audio_config") if isinstance(config.get(name), dict)]
    found = config.get("projection_dim" if towers else "hidden_size")
    if found is None and towers and whole:
        found = towers[0].get("hidden_size")
    return found if isinstance(found, int) else None


def _batches(decoded: Iterable[tuple[int, Any]], kind: str, rate: int) -> Iterator[list[tuple[int, Any]]]:
    """By cost: so many images, which all become one size, or pixels before that, decoded as they are asked for; sounds
    by length, the longest first, by padded seconds."""
    if kind == "image":
        batch: list[tuple[int, Any]] = []
        pixels = 0
        for one in decoded:
            batch.append(one)
            pixels += one[1].size[0] * one[1].size[1]
            if len(batch) == _IMAGES or pixels >= _PIXELS:
                yield batch
                batch, pixels = [], 0
        if batch:
            yield batch
        return
    order, at = sorted(decoded, key=lambda one: -len(one[1])), 0
    while at < len(order):
        size = max(1, int(_SECONDS * rate / max(len(order[at][1]), 1)))
        yield order[at : at + size]
        at += size


class FunctionMedia:
    """A function list[path or bytes] -> array [n, D] in place of a model; never cached. It has no text tower."""

    reads_text = False

    def __init__(self, kind: str, function: Callable[[list[Any]], Any]) -> None:
        self.kind, self.name, self.fingerprint = kind, getattr(function, "__name__", type(function).__name__), None
        self._function = function

    def encode(self, values: Sequence[str | bytes | None]) -> tuple[F32, dict[int, str]]:
        """As ``MediaEncoder.encode``. Raises DataError where the function gives something else than vectors."""
        some = [row for row, value in enumerate(values) if value is not None and value not in ("", b"")]
        given = np.asarray(self._function([values[row] for row in some]), np.float32) if some else np.zeros((0, 1))
        if given.ndim != 2 or len(given) != len(some) or not np.isfinite(given).all():
            message = f"gave shape {given.shape} with {np.isfinite(given).mean():.0%} finite, expected ({len(some)}, D)"
            raise DataError(f"[encode] {self.kind}_encoder {self.name} {message}", column=self.kind)
        out = np.zeros((len(values), given.shape[1]), np.float32)
        out[some] = unit_rows(np.asarray(given, np.float32))
        return out, {}


def as_media(kind: str, spec: Any, **settings: Any) -> "MediaEncoder | FunctionMedia | None":
    """From None, a model id or folder, a MediaEncoder, or a function; ConfigError for anything else."""
    if spec is None or isinstance(spec, FunctionMedia):
        return spec
    if isinstance(spec, MediaEncoder):
        if spec.kind != kind:
            raise ConfigError(f"[Recommender] {kind}_encoder={spec!r}, expected one of kind {kind!r}")
        return spec
    if isinstance(spec, (str, Path)):
        return MediaEncoder(kind, spec, **settings)
    if callable(spec) and not isinstance(spec, type):
        return FunctionMedia(kind, spec)
    raise ConfigError(f"[Recommender] {kind}_encoder={spec!r}, expected a model id or folder, a function, or None")


def column_of(catalog: Catalog, kind: str) -> str | None:
    """The column that holds images or sounds; None for none."""
    return next((name for name in catalog.table.column_names if name.lower() == kind), None)


def embed_media(
    catalog: Catalog, encoders: dict[str, Any], ids: Sequence[Any], where: str, strict: bool, notes: list[str]
) -> dict[str, Media]:
    """{kind: vectors of the N items} for every encoder whose column is there and holds something.

    ids: of the N items, for messages; notes: gets a line for every item whose file cannot be used, which then counts as
    one without; ``strict`` raises DataError for the first of them instead
    """
    out: dict[str, Media] = {}
    for kind, encoder in encoders.items():
        name = column_of(catalog, kind)
        if name is None:
            notes.append(f"{kind}_encoder is given, and the items have no column {kind!r}")
            continue
        values = catalog.table.column(name).to_pylist()
        vectors, bad = encoder.encode(values)
        if bad and strict:
            row = min(bad)
            raise DataError(f"[{where}] items: {name} of item {ids[row]!r}: {bad[row]}", column=name, row=row)
        notes += _told(name, bad, ids)
        found = Media.of(vectors)
        if found.known.any():
            out[kind] = found
    return out


def _told(name: str, bad: dict[int, str], ids: Sequence[Any]) -> list[str]:
    """A line for each of the first items whose file cannot be used, and one that counts the others."""
    lines = [f"{name} of item {ids[row]!r} is left out: {bad[row]}" for row in sorted(bad)[:_TOLD]]
    more = [f"{name} of {len(bad) - _TOLD:,} other items is left out: it cannot be read"]
    return lines + more if len(bad) > _TOLD else lines


def embed_new_media(
    catalog: Catalog, encoders: dict[str, Any], fitted: dict[str, Media], ids: Sequence[Any], where: str
) -> tuple[dict[str, Media], int]:
    """({kind: vectors of n new items beside those that were fitted}, files that cannot be used; the log names them).

    Raises ConfigError where items have a file of a kind whose encoder is not here.
    """
    out, unreadable = {}, 0
    for kind, old in fitted.items():
        name, width = column_of(catalog, kind), old.vectors.shape[1]
        values = [None] * catalog.n_items if name is None else catalog.table.column(name).to_pylist()
        vectors = np.zeros((len(values), width), np.float32)
        if any(value is not None for value in values):
            if kind not in encoders:
                raise ConfigError(f"[{where}] the {kind}_encoder of the model is not here; hand it to load(...)")
            vectors, bad = encoders[kind].encode(values)
            unreadable += len(bad)
            for line in _told(kind, bad, ids):
                _LOG.warning("[%s] %s", where, line)
            if vectors.shape[1] != width:
                raise ConfigError(f"[{where}] {kind}_encoder gives {vectors.shape[1]} dimensions, expected {width}")
        out[kind] = Media.of(vectors, old.mean)
    return out, unreadable


def without_media(table: Any) -> Any:
    """The table without the bytes of images and sounds, which have become vectors; paths stay."""
    import pyarrow as pa

    for place, field in enumerate(table.schema):
        if field.name.lower() in KINDS and (pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)):
            table = table.set_column(place, field, pa.nulls(table.num_rows, field.type))
    return table

"""The sources of a model on their way to an artifact and back."""

from typing import Any

import numpy as np
import pyarrow as pa

from fastrec.store import artifact
from fastrec.types import (
    BiasSource,
    Csr,
    DenseSource,
    Embeddings,
    FoldInSource,
    SequenceSource,
    Source,
    SparseSource,
)
from fastrec.usertext import TextSource

_SEQUENCE = ("backbone", "heads", "layers", "length", "epochs")
_TEXT = ("last", "characters", "cosine", "exact")


def plain(half_life: float | None) -> float | str | None:
    """JSON has no infinity."""
    return "inf" if half_life == np.inf else half_life


def half_life(plain: float | str | None) -> float | None:
    return None if plain is None else float(plain)


def write_source(
    s: Source, embeddings: Embeddings | None, arrays: artifact.Arrays, tables: dict[str, Any]
) -> dict[str, Any]:
    """What the configuration says of a source; its arrays and tables go to the others."""
    entry: dict[str, Any] = {"name": s.name, "kind": type(s).__name__}
    if isinstance(s, BiasSource):
        arrays[f"source.{s.name}.bias"] = s.bias
        entry["half_life"] = plain(s.half_life)
    else:
        entry["decay"] = s.decay
    if isinstance(s, DenseSource):
        entry["shared"] = embeddings is not None and s.vectors is embeddings.vectors
        found = None if embeddings is None else embeddings.media.get(s.name)
        entry["media"] = s.name if found is not None and s.vectors is found.vectors else None
        if not entry["shared"] and not entry["media"]:
            arrays[f"source.{s.name}.vectors"] = s.vectors
        if isinstance(s, FoldInSource):
            arrays[f"source.{s.name}.gram"] = s.gram
            entry["alpha"] = s.alpha
        elif isinstance(s, TextSource):
            entry |= {part: getattr(s, part) for part in _TEXT}
            arrays |= {f"source.{s.name}.{part}": getattr(s, part) for part in ("places", "offset")}
            tables[f"titles.{s.name}"] = pa.table({"title": pa.array(s.titles, pa.large_string())})
        elif isinstance(s, SequenceSource):
            entry |= {part: getattr(s, part) for part in _SEQUENCE}
            entry["parameters"] = sorted(s.parameters)
            arrays |= {f"source.{s.name}.parameter.{p}": array for p, array in s.parameters.items()}
    elif isinstance(s, SparseSource):
        for part in ("indptr", "indices", "values"):
            arrays[f"source.{s.name}.{part}"] = getattr(s.similarity, part)
    return entry


def read_source(
    entry: dict[str, Any], arrays: artifact.Arrays, tables: dict[str, Any], embeddings: Embeddings | None, n: int
) -> Source:
    """The reverse; KeyError for a kind that is none."""
    name, kind = entry["name"], entry["kind"]
    if kind == "BiasSource":
        return BiasSource(name, arrays[f"source.{name}.bias"], half_life(entry["half_life"]))
    if kind == "FoldInSource":
        vectors, gram = arrays[f"source.{name}.vectors"], arrays[f"source.{name}.gram"]
        return FoldInSource(name, vectors, entry["decay"], gram, entry["alpha"])
    if kind == "SequenceSource":
        parameters = {p: arrays[f"source.{name}.parameter.{p}"] for p in entry["parameters"]}
        settings = {part: entry[part] for part in _SEQUENCE}
        return SequenceSource(name, arrays[f"source.{name}.vectors"], None, **settings, parameters=parameters)
    if kind in ("DenseSource", "TextSource"):
        shared = embeddings.vectors if entry["shared"] and embeddings is not None else None
        if entry.get("media") and embeddings is not None:
            shared = embeddings.media[entry["media"]].vectors
        vectors = arrays[f"source.{name}.vectors"] if shared is None else shared
        if kind == "TextSource":
            titles = tuple(tables[f"titles.{name}"]["title"].to_pylist())
            places, offset = (arrays[f"source.{name}.{part}"] for part in ("places", "offset"))
            settings = {part: entry[part] for part in _TEXT}
            return TextSource(name, vectors, None, titles=titles, read=None, places=places, offset=offset, **settings)
        return DenseSource(name, vectors, entry["decay"])
    if kind == "SparseSource":
        indptr, indices, values = (arrays[f"source.{name}.{part}"] for part in ("indptr", "indices", "values"))
        return SparseSource(name, Csr(indptr, indices, n, values), entry["decay"])
    raise KeyError(f"source kind {kind!r}")

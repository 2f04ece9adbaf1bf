"""A fitted model on its way to an artifact on disk and back."""

import dataclasses
import hashlib
import importlib.metadata
import json
import logging
import platform
from typing import Any

import numpy as np
import pyarrow as pa

from fastrec import cold, fuse, ops
from fastrec.data import Columns, GrownVocab, Vocab
from fastrec.encode import Encoder, item_texts
from fastrec.errors import ArtifactError, BackendUnavailable
from fastrec.fresh import Fresh
from fastrec.gate import Gate
from fastrec.histories import Histories
from fastrec.retrieve import Index
from fastrec.side import Links
from fastrec.state import Settings, State
from fastrec.store import artifact, read_key
from fastrec.store.checksum import checksum
from fastrec.types import (
    BiasSource,
    Catalog,
    Csr,
    DenseSource,
    Embeddings,
    Features,
    FoldInSource,
    Interactions,
    Report,
    SequenceSource,
    Source,
    SparseSource,
)
from fastrec.unchosen import Cold
from fastrec.usertext import TextSource

#: The arrays of a screen, in their order.
_SCREEN = ("codes", "scales", "errors")
log = logging.getLogger("fastrec")

_SEQUENCE = ("backbone", "heads", "layers", "length", "epochs")
_TEXT = ("last", "characters", "cosine", "exact")


def write_state(folder: Any, state: State, settings: Settings, encoder: Any) -> None:
    """Write ``state`` as an artifact; see store/artifact.py for what a folder holds."""
    artifact.write(folder, *_contents(state, settings, encoder), key=read_key(None))


def fingerprint(state: State, settings: Settings) -> str:
    """Of everything that answers depend on: 32 hexadecimal digits, the same for a model and what was saved of it."""
    config, arrays, tables = _contents(state, settings, None)
    del config["versions"], config["encoder"], config["encoder_fingerprint"], config["report"]
    digest = hashlib.blake2b(json.dumps(config, sort_keys=True).encode(), digest_size=16)
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape} ".encode())
        digest.update(checksum(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8)).encode())
    for name in sorted(tables):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, tables[name].schema.remove_metadata()) as writer:
            for batch in tables[name].combine_chunks().to_batches():
                writer.write_batch(batch.replace_schema_metadata(None))
        digest.update(f"{name} {checksum(sink.getvalue())}".encode())
    return digest.hexdigest()


def _contents(state: State, settings: Settings, encoder: Any) -> tuple[dict[str, Any], artifact.Arrays, dict[str, Any]]:
    """(config, arrays, tables) of an artifact."""
    embedded = state.embeddings is not None and bool(state.embeddings.known.any())
    users, interactions, seen = _users(state)
    arrays: artifact.Arrays = {
        "interactions.indptr": interactions.indptr,
        "interactions.items": interactions.items,
        "interactions.times": interactions.times,
        "interactions.weights": interactions.weights,
        "seen.indices": seen.indices,
        "landmarks": state.landmarks,
        "features.rows": state.features.items.rows,
        **{f"features.{part}": getattr(state.features.items.screen, part) for part in _SCREEN},
        "features.bias": state.features.bias,
        "popular.bias": state.popular.bias,
    }
    if interactions.kinds is not None:
        arrays["interactions.kinds"] = interactions.kinds
    if state.fresh is not None:
        arrays |= {"fresh.neighbors": state.fresh.neighbors, "fresh.shares": state.fresh.shares}
        arrays |= {f"fresh.vectors.{name}": vectors for name, vectors in state.fresh.vectors.items()}
        if state.fresh.embeddings is not None:
            arrays["fresh.embeddings"] = state.fresh.embeddings.vectors
            arrays["fresh.known"] = state.fresh.embeddings.known
    if state.removed is not None:
        arrays["removed"] = state.removed
    if state.histories.again:
        arrays["again"] = np.array(list(state.histories.again.items()), np.int64)
    if state.embeddings is not None:
        arrays["embeddings.vectors"] = state.embeddings.vectors
        arrays["embeddings.known"] = state.embeddings.known
        if state.embeddings.links is not None:
            arrays |= {f"links.{end}": getattr(state.embeddings.links, end) for end in ("heads", "tails")}
    if state.features.cold is not None:
        arrays["cold.rows"] = state.features.cold.rows
    if state.features.index is not None:
        arrays |= {"index.data": state.features.index.to_bytes(), "index.bias": state.features.index.bias}
    for name, covariance in state.features.covariances.items():
        arrays[f"covariance.{name}"] = covariance
    sources = []
    titles = {}
    for s in state.sources:
        entry: dict[str, Any] = {"name": s.name, "kind": type(s).__name__}
        if isinstance(s, BiasSource):
            arrays[f"source.{s.name}.bias"] = s.bias
            entry["half_life"] = _plain(s.half_life)
        else:
            entry["decay"] = s.decay
        if isinstance(s, DenseSource):
            entry["shared"] = state.embeddings is not None and s.vectors is state.embeddings.vectors
            if not entry["shared"]:
                arrays[f"source.{s.name}.vectors"] = s.vectors
            if isinstance(s, FoldInSource):
                arrays[f"source.{s.name}.gram"] = s.gram
                entry["alpha"] = s.alpha
            elif isinstance(s, TextSource):
                entry |= {part: getattr(s, part) for part in _TEXT}
                arrays |= {f"source.{s.name}.{part}": getattr(s, part) for part in ("places", "offset")}
                titles[f"titles.{s.name}"] = pa.table({"title": pa.array(s.titles, pa.large_string())})
            elif isinstance(s, SequenceSource):
                entry |= {part: getattr(s, part) for part in _SEQUENCE}
                entry["parameters"] = sorted(s.parameters)
                arrays |= {f"source.{s.name}.parameter.{p}": array for p, array in s.parameters.items()}
        elif isinstance(s, SparseSource):
            for part in ("indptr", "indices", "values"):
                arrays[f"source.{s.name}.{part}"] = getattr(s.similarity, part)
        sources.append(entry)
    config = {
        "settings": settings.to_json(),
        "encoder": encoder.name if isinstance(encoder, Encoder) else None,
        "encoder_fingerprint": encoder.weights_fingerprint if isinstance(encoder, Encoder) and embedded else None,
        "goal": state.goal,
        "means": state.means,
        "timed": state.timed,
        "trend": state.trend,
        "log_version": state.version,
        "data_fingerprint": _fingerprint(interactions),
        "popular_half_life": _plain(state.popular.half_life),
        "fresh": None if state.fresh is None else sorted(state.fresh.vectors),
        "gate": _gate_to_json(state.features.gate),
        "cold": None if state.features.cold is None else state.features.cold.factors,
        "index": None if state.features.index is None else [state.features.index.probes, state.features.index.recall],
        "nodes": state.embeddings.links.n_nodes if state.embeddings and state.embeddings.links else None,
        "columns": dataclasses.asdict(state.columns),
        "popular": state.popular.name,
        "report": dataclasses.asdict(state.report),
        "sources": sources,
        "weights": {s.name: float(w) for s, w in zip(state.features.sources, state.features.weights, strict=True)},
        "bias_scales": state.features.bias_scales,
        "max_norm": state.features.items.max_norm,
        "screen": state.features.items.screen.dtype,
        "catalog": {n: list(getattr(state.catalog, n)) for n in ("text_columns", "label_columns", "vector_columns")},
        "versions": {
            "python": platform.python_version(),
            **{
                p: importlib.metadata.version(p)
                for p in ("fastrec-engine", "numpy", "pyarrow", "torch", "transformers")
            },
        },
    }
    tables = {
        "users": users.to_arrow(),
        "items": state.items.to_arrow(),
        "catalog": state.catalog.table,
        **titles,
    }
    return config, arrays, tables


def read_state(folder: Any, *, mmap: bool) -> tuple[State, Settings, dict[str, Any]]:
    """(state, settings, {"encoder", "encoder_fingerprint"}) of a folder; ArtifactError for every kind of damage."""
    config, arrays, tables = artifact.read(folder, mmap=mmap, key=read_key(None))
    try:
        encoder = {name: config[name] for name in ("encoder", "encoder_fingerprint")}
        return _state(config, arrays, tables), Settings(**config["settings"]), encoder
    except (KeyError, TypeError, AssertionError, StopIteration) as error:
        raise ArtifactError(
            f"[load] {folder} lacks what this version needs ({error!r}); save the model again"
        ) from error


def check_encoder(folder: Any, encoder: Any, wanted: str | None) -> None:
    """ArtifactError where the encoder has other weights now than when the model in ``folder`` was fitted."""
    if encoder is None or wanted is None:
        return
    try:
        found = encoder.weights_fingerprint
    except BackendUnavailable as error:
        log.warning("[load] only recommend_for_text needs the encoder, and it is not here: %s", error)
        return
    if found != wanted:
        raise ArtifactError(
            f"[load] {folder}: encoder {encoder.name!r} has other weights now; restore them or fit again"
        )


def _users(state: State) -> tuple[Vocab, Interactions, Csr]:
    """The users that are still there: (ids, histories, items of each); of the erased ones nothing is written."""
    gone: frozenset[int] = getattr(state.users, "gone", frozenset())
    if not gone:
        return state.users, state.interactions, state.seen
    kept = np.array([row for row in range(len(state.users)) if row not in gone], np.int64)
    return Vocab(state.users.series.gather(kept)), state.interactions.take(kept), state.seen.take(kept)


def _fingerprint(interactions: Interactions) -> str:
    """Of the events that the model holds: another set of them gives another one."""
    digest = hashlib.blake2b(digest_size=16)
    i = interactions
    for array in (i.indptr, i.items, i.times, i.weights, *([] if i.kinds is None else [i.kinds])):
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def _plain(half_life: float | None) -> float | str | None:
    """JSON has no infinity."""
    return "inf" if half_life == np.inf else half_life


def _half_life(plain: float | str | None) -> float | None:
    return None if plain is None else float(plain)


def _items(table: Any, fitted: int, removed: Any) -> Vocab:
    """The ids of fitted and later items; one that was removed and came back stands there twice."""
    vocab = Vocab.from_arrow(table)
    if fitted == len(vocab) and removed is None:
        return vocab
    later = vocab.series[fitted:].to_list()
    grown = GrownVocab.of(Vocab(vocab.series[:fitted])).with_added(later)
    return grown.without(np.flatnonzero(removed).tolist()) if removed is not None else grown


def _fresh(config: dict[str, Any], arrays: artifact.Arrays, catalog: Catalog) -> Fresh | None:
    if config["fresh"] is None:
        return None
    embeddings = None
    if "fresh.embeddings" in arrays:
        embeddings = Embeddings(arrays["fresh.embeddings"], arrays["fresh.known"])
    vectors = {name: arrays[f"fresh.vectors.{name}"] for name in config["fresh"]}
    neighbors = arrays["fresh.neighbors"]
    later = catalog.table[catalog.n_items - len(neighbors) :]
    texts = tuple(item_texts(dataclasses.replace(catalog, table=later)))
    return Fresh(embeddings, vectors, neighbors, arrays["fresh.shares"], texts)


def _state(config: dict[str, Any], arrays: artifact.Arrays, tables: dict[str, Any]) -> State:
    catalog = Catalog(tables["catalog"], **{name: tuple(columns) for name, columns in config["catalog"].items()})
    fresh, removed = _fresh(config, arrays, catalog), arrays.get("removed")
    all_items = tables["items"].num_rows
    n = all_items - (0 if fresh is None else fresh.n_items)
    items = _items(tables["items"], n, removed)
    indptr, rows, times, weights = (arrays[f"interactions.{p}"] for p in ("indptr", "items", "times", "weights"))
    interactions = Interactions(indptr, rows, times, weights, all_items, arrays.get("interactions.kinds"))
    again = {int(old): int(new) for old, new in arrays.get("again", ())}
    embeddings = None
    if "embeddings.vectors" in arrays:
        links = None
        if config["nodes"] is not None:
            links = Links(arrays["links.heads"], arrays["links.tails"], n, config["nodes"])
        embeddings = Embeddings(arrays["embeddings.vectors"], arrays["embeddings.known"], None, links)
    sources = tuple(_source(entry, arrays, tables, embeddings, n) for entry in config["sources"])
    unchosen = None if config["cold"] is None else Cold(arrays["cold.rows"], config["cold"])
    kept = tuple(s for s in sources if s.name in config["weights"])
    features = Features(
        sources=kept,
        weights=np.array([config["weights"][s.name] for s in kept], np.float64),
        items=ops.PackedItems(
            arrays["features.rows"],
            ops.Screen(config["screen"], *(arrays[f"features.{part}"] for part in _SCREEN)),
            config["max_norm"],
        ),
        similarity=fuse.stack_similarities(kept, n),
        bias=arrays["features.bias"],
        bias_scales=config["bias_scales"],
        covariances={s.name: arrays[f"covariance.{s.name}"] for s in kept if isinstance(s, DenseSource)},
        gate=_gate(config["gate"]),
        cold=unchosen,
        index=_index(config, arrays),
    )
    report = {**config["report"], "notes": tuple(config["report"]["notes"])}
    return State(
        users=Vocab.from_arrow(tables["users"]),
        items=items,
        histories=Histories.of(interactions, Csr(indptr, arrays["seen.indices"], all_items)).widened(all_items, again),
        catalog=catalog,
        embeddings=embeddings,
        features=cold.attach(features, fresh),
        sources=sources,
        popular=BiasSource(config["popular"], arrays["popular.bias"], _half_life(config["popular_half_life"])),
        report=Report(**report),
        goal=config["goal"],
        columns=Columns(**config["columns"]),
        means=config["means"],
        timed=config["timed"],
        landmarks=arrays["landmarks"],
        fresh=fresh,
        removed=removed,
        trend=None if config["trend"] is None else tuple(config["trend"]),
        version=config["log_version"],
    )


def _gate_to_json(gate: Gate | None) -> dict[str, Any] | None:
    if gate is None:
        return None
    rows = {name: row.tolist() for name, row in gate.coefficients.items()}
    return {"coefficients": rows, "centre": gate.centre.tolist(), "scale": gate.scale.tolist(), "span": gate.span}


def _gate(saved: dict[str, Any] | None) -> Gate | None:
    if saved is None:
        return None
    coefficients = {name: np.array(row, np.float64) for name, row in saved["coefficients"].items()}
    first, last = saved["span"]
    return Gate(coefficients, np.array(saved["centre"]), np.array(saved["scale"]), (float(first), float(last)))


def _index(config: dict[str, Any], arrays: artifact.Arrays) -> Index | None:
    if config["index"] is None:
        return None
    probes, recall = config["index"]
    return Index.from_bytes(arrays["index.data"], probes, recall, arrays["index.bias"])


def _source(
    entry: dict[str, Any], arrays: artifact.Arrays, tables: dict[str, Any], embeddings: Embeddings | None, n: int
) -> Source:
    name, kind = entry["name"], entry["kind"]
    if kind == "BiasSource":
        return BiasSource(name, arrays[f"source.{name}.bias"], _half_life(entry["half_life"]))
    if kind == "FoldInSource":
        vectors, gram = arrays[f"source.{name}.vectors"], arrays[f"source.{name}.gram"]
        return FoldInSource(name, vectors, entry["decay"], gram, entry["alpha"])
    if kind == "SequenceSource":
        parameters = {p: arrays[f"source.{name}.parameter.{p}"] for p in entry["parameters"]}
        settings = {part: entry[part] for part in _SEQUENCE}
        return SequenceSource(name, arrays[f"source.{name}.vectors"], None, **settings, parameters=parameters)
    if kind in ("DenseSource", "TextSource"):
        shared = embeddings.vectors if entry["shared"] and embeddings is not None else None
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

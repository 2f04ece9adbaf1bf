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
from fastrec.errors import ArtifactError, BackendUnavailable, ConfigError
from fastrec.fresh import Fresh
from fastrec.gate import Gate
from fastrec.histories import Histories
from fastrec.persist_sources import half_life, plain, read_source, write_source
from fastrec.rerank import Reader, Rerank, as_rerank
from fastrec.reranking import Reranker
from fastrec.retrieve import Index
from fastrec.side import Links, Media
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
    Interactions,
    Report,
)
from fastrec.unchosen import Cold

#: The arrays of a screen, in their order.
_SCREEN = ("codes", "scales", "errors")
log = logging.getLogger("fastrec")

_NAMES = ("links.names", "links.kinds")


def write_state(folder: Any, state: State, settings: Settings, encoder: Any, media: dict[str, Any]) -> None:
    """Write ``state`` as an artifact; see store/artifact.py for what a folder holds."""
    artifact.write(folder, *_contents(state, settings, encoder, media), key=read_key(None))


def fingerprint(state: State, settings: Settings) -> str:
    """Of everything that answers depend on: 32 hexadecimal digits, the same for a model and what was saved of it."""
    config, arrays, tables = _contents(state, settings, None, {})
    for name in ("versions", "encoder", "encoder_fingerprint", "media", "report"):
        del config[name]
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


def _contents(
    state: State, settings: Settings, encoder: Any, media: dict[str, Any]
) -> tuple[dict[str, Any], artifact.Arrays, dict[str, Any]]:
    """(config, arrays, tables) of an artifact."""
    embedded = state.embeddings is not None and bool(state.embeddings.known.any())
    users, interactions, seen = _users(state)
    titles = {}
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
            arrays |= _media_arrays("fresh.media", state.fresh.embeddings)
    if state.removed is not None:
        arrays["removed"] = state.removed
    if state.histories.again:
        arrays["again"] = np.array(list(state.histories.again.items()), np.int64)
    if state.embeddings is not None:
        arrays["embeddings.vectors"] = state.embeddings.vectors
        arrays["embeddings.known"] = state.embeddings.known
        arrays |= _media_arrays("media", state.embeddings)
        if state.embeddings.links is not None:
            links = state.embeddings.links
            arrays |= {f"links.{end}": getattr(links, end) for end in ("heads", "tails")}
            if links.relations is not None:
                arrays["links.relations"] = links.relations
                for part in ("names", "kinds"):
                    titles[f"links.{part}"] = pa.table({"name": pa.array(getattr(links, part), pa.large_string())})
    if state.features.cold is not None:
        arrays["cold.rows"] = state.features.cold.rows
    arrays |= _cells_arrays(state.features.items.cells)
    if state.features.index is not None:
        arrays |= {"index.data": state.features.index.to_bytes(), "index.bias": state.features.index.bias}
    for name, covariance in state.features.covariances.items():
        arrays[f"covariance.{name}"] = covariance
    sources = [write_source(one, state.embeddings, arrays, titles) for one in state.sources]
    config = {
        "settings": settings.to_json(),
        "encoder": encoder.name if isinstance(encoder, Encoder) else None,
        "encoder_fingerprint": encoder.weights_fingerprint if isinstance(encoder, Encoder) and embedded else None,
        "media": {
            kind: [getattr(media.get(kind), "saved_name", None), getattr(media.get(kind), "fingerprint", None)]
            for kind in (() if state.embeddings is None else state.embeddings.media)
        },
        "goal": state.goal,
        "means": state.means,
        "rerank": _rerank_to_json(state.rerank),
        "timed": state.timed,
        "trend": state.trend,
        "log_version": state.version,
        "data_fingerprint": _fingerprint(interactions),
        "popular_half_life": plain(state.popular.half_life),
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


def read_state(folder: Any, *, mmap: bool, rerank: bool = True) -> tuple[State, Settings, dict[str, Any]]:
    """(state, settings, {"encoder", "encoder_fingerprint"}) of a folder; ArtifactError for every kind of damage."""
    config, arrays, tables = artifact.read(folder, mmap=mmap, key=read_key(None))
    try:
        encoder = {name: config[name] for name in ("encoder", "encoder_fingerprint")}
        encoder["media"] = config.get("media", {})
        settings = {
            **config["settings"],
            "rerank": _rerank(config["settings"].get("rerank") if rerank else None),
        }
        state, last = _state(config, arrays, tables), config.get("rerank")
        if settings["rerank"] is not None and last is not None:
            reader = Reader(settings["rerank"])
            state = dataclasses.replace(state, rerank=Reranker(reader, last["weight"]))
            encoder["rerank_fingerprint"] = last["fingerprint"]
        return state, Settings(**settings), encoder
    except (KeyError, TypeError, AssertionError, StopIteration) as error:
        raise ArtifactError(
            f"[load] {folder} lacks what this version needs ({error!r}); save the model again"
        ) from error


def check_encoder(folder: Any, encoder: Any, wanted: str | None, what: str = "encoder") -> None:
    """ArtifactError where the encoder has other weights now than when the model in ``folder`` was fitted."""
    if encoder is None or wanted is None:
        return
    try:
        found = encoder.weights_fingerprint
    except (BackendUnavailable, ConfigError) as error:
        log.warning("[load] only recommend_for_text and new items need the %s, and it is not here: %s", what, error)
        return
    if found != wanted:
        raise ArtifactError(
            f"[load] {folder}: {what} {encoder.name!r} has other weights now; restore them or fit again"
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
        media = _media("fresh.media", config, arrays)
        embeddings = Embeddings(arrays["fresh.embeddings"], arrays["fresh.known"], media=media)
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
            links = _links(arrays, tables, n, config["nodes"])
        media = _media("media", config, arrays)
        embeddings = Embeddings(arrays["embeddings.vectors"], arrays["embeddings.known"], None, links, media)
    sources = tuple(read_source(entry, arrays, tables, embeddings, n) for entry in config["sources"])
    unchosen = None if config["cold"] is None else Cold(arrays["cold.rows"], config["cold"])
    kept = tuple(s for s in sources if s.name in config["weights"])
    features = Features(
        sources=kept,
        weights=np.array([config["weights"][s.name] for s in kept], np.float64),
        items=ops.PackedItems(
            arrays["features.rows"],
            ops.Screen(config["screen"], *(arrays[f"features.{part}"] for part in _SCREEN)),
            config["max_norm"],
            _cells(config["screen"], arrays),
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
        popular=BiasSource(config["popular"], arrays["popular.bias"], half_life(config["popular_half_life"])),
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


def _media_arrays(prefix: str, embeddings: Embeddings) -> artifact.Arrays:
    names = [field.name for field in dataclasses.fields(Media)]
    return {f"{prefix}.{kind}.{n}": getattr(found, n) for kind, found in embeddings.media.items() for n in names}


def _media(prefix: str, config: dict[str, Any], arrays: artifact.Arrays) -> dict[str, Media]:
    names = [field.name for field in dataclasses.fields(Media)]
    return {kind: Media(*(arrays[f"{prefix}.{kind}.{name}"] for name in names)) for kind in config.get("media", {})}


def _rerank_to_json(rerank: Reranker | None) -> dict[str, Any] | None:
    """The language model is named, not kept; its fingerprint tells whether it is still the same."""
    if rerank is None:
        return None
    return {"weight": rerank.weight, "fingerprint": rerank.reader.fingerprint if rerank.candidates else None}


def _rerank(kept: Any) -> Rerank | None:
    try:
        return as_rerank(kept)
    except ConfigError as error:  # the folder of the language model is gone
        raise ConfigError(f"{error}; put it back, or load with rerank=False") from error


def _links(arrays: artifact.Arrays, tables: dict[str, Any], n_items: int, n_nodes: int) -> Links:
    names, kinds = (tuple(tables[key]["name"].to_pylist()) if key in tables else () for key in _NAMES)
    ends = arrays["links.heads"], arrays["links.tails"]
    return Links(*ends, n_items, n_nodes, names, arrays.get("links.relations"), kinds)


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


def _cells_arrays(cells: ops.Cells | None) -> artifact.Arrays:
    if cells is None:
        return {}
    arrays: artifact.Arrays = {f"cells.{part}": getattr(cells.screen, part) for part in _SCREEN}
    return arrays | {"cells.begins": cells.begins, "cells.order": cells.order, "cells.coarse": cells.coarse.rows}


def _cells(dtype: str, arrays: artifact.Arrays) -> ops.Cells | None:
    if "cells.begins" not in arrays:
        return None
    screen = ops.Screen(dtype, *(arrays[f"cells.{part}"] for part in _SCREEN))
    coarse = ops.pack_items(arrays["cells.coarse"], dtype=dtype)
    return ops.Cells(arrays["cells.begins"], arrays["cells.order"], screen, coarse)

"""The model that is served: one reference, exchanged as a whole."""

import itertools
import json
import logging
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fastrec
from fastrec import inside
from fastrec.errors import ArtifactError
from fastrec.serve.metrics import Metrics

log = logging.getLogger("fastrec.serve")
_NUMBERS = itertools.count(1)


@dataclass(frozen=True, eq=False)
class Model:
    """A recommender under the version that its answers name.

    ints: whether the ids of users, and of items, are whole numbers: ids in paths come as text
    """

    recommender: Any
    version: str
    loaded_at: float
    path: str | None = None
    ints: dict[str, bool] = field(default_factory=dict)

    @classmethod
    def of(cls, recommender: Any, path: str | None = None) -> "Model":
        version = f"unsaved-{next(_NUMBERS)}" if path is None else artifact_version(path)
        ints = {}
        for kind, ids in (("user", recommender.user_ids), ("item", recommender.item_ids)):
            ints[kind] = bool(ids) and isinstance(ids[0], int)
        return cls(recommender, version, time.time(), path, ints)

    def id(self, kind: str, text: str) -> Any:
        """The id that a path or a query names."""
        if self.ints[kind] and text.lstrip("-").isdecimal() and len(text) < 20:
            return int(text)
        return text


def artifact_version(path: str) -> str:
    """First 12 digits of the checksum of a saved folder; ArtifactError where there is none."""
    try:
        return str(json.loads((Path(path) / "manifest.json").read_text())["sha256"])[:12]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"[serve] {path} holds no readable manifest.json; expected a folder of save") from error


def load(path: str, store: str | None = None) -> Model:
    """A saved model, tried with one call; ArtifactError for every damage."""
    version = artifact_version(path)
    recommender = fastrec.load(path, store=store)
    recommender.recommend(["\0nobody"], 1)
    model = Model.of(recommender, path)
    if model.version != version:
        raise ArtifactError(f"[serve] {path} was replaced while it was read; reload again")
    return model


class Holder:
    """The place of the model that is served. A batch takes ``current`` once and is answered by that one alone."""

    def __init__(self, model: Model, metrics: Metrics, store: str | None) -> None:
        self.current, self._metrics, self._store = model, metrics, store
        self._reloading = threading.Lock()
        metrics.model_is(model.version, model.loaded_at)

    def reload(self, path: str) -> Model:
        """Load beside, check, swap; a model that cannot be loaded changes nothing. Blocks: for a thread."""
        with self._reloading:
            try:
                model = load(path, self._store)
            except BaseException:
                self._metrics.reloads.labels("failed").inc()
                raise
            self.swap(model)
            # What the store took between the end of loading and the swap.
            inside.catch_up(model.recommender)
            return model

    def swap(self, model: Model) -> None:
        old, self.current = self.current, model
        self._metrics.model_is(model.version, model.loaded_at)
        self._metrics.reloads.labels("done").inc()
        log.info("model %s serves in place of %s", model.version, old.version)

"""The model that is served, and what the routes know of it."""

import itertools
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastrec
from fastrec import inside
from fastrec.errors import ArtifactError

_NUMBERS = itertools.count(1)
#: The changes that there are routes for.
WRITES = ("update", "add_items", "remove_items", "erase_users")


@dataclass(frozen=True)
class Facts:
    """What the routes know of a model, which may be in another process.

    version: what its answers name
    ints: whether the ids of users, and of items, are whole numbers: ids in paths come as text
    durable: whether what POST /events takes outlives the process
    writes: those of ``WRITES`` that this recommender has
    """

    version: str
    loaded_at: float
    path: str | None
    ints: dict[str, bool]
    durable: bool
    writes: frozenset[str]

    def id(self, kind: str, text: str) -> Any:
        """The id that a path or a query names."""
        if self.ints[kind] and text.lstrip("-").isdecimal() and len(text) < 20:
            return int(text)
        return text


@dataclass(frozen=True, eq=False)
class Model:
    """A recommender, with its facts."""

    recommender: Any
    facts: Facts

    @classmethod
    def of(cls, recommender: Any, path: str | None = None) -> "Model":
        version = f"unsaved-{next(_NUMBERS)}" if path is None else artifact_version(path)
        ints = {}
        for kind, ids in (("user", recommender.user_ids), ("item", recommender.item_ids)):
            ints[kind] = bool(ids) and isinstance(ids[0], int)
        writes = frozenset(name for name in WRITES if hasattr(recommender, name))
        return cls(recommender, Facts(version, time.time(), path, ints, inside.is_durable(recommender), writes))


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
    if model.facts.version != version:
        raise ArtifactError(f"[serve] {path} was replaced while it was read; reload again")
    return model

"""The recommenders: each learns from Interactions and Embeddings and gives a Source.

A model is a frozen config object with ``name`` and ``fit(interactions, embeddings, goal) -> Source | None``.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from fastrec.errors import ConfigError
from fastrec.models.als import Als
from fastrec.models.bpr import Bpr
from fastrec.models.content import Content
from fastrec.models.directed import Directed
from fastrec.models.ease import Ease
from fastrec.models.gan import Gan
from fastrec.models.graph import Graph
from fastrec.models.item_item import ItemItem
from fastrec.models.knowledge import Knowledge
from fastrec.models.media import Audio, Image
from fastrec.models.popularity import Popularity
from fastrec.models.private_als import PrivateAls
from fastrec.models.sequential import Sequential
from fastrec.models.user_text import UserText
from fastrec.types import Embeddings, Interactions, Source

__all__ = [
    "Als",
    "Audio",
    "Bpr",
    "Content",
    "Directed",
    "Ease",
    "Gan",
    "Graph",
    "Image",
    "ItemItem",
    "Knowledge",
    "Model",
    "Popularity",
    "PrivateAls",
    "resolve",
    "Sequential",
    "UserText",
]


class Model(Protocol):
    """What a recommender must have to take part in the ensemble."""

    @property
    def name(self) -> str: ...

    def fit(self, interactions: Interactions, embeddings: Embeddings | None, goal: str) -> Source | None:
        """Learn; None where the data has nothing for this model (no texts for ``content``)."""

    def variants(self, source: Any, interactions: Interactions) -> Sequence[tuple["Model", Source]]:
        """(settings without "auto", source) to choose from, given the source fitted on ``interactions``."""


_BY_NAME: dict[str, type[Model]] = {
    m.name: m
    for m in (
        *(Popularity, ItemItem, Directed, Ease, Als, Bpr, Graph, Gan),
        *(Content, Image, Audio, UserText, Sequential, Knowledge, PrivateAls),
    )
}
_FAST: tuple[str | Model, ...] = ("popularity", "item_item", "directed", Ease(optional=True), "als", "content")
_PRESETS = {"fast": _FAST, "best": (*_FAST, Sequential.name), "auto": _FAST}


def resolve(models: str | Sequence[str | Model | dict[str, Any]]) -> list[Model]:
    """Config objects from a preset ("fast", "best", "auto") or a list of names and config objects.

    Raises ConfigError for an unknown name, a double one or an empty list.
    """
    if isinstance(models, str):
        if models not in _PRESETS:
            raise ConfigError(f"[models] models={models!r}, expected {', '.join(_PRESETS)} or a list of models")
        models = _PRESETS[models]
    if not isinstance(models, Iterable):
        raise ConfigError(f"[models] models={models!r}, expected a preset or a list of names and config objects")
    chosen = [_resolve_one(m) for m in models]
    names = [m.name for m in chosen]
    if not chosen or len(set(names)) != len(names):
        raise ConfigError(f"[models] models={names}, expected at least one model and each at most once")
    return chosen


def _resolve_one(model: Any) -> Model:
    if isinstance(model, dict) and isinstance(model.get("name"), str):  # as an artifact keeps it
        settings = {key: value for key, value in model.items() if key != "name"}
        return type(_resolve_one(model["name"]))(**settings)
    if isinstance(model, str):
        if model not in _BY_NAME:
            raise ConfigError(f"[models] unknown model {model!r}, this version has {', '.join(_BY_NAME)}")
        return _BY_NAME[model]()
    if not (hasattr(model, "name") and hasattr(model, "fit")) or isinstance(model, type):
        raise ConfigError(f"[models] {model!r} is no model: expected a name or an object like ItemItem()")
    chosen: Model = model
    return chosen

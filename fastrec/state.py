"""What a recommender is made of: its settings, and everything that fitting found."""

import dataclasses
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastrec import fuse
from fastrec.data import Columns, Vocab
from fastrec.errors import ConfigError
from fastrec.types import BiasSource, Catalog, Csr, Embeddings, Features, Interactions, Report, Source


@dataclass(frozen=True)
class Settings:
    """The settings of a Recommender that fitting and recommending need."""

    models: Any
    weights: Any
    event_weights: dict[str, float]
    half_life: float | None
    backend: str
    seed: int

    def to_json(self) -> dict[str, Any]:
        """As a dict of JSON types; config objects of models become [name, settings]."""
        plain = dataclasses.asdict(self)
        if not isinstance(self.models, str):
            plain["models"] = [
                m if isinstance(m, str) else {"name": m.name, **dataclasses.asdict(m)} for m in self.models
            ]
        return plain


@dataclass(frozen=True, eq=False)
class State:
    """A fitted model; never changed, only replaced as a whole, so that readers need no lock.

    sources: all that were fitted, also those of weight 0 that ``features`` leaves out
    columns: names of the event columns in the caller's tables
    popular: popularity, whether it is among the sources or not: the answer for users of whom nothing is known
    """

    users: Vocab
    items: Vocab
    interactions: Interactions
    seen: Csr
    catalog: Catalog
    embeddings: Embeddings | None
    features: Features
    sources: tuple[Source, ...]
    popular: BiasSource
    report: Report
    goal: str
    columns: Columns
    _views: dict[str, "State"] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def only(self, name: str, call: str) -> "State":
        """The same model with one source alone; ConfigError where there is none that compares items."""
        comparing = {s.name: s for s in self.sources if not isinstance(s, BiasSource)}
        if name not in comparing:
            raise ConfigError(f"[{call}] no source {name!r} compares items, the model has {sorted(comparing)}")
        with self._lock:
            if name not in self._views:
                features = fuse.fuse([comparing[name]], {name: 1.0}, len(self.items))
                self._views[name] = dataclasses.replace(self, features=features, _views={})
            return self._views[name]

    @property
    def fallback(self) -> Features:
        """The space for users of whom the sources know nothing: popularity alone."""
        return fuse.fuse([self.popular], {self.popular.name: 1.0}, len(self.items))

    def comparing(self) -> "State":
        """The same model without the sources that score every item the same for all users."""
        kept = [i for i, s in enumerate(self.features.sources) if not isinstance(s, BiasSource)]
        features = dataclasses.replace(
            self.features,
            sources=tuple(self.features.sources[i] for i in kept),
            weights=self.features.weights[kept],
            bias=np.zeros_like(self.features.bias),
            bias_scales={},
        )
        return dataclasses.replace(self, features=features, _views={})

"""What a recommender is made of: its settings, and everything that fitting found."""

import dataclasses
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastrec import cold, encode, fuse
from fastrec.data import Columns, Vocab
from fastrec.errors import ConfigError
from fastrec.fresh import Fresh
from fastrec.histories import Histories
from fastrec.rerank import Rerank
from fastrec.reranking import Reranker
from fastrec.types import (
    I64,
    BiasSource,
    Bool,
    Catalog,
    Csr,
    DenseSource,
    Embeddings,
    Features,
    Interactions,
    Report,
    Source,
)
from fastrec.usertext import TextSource


@dataclass(frozen=True)
class Settings:
    """The settings of a Recommender that fitting and recommending need."""

    models: Any
    weights: Any
    event_weights: dict[str, float]
    half_life: float | None
    backend: str
    seed: int
    rerank: Rerank | None = None

    def to_json(self) -> dict[str, Any]:
        """As a dict of JSON types; config objects of models become [name, settings]."""
        plain = dataclasses.asdict(self)
        if not isinstance(self.models, str):
            plain["models"] = [
                m if isinstance(m, (str, dict)) else {"name": m.name, **dataclasses.asdict(m)} for m in self.models
            ]
        return plain


@dataclass(frozen=True, eq=False)
class State:
    """A fitted model and what happened since; never changed, only replaced as a whole, so that readers need no lock.

    users, items, catalog: of all; embeddings, features and sources are of the items that were fitted
    sources: all that were fitted, also those of weight 0 that ``features`` leaves out
    columns: names of the event columns in the caller's tables
    popular: popularity, whether it is among the sources or not: the answer for users of whom nothing is known
    means: mean value of each kind of event; timed: whether events have timestamps
    landmarks: rows of fitted items that a new one may be likened to, see ``fastrec.fresh``
    fresh: the items that came after fitting; removed: bool [N], None where all are there
    trend: (start, latest, scale) of ``fastrec.trend``; None before the first event after fitting
    version: place in the event log up to which everything is in here
    rerank: the last stage; None: there is none
    """

    users: Vocab
    items: Vocab
    histories: Histories
    catalog: Catalog
    embeddings: Embeddings | None
    features: Features
    sources: tuple[Source, ...]
    popular: BiasSource
    report: Report
    goal: str
    columns: Columns
    means: dict[str, float] = field(default_factory=dict)
    timed: bool = True
    landmarks: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    fresh: Fresh | None = None
    removed: Bool | None = None
    trend: tuple[float, float, float] | None = None
    version: int = 0
    rerank: Reranker | None = None
    _views: dict[str, Features] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def interactions(self) -> Interactions:
        """The histories of all users in CSR; takes time where users changed."""
        return self.histories.folded()[0]

    @property
    def seen(self) -> Csr:
        """The items of every user, ascending; takes time where users changed."""
        return self.histories.folded()[1]

    def fitted(self) -> "State":
        """The same model over the items that were fitted alone: of the others no split of the data knows."""
        if self.fresh is None:
            return self
        n = self.features.items.n_items
        histories = self.interactions.select(self.interactions.items < n)
        histories = dataclasses.replace(histories, n_items=n)
        sources, kept = (
            tuple(dataclasses.replace(s, bias=s.bias[:n]) if isinstance(s, BiasSource) else s for s in group)
            for group in (self.sources, self.features.sources)
        )
        features = dataclasses.replace(
            self.features, sources=kept, bias=self.features.bias[:n].copy(), fresh=None, fresh_items=None
        )
        return dataclasses.replace(
            self,
            items=Vocab(self.items.series[:n]),
            histories=Histories.of(histories),
            catalog=dataclasses.replace(self.catalog, table=self.catalog.table[:n]),
            features=features,
            sources=sources,
            popular=dataclasses.replace(self.popular, bias=self.popular.bias[:n]),
            fresh=None,
            removed=None if self.removed is None else self.removed[:n],
            _views={},
        )

    def only(self, name: str, call: str) -> "State":
        """The same model with one source alone; ConfigError where there is none that compares items."""
        comparing = {s.name: s for s in self.sources if not isinstance(s, BiasSource)}
        if name not in comparing:
            raise ConfigError(f"[{call}] no source {name!r} compares items, the model has {sorted(comparing)}")
        with self._lock:
            if name not in self._views:
                features = fuse.fuse([comparing[name]], {name: 1.0}, self.features.items.n_items)
                self._views[name] = cold.attach(features, self.fresh)
            return dataclasses.replace(self, features=self._views[name], _views={})

    def searching(self, names: tuple[str, ...]) -> "State":
        """The same model with what sentences can be compared with: "content", "image", "audio"; equal weights."""
        assert self.embeddings is not None
        key = "text: " + ", ".join(names)
        with self._lock:
            if key not in self._views:
                of_items = next((s for s in self.sources if s.name == "content"), None)
                media = {kind: found.vectors for kind, found in self.embeddings.media.items()}
                parts = [of_items if n == "content" else DenseSource(n, media[n], None) for n in names]
                features = fuse.fuse([p for p in parts if p], dict.fromkeys(names, 1.0), self.features.items.n_items)
                self._views[key] = cold.attach(features, self.fresh)
            return dataclasses.replace(self, features=self._views[key], _views={})

    @property
    def fallback(self) -> Features:
        """The space for users of whom the sources know nothing: popularity alone."""
        return fuse.fuse([self.popular], {self.popular.name: 1.0}, len(self.items))

    def reading(self, encoder: Any) -> "State":
        """The same model with what it reads texts with: an artifact holds none."""
        texts = encode.texts_of(self.catalog, encoder)
        read = None if texts is None else texts.encode
        sources = {s.name: dataclasses.replace(s, read=read) for s in self.sources if isinstance(s, TextSource)}
        if self.embeddings is None or texts is None:
            return self
        kept = tuple(sources.get(s.name, s) for s in self.features.sources)
        return dataclasses.replace(
            self,
            embeddings=dataclasses.replace(self.embeddings, texts=texts),
            sources=tuple(sources.get(s.name, s) for s in self.sources),
            features=dataclasses.replace(self.features, sources=kept),
            _views={},
        )

    def comparing(self) -> "State":
        """The same model without the sources that score every item the same for all users."""
        kept = [i for i, s in enumerate(self.features.sources) if not isinstance(s, BiasSource)]
        features = dataclasses.replace(
            self.features,
            sources=tuple(self.features.sources[i] for i in kept),
            weights=self.features.weights[kept],
            bias=np.zeros_like(self.features.bias),
            bias_scales={},
            gate=None,  # an item is no user with a short history
            index=None,
        )
        return dataclasses.replace(self, features=features, _views={})

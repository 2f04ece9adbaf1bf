"""Retraining beside the service: a new model of everything known, taken only where it is not worse than the live one.

The newest events are held out by time; a candidate with the settings of the live model is trained on what lies before
them, and both rank the catalogue for the users of those events. Only then is the model trained on everything and put in
the place of the old one. Events that came before their item did stand in the log, and are taken along. Where the live
model was fitted on some of the held-out events the comparison flatters it, and the report says so; its popularity,
which has moved with them, is set back to the time before.
"""

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastrec import cold, encode, metrics, pipeline
from fastrec.data import Vocab
from fastrec.errors import ConfigError, DataError
from fastrec.fresh import landmarks
from fastrec.histories import Histories
from fastrec.inside import encoder_of, media_of, recover, settings_of, state_of
from fastrec.live import fused_bias
from fastrec.models import resolve
from fastrec.persist import write_state
from fastrec.recommender import load
from fastrec.side import Links
from fastrec.state import Settings, State
from fastrec.store import artifact, read_key
from fastrec.trend import Trend
from fastrec.types import BiasSource, Catalog, Embeddings, Features, Interactions

log = logging.getLogger("fastrec")

#: Share of the events that is held out, and the longest rankings that are compared.
HELD, K = 0.1, 10


@dataclass(frozen=True)
class Refit:
    """What came of it.

    live, candidate: mean NDCG@10 over the users of the held-out events
    users, events: that were held out
    honest: whether none of the held-out events was among those that the live model was trained on
    replaced: whether the new model is in its place
    """

    live: float
    candidate: float
    users: int
    events: int
    honest: bool
    replaced: bool

    def __str__(self) -> str:
        fair = "" if self.honest else " (the live model was trained on some of these events, which flatters it)"
        done = "replaced" if self.replaced else "kept: the other is worse by more than the margin; --force overrides"
        return (
            f"NDCG@{K} on the newest {self.events:,} events of {self.users:,} users: live {self.live:.4f}, candidate "
            f"{self.candidate:.4f}{fair}\nthe live model is {done}"
        )


def refit(
    folder: str | Path, *, store: Any = None, margin: float = 0.02, force: bool = False, encoder: Any = None
) -> Refit:
    """Train a saved model on its events and those of the log; the folder holds the new one where that is not worse.

    store: the event log that the model is served with; None: the folder alone
    margin: the share of the live NDCG by which the candidate may be worse
    force: replace it in any case
    Raises DataError where there are too few events to compare on, and what ``load`` and ``fit`` raise.
    """
    if isinstance(margin, bool) or not isinstance(margin, (int, float)) or not 0 <= margin < 1:
        raise ConfigError(f"[refit] margin={margin!r}, expected a number from 0 to below 1")
    artifact.read(folder, key=read_key(None), full=True)  # what is trained on is looked at as closely as can be
    rec = load(folder, encoder=encoder, store=store)
    recover(rec)
    state, settings = state_of(rec, "refit"), settings_of(rec)
    data = material(state, encoder_of(rec))
    cut = float(np.quantile(data.interactions.times, 1 - HELD)) if len(data.interactions.times) else 0.0
    newest = data.interactions.times > cut
    train = data.interactions.select(~newest)
    # An item without an event before the cut is one that the candidate cannot know yet, and the new model will.
    known = np.bincount(train.items, minlength=train.n_items) > 0
    held = data.interactions.select(newest & known[data.interactions.items])
    users = np.flatnonzero((np.diff(held.indptr) > 0) & (np.diff(train.indptr) > 0))
    if not len(users) or not len(train.items):
        raise DataError("[refit] no user has events before and among the newest tenth; expected some to compare on")
    models = resolve(settings.models)
    features, _ = pipeline.fit_features(models, settings.weights, train, data.embeddings, state.goal, settings.seed)
    histories, targets = train.take(users), held.take(users)
    n = len(state.items)
    live = _ndcg(_unaware(state, _lifted(train, data, n)), _lifted(histories, data, n), _lifted(targets, data, n))
    candidate = _ndcg(features, histories, targets)
    honest = state.trend is not None and cut >= state.trend[0]
    replaced = force or candidate >= live * (1 - margin)
    result = Refit(live, candidate, len(users), len(targets.items), honest, replaced)
    if replaced:
        write_state(folder, _fitted_anew(state, settings, data), settings, encoder_of(rec), media_of(rec))
    return result


@dataclass(frozen=True, eq=False)
class Material:
    """What is there to train on: items that were removed are not among it.

    rows: int64 [n], row that each item has in the live model
    """

    interactions: Interactions
    catalog: Catalog
    embeddings: Embeddings | None
    rows: Any


def material(state: State, encoder: Any = None) -> Material:
    """Events, items and content of fitted and later items, in new rows that leave out what was removed."""
    n = len(state.items)
    kept = np.arange(n) if state.removed is None else np.flatnonzero(~state.removed)
    place = np.full(n, -1, np.int64)
    place[kept] = np.arange(len(kept))
    for old, new in state.histories.again.items():  # what came back keeps the events it had
        while new in state.histories.again:
            new = state.histories.again[new]
        place[old] = place[new]
    histories = state.interactions
    known = place[histories.items] >= 0
    some = histories.select(known)
    moved = _merged(some, place[some.items], len(kept))
    catalog = dataclasses.replace(state.catalog, table=state.catalog.table.take(kept))
    embeddings = None
    if state.embeddings is not None:
        vectors, there = state.embeddings.vectors, state.embeddings.known
        fresh = state.fresh
        if fresh is not None and fresh.embeddings is not None:
            vectors = np.concatenate([vectors, fresh.embeddings.vectors])
            there = np.concatenate([there, fresh.embeddings.known])
        elif fresh is not None:
            vectors = np.concatenate([vectors, np.zeros((fresh.n_items, vectors.shape[1]), np.float32)])
            there = np.concatenate([there, np.zeros(fresh.n_items, np.bool_)])
        links = None if state.embeddings.links is None else _moved_links(state.embeddings.links, place, len(kept))
        media = {}
        for kind, found in state.embeddings.media.items():
            later = None if fresh is None or fresh.embeddings is None else fresh.embeddings.media.get(kind)
            whole = found if later is None else found.followed(later)
            media[kind] = whole.take(np.where(kept < len(whole.known), kept, -1)).centred()
        texts = encode.texts_of(catalog, encoder)
        embeddings = Embeddings(np.ascontiguousarray(vectors[kept]), there[kept], texts, links, media)
    return Material(moved, catalog, embeddings, kept)


def _moved_links(links: Links, place: Any, n_items: int) -> Links:
    """The links of the items that are still there, in their new rows; of later items no triple tells."""
    nodes = np.concatenate([place[: links.n_items], n_items + np.arange(links.n_nodes - links.n_items)])
    heads, tails = nodes[links.heads], nodes[links.tails]
    there = (heads >= 0) & (tails >= 0)
    n_nodes = n_items + links.n_nodes - links.n_items
    relations = None if links.relations is None else links.relations[there]
    ends = heads[there].astype(np.int32), tails[there].astype(np.int32)
    return Links(*ends, n_items, n_nodes, links.names, relations, links.kinds)


def _merged(histories: Interactions, items: Any, n_items: int) -> Interactions:
    """The same entries with other item rows; of two of one user that now are one item the later stays."""
    key = histories.users * n_items + items
    _, last = np.unique(key[::-1], return_index=True)
    keep = np.zeros(len(key), np.bool_)
    keep[len(key) - 1 - last] = True
    return dataclasses.replace(histories, items=items.astype(np.int32), n_items=n_items).select(keep)


def _lifted(histories: Interactions, data: Material, n_items: int) -> Interactions:
    """In the rows of the live model."""
    rows = data.rows[histories.items].astype(np.int32)
    return dataclasses.replace(histories, items=rows, n_items=n_items)


def _ndcg(features: Features, histories: Interactions, targets: Interactions) -> float:
    """Mean NDCG@10 of the held-out items over the catalogue without what was seen."""
    parts = []
    k = min(K, features.n_items)
    for start in range(0, histories.n_users, pipeline.USERS_AT_ONCE):
        rows = np.arange(start, min(start + pipeline.USERS_AT_ONCE, histories.n_users))
        block = histories.take(rows)
        found = cold.search(features, cold.queries(features, block), k, seen=block.seen())
        parts.append(metrics.by_user(found.rows, targets.take(rows), k)["ndcg"])
    return float(np.concatenate(parts).mean())


def _unaware(state: State, train: Interactions) -> Features:
    """The live space with the popularity of the events before the cut: it has moved with those that are held out."""
    features, popular = state.features, state.popular
    if popular.half_life is not None:
        newest = float(train.times.max())
        start, _, scale = state.trend or (newest, newest, None)
        bias, _ = Trend(train, popular.half_life, start, newest, scale).fresh(popular.bias)
        kept = tuple(
            dataclasses.replace(s, bias=bias) if isinstance(s, BiasSource) and s.name == popular.name else s
            for s in features.sources
        )
        features = dataclasses.replace(features, sources=kept)
        if popular.name in features.bias_scales:
            features = dataclasses.replace(features, bias=fused_bias(features, None))
    if state.removed is not None:
        bias = np.where(state.removed, np.float32(-np.inf), features.bias)
        features = dataclasses.replace(features, bias=bias)
    return features


def _fitted_anew(state: State, settings: Settings, data: Material) -> State:
    """A state trained on everything; it has seen the log as far as ``state`` has."""
    features, sources = pipeline.fit_features(
        resolve(settings.models), settings.weights, data.interactions, data.embeddings, state.goal, settings.seed
    )
    popular = pipeline.popularity(sources, data.interactions)
    report = dataclasses.replace(state.report, items=len(data.rows), events=len(data.interactions.items))
    return dataclasses.replace(
        state,
        items=Vocab(state.items.series.gather(data.rows)),
        histories=Histories.of(data.interactions),
        catalog=data.catalog,
        embeddings=data.embeddings,
        features=features,
        sources=sources,
        popular=popular,
        report=report,
        landmarks=landmarks(data.embeddings, popular.bias),
        fresh=None,
        removed=None,
        trend=None,
        _views={},
    )

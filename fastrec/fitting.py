"""Fitting: from the caller's tables to a State."""

import dataclasses
import logging
from typing import Any

from fastrec import data, encode, pipeline, reranking, retrieve
from fastrec.fresh import landmarks
from fastrec.histories import Histories
from fastrec.models import resolve
from fastrec.rerank import Reader
from fastrec.reranking import Reranker
from fastrec.state import Settings, State
from fastrec.types import BiasSource, Catalog, Report

log = logging.getLogger("fastrec")


def fitted(
    settings: Settings,
    encoder: Any,
    media: dict[str, Any],
    tables: tuple[Any, Any, Any],
    *,
    knowledge: Any,
    columns: data.Columns,
    goal: str,
    strict: bool,
    version: int,
) -> State:
    """The model of these tables (interactions, items, users); see ``Recommender.fit``.

    media: encoders by "image" and "audio"; version: place in the event log from which on events are applied to it
    """
    s = settings
    cleaned = data.clean(
        *tables,
        knowledge=knowledge,
        columns=columns,
        event_weights=s.event_weights,
        half_life=s.half_life,
        strict=strict,
    )
    log.info("[fit] %d users, %d items, %d events", *(getattr(cleaned.report, n) for n in ("users", "items", "events")))
    if s.rerank is not None:
        reranking.check(cleaned.catalog)
    notes: list[str] = []
    ids = cleaned.items.all_ids() if media else ()
    seen = encode.embed_media(cleaned.catalog, media, ids, "fit", strict, notes)
    embeddings = encode.embed_items(cleaned.catalog, encoder, cleaned.links, seen)
    catalog = dataclasses.replace(cleaned.catalog, table=encode.without_media(cleaned.catalog.table))
    models = resolve(s.models)
    teach = s.rerank is not None and s.rerank.weight == "learned"
    features, sources, past = pipeline.fit_with_past(
        models, s.weights, cleaned.interactions, embeddings, goal, s.seed, teach
    )
    report = dataclasses.replace(cleaned.report, notes=(*cleaned.report.notes, *notes))
    report = pipeline.with_notes(report, models, s.weights)
    popular = pipeline.popularity(sources, cleaned.interactions)
    last, report = _last_stage(s, catalog, past, popular, report)
    features = pipeline.with_cells(features, cleaned.interactions, s.seed)
    if s.backend == retrieve.FAISS:
        features, report = pipeline.with_index(features, report, cleaned.interactions, s.seed)
    return State(
        users=cleaned.users,
        items=cleaned.items,
        histories=Histories.of(cleaned.interactions),
        catalog=catalog,
        embeddings=embeddings,
        features=features,
        sources=sources,
        popular=popular,
        report=report,
        goal=goal,
        columns=columns,
        means=cleaned.means,
        timed=cleaned.timed,
        landmarks=landmarks(embeddings, popular.bias),
        version=version,
        rerank=last,
    )


def _last_stage(
    settings: Settings, catalog: Catalog, past: pipeline.Past | None, popular: BiasSource, report: Report
) -> tuple[Reranker | None, Report]:
    """What reranks, with its weight, and the report that tells how the weight came about."""
    if settings.rerank is None:
        return None, report
    reader = Reader(settings.rerank)
    if isinstance(settings.rerank.weight, str):
        weight, told = reranking.learned(reader, catalog, past, popular, settings.seed)
        log.info("[fit] %s", told)
        report = dataclasses.replace(report, notes=(*report.notes, told))
    else:
        weight = float(settings.rerank.weight)
        _ = reader.fingerprint  # a model that is not there shows here, not with the first user
    return Reranker(reader, weight), report

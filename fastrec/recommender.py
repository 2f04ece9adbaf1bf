"""Recommender: one object from raw tables to served, explained and filtered recommendations."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastrec import arguments, cold, config, data, encode, evaluation, fitting, ops, retrieve
from fastrec.answer import Rules, answer, text_vectors
from fastrec.errors import ConfigError, UnknownIdError
from fastrec.keeping import Keeping
from fastrec.live import Live
from fastrec.models import resolve
from fastrec.persist import check_encoder, read_state
from fastrec.rerank import as_rerank, check_fingerprint
from fastrec.results import Evaluation, Recommendations
from fastrec.state import Settings
from fastrec.store import open_store, read_key
from fastrec.types import F32, DenseSource, Interactions, Report

__all__ = ["Recommender", "load"]


class Recommender(Keeping):
    """Recommendations from events and item texts.

    encoder: "minilm", a Hugging Face model id or folder, an ``Encoder``, a callable list[str] -> [n, D],
        or None (no text)
    image_encoder, audio_encoder: what reads the columns ``image`` and ``audio`` of the items (paths, bytes or arrays):
        a model id or folder of transformers (CLIP, SigLIP, ViT; CLAP, Wav2Vec2), or a function list -> [n, D]; None:
        they are not read
    models: "fast", "best", "auto", or a list of names and config objects such as ``[ItemItem(neighbors=50)]``
    device: "auto", "cpu" or "cuda", for the encoder
    backend: of score_topk: "auto", "cpu", "numba" or "reference"; or "faiss", an index built by ``fit`` that names
        candidates, which are scored exactly: for millions of items, see ``fastrec.retrieve.approximate``
    weights: "learned" on a temporal holdout of the training data, "equal", or {source name: weight >= 0}
    event_weights: {kind of event: weight >= 0}, over the defaults of ``fastrec.data``
    half_life: days in which an event loses half its weight; None for no decay
    rerank: a causal language model that reads the titles of the best candidates as the last stage: a model id or
        folder, or ``Rerank(...)``; None: there is no such stage
    store: where events after fitting become durable: the path of a file, redis://..., or an EventStore; None: nowhere
    cache_dir: folder for embeddings; default FASTREC_CACHE or ~/.cache/fastrec
    seed: of everything random
    progress: show progress on a terminal, log lines elsewhere

    All public methods may be called from several threads. A failed call leaves the model as it was.
    """

    def __init__(
        self,
        *,
        encoder: Any = "minilm",
        image_encoder: Any = None,
        audio_encoder: Any = None,
        models: Any = "auto",
        device: str = "auto",
        backend: str = "auto",
        weights: Any = "learned",
        event_weights: Mapping[str, float] | None = None,
        half_life: float | None = None,
        rerank: Any = None,
        store: Any = None,
        cache_dir: str | os.PathLike[str] | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        arguments.check_choice("Recommender", "device", device, ("auto", "cpu", "cuda"))
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
            raise ConfigError(f"[Recommender] seed={seed!r}, expected a whole number >= 0")
        how: Any = {"device": device, "cache_dir": cache_dir, "progress": progress}
        self._encoder = encode.as_encoder(encoder, **how)
        given = {"image": image_encoder, "audio": audio_encoder}
        found = {kind: encode.as_media(kind, spec, **how) for kind, spec in given.items()}
        self._media = {kind: one for kind, one in found.items() if one is not None}
        if isinstance(models, str) and self._media:
            models = [*resolve(models), *self._media]  # a preset takes what there is to see and hear
        self._settings = Settings(
            models=models,
            weights=arguments.check_weights(weights),
            event_weights=arguments.check_event_weights(event_weights),
            half_life=half_life,
            backend=backend,
            seed=int(seed),
            rerank=as_rerank(rerank),
        )
        resolve(models)  # a wrong name shows here, not after an hour of fitting
        retrieve.check(backend)  # and a backend that cannot run
        if backend != retrieve.FAISS:
            ops.CATALOGUE["score_topk"].choose(backend)
        self._store = None if store is None else open_store(store, key=read_key(None))
        self._live = None
        self._progress = bool(progress)

    # ---- learning

    def fit(
        self,
        interactions: Any,
        items: Any = None,
        *,
        users: Any = None,
        user_id: str = "user_id",
        item_id: str = "item_id",
        timestamp: str = "timestamp",
        event: str = "event",
        value: str = "value",
        knowledge: Any = None,
        goal: str = "next",
        strict: bool = False,
    ) -> "Recommender":
        """Learn from events, and from item texts where given; returns self.

        interactions, items, users: pandas, polars or pyarrow tables, dicts of arrays, or paths, with the
            columns of ``fastrec.data``; the other keywords rename columns
        knowledge: a table of triples about the items, with the columns head, relation and tail: an end that is an item
            id, or "item:" and the id, is that item. The models "knowledge" and "graph" read it, and the label columns
        goal: "next" (the next event) or "period" (all events of a coming period)
        strict: raise where the default drops rows
        Raises DataError for input that cannot be understood, ConfigError for settings out of range.
        """
        arguments.check_choice("fit", "goal", goal, ("next", "period"))
        if not isinstance(strict, bool):
            raise ConfigError(f"[fit] strict={strict!r}, expected True or False")
        columns = data.Columns(user_id=user_id, item_id=item_id, timestamp=timestamp, event=event, value=value)
        state = fitting.fitted(
            self._settings,
            self._encoder,
            self._media,
            (interactions, items, users),
            knowledge=knowledge,
            columns=columns,
            goal=goal,
            strict=strict,
            version=0 if self._store is None else self._store.version,
        )
        self._live = Live(state, self._settings, self._encoder, self._store, self._media)
        return self

    # ---- recommending

    def recommend(
        self,
        users: Any,
        k: int = 10,
        *,
        filter_seen: bool = True,
        allow: Any = None,
        deny: Any = None,
        where: Any = None,
        boost: Any = None,
        diversity: float = 0.0,
        at: Any = None,
        explain: bool = False,
        on_unknown: str = "fallback",
    ) -> Recommendations:
        """The k best items for one user id or a sequence of them.

        filter_seen: leave out what the user has had
        allow, deny: item ids for all users, or {user id: item ids}; with a dict, users that it does not name
            are not limited
        where: {column: value, (low, high) or [values]} over the item columns, or a pyarrow expression
        boost: {item id: factor} or the name of a numeric item column; adds log(factor) to the score
        diversity: 0 ranks by score alone, towards 1 items must differ from those above (MMR)
        at: as of this time (seconds or datetime): only earlier events count
        explain: also give shares of the sources and the history items that weigh most
        on_unknown: "fallback" (popular items), "raise" (UnknownIdError), "skip" (leave the user out)
        """
        state = self._fitted("recommend")
        ids, single = arguments.id_list("recommend", "users", users)
        rows = state.users.rows(ids)
        ids, rows = arguments.unknown_users("recommend", ids, rows, on_unknown)
        histories, seen = state.histories.take(rows)
        if at is not None:
            histories = histories.select(histories.times <= arguments.seconds("recommend", at))
            seen = histories.seen()
        ask = Rules("recommend", k, filter_seen, allow, deny, where, boost, diversity, explain)
        return answer(state, ask, ids, histories, seen, None, single, self._settings.backend, state.rerank)

    def recommend_for_history(
        self,
        histories: Any,
        k: int = 10,
        *,
        filter_seen: bool = True,
        allow: Any = None,
        deny: Any = None,
        where: Any = None,
        boost: Any = None,
        diversity: float = 0.0,
        at: Any = None,
        explain: bool = False,
        on_unknown: str = "fallback",
    ) -> Recommendations:
        """The k best items for users that the model has never met, from what they did.

        histories: a list of item ids, oldest first (one user); a list of such lists; or a table of events
            with the columns of ``fit``. Items that the model does not know are passed over, and raise
            UnknownIdError with on_unknown="raise"; a history with no known item is answered as an unknown
            user of ``recommend``
        ``users`` of the result are positions, or the ids of the table. Other keywords as in ``recommend``.
        """
        state = self._fitted("recommend_for_history")
        call = "recommend_for_history"
        ids, events, single = arguments.histories(call, histories, state, self._settings, on_unknown)
        if at is not None:
            events = events.select(events.times <= arguments.seconds(call, at))
        if on_unknown == "skip":
            known = np.flatnonzero(np.diff(events.indptr) > 0)
            ids, events = [ids[i] for i in known], events.take(known)
        ask = Rules(call, k, filter_seen, allow, deny, where, boost, diversity, explain)
        return answer(state, ask, ids, events, events.seen(), None, single, self._settings.backend, state.rerank)

    def recommend_for_text(
        self,
        texts: Any,
        k: int = 10,
        *,
        filter_seen: bool = True,
        allow: Any = None,
        deny: Any = None,
        where: Any = None,
        boost: Any = None,
        diversity: float = 0.0,
        at: Any = None,
        explain: bool = False,
        on_unknown: str = "fallback",
    ) -> Recommendations:
        """The k items whose content is nearest to a sentence, or to each of a list of sentences.

        Where the encoder of images or sounds has a text tower (CLIP, SigLIP, CLAP), these are compared with it as well.
        An empty text is answered as an unknown user of ``recommend``. Keywords as in ``recommend``.
        Raises ConfigError where the model has nothing that texts can be compared with.
        """
        call = "recommend_for_text"
        state = self._fitted(call)
        single = isinstance(texts, str)
        texts = arguments.text_list(call, texts)
        if at is not None:
            arguments.seconds(call, at)  # a sentence has no history, but a wrong time is still wrong
        found = text_vectors(call, state, self._encoder, self._media, texts)
        known = np.any([part.any(axis=1) for part in found.values()], axis=0)
        positions = list(range(len(texts)))
        if on_unknown != "fallback":
            arguments.check_choice(call, "on_unknown", on_unknown, ("fallback", "raise", "skip"))
            if on_unknown == "raise" and not known.all():
                raise UnknownIdError(call, "(empty) text", [texts[i] for i in np.flatnonzero(~known)])
            positions = np.flatnonzero(known).tolist()
            found = {name: part[known] for name, part in found.items()}
        ask = Rules(call, k, filter_seen, allow, deny, where, boost, diversity, explain)
        nobody, _ = state.histories.take(np.full(len(positions), -1))
        space, vectors = state.searching(tuple(found)), list(found.values())
        return answer(space, ask, positions, nobody, None, vectors, single, self._settings.backend)

    def similar_items(self, items: Any, k: int = 10, *, by: str | None = None, where: Any = None) -> Recommendations:
        """The k items most like each given one, which is not among them.

        by: name of one source ("content", "item_item"); default: all that compare items, as they are fused
        Raises UnknownIdError for unknown items, ConfigError for a source that does not exist.
        """
        state = self._fitted("similar_items")
        ids, single = arguments.id_list("similar_items", "items", items)
        rows = state.items.rows(ids)
        if (rows < 0).any():
            raise UnknownIdError("similar_items", "item", [ids[i] for i in np.flatnonzero(rows < 0)])
        histories = Interactions(
            np.arange(len(rows) + 1, dtype=np.int64),
            rows.astype(np.int32),
            np.zeros(len(rows)),
            np.ones(len(rows), np.float32),
            len(state.items),
        )
        ask = Rules("similar_items", k, True, None, None, where, None, 0.0, False)
        comparing = state.comparing() if by is None else state.only(str(by), "similar_items")
        return answer(comparing, ask, ids, histories, histories.seen(), None, single, self._settings.backend)

    def rank(self, users: Any, candidates: Any, k: int | None = None) -> Recommendations:
        """Given candidates in the order of the model: a list of item ids for all users or {user id: ids}.

        Seen items are kept; unknown candidates are left out, and a user whom the dict does not name gets none.
        k: length of the result, default the longest list.
        """
        ids, single = arguments.id_list("rank", "users", users)
        candidates, longest = arguments.candidates(candidates, ids)
        asked = longest if k is None else k
        return self.recommend(ids[0] if single else ids, asked, filter_seen=False, allow=candidates)

    # ---- looking inside

    def score(self, users: Any, items: Any) -> F32:
        """The fused score of every user with every item, float32 [B, n]; UnknownIdError for unknown ids."""
        state = self._fitted("score")
        user_ids, _ = arguments.id_list("score", "users", users)
        item_ids, _ = arguments.id_list("score", "items", items)
        rows = arguments.known_rows("score", "user", user_ids, state.users)
        columns = arguments.known_rows("score", "item", item_ids, state.items)
        queries = cold.queries(state.features, state.histories.take(rows)[0])
        return cold.scores(state.features, queries, columns)

    def user_vectors(self, users: Any) -> F32:
        """The dense part of the fused user features, float32 [B, D]."""
        state = self._fitted("user_vectors")
        ids, _ = arguments.id_list("user_vectors", "users", users)
        rows = arguments.known_rows("user_vectors", "user", ids, state.users)
        return cold.queries(state.features, state.histories.take(rows)[0]).vectors

    def item_vectors(self, items: Any) -> F32:
        """The dense part of the fused item features, float32 [n, D]."""
        state = self._fitted("item_vectors")
        ids, _ = arguments.id_list("item_vectors", "items", items)
        rows = arguments.known_rows("item_vectors", "item", ids, state.items)
        dense = [cold.fused(state.features, s, rows) for s in state.features.sources if isinstance(s, DenseSource)]
        return np.concatenate([np.empty((len(rows), 0), np.float32), *dense], axis=1)

    def evaluate(
        self, test: Any = None, *, split: str = "time", k: int = 10, per_model: bool = True, ladder: bool = False
    ) -> Evaluation:
        """Quality of the ensemble, of each source alone and of recent popularity, by segments and with intervals.

        test: events that followed the training data, measured with this model as it is. Without it the
            training data is split and the same settings are fitted on its past:
        split: "time" (cut at the 0.9 quantile of time) or "loo" (each user's last event)
        k: length of the rankings
        ladder: also what each step from popularity to the whole ensemble buys; needs a split
        """
        state, k = self._fitted("evaluate"), config.check_k("evaluate", k)
        arguments.check_choice("evaluate", "split", split, tuple(evaluation.SPLITS))
        done = evaluation.evaluate(state, self._settings, test, split=split, k=k, per_model=per_model, ladder=ladder)
        last = state.rerank is not None and state.rerank.candidates > 0
        told = ("these are the rankings before the last stage (rerank)",) if last else ()
        return dataclasses.replace(done, notes=(*done.notes, *told))

    @property
    def report(self) -> Report:
        """What reading and cleaning did."""
        return self._fitted("report").report

    @property
    def user_ids(self) -> list[Any]:
        """All user ids, in the order of their first event."""
        users = self._fitted("user_ids").users
        return users.all_ids()

    @property
    def item_ids(self) -> list[Any]:
        """All item ids, in the order of their first event, then of the items table: the order that breaks ties."""
        items = self._fitted("item_ids").items
        return items.all_ids()

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every source in the fused space; a source that does not help is not there."""
        f = self._fitted("weights").features
        return {s.name: float(w) for s, w in zip(f.sources, f.weights, strict=True)}


def load(
    folder: str | os.PathLike[str],
    *,
    device: str = "auto",
    mmap: bool = True,
    encoder: Callable[[list[str]], npt.NDArray[Any]] | Any = None,
    image_encoder: Any = None,
    audio_encoder: Any = None,
    store: Any = None,
    rerank: bool = True,
) -> Recommender:
    """The recommender that ``save`` wrote; with ``mmap`` its arrays are shared with other processes.

    encoder, image_encoder, audio_encoder: only for a model whose encoder was a callable
    store: the event log that the model was served with: what happened since ``save`` is applied again
    rerank: False: without the last stage of a model that has one
    Raises ArtifactError naming the file for every kind of damage, and where the encoder's weights are other
    ones now than those that made the item vectors.
    """
    state, settings, saved = read_state(folder, mmap=mmap, rerank=rerank)
    spec = saved["encoder"] if encoder is None else encoder
    of_media = {f"{kind}_encoder": name for kind, (name, _) in saved["media"].items()}
    for name, given in (("image_encoder", image_encoder), ("audio_encoder", audio_encoder)):
        of_media[name] = of_media.get(name) if given is None else given
    rec = Recommender(encoder=spec, device=device, models=settings.models, store=store, **of_media)
    if encoder is None:
        check_encoder(folder, rec._encoder, saved["encoder_fingerprint"])
    for kind, (_, fingerprint) in saved["media"].items():
        if isinstance(rec._media.get(kind), encode.MediaEncoder):
            check_encoder(folder, rec._media[kind], fingerprint, f"{kind}_encoder")
    if state.rerank is not None:
        check_fingerprint(folder, state.rerank.reader, saved.get("rerank_fingerprint"))
    rec._settings = settings
    rec._live = Live(state.reading(rec._encoder), settings, rec._encoder, rec._store, rec._media)
    rec._live.replay()
    return rec

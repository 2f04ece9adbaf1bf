"""Answering: from checked keywords and histories to Recommendations."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrec import arguments, cold, config, fuse, pipeline, reranking, score
from fastrec.errors import ConfigError, DataError
from fastrec.reranking import Reranker
from fastrec.results import Recommendations
from fastrec.state import State
from fastrec.types import F32, F64, I64, Bool, Candidates, Csr, DenseSource, Features, Interactions, Queries

#: Users times k of one call: the answer alone would take gigabytes.
_MOST_PLACES = 100_000_000


@dataclass(frozen=True)
class Rules:
    """The keywords of one call, checked as far as they can be without a model; ``call`` is for messages."""

    call: str
    k: int
    filter_seen: bool = True
    allow: Any = None
    deny: Any = None
    where: Any = None
    boost: Any = None
    diversity: float = 0.0
    explain: bool = False

    def __post_init__(self) -> None:
        config.check_k(self.call, self.k)
        d = self.diversity
        if isinstance(d, bool) or not isinstance(d, (int, float, np.number)) or not 0 <= d <= 1:
            raise ConfigError(f"[{self.call}] diversity={d!r}, expected a number from 0 to 1")
        for name in ("filter_seen", "explain"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise ConfigError(f"[{self.call}] {name}={getattr(self, name)!r}, expected True or False")


@dataclass(frozen=True, eq=False)
class Asked:
    """A question to a model, of which everything that is alike for all users is worked out once.

    factors: float64 [N], the boosts; mask: bool [N], which items anybody may get; None where there is nothing
    rerank: reads the best before they are cut to k
    """

    state: State
    rules: Rules
    backend: str
    factors: F64 | None
    mask: Bool | None
    rerank: Reranker | None = None

    @classmethod
    def of(cls, state: State, rules: Rules, backend: str, rerank: Reranker | None = None) -> "Asked":
        """Raises ConfigError and DataError for rules that the model cannot follow."""
        call = rules.call
        if rules.diversity and not any(isinstance(s, DenseSource) for s in state.features.sources):
            raise ConfigError(f"[{call}] diversity needs item vectors; fit with a source like 'content'")
        factors = arguments.boost_factors(call, rules.boost, state)
        mask = arguments.item_mask(call, rules.allow, rules.deny, rules.where, state)
        return cls(state, rules, backend, factors, mask, rerank if rerank is not None and rerank.candidates else None)

    def search(
        self, ids: Sequence[Any], histories: Interactions, seen: Csr | None, vectors: Sequence[F32] | None = None
    ) -> tuple[Candidates, list[Any]]:
        """(the best k items of B users, which fit into memory at once, their explanations).

        histories: of the B users; seen: their item rows, ascending; vectors: queries [B, D] of each source that
            stand in for the histories (texts)
        """
        state, k = self.state, int(self.rules.k)
        if vectors is None:
            queries = cold.queries(state.features, histories)
        else:
            queries = fuse.vector_queries(state.features, vectors)
        found = Candidates(np.full((len(ids), k), -1, np.int64), np.full((len(ids), k), -np.inf, np.float32))
        explanations: list[Any] = [None] * len(ids)
        silent = queries.silent
        if state.features.bias_scales or not silent.any():
            self._into(found, explanations, state.features, np.arange(len(ids)), ids, queries, histories, seen)
            return found, explanations
        # Nobody knows anything of these users and no bias speaks for them: all items would be alike.
        known, unknown = np.flatnonzero(~silent), np.flatnonzero(silent)
        self._into(found, explanations, state.features, known, ids, queries.take(known), histories, seen)
        nobody = fuse.queries(state.fallback, histories.take(unknown))
        self._into(found, explanations, state.fallback, unknown, ids, nobody, histories, seen)
        return found, explanations

    def _into(
        self,
        out: Candidates,
        explanations: list[Any],
        features: Features,
        users: I64,
        ids: Sequence[Any],
        queries: Queries,
        histories: Interactions,
        seen: Csr | None,
    ) -> None:
        """Answer the users at these positions in one space."""
        state, rules, call = self.state, self.rules, self.rules.call
        wanted = min(int(rules.k), len(state.items))
        bias = features.bias if self.factors is None else score.boosted(features.bias, self.factors, call)
        named = any(isinstance(lists, Mapping) for lists in (rules.allow, rules.deny))
        asked = [ids[i] for i in users.tolist()] if named else []
        pool = max(10 * int(rules.k) if rules.diversity else wanted, self.rerank.candidates if self.rerank else 0)
        found = cold.search(
            features,
            queries,
            min(pool, len(state.items)),
            bias=bias if self.mask is None else np.where(self.mask, bias, np.float32(-np.inf)),
            seen=seen.take(users) if rules.filter_seen and seen is not None else None,
            allow=arguments.per_user(call, "allow", rules.allow, asked, state, everything=True),
            deny=arguments.per_user(call, "deny", rules.deny, asked, state, everything=False),
            backend=self.backend,
        )
        added: dict[tuple[int, int], float] = {}
        if self.rerank is not None:
            found, gained = reranking.apply(self.rerank, state.catalog, histories.take(users), found)
            places = np.argwhere(found.rows[:, : self.rerank.candidates] >= 0)
            added = {(u, int(found.rows[u, j])): float(gained[u, j]) for u, j in places.tolist()}
        if rules.diversity:
            found = cold.diversify(found, features, wanted, float(rules.diversity))
        found = Candidates(found.rows[:, :wanted], found.scores[:, :wanted])
        out.rows[users, :wanted], out.scores[users, :wanted] = found.rows, found.scores
        if rules.explain:
            why = cold.explain(features, queries, histories.take(users), found, self.factors)
            reranking.explained(why, found, added)
            why = _with_paths(state, features, histories.take(users), found, why)
            for i, row in zip(users.tolist(), why, strict=True):
                explanations[i] = [arguments.readable(e, state) for e in row]


def answer(
    state: State,
    rules: Rules,
    ids: Sequence[Any],
    histories: Interactions,
    seen: Csr | None,
    vectors: Sequence[F32] | None,
    single: bool,
    backend: str,
    rerank: Reranker | None = None,
) -> Recommendations:
    """Search, rules, explanations and ids for B users, by blocks of users; arguments as in ``Asked.search``."""
    call, k = rules.call, int(rules.k)
    if k * max(len(ids), 1) > _MOST_PLACES:
        raise ConfigError(
            f"[{call}] k={k} for {len(ids)} users is over {_MOST_PLACES:,} places; ask for fewer at once, or write "
            "them to files with recommend_all"
        )
    asked = Asked.of(state, rules, backend, rerank)
    parts: list[Candidates] = []
    explanations: list[Any] = []
    for start in range(0, len(ids), pipeline.USERS_AT_ONCE):
        users = np.arange(start, min(start + pipeline.USERS_AT_ONCE, len(ids)))
        some = ids[start : start + len(users)]
        there = None if seen is None else seen.take(users)
        queries = None if vectors is None else [part[users] for part in vectors]
        found, why = asked.search(some, histories.take(users), there, queries)
        parts.append(found)
        explanations += why
    places = Candidates.concatenate(parts, k)
    items = state.items.ids(places.rows.ravel()).reshape(places.rows.shape)
    told = explanations if rules.explain else None
    return Recommendations.of(arguments.objects(ids), items, places.scores, told, single)


def _with_paths(
    state: State, features: Features, histories: Interactions, found: Candidates, why: list[list[score.Explanation]]
) -> list[list[score.Explanation]]:
    """The explanations with the paths of the first source that reads the graph of the items; as they are without."""
    links = None if state.embeddings is None else state.embeddings.links
    reads = (s for s in features.sources if s.name in ("knowledge", "graph") and isinstance(s, DenseSource))
    source = next(reads, None)
    if links is None or source is None:
        return why
    out = []
    for u, row in enumerate(why):
        history, items = histories.take([u]), found.rows[u][found.rows[u] >= 0].tolist()
        ways = [score.paths(source, links, history, item) for item in items]
        out.append([dataclasses.replace(one, paths=way) for one, way in zip(row, ways, strict=True)])
    return out


def text_vectors(call: str, state: State, encoder: Any, media: dict[str, Any], texts: Sequence[Any]) -> dict[str, F32]:
    """Texts as queries in the space of the content source, and of images and sounds that share one with texts.

    {name: float32 [B, D]}; zero for a blank text. Raises ConfigError where there is none of them, DataError for what is
    no str.
    """
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"[{call}] text {i} is {type(text).__name__}, expected str", row=i)
    seen = {} if state.embeddings is None else state.embeddings.media
    found = {kind: one.encode_text(texts) for kind, one in media.items() if kind in seen and one.reads_text}
    items = next((s for s in state.sources if s.name == "content" and isinstance(s, DenseSource)), None)
    if encoder is None or items is None:
        if found:
            return found
        if encoder is None:
            raise ConfigError(f"[{call}] the recommender has no text encoder; make it with encoder='minilm'")
        raise ConfigError(f"[{call}] the model has no content source; fit with item texts and the model 'content'")
    vectors: F32 = encoder.encode(list(texts))
    width = items.vectors.shape[1]
    if vectors.shape[1] != width:
        raise ConfigError(
            f"[{call}] the encoder gives {vectors.shape[1]} dimensions, the items have {width}: text search needs "
            "items embedded by the encoder alone"
        )
    return {"content": vectors, **found}

"""Answering: from checked keywords and histories to Recommendations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrec import arguments, config, fuse, pipeline, retrieve, score
from fastrec.errors import ConfigError, DataError
from fastrec.results import Recommendations
from fastrec.state import State
from fastrec.types import F32, Candidates, Csr, DenseSource, Interactions


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
        if isinstance(d, bool) or not isinstance(d, (int, float)) or not 0 <= d <= 1:
            raise ConfigError(f"[{self.call}] diversity={d!r}, expected a number from 0 to 1")


def answer(
    state: State,
    rules: Rules,
    ids: Sequence[Any],
    histories: Interactions,
    seen: Csr | None,
    vectors: F32 | None,
    single: bool,
    backend: str,
) -> Recommendations:
    """Search, rules, explanations and ids for B users, by blocks of users.

    histories: of the B users; seen: their item rows, ascending; vectors: queries [B, D] that stand in for
        the histories (texts)
    """
    call, k, features = rules.call, int(rules.k), state.features
    factors = arguments.boost_factors(call, rules.boost, state)
    bias = features.bias if factors is None else score.boosted(features.bias, factors, call)
    mask = arguments.item_mask(call, rules.allow, rules.deny, rules.where, state)
    if mask is not None:
        bias = np.where(mask, bias, np.float32(-np.inf))
    if rules.diversity and not any(isinstance(s, DenseSource) for s in features.sources):
        raise ConfigError(f"[{call}] diversity needs item vectors; fit with a source like 'content'")
    parts: list[Candidates] = []
    explanations: list[Any] = []
    for start in range(0, len(ids), pipeline.USERS_AT_ONCE):
        rows = np.arange(start, min(start + pipeline.USERS_AT_ONCE, len(ids)))
        users = ids[start : start + len(rows)]
        block = histories.take(rows)
        queries = fuse.queries(features, block) if vectors is None else fuse.vector_queries(features, vectors[rows])
        candidates = retrieve.search(
            features,
            queries,
            10 * k if rules.diversity else k,
            bias=bias,
            seen=seen.take(rows) if rules.filter_seen and seen is not None else None,
            allow=arguments.per_user(call, "allow", rules.allow, users, state, everything=True),
            deny=arguments.per_user(call, "deny", rules.deny, users, state, everything=False),
            backend=backend,
        )
        if rules.diversity:
            candidates = score.diversify(candidates, features, k, float(rules.diversity))
        parts.append(candidates)
        if rules.explain:
            found = score.explain(features, queries, block, candidates, factors)
            explanations += [[arguments.readable(e, state) for e in row] for row in found]
    best = Candidates.concatenate(parts, k)
    items = state.items.ids(best.rows.ravel()).reshape(best.rows.shape)
    return Recommendations.of(
        arguments.objects(ids), items, best.scores, explanations if rules.explain else None, single
    )


def text_vectors(call: str, state: State, encoder: Any, texts: Sequence[Any]) -> F32:
    """Texts as queries in the space of the content source, float32 [B, D]; zero for a blank text.

    Raises ConfigError where the model has no encoder or no content source, DataError for what is no str.
    """
    if encoder is None:
        raise ConfigError(f"[{call}] the recommender has no text encoder; make it with encoder='minilm'")
    items = next((s for s in state.sources if s.name == "content" and isinstance(s, DenseSource)), None)
    if items is None:
        raise ConfigError(f"[{call}] the model has no content source; fit with item texts and the model 'content'")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"[{call}] text {i} is {type(text).__name__}, expected str", row=i)
    vectors: F32 = encoder.encode(list(texts))
    width = items.vectors.shape[1]
    if vectors.shape[1] != width:
        raise ConfigError(
            f"[{call}] the encoder gives {vectors.shape[1]} dimensions, the items have {width}: text search needs "
            "items embedded by the encoder alone"
        )
    return vectors

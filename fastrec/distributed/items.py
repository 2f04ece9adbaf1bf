"""A catalogue in shards: every actor holds some of the items, and the best of each are merged.

The score of an item depends on no other item, and a shard returns its own top-k in the order of the whole: merging k
places of S shards, the smaller row first among equals, gives exactly the top-k of the catalogue.
"""

import dataclasses
import itertools
import os
from typing import Any

import numpy as np

from fastrec import arguments, config, fuse, ops, reranking, retrieve
from fastrec.cold import queries as queries_of
from fastrec.distributed.pool import Pool
from fastrec.errors import ConfigError
from fastrec.inside import settings_of, state_of
from fastrec.recommender import load
from fastrec.results import Recommendations
from fastrec.retrieve import parts
from fastrec.types import Candidates, Csr, Features, Queries

_CALL = "ShardedCatalogue"


def shard(features: Features, first: int, last: int) -> Features:
    """The space of the items from ``first`` to before ``last`` alone, for searching."""
    similarity = None if features.similarity is None else parts.columns(features.similarity, first, last)
    return dataclasses.replace(
        features,
        items=ops.pack_items(features.items.rows[first:last], dtype=features.items.screen.dtype),
        similarity=similarity,
        bias=np.array(features.bias[first:last]),
        index=None,
    )


class _Shard:
    """Holds some of the items of a saved model; the rest of the folder is mapped, and not in its memory."""

    def __init__(self, model: str) -> None:
        rec = load(model, rerank=False)
        self._whole: Features | None = state_of(rec, _CALL).features
        self._backend = settings_of(rec).backend
        self._features: Features | None = None
        self._first = self._last = 0

    def search(self, task: tuple[int, int, Queries, int, dict[str, Any]]) -> Candidates:
        """The best k among the items of the shard, in rows of the whole catalogue."""
        first, last, asked, k, lists = task
        if self._features is None or (first, last) != (self._first, self._last):
            # With the first task, also after a new start, as only the tasks come again then.
            assert self._whole is not None
            self._features, self._first, self._last = shard(self._whole, first, last), first, last
            self._whole = None
        found = retrieve.search(self._features, asked, min(k, last - first), backend=self._backend, **lists)
        return parts.shifted(found, first)


class ShardedCatalogue:
    """The items of a saved model in the memory of ``shards`` actors; use it as a context, or ``close`` it.

    model: folder on a file system that all machines see; without items after fitting
    Raises ConfigError for a model with such items, BackendUnavailable without Ray.
    """

    def __init__(self, model: str | os.PathLike[str], *, shards: int = 2) -> None:
        config.check_k(_CALL, shards, name="shards")
        rec = load(model)
        self._state = state_of(rec, _CALL)
        if self._state.fresh is not None or self._state.removed is not None:
            raise ConfigError(f"[{_CALL}] {model} has items that came or went after fitting; expected a refitted model")
        n = self._state.features.n_items
        if shards > n:
            raise ConfigError(f"[{_CALL}] shards={shards} for {n} items, expected at most one an item")
        edges = np.linspace(0, n, shards + 1).astype(int).tolist()
        self._spans = list(itertools.pairwise(edges))
        self._pool = Pool(_CALL, shards, _Shard, os.path.abspath(model))

    def search(self, asked: Queries, k: int, **lists: Csr | None) -> Candidates:
        """As ``fastrec.retrieve.search``; lists: seen, allow, deny."""
        tasks = [
            (
                first,
                last,
                asked,
                k,
                {name: None if x is None else parts.columns(x, first, last) for name, x in lists.items()},
            )
            for first, last in self._spans
        ]
        found = parts.best(self._pool.each("search", tasks), k)
        missing = k - found.rows.shape[1]
        if missing <= 0:
            return found
        pad = ((0, 0), (0, missing))
        return Candidates(
            np.pad(found.rows, pad, constant_values=-1), np.pad(found.scores, pad, constant_values=-np.inf)
        )

    def recommend(self, users: Any, k: int = 10, *, filter_seen: bool = True) -> Recommendations:
        """As ``Recommender.recommend`` for known users."""
        k = config.check_k(_CALL, k)
        ids, single = arguments.id_list(_CALL, "users", users)
        rows = arguments.known_rows(_CALL, "user", ids, self._state.users)
        histories, had = self._state.histories.take(rows)
        seen = had if filter_seen else None
        asked, rerank = queries_of(self._state.features, histories), self._state.rerank
        pool = max(k, rerank.candidates if rerank else 0)
        found = self.search(asked, pool, seen=seen)
        silent = np.flatnonzero(asked.silent)
        if len(silent) and not self._state.features.bias_scales:  # popularity alone, as in ``Asked.search``
            space = self._state.fallback
            some = None if seen is None else seen.take(silent)
            known = retrieve.search(space, fuse.queries(space, histories.take(silent)), pool, seen=some)
            found.rows[silent], found.scores[silent] = known.rows, known.scores
        if rerank is not None and rerank.candidates:
            found = reranking.apply(rerank, self._state.catalog, histories, found)[0]
        found = Candidates(found.rows[:, :k], found.scores[:, :k])
        items = self._state.items.ids(found.rows.ravel()).reshape(found.rows.shape)
        return Recommendations.of(arguments.objects(ids), items, found.scores, None, single)

    def close(self) -> None:
        """End the actors."""
        self._pool.close()

    def __enter__(self) -> "ShardedCatalogue":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

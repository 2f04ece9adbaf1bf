"""From candidates to what is shown: filters, boosts, diversity and explanations. All in rows, no ids."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastrec import ops
from fastrec.errors import ConfigError
from fastrec.profiles import contributions
from fastrec.side import Links
from fastrec.types import (
    F32,
    F64,
    BiasSource,
    Bool,
    Candidates,
    Catalog,
    DenseSource,
    Features,
    Interactions,
    Queries,
    SparseSource,
)


def where_mask(catalog: Catalog, where: Any, call: str) -> Bool:
    """Which items satisfy ``where``, bool [N]; an item whose column is null does not.

    where: a pyarrow expression over the item columns, or a dict, all of whose entries must hold:
        {column: value} equal to it (a list column: contains it), {column: (low, high)} within, ends
        included and None for open, {column: [values]} one of them
    Raises ConfigError for an unknown column, naming those there are, or a value of the wrong type.
    """
    table = catalog.table
    try:
        if isinstance(where, pc.Expression):
            rows = table.append_column("__row__", pa.array(np.arange(table.num_rows))).filter(where)["__row__"]
            mask = np.zeros(table.num_rows, np.bool_)
            mask[rows.to_numpy()] = True
            return mask
        if not isinstance(where, Mapping):
            raise ConfigError(f"[{call}] where is {type(where).__name__}, expected a dict or a pyarrow expression")
        mask = np.ones(table.num_rows, np.bool_)
        for column, wanted in where.items():
            if column not in table.column_names:
                raise ConfigError(f"[{call}] where names column {column!r}, the items have {table.column_names}")
            mask &= _condition(table[column].combine_chunks(), wanted, call)
        return mask
    except (pa.ArrowException, OverflowError, TypeError) as error:
        raise ConfigError(f"[{call}] where={where!r} does not fit the item columns: {error}") from error


def _condition(values: Any, wanted: Any, call: str) -> Bool:
    """One entry of a ``where`` dict over one column, bool [N]."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if wanted is None:
        return np.asarray(pc.is_null(values).to_numpy(zero_copy_only=False), np.bool_)
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        choices = list(wanted) if isinstance(wanted, (list, set, frozenset, tuple)) else [wanted]
        flat = pc.is_in(pc.list_flatten(values), value_set=pa.array(choices, values.type.value_type))
        parents = pc.list_parent_indices(values).to_numpy()
        mask = np.zeros(len(values), np.bool_)
        mask[parents[flat.to_numpy(zero_copy_only=False)]] = True
        return mask
    if isinstance(wanted, tuple):
        if len(wanted) != 2:
            raise ConfigError(f"[{call}] where: range {wanted!r} has {len(wanted)} ends, expected (low, high)")
        low, high = wanted
        result = pc.is_valid(values)
        if low is not None:
            result = pc.and_kleene(result, pc.greater_equal(values, low))
        if high is not None:
            result = pc.and_kleene(result, pc.less_equal(values, high))
    elif isinstance(wanted, (list, set, frozenset)):
        result = pc.is_in(values, value_set=pa.array(list(wanted), values.type))
    else:
        result = pc.equal(values, wanted)
    mask = pc.fill_null(result, False).to_numpy(zero_copy_only=False)
    return np.asarray(mask, np.bool_)


def boost_column(catalog: Catalog, column: str, call: str) -> F64:
    """The factors in a numeric item column, float64 [N], 1 where null; ConfigError for any other column."""
    if column not in catalog.table.column_names:
        raise ConfigError(f"[{call}] boost names column {column!r}, the items have {catalog.table.column_names}")
    values = catalog.table[column].combine_chunks()
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.float64())
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        raise ConfigError(f"[{call}] boost column {column!r} holds {values.type}, expected numbers")
    return np.nan_to_num(np.asarray(pc.fill_null(values, 1), np.float64), nan=1.0, posinf=np.inf)


def boosted(bias: F32, factors: F64, call: str) -> F32:
    """bias + log(factor): fused scores act like logits, so a factor f makes an item f times as likely.

    A factor of 0 excludes the item. Raises ConfigError for a negative or non-finite factor.
    """
    if not (np.isfinite(factors).all() and (factors >= 0).all()):
        bad = factors[~(np.isfinite(factors) & (factors >= 0))][0]
        raise ConfigError(f"[{call}] boost factor {bad}, expected a finite number >= 0")
    with np.errstate(divide="ignore"):
        return (bias + np.log(factors)).astype(np.float32)


def diversify(candidates: Candidates, features: Features, k: int, diversity: float) -> Candidates:
    """The k candidates that maximal marginal relevance picks, in the order of picking, with their own scores.

    The definition stands at ``ops.mmr``.
    """
    dense = [s.vectors for s in features.sources if isinstance(s, DenseSource)]
    # Without item vectors (popularity for somebody unknown) there is nothing to differ by.
    vectors = np.concatenate([np.empty((features.n_items, 0), np.float32), *dense], axis=1)
    picks = ops.mmr(vectors, candidates.rows, candidates.scores, k, diversity=diversity)
    rows = np.full(picks.shape, -1, np.int64)
    scores = np.full(picks.shape, -np.inf, np.float32)
    u, place = np.nonzero(picks >= 0)
    rows[u, place] = candidates.rows[u, picks[u, place]]
    scores[u, place] = candidates.scores[u, picks[u, place]]
    return Candidates(rows, scores)


@dataclass(frozen=True)
class Explanation:
    """Why one item was recommended to one user.

    sources: share of every source; the shares sum to the score up to float32 rounding
    history: (item row, weight) of the entries of the history that weigh most, heaviest first
    paths: [item row of the history, relation, node, relation, item row] or [item row, relation, item row] of the graph
        of ``Links``; None where no source reads it
    """

    sources: dict[str, float]
    history: list[tuple[int, float]]
    paths: list[list[Any]] | None = None


def explain(
    features: Features,
    queries: Queries,
    histories: Interactions,
    candidates: Candidates,
    factors: F64 | None = None,
    most: int = 3,
) -> list[list[Explanation]]:
    """An Explanation for each of the [B, k] candidates; empty places are left out.

    factors: float64 [N], the boosts of this call, listed as source "boost"
    """
    return [
        [_explain_one(features, queries, u, int(item), histories.take([u]), factors, most) for item in row if item >= 0]
        for u, row in enumerate(candidates.rows)
    ]


def _explain_one(
    features: Features,
    queries: Queries,
    u: int,
    item: int,
    history: Interactions,
    factors: F64 | None,
    most: int,
) -> Explanation:
    past = history.items
    shares: dict[str, float] = {}
    by_entry = np.zeros(len(past), np.float64)
    column, sparse_at = 0, 0
    for source in features.sources:
        if isinstance(source, BiasSource):
            shares[source.name] = features.bias_scales[source.name] * float(source.bias[item])
        elif isinstance(source, DenseSource):
            width = source.vectors.shape[1]
            q = queries.vectors[u, column : column + width].astype(np.float64)
            v = source.vectors[item] if features.cold is None else features.cold.scaled(source, np.array([item]))[0]
            shares[source.name] = float(q @ v.astype(np.float64))
            # The query is linear in the entries: each one's part, scaled to the share as the query was.
            parts = contributions(source, history, item)
            total = parts.sum()
            if len(past) and abs(total) > 1e-12:
                by_entry += parts * (shares[source.name] / total)
            column += width
        elif isinstance(source, SparseSource):
            parts = np.zeros(len(past))
            if queries.history is not None and len(past):
                begin = int(queries.history.indptr[u]) + sparse_at * len(past)
                assert queries.history.values is not None
                a = queries.history.values[begin : begin + len(past)].astype(np.float64)
                parts = a * [_entry(source, int(j), item) for j in past]
            shares[source.name] = float(parts.sum())
            by_entry += parts
            sparse_at += 1
    if factors is not None and factors[item] != 1:
        shares["boost"] = float(np.log(factors[item]))
    heaviest = np.argsort(-by_entry, kind="stable")[:most]
    return Explanation(shares, [(int(past[j]), float(by_entry[j])) for j in heaviest if by_entry[j] > 0])


def _entry(source: SparseSource, row: int, column: int) -> float:
    """S[row, column] by binary search."""
    s = source.similarity
    assert s.values is not None
    begin, end = int(s.indptr[row]), int(s.indptr[row + 1])
    at = begin + int(np.searchsorted(s.indices[begin:end], column))
    return float(s.values[at]) if at < end and s.indices[at] == column else 0.0


def paths(source: DenseSource, links: Links, history: Interactions, item: int, most: int = 3) -> list[list[Any]]:
    """How an item hangs together with the entries of one user's history that weigh most in this source.

    See ``Explanation.paths``; an item that came after fitting has none.
    """
    if item >= links.n_items:
        return []
    known = history.select(history.items < links.n_items)
    parts = contributions(source, known, item)
    out: list[list[Any]] = []
    for at in np.argsort(-parts, kind="stable").tolist():
        if len(out) == most or parts[at] <= 0:
            break
        first = int(known.items[at])
        way = None if first == item else links.path(first, item)
        if way is not None:
            out.append([first, *way, item])
    return out

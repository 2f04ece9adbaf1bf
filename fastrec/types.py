"""The way of the data, one frozen dataclass a station.

    raw tables -> Interactions + Catalog -> PackedTokens -> Embeddings -> Features
               -> Candidates -> Recommendations

Shape legend, used in every docstring of the package: U users, N items, n events, B users of one call, D dimensions,
S sequences, T tokens, k results, nnz stored entries of a sparse matrix.

A *row* is the position of a user or an item inside the model (int32 or int64, from 0); an *id* is the caller's own str
or int. Only ``fastrec.data.vocab`` turns one into the other. The checks here are about our own stages: AssertionError.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from fastrec.gate import Gate
    from fastrec.kinds import U8
    from fastrec.ops import PackedItems
    from fastrec.side import Links, Media, Texts
    from fastrec.unchosen import Cold

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


def _check(name: str, array: npt.NDArray[Any], dtype: type[np.generic], shape: tuple[int | None, ...]) -> None:
    """Assert the dtype and the shape of a field; None in ``shape`` stands for any length."""
    if array.dtype != dtype:
        raise AssertionError(f"{name} has dtype {array.dtype}, expected {np.dtype(dtype)}")
    if len(shape) != array.ndim or any(
        want is not None and want != got for want, got in zip(shape, array.shape, strict=False)
    ):
        raise AssertionError(f"{name} has shape {array.shape}, expected {shape}")


def _gather(indptr: I64, rows: npt.ArrayLike) -> tuple[I64, I64]:
    """(indptr of the chosen rows, positions of their entries); row -1 is an empty one."""
    rows = np.asarray(rows, np.int64)
    if not len(rows) or len(indptr) == 1:
        return np.zeros(len(rows) + 1, np.int64), np.empty(0, np.int64)
    known = rows >= 0
    start = np.where(known, indptr[rows], 0)
    length = np.where(known, indptr[rows + 1] - start, 0)
    taken = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    return taken, np.repeat(start - taken[:-1], length) + np.arange(taken[-1])


@dataclass(frozen=True, eq=False)
class Csr:
    """A sparse matrix, or a list of rows per user, in compressed sparse row form.

    indptr: int64 [R + 1], from 0, not falling
    indices: int32 [nnz], in [0, n_cols)
    values: float32 [nnz], or None where only the positions matter (seen, allow, deny)
    """

    indptr: I64
    indices: I32
    n_cols: int
    values: F32 | None = None

    def __post_init__(self) -> None:
        _check("Csr.indptr", self.indptr, np.int64, (None,))
        _check("Csr.indices", self.indices, np.int32, (int(self.indptr[-1]),))
        if self.values is not None:
            _check("Csr.values", self.values, np.float32, self.indices.shape)

    @property
    def n_rows(self) -> int:
        return len(self.indptr) - 1

    def take(self, rows: npt.ArrayLike) -> "Csr":
        """These rows in this order; row -1 is an empty one."""
        indptr, at = _gather(self.indptr, rows)
        return Csr(indptr, self.indices[at], self.n_cols, None if self.values is None else self.values[at])


@dataclass(frozen=True, eq=False)
class Interactions:
    """The histories of U users over N items, one entry per (user, item).

    A history is ordered by time, oldest first; entries of equal time stand in the order of the input.

    indptr: int64 [U + 1]
    items: int32 [n], item rows
    times: float64 [n], seconds since 1970 of the last such event; the place in the input where there are no timestamps
    weights: float32 [n], >= 0, strength of the preference; 0 means seen, but no sign of liking (dislike)
    n_items: N
    kinds: uint8 [n], the kind of that event as ``fastrec.kinds`` numbers it; None where no event has one
    """

    indptr: I64
    items: I32
    times: F64
    weights: F32
    n_items: int
    kinds: "U8 | None" = None

    def __post_init__(self) -> None:
        _check("Interactions.indptr", self.indptr, np.int64, (None,))
        n = int(self.indptr[-1])
        dtypes: dict[str, type[np.generic]] = {"items": np.int32, "times": np.float64, "weights": np.float32}
        for name, dtype in (dtypes if self.kinds is None else {**dtypes, "kinds": np.uint8}).items():
            _check(f"Interactions.{name}", getattr(self, name), dtype, (n,))

    @property
    def n_users(self) -> int:
        return len(self.indptr) - 1

    @property
    def users(self) -> I64:
        """User row of every entry, int64 [n]."""
        return np.repeat(np.arange(self.n_users), np.diff(self.indptr))

    def take(self, rows: npt.ArrayLike) -> "Interactions":
        """The histories of these users, in this order; row -1 gives an empty history."""
        return self.arranged(*_gather(self.indptr, rows))

    def arranged(self, indptr: I64, at: I64 | Bool) -> "Interactions":
        """The entries at these places as histories that begin at ``indptr``."""
        kinds = None if self.kinds is None else self.kinds[at]
        return Interactions(indptr, self.items[at], self.times[at], self.weights[at], self.n_items, kinds)

    def select(self, keep: Bool) -> "Interactions":
        """The same users with only the entries where ``keep`` [n] is true."""
        return self.arranged(np.concatenate([[0], np.cumsum(keep)])[self.indptr].astype(np.int64), keep)

    def decayed(self, decay: float | None) -> F32:
        """Weight of every entry, float32 [n]: weight * exp(-rank / decay); a user's newest entry has rank 0."""
        if decay is None:
            return self.weights
        rank = np.repeat(self.indptr[1:], np.diff(self.indptr)) - 1 - np.arange(len(self.items))
        return (self.weights * np.exp(-rank / decay)).astype(np.float32)

    def seen(self) -> Csr:
        """The item rows of every user in ascending order, as score_topk wants them."""
        items, begin = np.empty(len(self.items), np.int32), 0
        while begin < self.n_users:  # a few million entries at a time
            end = max(begin + 1, int(np.searchsorted(self.indptr, self.indptr[begin] + (1 << 22), side="right")) - 1)
            span = slice(int(self.indptr[begin]), int(self.indptr[end]))
            owner = np.repeat(np.arange(end - begin) * self.n_items, np.diff(self.indptr[begin : end + 1]))
            items[span] = np.sort(owner + self.items[span]) - owner
            begin = end
        return Csr(self.indptr, items, self.n_items)


@dataclass(frozen=True, eq=False)
class Catalog:
    """What is known of the items, aligned with the item rows.

    table: pyarrow.Table of N rows, all columns but the id; an item that no table described has nulls
    text_columns: string columns that hold running text, in the order in which they are read
    label_columns: string or list-of-string columns that hold labels (brand, categories)
    vector_columns: fixed-size lists of float: vectors computed elsewhere
    """

    table: Any
    text_columns: tuple[str, ...] = ()
    label_columns: tuple[str, ...] = ()
    vector_columns: tuple[str, ...] = ()

    @property
    def n_items(self) -> int:
        return int(self.table.num_rows)


@dataclass(frozen=True, eq=False)
class PackedTokens:
    """S tokenised texts behind one another, no padding.

    ids: int32 [T]
    cu_seqlens: int32 [S + 1], where each text begins; texts are never empty
    """

    ids: I32
    cu_seqlens: I32

    def __post_init__(self) -> None:
        _check("PackedTokens.cu_seqlens", self.cu_seqlens, np.int32, (None,))
        _check("PackedTokens.ids", self.ids, np.int32, (int(self.cu_seqlens[-1]),))


@dataclass(frozen=True, eq=False)
class Embeddings:
    """One vector per item, L2-normalised; an item without content has the zero vector.

    vectors: float32 [N, D]; D is 0 where no item has content
    known: bool [N], true where the item had content
    texts, links: what else is known of the items, where there is any; media: by "image" and "audio"
    """

    vectors: F32
    known: Bool
    texts: "Texts | None" = None
    links: "Links | None" = None
    media: "dict[str, Media]" = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check("Embeddings.vectors", self.vectors, np.float32, (None, None))
        _check("Embeddings.known", self.known, np.bool_, (len(self.vectors),))


@dataclass(frozen=True, eq=False)
class DenseSource:
    """A model whose score is <q(user), v(item)>, with q the decayed mean of the user's item vectors.

    vectors: float32 [N, D]
    decay: the entry of rank r in a history (newest 0) weighs exp(-r / decay); None: no decay
    """

    name: str
    vectors: F32
    decay: float | None

    def __post_init__(self) -> None:
        _check("DenseSource.vectors", self.vectors, np.float32, (None, None))


@dataclass(frozen=True, eq=False)
class FoldInSource(DenseSource):
    """A factorisation: q solves the least squares problem of the user's history against the item factors.

    gram: float64 [D, D], sum over the items of v v' plus the regularisation
    alpha: confidence of an entry of weight 1, beyond the 1 that everything has
    """

    gram: F64
    alpha: float


@dataclass(frozen=True, eq=False)
class SequenceSource(DenseSource):
    """A transformer over the sequence of the history: q is its last state, see ``fastrec.sequence``.

    vectors: [N, D], L2-normalised; zero for an item of which nothing is known
    backbone: "ligr", "sasrec" or "gpt2"
    length: entries of a history that are looked at, the newest
    epochs: passes over the data after which the training ended
    parameters: float32 arrays by name, all but the item vectors
    packed: the linear layers as ``ops.pack_linear`` lays them out, filled as they are used
    """

    backbone: str
    heads: int
    layers: int
    length: int
    epochs: int
    parameters: dict[str, F32]
    packed: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, eq=False)
class SparseSource:
    """A model whose score is the sum over the history of a_j * S[j, i].

    similarity: Csr [N, N] with values, columns ascending in each row
    decay: as in DenseSource
    """

    name: str
    similarity: Csr
    decay: float | None


@dataclass(frozen=True, eq=False)
class BiasSource:
    """A model that scores every item the same for all users.

    bias: float32 [N]
    half_life: days, where the bias is log(1 + decayed count) and new events may move it; None for any other bias
    """

    name: str
    bias: F32
    half_life: float | None = None

    def __post_init__(self) -> None:
        _check("BiasSource.bias", self.bias, np.float32, (None,))


Source = DenseSource | SparseSource | BiasSource


@dataclass(frozen=True, eq=False)
class Features:
    """The item side of the fused space: what score_topk walks.

    sources: the M sources; dense ones stand side by side in ``items``, sparse ones below one another in ``similarity``
    weights: float64 [M], >= 0
    items: packed float32 [N, D], D the sum over the dense sources
    similarity: Csr [S * N, N] of the S sparse sources; None where there is none
    bias: float32 [N], the weighted and normalised sum of the bias sources
    bias_scales: weight / standard deviation of each bias source, by name
    covariances: float64 [D_m, D_m] of each dense source over the catalogue, by name
    fresh, fresh_items: ``fresh.Fresh`` and packed [n, D] of items after fitting, for which the bias is [N + n]
    gate: how the weights of dense and sparse sources depend on the user; None: not at all
    cold: what the vectors of items without events have been multiplied by here; None: by nothing
    index: ``retrieve.Index`` of an approximate search; None: the search is exact
    """

    sources: tuple[Source, ...]
    weights: F64
    items: "PackedItems"
    similarity: Csr | None
    bias: F32
    bias_scales: dict[str, float]
    covariances: dict[str, F64]
    fresh: Any = None
    fresh_items: "PackedItems | None" = None
    gate: "Gate | None" = None
    cold: "Cold | None" = None
    index: Any = None

    @property
    def n_items(self) -> int:
        return len(self.bias)


@dataclass(frozen=True, eq=False)
class Queries:
    """The user side of the fused space for B users.

    vectors: float32 [B, D]
    history: Csr [B, S * N] with values; None where there is no sparse source
    """

    vectors: F32
    history: Csr | None

    def __post_init__(self) -> None:
        _check("Queries.vectors", self.vectors, np.float32, (None, None))

    def take(self, rows: npt.ArrayLike) -> "Queries":
        """These users in this order."""
        rows = np.asarray(rows, np.int64)
        return Queries(self.vectors[rows], None if self.history is None else self.history.take(rows))

    @property
    def silent(self) -> Bool:
        """bool [B], true for a user of whom no dense or sparse source knows anything."""
        silent: Bool = np.logical_not(self.vectors.any(axis=1)).astype(np.bool_)
        if self.history is not None and self.history.values is not None:
            spoken = np.concatenate([[0], np.cumsum(self.history.values != 0)])[self.history.indptr]
            silent &= np.diff(spoken) == 0
        return silent


@dataclass(frozen=True, eq=False)
class Candidates:
    """The best rows per user: score descending, then the smaller row.

    rows: int64 [B, k], -1 where fewer than k items remain
    scores: float32 [B, k], -inf there
    """

    rows: I64
    scores: F32

    def __post_init__(self) -> None:
        _check("Candidates.rows", self.rows, np.int64, (None, None))
        _check("Candidates.scores", self.scores, np.float32, self.rows.shape)

    @classmethod
    def concatenate(cls, parts: "list[Candidates]", k: int) -> "Candidates":
        """The users of all parts behind one another; [0, k] for no part."""
        none = cls(np.empty((0, k), np.int64), np.empty((0, k), np.float32))
        return cls(*(np.concatenate([getattr(p, n) for p in parts or [none]]) for n in ("rows", "scores")))


@dataclass(frozen=True)
class Report:
    """What reading and cleaning did, in counts of rows; nothing is dropped in silence."""

    rows_read: int = 0
    duplicates_dropped: int = 0
    repeats_merged: int = 0
    missing_ids_dropped: int = 0
    bad_timestamps_dropped: int = 0
    unknown_items: int = 0
    duplicate_items_dropped: int = 0
    missing_item_ids_dropped: int = 0
    empty_texts: int = 0
    users: int = 0
    items: int = 0
    events: int = 0
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        lines = [f"{name.replace('_', ' '):>26}: {value:,}" for name, value in self.as_dict().items()]
        return "\n".join(lines + [f"note: {note}" for note in self.notes])

    def as_dict(self) -> dict[str, int]:
        return {name: value for name, value in self.__dict__.items() if name != "notes"}

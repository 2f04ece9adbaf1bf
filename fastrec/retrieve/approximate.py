"""Approximate retrieval with FAISS on a CPU: an index names candidates, and score_topk scores them exactly.

A candidate has the score that the exact search gives it, to the bit, under the same filters. What an index can lose is
an item that it does not name: how many of the best ten it names is measured on users of the training data when it is
built, and an index below the asked recall is refused.

The index holds [v, bias] of every item, so that an inner product with [q, 1] is the score but for the sparse terms,
in 8 bits a number, in cells around centroids (Jegou, Douze and Schmid 2011). Beside what it finds, an item is a
candidate when a sparse source has something for it, when it is among the best by the present bias alone, or when its
bias is another one now than in the index, by more than a code is off.

Shape legend: N items, D dimensions, B users, k results.
"""

import importlib
import importlib.util
import weakref
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastrec import ops
from fastrec.errors import BackendUnavailable
from fastrec.retrieve import cells, exact
from fastrec.types import F32, I32, I64, Bool, Candidates, Csr, Features, Queries

RECALL = 0.95
#: Users on which the recall is measured, and results of each.
SAMPLE, RESULTS = 256, 10
#: An item filter that leaves no more than this, in numbers of its vectors, is searched without the index: it loses
#: nothing then. The number is a guess at where a walk of cells becomes cheaper, not measured yet.
_FEW_NUMBERS = 1 << 24
#: Entries of the lists of all users, beyond which one walk with the filter in the bias is cheaper.
_LISTED = 1 << 24
#: Items with another bias beyond which the index says too little.
_MOVED = 1 << 16
#: Places for what the index of a user may find and the user may not have; beyond it a selector is cheaper.
_SPARE = 512
#: Codes of 8 bits take near ties for one another: so many more are scored exactly.
_NEAR_TIES = 32
#: Items with the largest bias: candidates of everyone.
_BIASES = 1024
#: FAISS reads codes of so many numbers at once, and other lengths one number at a time.
_LANES = 16
_TRAIN_PER_CELL, _MOST_CELLS = 48, 1 << 15


def missing() -> tuple[str, str] | None:
    """None where FAISS can be imported, else (reason, remedy)."""
    if importlib.util.find_spec("faiss") is None:
        return ("faiss is not installed", "pip install 'fastrec-engine[faiss]', or backend='auto' for the exact search")
    return None


def _faiss() -> Any:
    gap = missing()
    if gap is not None:
        raise BackendUnavailable("retrieve", "faiss", *gap)
    return importlib.import_module("faiss")


@dataclass(frozen=True, eq=False)
class Index:
    """An index over the N items of ``Features``.

    index: faiss.IndexIVF over float32 [N, D + 1 and zeros up to a multiple of 16]
    probes: cells that are looked at
    recall: of the best 10 of the exact search, the share that was found for the sample of users
    bias: float32 [N], what stands in the index
    coarse: the centroids of the cells with their mean bias, as score_topk walks them
    """

    index: Any = field(repr=False)
    probes: int
    recall: float
    bias: F32 = field(repr=False)
    coarse: ops.PackedItems = field(repr=False)

    @property
    def note(self) -> str:
        return f"faiss: {self.index.nlist} cells, {self.probes} looked at, recall@{RESULTS} {self.recall:.3f}"

    def to_bytes(self) -> Any:
        """uint8 [n]: the index of FAISS as it writes it."""
        return _faiss().serialize_index(self.index)

    @classmethod
    def from_bytes(cls, data: Any, probes: int, recall: float, bias: F32) -> "Index":
        """The reverse of ``to_bytes``; BackendUnavailable without FAISS."""
        index = _faiss().deserialize_index(np.array(data))
        coarse = ops.pack_items(index.quantizer.reconstruct_n(0, index.nlist), dtype="int8")
        return cls(index, probes, recall, bias, coarse)

    def named(self, vectors: F32, count: int, probes: int, selector: Any) -> I64:
        """int64 [B, count]: rows that the nearest cells have for vectors [B, D + 1 and zeros], -1 where they have less.

        The cells are found by score_topk, and not by the index itself: that takes a quarter of the time.
        """
        faiss, users = _faiss(), len(vectors)
        near, cell = ops.score_topk(vectors, self.coarse, probes)
        scores, rows = np.empty((users, count), np.float32), np.empty((users, count), np.int64)
        pointers = [faiss.swig_ptr(x) for x in (cell, near, scores, rows)]
        parameters = faiss.SearchParametersIVF(nprobe=probes, sel=selector)
        self.index.search_preassigned_c(users, faiss.swig_ptr(vectors), count, *pointers, False, parameters)
        return rows


def build(features: Features, sample: Queries, *, recall: float = RECALL, seed: int = 0) -> Index:
    """An index over the items, with as many probes as the sample of users needs for ``recall``.

    Raises BackendUnavailable without FAISS, or where a quarter of the cells does not give the recall.
    """
    faiss = _faiss()
    rows = np.asarray(features.items.rows)
    n, dims = rows.shape
    count = int(min(max(4 * np.sqrt(n), 1), max(n // 39, 1), _MOST_CELLS))
    chosen = np.sort(np.random.default_rng(seed).permutation(n)[: _TRAIN_PER_CELL * count])
    # Cells know nothing of the bias, or popular items of all kinds would share cells that are near to nobody.
    learned, bias = rows[chosen], features.bias[chosen]
    centroids = cells.train(learned, count, seed)
    packed = ops.pack_items(centroids, dtype="int8")
    width = -(-(dims + 1) // _LANES) * _LANES
    quantizer = faiss.IndexFlatIP(width)
    centres = _with_bias(centroids, cells.means(bias, cells.nearest(learned, packed), count), width)
    quantizer.add(centres)
    coarse = ops.pack_items(centres, dtype="int8")
    kind = faiss.ScalarQuantizer.QT_8bit
    index = faiss.IndexIVFScalarQuantizer(quantizer, width, count, kind, faiss.METRIC_INNER_PRODUCT)
    index.by_residual = False  # or every code would depend on how faiss itself breaks a tie between two cells
    index.train(_with_bias(learned, bias, width))  # the cells are there already: only the ranges of the codes
    for start in range(0, n, 1 << 16):
        part = _with_bias(rows[start : start + (1 << 16)], features.bias[start : start + (1 << 16)], width)
        ids, lists = np.arange(start, start + len(part)), cells.nearest(rows[start : start + (1 << 16)], packed)
        index.add_core(len(part), faiss.swig_ptr(part), faiss.swig_ptr(ids), faiss.swig_ptr(lists))
    wanted = exact.search(features, sample, min(RESULTS, n)).rows

    def share(probes: int) -> float:
        tried = Index(index, probes, 0.0, features.bias, coarse)
        return _share(wanted, search(features, tried, sample, wanted.shape[1], few=0).rows)

    most = max(count // 4, 1)
    probes = 1
    while (found := share(probes)) < recall and probes < most:
        probes = min(2 * probes, most)
    if found < recall:
        raise BackendUnavailable(
            "retrieve",
            "faiss",
            f"the index finds {found:.3f} of the best {RESULTS} items with {probes} of {count} cells, {recall} was "
            "asked for",
            "backend='auto' for the exact search",
        )
    low, high = probes // 2, probes
    while high - low > max(1, high // 16):
        middle = (low + high) // 2
        reached = share(middle)
        low, high, found = (low, middle, reached) if reached >= recall else (middle, high, found)
    return Index(index, high, found, features.bias, coarse)


def _with_bias(rows: Any, bias: Any, width: int) -> F32:
    """float32 [n, width]: the rows, the bias, and zeros."""
    out = np.zeros((len(rows), width), np.float32)
    out[:, : rows.shape[1]], out[:, rows.shape[1]] = rows, bias
    return out


def _share(wanted: I64, found: I64) -> float:
    """The mean over users of the share of the wanted rows that were found."""
    there = [np.isin(w[w >= 0], f).mean() for w, f in zip(wanted, found, strict=True) if (w >= 0).any()]
    return float(np.mean(there)) if there else 1.0


def search(
    features: Features,
    index: Index,
    queries: Queries,
    k: int,
    *,
    bias: F32 | None = None,
    seen: Csr | None = None,
    allow: Csr | None = None,
    deny: Csr | None = None,
    few: int = _FEW_NUMBERS,
) -> Candidates:
    """As ``exact.search``, among the candidates that the index names.

    few: numbers in the vectors that a filter leaves, up to which they are all scored instead
    """

    def among(allow: Csr | None) -> Candidates:
        return exact.search(features, queries, k, bias=bias, seen=seen, allow=allow, deny=deny)

    n, users = features.n_items, len(queries.vectors)
    if allow is not None or k >= n // 2:
        return among(allow)
    bias = features.bias if bias is None else bias
    scope = _scope(features, index) if bias is features.bias else None
    passing = _passing(bias) if scope is None else scope.passing
    if passing is not None and len(passing) * max(queries.vectors.shape[1], 1) <= few:
        if users * len(passing) > _LISTED:
            return among(None)
        return among(Csr(np.arange(users + 1, dtype=np.int64) * len(passing), np.tile(passing, users), n))
    if scope is None:
        scope = _Scope.of(bias, index, passing)
    if scope.always is None or users * len(scope.always) > _LISTED:
        return among(None)
    # What is free lies that much thinner in the cells: the best k are in as many more of them.
    left = n if scope.free is None else max(int(np.count_nonzero(scope.free)), 1)
    probes = -(-index.probes * n // left)
    if probes > index.index.nlist // 2:
        return among(None)
    named = _named(index, probes, queries, k, scope.free, seen, deny)
    found = among(_union(named, scope, features, queries))
    short = np.flatnonzero((found.rows < 0).any(axis=1))
    if len(short) == 0:
        return found
    had, denied = (None if x is None else x.take(short) for x in (seen, deny))
    whole = exact.search(features, queries.take(short), k, bias=bias, seen=had, deny=denied)
    found.rows[short], found.scores[short] = whole.rows, whole.scores
    return found


@dataclass(frozen=True, eq=False)
class _Scope:
    """What a bias says of all items.

    passing: rows of those that may be returned, int32; None where all may
    free: bool [N], what the index may name: items that pass, with a bias that is no lower than there, or they would
        take the places of better ones; None where it may name all
    always: candidates of every user, ascending; None where the bias has moved too far from the index
    """

    passing: I32 | None
    free: Bool | None
    always: I64 | None

    @classmethod
    def of(cls, bias: F32, index: Index, passing: I32 | None) -> "_Scope":
        n = len(bias)
        # Codes have 256 levels between the least and the largest number: less than that is nothing to the index.
        step = float(np.ptp(index.bias)) / 255 if n else 0.0
        moved = np.flatnonzero((np.abs(bias - index.bias) > step) & (bias > -np.inf))
        if len(moved) > _MOVED:
            return cls(passing, None, None)
        best = np.argpartition(-bias, _BIASES - 1)[:_BIASES] if n > _BIASES else np.arange(n)
        free = bias > -np.inf
        always = np.union1d(best[free[best]], moved).astype(np.int64)
        free[moved[bias[moved] < index.bias[moved]]] = False
        return cls(passing, None if free.all() else free, always)


def _passing(bias: F32) -> I32 | None:
    """Rows of the items that the bias lets pass, ascending; None: all."""
    passing = np.flatnonzero(bias > -np.inf).astype(np.int32)
    return None if len(passing) == len(bias) else passing


#: By the space that is searched: reading the bias of all items would cost more than the search.
_scopes: "weakref.WeakKeyDictionary[Features, _Scope]" = weakref.WeakKeyDictionary()


def _scope(features: Features, index: Index) -> _Scope:
    found = _scopes.get(features)
    if found is None:
        found = _scopes[features] = _Scope.of(features.bias, index, _passing(features.bias))
    return found


def _named(
    index: Index, probes: int, queries: Queries, k: int, free: Bool | None, seen: Csr | None, deny: Csr | None
) -> list[I64]:
    """What that many cells of the index have for each user, row -1 where they have less: enough that k may remain
    without what the user may not have."""
    faiss = _faiss()
    vectors = _with_bias(queries.vectors, np.ones(len(queries.vectors), np.float32), index.index.d)
    spare = sum((np.diff(x.indptr) for x in (seen, deny) if x is not None), np.zeros(len(vectors), np.int64))
    selector = None if free is None else faiss.IDSelectorBitmap(np.packbits(free, bitorder="little"))
    found: list[I64] = [np.empty(0, np.int64)] * len(vectors)
    some = np.flatnonzero(spare <= _SPARE)
    if len(some):
        wide = 2 * k + _NEAR_TIES + int(spare[some].max())
        for u, row in zip(some, index.named(vectors[some], wide, probes, selector), strict=True):
            found[u] = row
    for u in np.flatnonzero(spare > _SPARE):
        mine = np.ones(len(index.bias), np.bool_) if free is None else free.copy()
        for x in (seen, deny):
            if x is not None:
                mine[x.indices[x.indptr[u] : x.indptr[u + 1]]] = False
        selector = faiss.IDSelectorBitmap(np.packbits(mine, bitorder="little"))
        found[u] = index.named(vectors[u : u + 1], 2 * k + _NEAR_TIES, probes, selector)[0]
    return found


def _union(named: list[I64], scope: _Scope, features: Features, queries: Queries) -> Csr:
    """All candidates of each user, ascending."""
    assert scope.always is not None
    parts = []
    for u, rows in enumerate(named):
        mine = [rows[rows >= 0], scope.always]
        if queries.history is not None and features.similarity is not None:
            past = queries.history.indices[queries.history.indptr[u] : queries.history.indptr[u + 1]]
            mine.append(features.similarity.take(past).indices.astype(np.int64))
        parts.append(np.unique(np.concatenate(mine)).astype(np.int32))
    indptr = np.concatenate([[0], np.cumsum([len(p) for p in parts])]).astype(np.int64)
    return Csr(indptr, np.concatenate([np.empty(0, np.int32), *parts]), features.n_items)

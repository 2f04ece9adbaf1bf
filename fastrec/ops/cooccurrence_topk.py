"""cooccurrence_topk: for every item those that are most often chosen with it, or soon after it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastrec import _native, config
from fastrec.errors import ConfigError, DataError
from fastrec.ops import _arrays
from fastrec.ops._op import Backend, Op
from fastrec.ops._sparse import Matrix, addresses, as_matrix
from fastrec.types import F32, I32, I64, Csr

#: Cells of the results that are written before they are put together: 64 MB.
_CELLS = 1 << 23


@dataclass(frozen=True, eq=False)
class Problem:
    """What every backend takes: entries [U, N], norms [N], steps [G] or None."""

    entries: Matrix
    k: int
    norms: F32
    shrinkage: np.float32
    steps: F32 | None


def cooccurrence_topk(
    entries: Any,
    k: int,
    *,
    norms: Any,
    shrinkage: float = 0.0,
    steps: Any = None,
    backend: str = "auto",
    threads: int | None = None,
) -> Csr:
    """The k items most like each item by the users who chose both, [N, N], columns ascending.

        together(i, j) = sum over the users, and over their entries p of item i and q of item j, of
                         values[p] * values[q]                       steps None: item-item collaborative filtering
                         values[p] * steps[g - 1] * values[q]        where q stands g places after p: what comes next
        likeness(i, j) = together(i, j) / (norms[i] * norms[j] + shrinkage)

    entries: [U, N], a types.Csr or a scipy CSR with values that are not negative, a user's in the order of time
    norms: float32 [N], not negative; the lengths of the columns and no shrinkage give the cosine
    steps: float32 [G], what 1 to G places later weighs, not negative

    Only positive likenesses are kept, finite ones, and none of an item with itself; at equal ones the smaller column.
    Sums are in float32, in the order of the users and of their entries, so that no bit depends on the threads. Costs
    the sum over the users of their entries squared (with steps: of G times their entries), and memory for N sums a
    thread. Sarwar et al. 2001 is the cosine. Raises ConfigError for k below 1 and a shrinkage that is none, DataError
    for wrong shapes and dtypes, rows out of range, NaN, inf and negative numbers.
    """
    where = "cooccurrence_topk"
    run = OP.choose(backend)
    n_threads = config.threads(threads)
    k = config.check_k(where, k)
    number = isinstance(shrinkage, (int, float, np.integer, np.floating)) and not isinstance(shrinkage, bool)
    if not number or not 0 <= shrinkage <= float(np.finfo(np.float32).max):
        raise ConfigError(f"[{where}] shrinkage={shrinkage!r}, expected a number of at least 0 that float32 can hold")
    shape: tuple[int, ...] = (
        (entries.n_rows, entries.n_cols) if isinstance(entries, Csr) else getattr(entries, "shape", ())
    )
    if len(shape) != 2:
        raise DataError(f"[{where}] entries is {type(entries).__name__}, expected a Csr or a scipy CSR with values")
    n = int(shape[1])
    matrix = as_matrix(where, "entries", entries, None, n, backend, ordered=False)
    matrix = replace(matrix, values=_not_negative(where, "entries", matrix.values))
    lengths = _not_negative(where, "norms", _arrays.as_float_vector(where, "norms", norms, n, backend))
    if steps is not None:
        array = _arrays.to_numpy(where, "steps", steps, backend)
        steps = _not_negative(where, "steps", _arrays.as_float_vector(where, "steps", array, array.size, backend))
        if not len(steps):
            raise DataError(f"[{where}] steps is empty, expected weights of at least one place, or None")
        steps = steps[: max(int(np.diff(matrix.indptr).max(initial=0)) - 1, 1)]  # no entry stands further after another
    out: Csr = run(Problem(matrix, min(k, max(n, 1)), lengths, np.float32(shrinkage), steps), n_threads)
    return out


def _not_negative(where: str, name: str, values: F32) -> F32:
    """The values, without zeros that have a sign; DataError for one that is negative, NaN or inf."""
    if not len(values) or (values.view(np.int32).min() >= 0 and np.isfinite(values.max())):
        return values
    bad = ~((values >= 0) & np.isfinite(values))
    if bad.any():
        at = int(bad.argmax())
        raise DataError(
            f"[{where}] {name} holds {values[at]} at {at}, expected finite numbers of at least 0", column=name, row=at
        )
    return np.abs(values)


def cooccurrence_topk_reference(problem: Problem, threads: int = 1) -> Csr:
    """The definition, one item after the other."""
    e, n = problem.entries, problem.entries.n_cols
    owners = np.repeat(np.arange(len(e.indptr) - 1), np.diff(e.indptr))
    columns, values, counts = [np.empty(0, np.int32)], [np.empty(0, np.float32)], []
    for i in range(n):
        together = np.zeros(n, np.float32)
        for p in np.flatnonzero(e.rows == i):
            first, last = e.indptr[owners[p]], e.indptr[owners[p] + 1]
            left = e.values[p]
            if problem.steps is not None:
                first, last = p + 1, min(last, p + 1 + len(problem.steps))
                with np.errstate(over="ignore"):
                    left = left * problem.steps[: last - first]
            with np.errstate(over="ignore", invalid="ignore"):
                np.add.at(together, e.rows[first:last], left * e.values[first:last])
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            likeness = together / (problem.norms[i] * problem.norms + problem.shrinkage)
        likeness[i] = 0
        likeness[~((likeness > 0) & (likeness < np.inf))] = 0
        best = np.lexsort((np.arange(n), -likeness))[: problem.k]
        best = np.sort(best[likeness[best] > 0])
        columns.append(best.astype(np.int32))
        values.append(likeness[best])
        counts.append(len(best))
    return _matrix(columns, values, np.array(counts, np.int64), n)


def _matrix(columns: list[I32], values: list[F32], counts: I64, n: int) -> Csr:
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Csr(indptr, np.concatenate(columns), n, np.concatenate(values))


def _by_column(problem: Problem) -> tuple[I64, I32, I32]:
    """(begins [N + 1], the users and the places within them [nnz]) of the entries of every item."""
    e, n = problem.entries, problem.entries.n_cols
    if len(e.indptr) - 1 > 2**31:
        raise DataError("[cooccurrence_topk] entries has more than 2^31 users, expected fewer")
    if len(e.rows) and int(np.diff(e.indptr).max()) >= 2**31:
        raise DataError("[cooccurrence_topk] a user has 2^31 entries or more, expected fewer")
    begins, owners, places = np.empty(n + 1, np.int64), np.empty(len(e.rows), np.int32), np.empty(len(e.rows), np.int32)
    if _native.missing_cpu() is None:
        _native.module("cooccurrence_topk").entries_by_column(
            entries=addresses(e),
            n_rows=len(e.indptr) - 1,
            n_cols=n,
            begins=_native.ptr(begins, np.int64),
            owners=_native.ptr(owners, np.int32),
            places=_native.ptr(places, np.int32),
        )
        return begins, owners, places
    order = np.argsort(e.rows, kind="stable")
    begins[0] = 0
    np.cumsum(np.bincount(e.rows, minlength=n), out=begins[1:])
    lengths = np.diff(e.indptr)
    owners[:] = np.repeat(np.arange(len(lengths)), lengths)[order]
    places[:] = (np.arange(len(e.rows)) - np.repeat(e.indptr[:-1], lengths))[order]
    return begins, owners, places


def _in_blocks(problem: Problem, fill: Callable[[int, int, I32, F32, I32], None]) -> Csr:
    """The matrix out of ``fill(first, last, columns [R, k], values [R, k], counts [R])`` of blocks of items."""
    n, k = problem.entries.n_cols, problem.k
    size = max(1, min(n, _CELLS // k))
    cells: I32 = _arrays.empty((size, k), np.int32)
    scores: F32 = _arrays.empty((size, k), np.float32)
    counts: I32 = _arrays.empty(n, np.int32)
    columns, values = [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    for first in range(0, n, size):
        last = min(n, first + size)
        fill(first, last, cells, scores, counts[first:last])
        there = np.arange(k) < counts[first:last, None]
        columns.append(cells[: last - first][there])
        values.append(scores[: last - first][there])
    return _matrix(columns, values, counts.astype(np.int64), n)


def _numba_kernel(
    indptr: I64,
    rows: I32,
    entries: F32,
    begins: I64,
    owners: I32,
    places: I32,
    k: int,
    norms: F32,
    shrinkage: np.float32,
    steps: F32,
    first: int,
    last: int,
    columns: I32,
    values: F32,
    counts: I32,
) -> None:
    n = len(norms)
    together = np.zeros(n, np.float32)
    met = np.zeros(n, np.uint8)
    touched = np.empty(n, np.int32)
    for i in range(first, last):
        count = 0
        for e in range(begins[i], begins[i + 1]):
            start, end = indptr[owners[e]], indptr[owners[e] + 1]
            place = start + places[e]
            if len(steps):
                start, end = place + 1, min(end, place + 1 + len(steps))
            for q in range(start, end):
                left = entries[place] * steps[q - start] if len(steps) else entries[place]
                column = rows[q]
                if met[column] == 0:
                    met[column] = 1
                    touched[count] = column
                    count += 1
                together[column] += left * entries[q]
        likeness = np.zeros(count, np.float32)
        for m in range(count):
            column = touched[m]
            bottom = norms[i] * norms[column] + shrinkage
            score = together[column] / bottom if bottom > 0 else np.float32(0)
            if column != i and score > 0 and score < np.inf:
                likeness[m] = score
            together[column] = 0
            met[column] = 0
        kept = np.sort(touched[:count][likeness > 0])  # by column, so that a stable sort leaves the smaller first
        for m in range(count):
            together[touched[m]] = likeness[m]
        scores = together[kept]
        for m in range(count):
            together[touched[m]] = 0
        best = np.sort(np.argsort(-scores, kind="mergesort")[:k])
        counts[i - first] = len(best)
        for m in range(len(best)):
            columns[i - first, m] = kept[best[m]]
            values[i - first, m] = scores[best[m]]


def _numba(problem: Problem, threads: int) -> Csr:
    e = problem.entries
    run = _arrays.jit(_numba_kernel)
    by_column = _by_column(problem)
    steps = np.empty(0, np.float32) if problem.steps is None else problem.steps

    def fill(first: int, last: int, columns: I32, values: F32, counts: I32) -> None:
        def block(begin: int, end: int) -> None:
            out = columns[begin:end], values[begin:end], counts[begin:end]
            settings = problem.k, problem.norms, problem.shrinkage, steps
            run(e.indptr, e.rows, e.values, *by_column, *settings, first + begin, first + end, *out)

        _arrays.over_blocks(last - first, 256, threads, block)

    return _in_blocks(problem, fill)


def _cpu(problem: Problem, threads: int) -> Csr:
    begins, owners, places = _by_column(problem)
    run = _native.module("cooccurrence_topk").cooccurrence_topk

    def fill(first: int, last: int, columns: I32, values: F32, counts: I32) -> None:
        run(
            entries=addresses(problem.entries),
            n_rows=len(problem.entries.indptr) - 1,
            n_cols=problem.entries.n_cols,
            begins=_native.ptr(begins, np.int64),
            owners=_native.ptr(owners, np.int32),
            places=_native.ptr(places, np.int32),
            steps=_native.ptr(problem.steps, np.float32),
            n_steps=0 if problem.steps is None else len(problem.steps),
            k=problem.k,
            norms=_native.ptr(problem.norms, np.float32),
            shrinkage=float(problem.shrinkage),
            first=first,
            last=last,
            threads=threads,
            columns=_native.ptr(columns, np.int32),
            values=_native.ptr(values, np.float32),
            counts=_native.ptr(counts, np.int32),
        )

    return _in_blocks(problem, fill)


OP = Op(
    "cooccurrence_topk",
    reference=cooccurrence_topk_reference,
    backends={
        "cpu": Backend(_cpu, "cpu", _native.missing_cpu),
        "numba": Backend(_numba, "cpu", _arrays.missing_numba),
    },
    cases=[
        {"U": 0, "N": 3, "most": 2, "k": 2, "steps": 0},
        {"U": 40, "N": 17, "most": 9, "k": 3, "steps": 0},
        {"U": 40, "N": 17, "most": 9, "k": 3, "steps": 4},
        {"U": 300, "N": 400, "most": 12, "k": 20, "steps": 0},
        {"U": 300, "N": 400, "most": 12, "k": 500, "steps": 3},
    ],
)

__all__ = ["cooccurrence_topk"]

"""One engine of benchmarks/topk.py in a process of its own: reads commands as JSON lines, answers with JSON lines.

    {"do": "prepare", "file": FILE, ...case}   -> {"ready": true}
    {"do": "answer"}                           -> {"rows": [[...]]}
    {"do": "time", "seconds": 0.1}             -> {"seconds": per call}
    {"do": "probe", "size": N} (fastrec only)   -> {"flops", "bytes"}
    {"do": "share", "size": N, "bytes": M, "seconds": 0.1} (fastrec only) -> {"share"}

Spinning thread pools of MKL, OpenMP and OpenBLAS slow each other down several times, so that no two engines may
share a process.
"""

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

ENGINE = sys.argv[1]
if ENGINE == "numpy":  # a core type that is not the machine's own slows OpenBLAS down
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        os.environ.pop(name, None)

import numpy as np  # noqa: E402

Call = Callable[[], Any]


def chunks(case: dict[str, Any]) -> list[slice]:
    """Users in parts whose score matrix has at most 2^26 cells."""
    size = max(1, (1 << 26) // case["N"])
    return [slice(i, min(case["B"], i + size)) for i in range(0, case["B"], size)]


def pairs(indptr: Any, rows: Any, part: slice) -> tuple[Any, Any]:
    """(users from 0, rows) of the seen items of some users."""
    n = part.stop - part.start
    users = np.repeat(np.arange(n), np.diff(indptr[part.start : part.stop + 1]))
    return users, rows[indptr[part.start] : indptr[part.stop]]


def torch_engine(case: dict[str, Any], data: Any) -> Call:
    import torch

    q, items = torch.from_numpy(data["queries"]), torch.from_numpy(data["items"])
    parts = [(part, *map(torch.from_numpy, pairs(data["indptr"], data["rows"].astype(np.int64), part)))
             for part in chunks(case)]  # fmt: skip

    def call() -> Any:
        found = []
        for part, users, rows in parts:
            scores = q[part] @ items.T
            scores[users, rows] = -torch.inf
            found.append(scores.topk(case["k"], dim=1).indices)
        return torch.cat(found).numpy()

    return call


def numpy_engine(case: dict[str, Any], data: Any) -> Call:
    q, items, k = data["queries"], data["items"], case["k"]
    parts = [(part, *pairs(data["indptr"], data["rows"], part)) for part in chunks(case)]

    def call() -> Any:
        found = []
        for part, users, rows in parts:
            scores = q[part] @ items.T
            scores[users, rows] = -np.inf
            best = np.argpartition(scores, -k, axis=1)[:, -k:]
            order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1)
            found.append(np.take_along_axis(best, order, 1))
        return np.concatenate(found)

    return call


def implicit_engine(case: dict[str, Any], data: Any) -> Call:
    import scipy.sparse as sp
    from implicit.cpu.topk import topk

    seen = sp.csr_matrix(
        (np.ones(len(data["rows"]), np.float32), data["rows"], data["indptr"]), shape=(case["B"], case["N"])
    )
    return lambda: topk(data["items"], data["queries"], case["k"], filter_query_items=seen, num_threads=0)[0]


def faiss_engine(case: dict[str, Any], data: Any) -> Call:
    """Fetches as many more items as anyone has seen, and drops the seen ones."""
    import faiss

    index = faiss.IndexFlatIP(case["D"])
    index.add(data["items"])
    k, indptr, rows, n = case["k"], data["indptr"], data["rows"].astype(np.int64), case["N"]
    most = int(np.diff(indptr).max())
    keys = np.sort(np.repeat(np.arange(case["B"]), np.diff(indptr)) * n + rows)

    def call() -> Any:
        _, found = index.search(data["queries"], min(k + most, n))
        wanted = found + np.arange(len(found))[:, None] * n
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        free = keys[at] != wanted
        first = np.argsort(~free, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(found, first, 1)

    return call


def faiss_selector_engine(case: dict[str, Any], data: Any) -> Call:
    """One user: the seen items as a selector."""
    import faiss

    index = faiss.IndexFlatIP(case["D"])
    index.add(data["items"])
    params = []
    for u in range(case["B"]):
        seen = data["rows"][data["indptr"][u] : data["indptr"][u + 1]].astype(np.int64)
        batch = faiss.IDSelectorBatch(seen)
        params.append((faiss.SearchParameters(sel=faiss.IDSelectorNot(batch)), batch))

    def call() -> Any:
        return np.concatenate(
            [index.search(data["queries"][u : u + 1], case["k"], params=p)[1] for u, (p, _) in enumerate(params)]
        )

    return call


def fastrec_engine(case: dict[str, Any], data: Any) -> Call:
    from fastrec import ops

    if "sparse" in case:
        return sparse_call(case, data)
    items = ops.pack_items(data["items"], dtype=ENGINE.removeprefix("fastrec-"))
    seen = (data["indptr"], data["rows"])
    return lambda: ops.score_topk(data["queries"], items, case["k"], seen=seen)[1]


def csr(data: Any, name: str, n_cols: int) -> Any:
    from fastrec.types import Csr

    return Csr(data[f"{name}_indptr"], data[f"{name}_rows"], n_cols, data[f"{name}_values"])


def sparse_call(case: dict[str, Any], data: Any) -> Call:
    """The sparse term alone ("only"), with the dense one ("both"), or the dense one alone ("none")."""
    from fastrec import ops

    n = case["N"]
    sparse = (csr(data, "history", n), csr(data, "similarity", n)) if case["sparse"] != "none" else None
    dense = case["sparse"] != "only"
    items = ops.pack_items(data["items"] if dense else data["items"][:, :0])
    queries = data["queries"] if dense else data["queries"][:, :0]
    seen = (data["history_indptr"], data["history_rows"])
    return lambda: ops.score_topk(queries, items, case["k"], sparse=sparse, seen=seen)[1]


def implicit_sparse_engine(case: dict[str, Any], data: Any) -> Call:
    """implicit's item-item recommender over the same matrix."""
    import scipy.sparse as sp
    from implicit.nearest_neighbours import ItemItemRecommender

    n = case["N"]
    parts = [tuple(data[f"{x}_{p}"] for p in ("values", "rows", "indptr")) for x in ("history", "similarity")]
    users = sp.csr_matrix(parts[0], shape=(case["B"], n))
    model = ItemItemRecommender(K=10)
    model.similarity = sp.csr_matrix((parts[1][0].astype(np.float64), *parts[1][1:]), shape=(n, n))
    from implicit._nearest_neighbours import NearestNeighboursScorer

    model.scorer = NearestNeighboursScorer(model.similarity)
    ids = np.arange(case["B"])
    return lambda: model.recommend(ids, users, N=case["k"], filter_already_liked_items=True)[0]


ENGINES = {
    "torch": torch_engine,
    "numpy": numpy_engine,
    "implicit": implicit_engine,
    "implicit-sparse": implicit_sparse_engine,
    "faiss": faiss_engine,
    "faiss-selector": faiss_selector_engine,
    "fastrec-float32": fastrec_engine,
    "fastrec-int8": fastrec_engine,
}


class Probe:
    """The limits of the machine by fastrec's own loops: the best of some passes."""

    def __init__(self) -> None:
        self.values: Any = None

    def once(self, size: int, rounds: int = 1) -> tuple[float, float]:
        """(flops, bytes read) a second of one pass over ``size`` floats."""
        from fastrec import _native, config
        from fastrec.ops.pack_items import aligned

        if self.values is None or len(self.values) != size:
            self.values = aligned((size,))
            self.values[:] = 1.0
        found: tuple[float, float] = _native.module("probe").probe(
            values=_native.ptr(self.values, np.float32),
            n=size,
            rounds=rounds,
            threads=config.threads(None),
            simd="",
        )
        return found

    def share(self, call: Call, size: int, work: int, seconds: float) -> float:
        """Of the read bandwidth, by calls that read ``work`` bytes: a few calls and a pass of the probe take turns,
        since neighbours change the bandwidth within milliseconds, and the medians of both are compared. The first call
        after a pass, which has pushed Python itself out of the cache, does not count: calls follow one another."""
        calls, reads = [], []
        end = time.perf_counter() + seconds
        while not calls or time.perf_counter() < end:
            call()
            for _ in range(3):
                start = time.perf_counter()
                call()
                calls.append(work / (time.perf_counter() - start))
            reads.append(self.once(size)[1])
        return float(np.median(calls) / np.median(reads))

    def __call__(self, size: int) -> dict[str, float]:
        """size: floats to read, as many as the catalogue has: a small one stays in the cache."""
        limits = {"flops": 0.0, "bytes": 0.0}
        end = time.perf_counter() + 0.02
        # The first pass over what fits into the cache only brings it there.
        for turn in itertools.count():
            flops, read = self.once(size, 1_000_000 if turn < 2 else 1)
            if turn:
                limits = {"flops": max(limits["flops"], flops), "bytes": max(limits["bytes"], read)}
                if time.perf_counter() > end:
                    return limits


def main() -> None:
    call: Call = lambda: None  # noqa: E731
    probe = Probe()
    sys.stdout = sys.stderr  # what libraries print is not an answer
    for line in sys.stdin:
        command = json.loads(line)
        do = command.pop("do")
        answer: dict[str, Any] = {}
        if do == "prepare":
            with np.load(command["file"]) as archive:
                data = {name: archive[name] for name in archive.files}
            call = lambda: None  # noqa: E731  (frees the case before)
            call = ENGINES[ENGINE](command, data)
            call()
            answer = {"ready": True}
        elif do == "answer":
            answer = {"rows": np.asarray(call()).tolist()}
        elif do == "time":
            start, n = time.perf_counter(), 0
            while n == 0 or time.perf_counter() - start < command["seconds"]:
                call()
                n += 1
            answer = {"seconds": (time.perf_counter() - start) / n}
        elif do == "probe":
            answer = probe(command["size"])
        elif do == "share":
            answer = {"share": probe.share(call, command["size"], command["bytes"], command["seconds"])}
        print(json.dumps(answer), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    main()

"""The native calls of tests/mix.py, with the native module built for a thread sanitizer.

    scripts/mix-threads [SECONDS]

Threads put events into histories, add and remove items, and search all the while, as ``fastrec.live`` does it. polars
does not start under the sanitizer, so the package is entered by its inner modules, and nothing is read or saved.
"""

import dataclasses
import importlib.util
import sys
import threading
import time
import types
from importlib.machinery import ExtensionFileLoader
from pathlib import Path

import numpy as np

PACKAGE = Path(__file__).resolve().parents[1] / "fastrec"


def enter(module):
    """``fastrec`` without its front door, and with this native module."""
    package = types.ModuleType("fastrec")
    package.__path__ = [str(PACKAGE)]
    sys.modules["fastrec"] = package
    spec = importlib.util.spec_from_file_location(
        "fastrec._C", module, loader=ExtensionFileLoader("fastrec._C", module)
    )
    native = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(native)
    sys.modules["fastrec._C"] = native


def main(module, seconds):
    enter(module)
    from fastrec import cold, fresh, fuse
    from fastrec.histories import Histories
    from fastrec.types import BiasSource, Csr, DenseSource, Embeddings, Interactions, SparseSource

    rng = np.random.default_rng(0)
    users, n, d = 300, 3000, 24
    unit = rng.standard_normal((n, d), np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    embeddings = Embeddings(unit, np.ones(n, np.bool_))
    columns = np.sort(np.stack([rng.permutation(n)[:20] for _ in range(n)]), axis=1).astype(np.int32)
    similarity = Csr(np.arange(n + 1, dtype=np.int64) * 20, columns.ravel(), n, rng.random(n * 20, np.float32))
    sources = (
        BiasSource("popularity", rng.random(n, np.float32)),
        DenseSource("content", unit, 2.0),
        DenseSource("factors", rng.standard_normal((n, 16), np.float32), 3.0),
        SparseSource("item_item", similarity, 3.0),
    )
    items = np.concatenate([rng.permutation(n)[:12] for _ in range(users)]).astype(np.int32)
    base = Interactions(
        np.arange(users + 1, dtype=np.int64) * 12, items, np.arange(len(items), dtype=float),
        np.ones(len(items), np.float32), n,
    )  # fmt: skip
    live = {"state": (Histories.of(base), fuse.fuse(sources, {s.name: 1.0 for s in sources}, n))}
    lock, stop, calls, wrong = threading.Lock(), threading.Event(), [0, 0, 0], []

    def update(rng):
        with lock:
            histories, features = live["state"]
            u, item = int(rng.integers(users)), int(rng.integers(histories.n_items))
            moved, _ = histories.user(u).moved(item, 1e6 + calls[0], 1.0)
            live["state"] = histories.put({u: moved}, users), features
        calls[0] += 1

    def add(rng):
        with lock:
            histories, features = live["state"]
            some = rng.standard_normal((5, d), np.float32)
            some /= np.linalg.norm(some, axis=1, keepdims=True)
            new = fresh.fresh_items(
                Embeddings(some, np.ones(5, np.bool_)), [""] * 5, embeddings, sources, np.arange(500)
            )
            features = cold.attach(features, fresh.joined(features.fresh, new))
            gone = features.bias.copy()
            gone[rng.integers(n)] = -np.inf
            live["state"] = histories.widened(histories.n_items + 5), dataclasses.replace(features, bias=gone)
        calls[1] += 1
        time.sleep(0.05)

    def read(rng):
        histories, features = live["state"]
        taken, seen = histories.take(rng.integers(0, users, int(rng.integers(1, 40))))
        asked = cold.queries(features, taken)
        found = cold.search(features, asked, 10, seen=seen)
        for u, rows in enumerate(found.rows):
            had = seen.indices[seen.indptr[u] : seen.indptr[u + 1]]
            if np.isin(rows, had).any() or not np.isfinite(features.bias[rows]).all():
                wrong.append(rows)
        cold.scores(features, asked, np.arange(0, features.n_items, 97))
        calls[2] += 1

    def forever(work, seed):
        rng = np.random.default_rng(seed)
        try:
            while not stop.is_set() and not wrong:
                work(rng)
        except BaseException as error:
            wrong.append(repr(error))
            raise

    threads = [threading.Thread(target=forever, args=(w, i)) for i, w in enumerate([update, add, *[read] * 6])]
    for thread in threads:
        thread.start()
    stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    print(f"updates {calls[0]}, additions {calls[1]}, searches {calls[2]}: {wrong[:1] or 'nothing went wrong'}")
    return bool(wrong) or not all(calls)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 10.0))

"""Random cases of score_topk, at every level and over every screen, against the numba backend and the reference.

scripts/fuzz-topk runs it. Ties, denied and seen items, allow lists, biases, sparse terms, all sizes from 0 on, and
values of several kinds: normal, small integers, of all magnitudes, near ties, denormal.
"""

import argparse
import importlib.util
import os
import sys
import time

import numpy as np


def load(path):
    """A native module other than the installed one takes its place."""
    spec = importlib.util.spec_from_file_location("fastrec._C", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["fastrec._C"] = module
    spec.loader.exec_module(module)


def vectors(rng, n, d, kind):
    x = rng.standard_normal((n, d))
    if kind == "integers":
        x = np.rint(x)
    elif kind == "magnitudes":
        x *= 10.0 ** rng.uniform(-20, 8, (n, 1))
    elif kind == "near ties" and n:
        x = x[:1] + x * 1e-7
    elif kind == "denormal":
        x *= 1e-39
    elif kind == "sparse":
        x *= rng.random((n, d)) < 0.2
    elif kind == "clusters" and n:
        size = max(n // int(rng.integers(5, 40)), 1)
        x = np.repeat(x[: -(-n // size)], size, axis=0)[:n] + x * 10.0 ** -rng.uniform(0.3, 3)
        x = x[rng.permutation(n)]
    return x.astype(np.float32)


def case(rng):
    """(queries, items, k, keywords)"""
    from fastrec.ops._cases import lists, matrix

    b = int(rng.choice([0, 1, 2, 3, 9, 20, 40], p=[0.02, 0.3, 0.13, 0.15, 0.2, 0.12, 0.08]))
    # The largest are walked by threads that take one part after the other.
    sizes = [0, 1, 15, 16, 17, rng.integers(1, 100), rng.integers(1, 900), rng.integers(3000, 12000)]
    n = int(rng.choice(sizes, p=[0.02] * 5 + [0.3, 0.55, 0.05]))
    d = int(rng.choice([0, 1, 3, 4, 8, rng.integers(1, 24), rng.integers(1, 130)], p=[0.03] * 5 + [0.45, 0.4]))
    kinds = ["normal", "integers", "magnitudes", "near ties", "denormal", "sparse", "clusters"]
    kind = rng.choice(kinds, p=[0.2, 0.2, 0.1, 0.1, 0.05, 0.1, 0.25])
    query_kind = kind if kind in ("integers", "normal") else rng.choice(["normal", "magnitudes"])
    bias = vectors(rng, n, 1, rng.choice(["normal", "integers", "magnitudes"]))[:, 0]
    bias[rng.random(n) < 0.2] = -np.inf
    every = {
        "bias": bias,
        "sparse": (matrix(rng, b, 9, 9), matrix(rng, 9, n, 60)),
        "seen": lists(rng, b, n, 100),
        "allow": lists(rng, b, n, int(rng.choice([3, n]))),
        "deny": rng.random(n) < 0.3 if rng.random() < 0.5 else lists(rng, b, n, 40),
    }
    kwargs = {name: value for name, value in every.items() if rng.random() < 0.4}
    k = int(rng.choice([1, 2, 10, 100, n + 3]))
    queries, items = vectors(rng, b, d, query_kind), vectors(rng, n, d, kind)
    if kind == "clusters" and n and b:
        queries += items[rng.integers(0, n, b)]
        queries[rng.random(b) < 0.1] = 0
        if n > 64:
            k = min(k, n // 64)  # as few as cells are for
            kwargs.pop("sparse", None)
            kwargs.pop("allow", None)
    return queries, items, k, kwargs


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--module", help="a native module to test in place of the installed one")
    parser.add_argument("--level", help="the only level to test")
    args = parser.parse_args()
    if args.module:
        load(args.module)
    from fastrec import _native, ops
    from fastrec.retrieve import cells

    levels = _native.module("fuzz").simd_levels()
    if args.level:
        if args.level not in levels:
            print(f"this machine has no level {args.level}, only {', '.join(levels)}")
            return 2
        levels = [args.level]
    start = time.time()
    for number in range(args.cases):
        rng = np.random.default_rng([args.seed, number])
        q, v, k, kwargs = case(rng)
        other = "reference" if number % 50 == 0 else "numba"
        want = ops.score_topk(q, v, k, backend=other, **kwargs)
        packed = [ops.pack_items(v, dtype=dtype) for dtype in ("bfloat16", "int8")]
        size = int(rng.choice([2, 7, 20, 60]))
        packed += [cells.arrange(items, size=size) for items in packed if len(v) > 64]
        for level in ["", *levels]:  # with none forced plain arguments take the short way
            os.environ["FASTREC_SIMD"] = level
            backend = "cpu" if level else "auto"
            for items in packed:
                got = ops.score_topk(q, items, k, threads=int(rng.integers(1, 4)), backend=backend, **kwargs)
                if not all(np.array_equal(a, b) for a, b in zip(got, want, strict=True)):
                    dtype = items.screen.dtype
                    print(f"case {number} of seed {args.seed} differs from {other} at {level or backend} over {dtype}")
                    return 1
    print(f"{args.cases} cases at {', '.join(levels)} over bfloat16 and int8: {time.time() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())

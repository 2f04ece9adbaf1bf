"""Random linear layers and encoders at level amx, against float64 and against levels without tiles.

scripts/fuzz-topk --amx-model runs it. Sizes that fill tiles, panels and blocks of rows and those that do not, and
values of several kinds: normal, of all magnitudes, sparse, denormal.
"""

import argparse
import os
import sys
import time

import numpy as np
from fuzz_topk import load, vectors

U, TINY = 2.0**-24, 2.0**-126
#: How far the vectors of an encoder may be from those in float32, whose values are about 1: three times what is seen.
NEAR = {"bf16x3": 1e-4, "bf16": 0.04}


def run(level, operator, *args, **kwargs):
    os.environ["FASTREC_SIMD"] = level
    return operator(*args, **kwargs)


def size(rng, most):
    return int(rng.choice([1, 15, 16, 17, 31, 32, 33, 64, 65, rng.integers(1, most)]))


def linear(rng):
    """What is off, or ""."""
    from fastrec import ops
    from fastrec.ops.packed_linear import round_bf16

    T, K, N = size(rng, 300), size(rng, 600), size(rng, 200)
    kind = rng.choice(["normal", "magnitudes", "sparse", "denormal"], p=[0.4, 0.3, 0.2, 0.1])
    x, weight, bias = vectors(rng, T, K, kind), vectors(rng, N, K, "normal"), vectors(rng, 1, N, "normal")[0]
    threads = int(rng.integers(1, 4))
    packed = run("amx", ops.pack_linear, weight, bias, precision="int8")
    got, want = (run(level, ops.packed_linear, x, packed, threads=threads) for level in ("amx", "avx512_vnni"))
    if not np.array_equal(got, want):
        return f"int8 of {T} x {K} x {N}, {kind}"
    for precision, lost in (("bf16", 2 * K + 8), ("bf16x3", 6 * K + 8 + 2**9)):
        packed = run("amx", ops.pack_linear, weight, bias, precision=precision)
        got = run("amx", ops.packed_linear, x, packed, threads=threads)
        left, right = x, weight
        if precision == "bf16":
            left, right = ((round_bf16(a).astype(np.uint32) << 16).view(np.float32) for a in (x, weight))
        left, right = left.astype(np.float64), right.T.astype(np.float64)
        # Roundings of float32 and, of three products for four, 2^-15 of each; what is below the smallest normal number.
        near = lost * U * (np.abs(left) @ np.abs(right) + np.abs(bias))
        near += TINY * (2 * np.abs(left).sum(1)[:, None] + 2 * np.abs(right).sum(0) + lost)
        if not (np.abs(got - (left @ right + bias)) <= near).all():
            return f"{precision} of {T} x {K} x {N}, {kind}"
    return ""


def encoder(rng):
    """The same of a whole model, for its attention."""
    from fastrec.encode.families import Dense, Layer, Norm, Weights
    from fastrec.encode.native import NativeEncoder
    from fastrec.types import PackedTokens

    d, inner = size(rng, 70), size(rng, 100)
    heads = max(int(rng.integers(1, 4)), -(-16 // d))  # a layer norm of a few values may be of any size
    D, V, P = heads * d, 40, 150

    def dense(n, k):
        return Dense(vectors(rng, n, k, "normal") / np.float32(np.sqrt(k)), vectors(rng, 1, n, "normal")[0])

    def norm():
        return Norm(*(vectors(rng, 2, D, "normal") / 8 + np.float32([[1], [0]])))

    layers = tuple(
        Layer(dense(3 * D, D), dense(D, D), norm(), dense(inner, D), dense(D, inner), norm())
        for _ in range(int(rng.integers(1, 3)))
    )
    relative = vectors(rng, heads, 2 * P - 1, "normal") if rng.random() < 0.5 else None
    words, positions = vectors(rng, V, D, "normal"), vectors(rng, P, D, "normal")
    weights = Weights(heads, 1e-5, "erf", words, positions, norm(), layers, relative)
    lengths = [size(rng, P) for _ in range(int(rng.integers(1, 5)))]
    cu = np.cumsum([0, *lengths], dtype=np.int32)
    tokens = PackedTokens(rng.integers(0, V, cu[-1]).astype(np.int32), cu)
    plain = NativeEncoder(weights, "fp32", str(rng.choice(["mean", "cls", "lasttoken"])), False)
    want = run("scalar", plain.forward, tokens)
    for precision, near in NEAR.items():
        got = run("amx", plain.again(precision).forward, tokens)
        if not np.abs(got - want).max() <= near:
            return f"{precision} of {heads} heads of {d}, texts of {lengths}"
    return ""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--module", help="a native module to test in place of the installed one")
    args = parser.parse_args()
    if args.module:
        load(args.module)
    start = time.time()
    for number in range(args.cases):
        for case in (linear, encoder):
            wrong = case(np.random.default_rng([args.seed, number]))
            if wrong:
                print(f"case {number} of seed {args.seed} is off: {wrong}")
                return 1
    print(f"{args.cases} linear layers and encoders at amx: {time.time() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())

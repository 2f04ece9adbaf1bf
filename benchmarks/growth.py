"""Growth of the exact search over items, dimensions, k and users: core-seconds and memory, and the exponents.

    python benchmarks/growth.py [--items 100000 200000 400000 800000] [--rounds 3] [--json FILE]

Random unit vectors and a Zipf-like bias; each point is a call of ``score_topk`` over packed items, timed in seconds of
CPU of the whole process (what a core gives, whoever shares the machine), the median over the rounds with the points of
an axis in turns. Memory is the growth of the resident set when the items are packed. The other axes stand at 200,000
items, 128 dimensions, k = 10 and 256 users. Exponents are those of least squares lines through the logarithms.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from fastrec import config, ops

BASE = {"items": 200_000, "dims": 128, "k": 10, "users": 256}


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def unit(rng: np.random.Generator, n: int, dims: int) -> Any:
    out = rng.standard_normal((n, dims), np.float32)
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    return out


class Point:
    """One size: the packed items and a call."""

    def __init__(self, **sizes: int) -> None:
        self.sizes = {**BASE, **sizes}
        rng = np.random.default_rng(0)
        items = unit(rng, self.sizes["items"], self.sizes["dims"])
        self.queries = unit(rng, self.sizes["users"], self.sizes["dims"])
        before = resident()
        self.packed = ops.pack_items(items)
        self.bytes = resident() - before
        self.bias = (0.05 * np.log1p(1e5 / rng.permutation(np.arange(1.0, len(items) + 1)))).astype(np.float32)
        self.seconds: list[float] = []

    def run(self) -> None:
        start = time.process_time()
        ops.score_topk(self.queries, self.packed, self.sizes["k"], bias=self.bias)
        self.seconds.append(time.process_time() - start)

    def row(self) -> dict[str, Any]:
        return {**self.sizes, "core_s": float(np.median(self.seconds)), "bytes": self.bytes}


def slope(rows: list[dict[str, Any]], axis: str, what: str) -> float:
    x, y = (np.log([r[name] for r in rows]) for name in (axis, what))
    return round(float(np.polyfit(x, y, 1)[0]), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[100_000, 200_000, 400_000, 800_000])
    parser.add_argument("--dims", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--k", type=int, nargs="+", default=[10, 30, 100, 300])
    parser.add_argument("--users", type=int, nargs="+", default=[64, 256, 1024, 4096])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {config.threads()} threads, load {os.getloadavg()[0]:.1f}",
        "axes": {},
    }
    for axis in BASE:
        points = [Point(**{axis: size}) for size in getattr(options, axis)]
        for _ in range(options.rounds + 1):  # the first warms up
            for point in points:
                point.run()
        for point in points:
            del point.seconds[0]
        rows = [point.row() for point in points]
        found = {"rows": rows, "exponent": slope(rows, axis, "core_s")}
        if axis in ("items", "dims"):
            found["memory_exponent"] = slope(rows, axis, "bytes")
        result["axes"][axis] = found
        print(axis, found["exponent"], [round(r["core_s"], 3) for r in rows], flush=True)
        del points
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

"""How long a cache of a million vectors takes to open, and to find a few of them.

    python benchmarks/cache.py [--vectors 1000000] [--dimension 384] [--folder FOLDER]

Writes the cache into the folder (a temporary one by default), then opens it in processes of their own, in which nothing
is loaded but the cache. Prints the median of five; exit 1 where opening takes 0.1 s (issue 5).
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

OPEN = """
import sys, time
from pathlib import Path
from fastrec.encode.cache import VectorCache, text_key
begun = time.perf_counter()
cache = VectorCache(Path(sys.argv[1]), "f", int(sys.argv[2]))
found = cache.get([text_key("text 5")])
opened = time.perf_counter() - begun
keys = [text_key(f"text {i}") for i in range(0, int(sys.argv[3]), int(sys.argv[3]) // 1000)]
begun = time.perf_counter()
assert len(found) == 1 and len(cache.get(keys)) == len(keys)
print(opened, time.perf_counter() - begun)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    from fastrec.encode.cache import VectorCache, text_key

    with tempfile.TemporaryDirectory() as fresh:
        folder = args.folder or Path(fresh)
        cache = VectorCache(folder, "f", args.dimension)
        rng, begun = np.random.default_rng(0), time.perf_counter()
        for first in range(0, args.vectors, 10_000):
            names = range(first, min(first + 10_000, args.vectors))
            vectors = rng.standard_normal((len(names), args.dimension), np.float32)
            cache.put([text_key(f"text {i}") for i in names], vectors)
        cache.close()
        size = sum(p.stat().st_size for p in folder.iterdir()) / 1e9
        print(f"{args.vectors} vectors, {size:.2f} GB, written in {time.perf_counter() - begun:.1f} s")
        command = [sys.executable, "-c", OPEN, str(folder), str(args.dimension), str(args.vectors)]
        runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() for _ in range(5)]
        opened, read = (statistics.median(float(run[i]) for run in runs) for i in (0, 1))
    print(f"opened, with one vector read, in {opened * 1e3:.1f} ms; 1,000 vectors read in {read * 1e3:.1f} ms")
    return 1 if opened >= 0.1 else 0


if __name__ == "__main__":
    sys.exit(main())

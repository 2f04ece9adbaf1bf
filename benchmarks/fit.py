"""Growth of fitting over the events: time and peak memory of each size in a process of its own, and the exponents.

    python benchmarks/fit.py [--events 1000000 3000000 10000000] [--work FOLDER] [--json FILE]
    python benchmarks/fit.py --events 100000000 --add FILE      one more size into an earlier result

Generated events (``benchmarks/generate.py``) lie in parquet parts in the work folder, and are fitted from there with
``models="fast"`` and no encoder. The exponent is that of the least squares line through the logarithms. The last line
says which target was missed: time no worse than events^1.1, and 16 GB for a hundred million events; exit 1 then.
"""

import argparse
import json
import logging
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
import generate

EXPONENT, MEMORY_GB = 1.1, 16.0


class Stages(logging.Handler):
    """Seconds of each stage out of the log of ``fit``, and the peak of the memory by then."""

    def __init__(self) -> None:
        super().__init__()
        self.start = time.perf_counter()
        self.rows: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        row = {"at_s": round(time.perf_counter() - self.start, 2), "peak_gb": peak(), "what": record.getMessage()}
        self.rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)


def peak() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)


def one(folder: str, models: str) -> dict[str, Any]:
    """A fit in this process."""
    from fastrec import Recommender

    stages = Stages()
    logging.getLogger("fastrec").addHandler(stages)
    logging.getLogger("fastrec").setLevel(logging.INFO)
    before = peak()
    cpu = time.process_time()
    rec = Recommender(encoder=None, models=models if models == "fast" else models.split(","))
    rec.fit(folder)
    took = time.perf_counter() - stages.start
    report = rec.report
    return {
        "events": report.rows_read,
        "entries": report.events,
        "users": report.users,
        "items": report.items,
        "seconds": took,
        "cpu_seconds": time.process_time() - cpu,
        "import_gb": before,
        "peak_gb": peak(),
        "stages": stages.rows,
    }


def exponent(rows: list[dict[str, Any]], what: str, over: str = "events") -> float | None:
    """Slope of log(what) over log(events); None for a single size."""
    if len(rows) < 2:
        return None
    slope = np.polyfit(np.log([r[over] for r in rows]), np.log([r[what] for r in rows]), 1)[0]
    return round(float(slope), 3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000, 3_000_000, 10_000_000])
    parser.add_argument("--models", default="fast")
    parser.add_argument("--work", help="where the events lie, and stay; default: a folder that is deleted")
    parser.add_argument("--one", help="fit this folder and print the result: what the processes of each size do")
    parser.add_argument("--add", help="an earlier result of this benchmark that is read, extended and written")
    parser.add_argument("--json")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.models)))
        return 0
    rows = json.loads(Path(options.add).read_text())["rows"] if options.add else []
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(options.work or temporary)
        for events in options.events:
            folder = work / f"e{events}"
            if not folder.exists():
                generate.generate(folder, events)
            command = [sys.executable, __file__, "--one", str(folder), "--models", options.models]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                print(f"{events} events: ended with {done.returncode}")
                return 1
            row = json.loads(done.stdout.splitlines()[-1])
            rows = sorted([r for r in rows if r["events"] != row["events"]] + [row], key=lambda r: r["events"])
            print(f"{row['events']:>12,} events: {row['seconds']:.1f} s, {row['peak_gb']:.2f} GB", flush=True)
    result = {"rows": rows, "exponents": {w: exponent(rows, w) for w in ("seconds", "cpu_seconds", "peak_gb")}}
    for path in {options.add, options.json} - {None}:
        Path(path).write_text(json.dumps(result, indent=1))
    print(json.dumps(result["exponents"]))
    e = result["exponents"]["seconds"]
    checks = {f"time no worse than events^{EXPONENT}": e is None or e <= EXPONENT}
    if any(r["events"] >= 9e7 for r in rows):
        checks[f"under {MEMORY_GB} GB"] = max(r["peak_gb"] for r in rows) < MEMORY_GB
    missed = [re.sub(r"\s+", " ", name) for name, holds in checks.items() if not holds]
    print("missed:", "; ".join(missed) or "nothing")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""docs/scale.md out of measurements: the growth curves, and what sizes beyond them would take.

    python benchmarks/growth.py --json growth.json
    python benchmarks/fit.py --json fit.json
    python benchmarks/recommend_all.py --json all.json
    python benchmarks/capacity.py growth.json fit.json all.json --note "a quiet machine" > docs/scale.md

Nothing in the page is written by hand but the sentences: every number is measured, or computed here from those.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

#: What a machine is in the tables, and how long the work for all users may take.
CORES, MEMORY_GB, HOURS = 64, 512, 8
#: Share of the memory that a shard may fill, and events of a user.
FILL, EVENTS = 0.6, 40


def law(rows: list[dict[str, Any]], x: str, y: str) -> tuple[float, float]:
    """(factor, exponent) of the line through the logarithms."""
    slope, level = np.polyfit(np.log([r[x] for r in rows]), np.log([r[y] for r in rows]), 1)
    return math.exp(level), float(slope)


def si(value: float, unit: str = "") -> str:
    """Three digits and a prefix."""
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}".strip()
    return f"{value:.3g} {unit}".strip()


def count(value: float) -> str:
    return f"{value:,.0f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def curves(growth: dict[str, Any], fit: dict[str, Any]) -> str:
    out = []
    for axis, found in growth["axes"].items():
        rows = found["rows"]
        cells = [[count(r[axis]), f"{r['core_s']:.3g}", si(r["bytes"], "B")] for r in rows]
        memory = f", of the memory {found['memory_exponent']}" if "memory_exponent" in found else ""
        fixed = ", ".join(f"{name} {count(rows[0][name])}" for name in growth["axes"] if name != axis)
        out.append(f"**{axis}** ({fixed}): exponent of the time {found['exponent']}{memory}\n")
        out.append(table([axis, "core-seconds of the call", "memory of the items"], cells) + "\n")
    cells = [
        [count(r["events"]), count(r["users"]), count(r["items"]), f"{r['seconds']:.0f}", f"{r['cpu_seconds']:.0f}",
         f"{r['peak_gb']:.2f}"]
        for r in fit["rows"]
    ]  # fmt: skip
    e = fit["exponents"]
    ends = sorted(fit["rows"], key=lambda r: r["events"])[-2:]
    lasts = {what: math.log(ends[1][what] / ends[0][what]) for what in ("seconds", "cpu_seconds", "peak_gb", "events")}
    at_end = {what: f"{lasts[what] / lasts['events']:.2f}" for what in ("seconds", "cpu_seconds", "peak_gb")}
    out.append(
        f"**events** (`fit` with the fast models from parquet): exponent of the time {e['seconds']} over all sizes and "
        f"{at_end['seconds']} between the two largest, of the core-seconds {e['cpu_seconds']} and "
        f"{at_end['cpu_seconds']}, of the peak memory {e['peak_gb']} and {at_end['peak_gb']}\n"
    )
    out.append(table(["events", "users", "items", "seconds", "core-seconds", "peak GB"], cells) + "\n")
    return "\n".join(out)


def plan(growth: dict[str, Any], fit: dict[str, Any], everyone: dict[str, Any]) -> str:
    axis = growth["axes"]["items"]["rows"]
    factor, exponent = law(axis, "items", "core_s")
    users, dims = axis[0]["users"], axis[0]["dims"]
    per_item = float(np.polyfit([r["items"] for r in axis], [r["bytes"] for r in axis], 1)[0])
    k, output = everyone["k"], everyone["bytes_per_user"]
    head = [
        "users", "items", "items in memory", "shards", "core-hours for all users", "machines", "network a user",
        "network in all", "files",
    ]  # fmt: skip
    rows = []
    for n_items in (10**6, 10**7, 10**8, 10**9):
        for n_users in (10**6, 10**7, 10**8, 10**9):
            memory = per_item * n_items
            shards = math.ceil(memory / (FILL * MEMORY_GB * 1e9))
            # Shards are searched as catalogues of their own.
            core = shards * factor * (n_items / shards) ** exponent / users
            hours = core * n_users / 3600
            machines = max(shards, math.ceil(hours / (HOURS * CORES)))
            # A query goes to every other shard, and k scores and rows of 12 bytes come back.
            network = (shards - 1) * (4 * dims + 12 * k)
            rows.append(
                [si(n_users), si(n_items), si(memory, "B"), count(shards), si(hours), count(machines),
                 si(network, "B") if network else "none", si(network * n_users, "B") if network else "none",
                 si(output * n_users, "B")]
            )  # fmt: skip
    last = sorted(fit["rows"], key=lambda r: r["events"])[-2:]
    fits = []
    for n_users in (10**6, 10**7, 10**8, 10**9):
        events = EVENTS * n_users
        core, gb = (beyond(last, what, events) for what in ("cpu_seconds", "peak_gb"))
        machines = math.ceil(gb / MEMORY_GB)
        fits.append([si(n_users), si(events), si(core / 3600), si(gb * 1e9, "B"), count(machines)])
    return (
        f"Scores for all users (exact, {dims} dimensions, k = {k}; {factor / users:.3g} x items^{exponent:.3f} "
        f"core-seconds a user, {per_item:.0f} bytes an item):\n\n" + table(head, rows) + "\n\n"
        f"Fitting ({EVENTS} events a user). What an event costs is taken from the two largest sizes, "
        f"{si(last[0]['events'])} and {si(last[1]['events'])} events, and all beyond is extrapolated. `fit` runs on "
        "one machine; where its memory asks for more than a machine there is no path yet:\n\n"
        + table(["users", "events", "core-hours", "peak memory", "machines by memory"], fits)
    )


def beyond(last: list[dict[str, Any]], what: str, events: float) -> float:
    """On the line through the two largest sizes: a power law would carry fixed costs into the large."""
    low, high = last
    slope = (high[what] - low[what]) / (high["events"] - low["events"])
    return float(high[what] + slope * (events - high["events"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("growth", type=Path)
    parser.add_argument("fit", type=Path)
    parser.add_argument("everyone", type=Path, help="of recommend_all.py")
    parser.add_argument("--distributed", type=Path, help="of distributed.py")
    parser.add_argument("--note", default="", help="on what the measurements were taken")
    options = parser.parse_args()
    growth, fit, everyone = (json.loads(p.read_text()) for p in (options.growth, options.fit, options.everyone))
    print(f"""# What sizes take

This page is written by `benchmarks/capacity.py` out of the results of `benchmarks/growth.py`, `benchmarks/fit.py` and
`benchmarks/recommend_all.py`; its head says how to write it anew. Measured on {growth["machine"]}\
{options.note and ": "}{options.note}. A core-second is a second of one core.

## Growth, measured

{curves(growth, fit)}
`recommend_all` took {everyone["ratio"]:.2f} times as long as `score_topk` alone, and \
{everyone["cpu_ratio"]:.2f} times its core-seconds ({count(everyone["users"])} users x \
{count(everyone["items"])} items x {everyone["dims"]} dimensions), and wrote {everyone["bytes_per_user"]:.0f} bytes a \
user.

## Plan, computed

A machine has {CORES} cores like these and {MEMORY_GB} GB, of which a shard fills at most {FILL:.0%}; scores for all
users may take {HOURS} hours. The item-item matrices (up to 200 neighbours, 8 bytes each, for each sparse source) and
the histories ({17 + 4} bytes an entry) come on top, and are not in these tables. Shards beyond one machine are what
`fastrec.distributed.ShardedCatalogue` does; it was run on one machine with two actors, never on several.

{plan(growth, fit, everyone)}""")
    if options.distributed:
        found = json.loads(options.distributed.read_text())
        print("\n## Actors on one machine, measured\n")
        cells = [
            [name, f"{np.median(row['embedded_s']):.1f}", f"{np.median(row['actors_s']):.1f}", f"{row['overhead']:.1%}",
             "yes" if row["identical"] else "no"]
            for name in ("all users", "texts")
            if (row := found.get(name))
        ]  # fmt: skip
        print(table(["job", "one process, s", f"{found['workers']} actors, s", "overhead", "same bytes"], cells))


if __name__ == "__main__":
    main()

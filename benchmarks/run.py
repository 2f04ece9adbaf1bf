"""All benchmarks in one go, and one page of what they found. ``fastrec bench`` calls this.

    python benchmarks/run.py [all | PART ...] [--peers] [--json FILE] [--html FILE]

PART: encode, topk, train, live, serve, scale, quality, images, knowledge, rerank. The last three compare with FastRec
without what they are about, with or without --peers, and images and knowledge read ../shared/data.

Each part is a program of this folder in processes of its own, one after the other. What FILE of --json holds of other
parts stays there, each with its own date and machine; the page shows all that the file holds, and says of a part that
is not there or failed why that is so. The last line says what missed its target; exit 1 then, or where a part failed.

--peers: also the peers; those that this Python lacks come from --peer-python (sentence-transformers, onnxruntime,
    openvino and ctranslate2 for encode, rectools[torch] for train and quality), and else are listed as absent
--quick: tiny sizes, in minutes: to see that everything runs, or to fill a page. The figures say nothing, and targets
    are not judged
"""

import argparse
import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PACKAGES = (
    *("fastrec-engine", "numpy", "torch", "implicit", "faiss-cpu", "sentence-transformers", "transformers"),
    *("onnxruntime", "openvino", "ctranslate2", "rectools"),
)
Words = list[str]


def encode(args: argparse.Namespace, out: Path, work: Path) -> list[Words]:
    peers = ["--peers", args.peer_python or sys.executable] if args.peers else []
    return [["encode.py", "--json", str(out), *peers, *(["--texts", "64", "--rounds", "2"] if args.quick else [])]]


def topk(args: argparse.Namespace, out: Path, work: Path) -> list[Words]:
    small = ["--quick", "--rounds", "2", "--seconds", "0.01"] if args.quick else []
    return [["topk.py", "--json", str(out), *(["--peers"] if args.peers else []), *small]]


def train(args: argparse.Namespace, out: Path, work: Path) -> list[Words]:
    peer = ["--peer-python", args.peer_python] if args.peers and args.peer_python else []
    small = ["--length", "50", "--width", "32", "--steps", "2", "--factors", "16"] if args.quick else []
    if args.quick:
        from fastrec import datasets

        datasets.load("ml-100k").interactions.write_parquet(work / "interactions.parquet")
        small += ["--data", str(work)]
    return [["train.py", "--json", str(out), *peer, *small]]


def live(args: argparse.Namespace, out: Path, work: Path) -> list[Words]:
    sizes = {"items": 2000, "users": 500, "factors": 16, "updates": 200, "reads": 10, "cold-items": 1000, "batches": 2}
    small = [word for name, size in sizes.items() for word in (f"--{name}", str(size))] if args.quick else []
    return [["live.py", "--json", str(out), *(["--peers"] if args.peers else []), *small]]


def serve(args: argparse.Namespace, out: Path, work: Path) -> list[Words]:
    model, sizes = str(work / "model"), (["--items", "5000", "--dims", "16"] if args.quick else [])
    small = ["--seconds", "0.5", "--start", "40", "--most", "90"] if args.quick else []
    peers = ["--peers"] if args.peers else []
    return [
        ["serve.py", "model", "--out", model, *sizes],
        ["serve.py", "capacity", "--model", model, "--json", str(out), *peers, *sizes, *small],
    ]


def scale(args: argparse.Namespace, out: Path, work: Path) -> list[Words]:
    small = ["--items", "20000", "--dims", "32", "--rounds", "3"] if args.quick else []
    return [["scale.py", "--json", str(out), *small]]


def quality(args: argparse.Namespace, out: Path, work: Path) -> list[Words]:
    peers = [] if args.peers else ["--no-peers"]
    peers += ["--peer-python", args.peer_python] if args.peers and args.peer_python else []
    small = ["--sets", "ml-100k", "--protocols", "P", "--models", "fast"] if args.quick else []
    return [["quality.py", "--json", str(out), *peers, *small]]


def images(args: argparse.Namespace, out: Path, work: Path) -> list[Words]:
    return [["images.py", "--json", str(out), *(["--encoder", "words", "--users", "300"] if args.quick else [])]]


def knowledge(args: argparse.Namespace, out: Path, work: Path) -> list[Words]:
    return [["knowledge.py", "--json", str(out), *(["--seeds", "1"] if args.quick else [])]]


def rerank(args: argparse.Namespace, out: Path, work: Path) -> list[Words]:
    small = ["--steps", "20", "--users", "200", "--kinds", "trained", "--models", "popularity+item_item"]
    return [["rerank.py", "--json", str(out), *(small if args.quick else [])]]


#: In the order of the page.
SECTIONS: dict[str, Callable[[argparse.Namespace, Path, Path], list[Words]]] = {
    "encode": encode, "topk": topk, "train": train, "live": live, "serve": serve, "scale": scale, "quality": quality,
    "images": images, "knowledge": knowledge, "rerank": rerank,
}  # fmt: skip


def machine() -> dict[str, Any]:
    """What the figures were taken on, and when."""
    about: dict[str, Any] = {"date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")}
    about["cpu"] = platform.processor() or platform.machine()
    cpus = Path("/proc/cpuinfo")
    if cpus.exists():
        named = [line.split(":", 1)[1].strip() for line in cpus.read_text().splitlines() if "model name" in line]
        about["cpu"] = named[0] if named else about["cpu"]
    about["cores"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        about["memory_gb"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)
    about["system"] = f"{platform.system()} {platform.release()}"
    about["load_before"] = round(os.getloadavg()[0], 2)
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True)
    about["commit"] = done.stdout.strip() or "no checkout"
    about["versions"] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            about["versions"][name] = version(name)
        except PackageNotFoundError:
            continue
    return about


def run(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """{about, command, seconds, result} of a part, or {about, command, why} where it gave none."""
    found: dict[str, Any] = {"about": machine(), "quick": args.quick, "peers": args.peers}
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="fastrec-bench-") as work:
        out = Path(work) / "found.json"
        done = None
        for words in SECTIONS[name](args, out, Path(work)):
            out.unlink(missing_ok=True)
            # Folders of this machine are no part of what was run.
            found["command"] = shlex.join(["python", f"benchmarks/{words[0]}", *words[1:]]).replace(work, "WORK")
            found["command"] = found["command"].replace(sys.executable, "python")
            print(f"\n== {name}: {found['command']}", flush=True)
            try:
                command = [sys.executable, str(HERE / words[0]), *words[1:]]
                done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=args.limit)
            except subprocess.TimeoutExpired:
                return found | {"why": f"it took longer than the {args.limit:g} s of --limit"}
            # A target that was missed exits with 1 after the figures were written; a failure writes none.
            if done.returncode and not out.exists():
                said = [line for line in done.stderr.strip().splitlines() if line.strip()]
                print(done.stderr[-2000:], file=sys.stderr)
                return found | {"why": said[-1] if said else f"it ended with {done.returncode} and said nothing"}
        if not out.exists():
            return found | {"why": "it wrote no figures"}
        result = json.loads(out.read_text())
    return found | {"seconds": round(time.perf_counter() - begun, 1), "result": result}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fastrec bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", default=["all"], metavar="PART", help=f"all, or of {', '.join(SECTIONS)}")
    parser.add_argument("--peers", action="store_true", help="also the peers, in the same run")
    parser.add_argument("--peer-python", metavar="PYTHON", help="Python of an environment with more peers")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, whose figures say nothing")
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="longest time of a part")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures; those of other parts stay")
    parser.add_argument("--html", type=Path, metavar="FILE", help="one page with plots")
    args = parser.parse_args(argv)
    names = list(SECTIONS) if "all" in args.parts else args.parts
    for name in names:
        if name not in SECTIONS:
            parser.error(f"PART is {name!r}, expected all or of {', '.join(SECTIONS)}")
    for path in (args.json, args.html):
        if path and not path.parent.is_dir():
            parser.error(f"the folder of {path} does not exist")
    sections: dict[str, Any] = {}
    if args.json and args.json.exists():
        sections = json.loads(args.json.read_text())["sections"]
    for name in names:
        sections[name] = run(name, args)
        if args.json:  # after every part: hours are not lost with the last one
            args.json.write_text(json.dumps({"sections": sections}, indent=1) + "\n")
    if args.html:
        import report

        args.html.write_text(report.page(sections), encoding="utf-8")
        print(f"page written to {args.html}")
    ran = {name: sections[name] for name in names}
    missed = [f"{n}: {m}" for n, s in ran.items() for m in s.get("result", {}).get("missed", []) if not s["quick"]]
    failed = [f"{name}: {s['why']}" for name, s in ran.items() if "why" in s]
    print("\nfailed: " + "; ".join(failed) if failed else "", flush=True)
    print("missed: " + ("; ".join(missed) or ("not judged: --quick" if args.quick else "nothing")))
    return 1 if missed or failed else 0


if __name__ == "__main__":
    sys.exit(main())

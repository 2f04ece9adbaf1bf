"""Figures of benchmarks/run.py as a page: HTML in one file, or Markdown for the site. Nothing is fetched by either.

    python benchmarks/report.py FILE.json|FOLDER [--html FILE] [--markdown FILE]

FILE is what ``run.py --json`` writes; FOLDER has files of single programs, named encode.json, topk.json and so on.

Every comparison is a ratio to a peer of the same run: how many times better FastRec is, 1 where both are alike. Bars
are logarithmic from 1.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

NAMES = {
    "encode": "Encoding texts",
    "topk": "Exact top-k search",
    "train": "Training",
    "live": "Living on after fitting",
    "serve": "Serving over HTTP",
    "scale": "Growth over the items",
    "quality": "Recommendation quality",
    "images": "Pictures of items without text",
    "knowledge": "Knowledge on items without events",
    "rerank": "A language model as the last stage",
}


class Row(NamedTuple):
    """One comparison; without a peer a figure that stands alone."""

    what: str
    ours: str
    peer: str = ""
    theirs: str = ""
    ratio: float | None = None
    note: str = ""


def _ms(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 1000 else f"{value:.3g} ms"


def of_encode(found: Mapping[str, Any]) -> Iterator[Row]:
    for row in found["rows"]:
        engines = row["engines"]
        small = {n: e for n, e in engines.items() if n.startswith("fastrec") and e["cosine"][0] >= 0.995}
        fast = max(small, key=lambda n: small[n]["x_st"], default=None)
        for name, peer in engines.items():
            # Like with like: float32 with float32, the fastest of ours that keeps a cosine of .995 with the rest.
            ours = "fastrec-fp32" if name.endswith("fp32") else fast
            if name.startswith("fastrec") or ours not in engines:
                continue
            mine = engines[ours]
            ratio = float(np.median(np.divide(peer["seconds"], mine["seconds"])))
            note = f"mean cosine {mine['cosine'][0]:.4f}, the peer's {peer['cosine'][0]:.4f}"
            rates = (f"{e['texts_per_second']:.0f} texts/s" for e in (mine, peer))
            yield Row(f"{row['case']}, {ours.removeprefix('fastrec-')}", next(rates), name, next(rates), ratio, note)


def of_topk(found: Mapping[str, Any]) -> Iterator[Row]:
    for row in found["rows"]:
        shape = f"N={row['N']:,} D={row['D']} B={row['B']} k={row['k']}"
        shape += {"only": ", sparse term", "both": ", dense and sparse"}.get(row.get("sparse", ""), "")
        for ours, ratios in row["ratios"].items():
            what = f"{shape}, {ours.removeprefix('fastrec-')}"
            mine = _ms(row["ms"][ours][1])
            share = row["shares"].get(ours)
            note = f"{share:.0%} of the machine's limit" if share else ""
            if not ratios:
                yield Row(what, mine, note=note)
                continue
            best = min(ratios, key=lambda peer: ratios[peer])
            yield Row(what, mine, f"{best} (fastest)", _ms(row["ms"][best][1]), ratios[best], note)


def of_train(found: Mapping[str, Any]) -> Iterator[Row]:
    (name, mine), *others = found["rows"].items()
    for other, row in others:
        yield Row(
            f"an epoch of {name.removeprefix('fastrec ')}", f"{mine['epoch_s']:.2f} s", other,
            f"{row['epoch_s']:.2f} s", row["epoch_s"] / mine["epoch_s"],
        )  # fmt: skip
    if not others:
        yield Row(f"an epoch of {name.removeprefix('fastrec ')}", f"{mine['epoch_s']:.2f} s")
    (_, mine), (other, row) = found["als"].items()
    note = f"NDCG@10 {mine['ndcg']:.4f}, the peer's {row['ndcg']:.4f}"
    seconds = f"{mine['iteration_s']:.4f} s", f"{row['iteration_s']:.4f} s"
    yield Row("an iteration of ALS", seconds[0], other, seconds[1], row["iteration_s"] / mine["iteration_s"], note)
    (_, mine), (other, row) = found["neighbors"].items()
    seconds = f"{mine['fit_s']:.3f} s", f"{row['fit_s']:.3f} s"
    yield Row("item-item of all items", seconds[0], other, seconds[1], row["fit_s"] / mine["fit_s"])


def of_live(found: Mapping[str, Any]) -> Iterator[Row]:
    size = f"{found['items']:,} items, {found['factors']} factors"
    for name, value in found.items():
        if isinstance(value, dict) and "ratio" in value:
            mine, theirs = value["fastrec"], value["implicit"]
            yield Row(name, f"{mine['p50']:g} ms", "implicit", f"{theirs['p50']:g} ms", value["ratio"], size)
        elif isinstance(value, dict):
            yield Row(name, f"{value['p50']:g}", note=f"99 %: {value['p99']:g}")
        elif isinstance(value, (int, float)) and name not in ("items", "users", "factors"):
            yield Row(name, f"{value:,g}")


def of_serve(found: Mapping[str, Any]) -> Iterator[Row]:
    names = {
        "unbatched": "FastRec, one request a call",
        "one_process": "FastRec, HTTP and model in one process",
        "constant": "FastAPI, a constant",
        "implicit": "FastAPI, implicit",
    }
    mine = found.get("fastrec")
    for name, told in names.items():
        peer = found.get(name)
        if mine and peer:
            note = f"99 % within {mine['p99_ms']:g} ms, the peer's {peer['p99_ms']:g} ms"
            rates = f"{mine['throughput']:g}/s", f"{peer['throughput']:g}/s"
            yield Row("requests in time", rates[0], told, rates[1], mine["throughput"] / peer["throughput"], note)
    if "alone" in found:
        yield Row("added to a call by the server", f"{found['alone']['server_beside_queue_and_model_p50_ms']:g} ms")


def of_scale(found: Mapping[str, Any]) -> Iterator[Row]:
    size = f"{found['items']:,} items of {found['dims']}"
    ms = found["ms"]
    note = f"recall@10 {found['recall']:.3f}, with a filter of 1 % {found['recall_filtered']:.3f}"
    yield Row(
        f"one user, index of faiss, {size}", _ms(ms["faiss B=1"]), "exact search of FastRec",
        _ms(ms["exact B=1"]), found["faster"], note,
    )  # fmt: skip
    note = f"{found['reading_64']:.2f} x reading the codes"
    if "exact B=64 without cells" in ms:
        plain = ms["exact B=64 without cells"]
        yield Row("64 users, exact", _ms(ms["exact B=64"]), "without cells", _ms(plain), plain / ms["exact B=64"], note)
    else:
        yield Row("64 users, exact", _ms(ms["exact B=64"]), note=note)
    yield Row("memory at the most", f"{found['peak_gb']:.2f} GB")


def of_quality(found: Mapping[str, Any]) -> Iterator[Row]:
    for split, models in found["results"].items():
        ours = {n: m for n, m in models.items() if n.startswith(("FastRec", "its "))}
        peers = {n: m for n, m in models.items() if n not in ours}
        for name, mine in ours.items():
            what = f"{split}: {name}"
            told = f"NDCG@10 {mine['ndcg']:.4f} ({mine['ndcg_interval'][0]:.4f} to {mine['ndcg_interval'][1]:.4f})"
            best = max(peers, key=lambda n: peers[n]["ndcg"], default=None)
            shown = [n for n in ("recent popularity", best) if n in peers]
            for peer in dict.fromkeys(shown):
                other = peers[peer]
                tag = f"{peer} (best)" if peer == best else peer
                yield Row(what, told, tag, f"{other['ndcg']:.4f}", mine["ndcg"] / max(other["ndcg"], 1e-12))
            if not shown:
                yield Row(what, told)


def _ndcg(what: str, mine: float, peer: str, other: float, k: int, gain: float, error: float, more: str = "") -> Row:
    note = f"gain {gain:+.4f}, standard error {error:.4f}{more}"
    return Row(what, f"NDCG@{k} {mine:.4f}", peer, f"{other:.4f}", mine / other if other else None, note)


def of_images(found: Mapping[str, Any]) -> Iterator[Row]:
    rows = found["rows"]
    for name, peer in (("image", "popularity"), ("text and image", "text")):
        less = rows[f"{name} less {peer}"]
        told = f", {rows[name]['unreadable']} broken pictures told"
        yield _ndcg(name, rows[name]["ndcg"], peer, rows[peer]["ndcg"], 10, less["gain"], less["standard_error"], told)


def of_knowledge(found: Mapping[str, Any]) -> Iterator[Row]:
    for row in found["rows"]:
        what = f"{row['cold_items']} items without events, seed {row['seed']}"
        values = row["with knowledge"], "without knowledge", row["without"]
        yield _ndcg(what, *values, 10, row["gain"], row["standard_error"], f", alone {row['knowledge alone']:.4f}")


def of_rerank(found: Mapping[str, Any]) -> Iterator[Row]:
    k = found["candidates"]
    for row in found["rows"]:
        what = f"{k} candidates, the model {row['model']}"
        values = row["ndcg_after"], "before reranking", row["ndcg_before"]
        yield _ndcg(what, *values, k, row["gain"], row["gain_standard_error"], f", learned weight {row['weight']:.3g}")
        ours, whole = row["cpu_ms_per_user"], row["cpu_ms_per_user_whole_texts"]
        note = f"{row['history_tokens_per_user'] + row['title_tokens_per_user']:.0f} tokens"
        yield Row(
            f"CPU time a user, {k} candidates, the model {row['model']}", _ms(ours), "by whole texts", _ms(whole),
            whole / ours, f"{note}, by whole texts {row['tokens_without_sharing']:.0f}",
        )  # fmt: skip


READ: dict[str, Callable[[Mapping[str, Any]], Iterator[Row]]] = {
    "encode": of_encode, "topk": of_topk, "train": of_train, "live": of_live, "serve": of_serve, "scale": of_scale,
    "quality": of_quality, "images": of_images, "knowledge": of_knowledge, "rerank": of_rerank,
}  # fmt: skip


def load(path: Path) -> dict[str, Any]:
    """{part: what run.py says of it} of its file, or of a folder of the files of single programs."""
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text())["sections"]
        return found
    files = {name: path / f"{name}.json" for name in NAMES}
    return {
        name: {"command": f"benchmarks/{name}.py", "result": json.loads(file.read_text())}
        for name, file in files.items()
        if file.is_file()
    }


def gap(name: str, sections: Mapping[str, Any]) -> str | None:
    """Why a part has no figures; None where it has some."""
    if name not in sections:
        return f"nobody asked for it; `fastrec bench {name}` adds it"
    return sections[name].get("why")


def absent(name: str, section: Mapping[str, Any]) -> dict[str, str]:
    """{peer: why it has no figure} of a part that ran."""
    found = dict(pair for row in section["result"].get("rows", []) for pair in row.get("gaps", {}).items()) \
        if name == "encode" else {}  # fmt: skip
    rows = list(READ[name](section["result"]))
    if not section.get("peers", True) and not any(row.peer for row in rows):
        found["the peers"] = "run without --peers"
    elif name == "train" and not any("RecTools" in row.peer for row in rows):
        found["RecTools"] = "needs --peers with --peer-python, the Python of an environment with rectools[torch]"
    elif name == "quality" and not any(
        "RecTools" in m for models in section["result"]["results"].values() for m in models
    ):
        found["RecTools SASRec"] = "needs --peers with --peer-python, the Python of an environment with rectools[torch]"
    return found


def missed(section: Mapping[str, Any]) -> list[str]:
    """Targets that a part missed; those of a quick run are not judged."""
    return [] if section.get("quick") else list(section.get("result", {}).get("missed", []))


def about(section: Mapping[str, Any]) -> str:
    """Machine, date and versions of a part in one line."""
    a = section.get("about")
    if not a:
        return "Machine and date are not in the file of a single program."
    versions = ", ".join(f"{name} {version}" for name, version in a["versions"].items())
    memory = f", {a['memory_gb']} GB" if "memory_gb" in a else ""
    return (
        f"{a['date']}, {a['cpu']}, {a['cores']} cores{memory}, {a['system']}, load before {a['load_before']}, "
        f"commit {a['commit']}; {versions}"
    )


_WIDTH, _LEFT, _RIGHT, _ROW = 860, 430, 70, 24


def bars(rows: Sequence[Row], label: str) -> str:
    """Ratios as bars from 1 on a logarithmic axis, SVG; colours say better or worse, figures stand beside them."""
    rows = [row for row in rows if row.ratio]
    if not rows:
        return ""
    logs = [math.log2(row.ratio) for row in rows if row.ratio]
    low, high = min(0.0, math.floor(min(logs))), max(1.0, math.ceil(max(logs)))

    def x(value: float) -> float:
        return round(_LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT), 1)

    height = _ROW * len(rows) + 30
    out = [
        f'<svg class="ratios" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img" '
        f'aria-label="{escape(label)}" style="max-width:100%;height:auto;font:12px system-ui,sans-serif">'
    ]
    step = max(1, round((high - low) / 8))
    for tick in range(int(low), int(high) + 1, step):
        out.append(
            f'<line x1="{x(tick)}" x2="{x(tick)}" y1="0" y2="{height - 22}" stroke="currentColor" '
            f'stroke-opacity="{0.7 if tick == 0 else 0.18}"/><text x="{x(tick)}" y="{height - 6}" fill="currentColor" '
            f'fill-opacity=".7" text-anchor="middle">{2.0**tick:g}</text>'
        )
    for i, (row, log) in enumerate(zip(rows, logs, strict=True)):
        left, right = sorted((x(0), x(log)))
        y = _ROW * i
        name = f"{row.what} : {row.peer}"
        shown = name if len(name) <= 66 else name[:65] + "…"
        out.append(
            f"<g><title>{escape(f'{name}: {row.ours} against {row.theirs}')}</title>"
            f'<text x="{_LEFT - 8}" y="{y + 16}" fill="currentColor" text-anchor="end">{escape(shown)}</text>'
            f'<rect x="{left}" y="{y + 4}" width="{max(right - left, 1):.1f}" height="{_ROW - 8}" '
            f'fill="{"#2f81f7" if log >= 0 else "#d4533b"}"/>'
            f'<text x="{right + 6}" y="{y + 16}" fill="currentColor">{row.ratio:.2f}</text></g>'
        )
    return "".join(out) + "</svg>"


_HEAD = ("what", "FastRec", "peer", "of the peer", "ratio", "note")


def _cells(row: Row) -> list[str]:
    return [row.what, row.ours, row.peer or "-", row.theirs or "-", f"{row.ratio:.2f}" if row.ratio else "-", row.note]


_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #656d76; --line: #d0d7de; --back: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --line: #3d444d; --back: #0d1117; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.4rem; } .soft { color: var(--soft); }
div.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: left; border-bottom: 1px solid var(--line); }
code { font-size: 12px; } p.soft { font-size: 13px; } p.gap { border-left: 4px solid var(--line); padding-left: .8rem; }
"""


def page(sections: Mapping[str, Any]) -> str:
    """One HTML file."""
    body = [
        "<h1>FastRec beside its peers</h1>",
        "<p>Ratios to the peers of the same run: how many times better FastRec is, on a logarithmic axis; 1 where "
        "both are alike. Blue is better, red is worse.</p>",
    ]
    if any(s.get("quick") for s in sections.values()):
        body.append("<p><strong>Taken with --quick: the sizes are tiny and the figures say nothing.</strong></p>")
    body.append("<h2>What missed its target</h2>")
    lost = [f"{NAMES[name]}: {m}" for name in NAMES if name in sections for m in missed(sections[name])]
    judged = [name for name in NAMES if "result" in sections.get(name, {}) and not sections[name].get("quick")]
    none = f"<p>Nothing, of {', '.join(judged)}.</p>" if judged else "<p>No target was judged.</p>"
    body.append("<ul>" + "".join(f"<li>{escape(m)}</li>" for m in lost) + "</ul>" if lost else none)
    for name, title in NAMES.items():
        body.append(f'<h2 id="{name}">{title}</h2>')
        why, section = gap(name, sections), sections.get(name, {})
        if "command" in section:
            seconds = f", {section['seconds']:g} s" if "seconds" in section else ""
            body.append(
                f"<p class=soft><code>{escape(section['command'])}</code>{seconds}<br>{escape(about(section))}</p>"
            )
        if why is not None:
            body.append(f"<p class=gap>Not run: {escape(why)}</p>")
            continue
        rows = list(READ[name](section["result"]))
        table = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in _cells(row)) + "</tr>" for row in rows)
        head = "".join(f"<th>{h}</th>" for h in _HEAD)
        body += [bars(rows, f"{title}: ratios"), f'<div class="wide"><table><tr>{head}</tr>{table}</table></div>']
        body += [f"<p class=gap>Not run: {escape(p)} ({escape(w)})</p>" for p, w in absent(name, section).items()]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>FastRec beside its peers</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def markdown(sections: Mapping[str, Any]) -> str:
    """The same for the site."""
    out = []
    if any(s.get("quick") for s in sections.values()):
        out.append("**Taken with `--quick`: the sizes are tiny and the figures say nothing.**\n")
    for name, title in NAMES.items():
        why, section = gap(name, sections), sections.get(name, {})
        out.append(f"## {title}\n")
        if "command" in section:
            out.append(f"`{section['command']}`\n\n{_plain(about(section))}\n")
        if why is not None:
            out.append(f"Not run: {_plain(why)}\n")
            continue
        rows = list(READ[name](section["result"]))
        out.append(bars(rows, f"{title}: ratios") + "\n")
        out += ["| " + " | ".join(_HEAD) + " |", "|---" * len(_HEAD) + "|"]
        out += ["| " + " | ".join(_plain(cell) for cell in _cells(row)) + " |" for row in rows]
        out.append("")
        out += [f"Not run: {_plain(peer)} ({_plain(why)})\n" for peer, why in absent(name, section).items()]
        lost = missed(section)
        out.append("Missed: " + _plain("; ".join(lost)) + "\n" if lost else "")
    return "\n".join(out)


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is inside a table."""
    return escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("found", type=Path)
    parser.add_argument("--html", type=Path)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    sections = load(args.found)
    for path, made in ((args.html, page), (args.markdown, markdown)):
        if path:
            path.write_text(made(sections), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

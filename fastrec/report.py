"""An Evaluation as one HTML page: tables, and plots as SVG written out; nothing is fetched when it is opened."""

from collections.abc import Sequence
from html import escape
from typing import Any

from fastrec.results import Evaluation

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #656d76; --line: #d0d7de; --back: #ffffff;
  --main: #0969da; --other: #8c959f; --good: #1a7f37; --bad: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --line: #3d444d;
  --back: #0d1117; --main: #4493f8; --other: #7d8590; --good: #3fb950; --bad: #f85149; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; } p { color: var(--soft); }
div.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } tr.main td { font-weight: 600; }
svg { max-width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
svg .soft { fill: var(--soft); } svg .grid { stroke: var(--line); } svg .main { fill: var(--main); }
svg .other { fill: var(--other); } svg .good { fill: var(--good); } svg .bad { fill: var(--bad); }
svg .whisker { stroke: var(--ink); stroke-width: 1.5; } svg .zero { stroke: var(--soft); }
"""
_WIDTH, _LEFT, _RIGHT, _ROW, _TOP = 760, 210, 70, 26, 8

#: (label, value, interval or None, class of the bar)
Bar = tuple[str, float, Sequence[float] | None, str]


def html(result: Evaluation) -> str:
    """The whole page."""
    k = result.k
    title = f"FastRec evaluation, split {result.split}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{result.users:,} test users, {result.events:,} events to find among the whole catalogue, without what "
        f"the users had before; first {k} places. Intervals: the middle 95 % of a bootstrap over the users.</p>",
        *[f"<p>Note: {escape(note)}</p>" for note in result.notes],
        f"<h2>Models, NDCG@{k}</h2>",
        _bars([_model_bar(result, row) for row in result.rows], f"NDCG@{k} of the models"),
        _table(
            ["model", *[f"{name}@{k}" for name in result.rows[0] if name != "model"]],
            [[row["model"], *[f"{v:.4f}" for name, v in row.items() if name != "model"]] for row in result.rows],
        ),
    ]
    if result.sources:
        gains = [
            (s["source"], s["gain"], s["gain_interval"], "good" if s["gain"] >= 0 else "bad") for s in result.sources
        ]
        parts += [
            "<h2>What each source adds</h2>",
            f"<p>NDCG@{k} of the ensemble, less what it has without the source and with the other weights as they "
            "are. A source of weight 0 has been dropped.</p>",
            _bars(gains, "gain of each source"),
            _table(
                ["source", "weight", "alone", "fused", "without it", "gain", "95 % interval"],
                [
                    [
                        s["source"],
                        f"{s['weight']:.3f}",
                        *[f"{s[n]:.4f}" for n in ("alone", "fused", "without")],
                        f"{s['gain']:+.4f}",
                        _span(s["gain_interval"]),
                    ]
                    for s in result.sources
                ],
            ),
        ]
    if result.segments:
        shown = list(result.segments[0]["ndcg"])
        first, last = shown[0], shown[-1]
        bars: list[Bar] = []
        for s in result.segments:
            bars.append((s["segment"], s["ndcg"][first], None, "main"))
            bars.append(("", s["ndcg"][last], None, "other"))
        parts += [
            f"<h2>Segments, NDCG@{k}</h2>",
            f"<p>The upper bar is {escape(first)}, the lower one {escape(last)}.</p>",
            _bars(bars, "segments"),
            _table(
                ["segment", "users", "events", *shown],
                [
                    [s["segment"], f"{s['users']:,}", f"{s['events']:,}", *[f"{s['ndcg'][m]:.4f}" for m in shown]]
                    for s in result.segments
                ],
            ),
        ]
    if result.ladder:
        steps = [(s["step"], s["ndcg"], s["ndcg_interval"], "main") for s in result.ladder]
        parts += [
            f"<h2>The ladder, NDCG@{k}</h2>",
            "<p>The same split for every step, each with weights of its own.</p>",
            _bars(steps, "the ladder"),
            _table(
                ["step", f"ndcg@{k}", "95 % interval", f"recall@{k}", f"hit_rate@{k}", "sources"],
                [
                    [
                        s["step"],
                        f"{s['ndcg']:.4f}",
                        _span(s["ndcg_interval"]),
                        f"{s['recall']:.4f}",
                        f"{s['hit_rate']:.4f}",
                        ", ".join(s["sources"]),
                    ]
                    for s in result.ladder
                ],
            ),
        ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _model_bar(result: Evaluation, row: dict[str, Any]) -> Bar:
    name = row["model"]
    interval = result.intervals[name]["ndcg"] if name in result.intervals else None
    return name, row["ndcg"], interval, "main" if name == "fastrec" else "other"


def _span(interval: Sequence[float]) -> str:
    return f"{interval[0]:.4f} to {interval[1]:.4f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "\n".join(
        f"<tr{' class=main' if row[0] == 'fastrec' else ''}>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table>\n<tr>{top}</tr>\n{body}\n</table></div>'


def _bars(bars: Sequence[Bar], label: str) -> str:
    """Horizontal bars from 0 with whiskers, values at their right; an empty label belongs to the bar above."""
    ends = [0.0, *[v for _, v, _, _ in bars], *[x for _, _, i, _ in bars if i is not None for x in i]]
    low, high = min(ends), max(ends)
    wide = (high - low) or 1.0

    def x(value: float) -> float:
        return round(_LEFT + (value - low) / wide * (_WIDTH - _LEFT - _RIGHT), 1)

    height = 2 * _TOP + _ROW * len(bars)
    out = [f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img">']
    out.append(f"<title>{escape(label)}</title>")
    for i, (name, value, interval, kind) in enumerate(bars):
        # A bar without a label stands close under the one that it belongs to.
        y = _TOP + _ROW * i + (0 if name else -6)
        left, right = sorted((x(0.0), x(value)))
        tip = f"{name or label}: {value:.4f}" + (f" ({_span(interval)})" if interval is not None else "")
        out.append(f"<g><title>{escape(tip)}</title>")
        out.append(f'<text x="{_LEFT - 10}" y="{y + 17}" text-anchor="end">{escape(name)}</text>')
        out.append(
            f'<rect class="{kind}" x="{left}" y="{y + 5}" width="{max(right - left, 0.5):.1f}" height="{_ROW - 10}"/>'
        )
        edge = right
        if interval is not None:
            a, b = x(interval[0]), x(interval[1])
            middle = y + _ROW / 2
            out.append(f'<line class="whisker" x1="{a}" x2="{b}" y1="{middle}" y2="{middle}"/>')
            for end in (a, b):
                out.append(f'<line class="whisker" x1="{end}" x2="{end}" y1="{middle - 4}" y2="{middle + 4}"/>')
            edge = max(edge, b)
        out.append(f'<text class="soft" x="{edge + 8}" y="{y + 17}">{value:.4f}</text></g>')
    out.append(f'<line class="zero" x1="{x(0.0)}" x2="{x(0.0)}" y1="{_TOP}" y2="{height - _TOP}"/></svg>')
    return "\n".join(out)

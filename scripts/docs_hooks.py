"""What the site is told while it is built: the figures of the last run of the benchmarks."""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "docs" / "benchmarks.json"
MARK = "<!-- figures of docs/benchmarks.json -->"
NONE = (
    "There are no figures here: none of a quiet machine has been put into `docs/benchmarks.json` yet. The second "
    "command above does that, and the next build of this site shows them. Those of the README were taken by hand."
)


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    if MARK not in markdown:
        return markdown
    if not FIGURES.is_file():
        return markdown.replace(MARK, NONE)
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import report

    return markdown.replace(MARK, report.markdown(report.load(FIGURES)))

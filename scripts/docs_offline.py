"""Exit 1, naming the places, where a page of a folder would fetch something from elsewhere: docs_offline.py FOLDER

Looks at what a browser loads by itself (scripts, styles, images, fonts, frames, url() and @import of styles), not at
links that a reader follows.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

_ELSEWHERE = re.compile(r"^(https?:)?//", re.IGNORECASE)
_STYLE = re.compile(r"""(?:url\(|@import)\s*['"]?((?:https?:)?//[^'")\s]+)""", re.IGNORECASE)
#: Of <link>, those that are loaded; canonical, alternate and the like are only told.
_LOADED = {"stylesheet", "icon", "shortcut icon", "preload", "prefetch", "preconnect", "modulepreload", "manifest"}


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.style = tag == "style"
        loaded = ["src", "srcset", "poster", "data"] + (["href"] if tag in ("image", "use") else [])
        if tag == "link" and given.get("rel", "").lower() in _LOADED:
            loaded.append("href")
        self.found += [given[name] for name in loaded if _ELSEWHERE.match(given.get(name, ""))]
        self.found += _STYLE.findall(given.get("style", ""))

    def handle_data(self, data: str) -> None:
        if self.style:
            self.found += _STYLE.findall(data)


def fetched(folder: Path) -> list[str]:
    """``file: address`` of everything that would be fetched."""
    out = []
    for file in sorted(folder.rglob("*")):
        if file.suffix == ".html":
            page = _Page()
            page.feed(file.read_text(encoding="utf-8"))
            out += [f"{file.relative_to(folder)}: {address}" for address in page.found]
        elif file.suffix == ".css":
            out += [f"{file.relative_to(folder)}: {a}" for a in _STYLE.findall(file.read_text(encoding="utf-8"))]
    return out


def main() -> int:
    folder = Path(sys.argv[1])
    pages = len(list(folder.rglob("*.html")))
    if not pages:
        print(f"docs_offline: there is no page in {folder}", file=sys.stderr)
        return 1
    found = fetched(folder)
    for place in found:
        print(f"docs_offline: {place}", file=sys.stderr)
    print(f"{pages} pages in {folder}; {len(found)} things would be fetched from elsewhere")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

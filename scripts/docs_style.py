"""The docstrings of FastRec as Markdown, for mkdocstrings.

They are written to be read in an editor: a line ``name: what it is`` for an argument or a field, deeper lines that go
on with it, and indented blocks that are pictures or formulas. Markdown would run the lines together, so that

    k: the length of the rankings, which
        may be 1
    seed: of everything random

becomes a list with a code name each, and an indented block stays as it is.
"""

import re
from typing import Any

from griffe import Extension, Object

#: ``name:``, ``a, b:`` or ``a, b (more):`` at the start of a line; prose with a colon has spaces without commas.
_FIELD = re.compile(r"^([A-Za-z_*][\w*]*(?:, [A-Za-z_*][\w*]*)*)(?: \(([^)]*)\))?: (.*)$")
_INDENTED = re.compile(r"^ {4,}\S")
#: A ``<`` of a formula would begin a tag of HTML; code between backticks is left alone.
_LESS = re.compile(r"(`[^`]*`)|<(?=[A-Za-z/!])")
#: Words that begin a sentence rather than name something.
_PROSE = {"Source", "Sources", "Returns", "Raises", "Order", "Note", "Example"}


def to_markdown(text: str) -> str:
    """The docstring with its lists as lists; text that has none comes back as it was."""
    out: list[str] = []
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        line = lines[at]
        found = _FIELD.match(line) if _begins(lines, at, out) else None
        if found and found[1].split(",")[0] not in _PROSE:
            names = ", ".join(f"`{name}`" for name in found[1].split(", "))
            about = f" ({found[2]})" if found[2] else ""
            parts = [found[3]]
            while at + 1 < len(lines) and _goes_on(lines, at):
                at += 1
                parts.append(lines[at].strip())
            if out and out[-1] and not out[-1].startswith("- "):
                out.append("")
            out.append(_escaped(f"- {names}{about}: {' '.join(parts)}"))
        elif _INDENTED.match(line) and (not out or not out[-1] or out[-1] == "```"):
            # A picture or formula, up to the next line that stands at the margin.
            block = [line]
            while at + 1 < len(lines) and (_INDENTED.match(lines[at + 1]) or _continues(lines, at + 1)):
                at += 1
                block.append(lines[at])
            out += ["```text", *(part[4:] for part in block), "```"]
        else:
            if line.strip() and out and out[-1].startswith("- "):
                out.append("")
            out.append(_escaped(line))
        at += 1
    return "\n".join(out)


def _escaped(line: str) -> str:
    return _LESS.sub(lambda found: found[1] or "&lt;", line)


def _begins(lines: list[str], at: int, out: list[str]) -> bool:
    """Whether a list may begin or go on at a line: after an empty line or an entry, never in the middle of a text."""
    return at > 0 and (not lines[at - 1].strip() or bool(out and out[-1].startswith("- ")))


def _goes_on(lines: list[str], at: int) -> bool:
    """Whether the next line belongs to the entry of this one: it is deeper, or ends a sentence begun in its first."""
    here, following = lines[at], lines[at + 1]
    if _INDENTED.match(following):
        return True
    if here.startswith(" ") or not following.strip() or here.rstrip().endswith((".", ")")):
        return False
    return not _FIELD.match(following) and following.split()[0] not in _PROSE


def _continues(lines: list[str], at: int) -> bool:
    """Whether an empty line stands inside an indented block."""
    return not lines[at].strip() and at + 1 < len(lines) and bool(_INDENTED.match(lines[at + 1]))


class Style(Extension):
    """Rewrites every docstring when the package has been read."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)

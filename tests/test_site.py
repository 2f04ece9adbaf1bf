"""What the documentation site is made with: docstrings as Markdown, no fetching, the page of the benchmarks."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def script(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def style():
    pytest.importorskip("griffe", reason="mkdocstrings is absent: extra 'docs'")
    return script(ROOT / "scripts" / "docs_style.py").to_markdown


@pytest.fixture(scope="module")
def offline():
    return script(ROOT / "scripts" / "docs_offline.py").fetched


def test_lines_of_names_become_a_list(style):
    text = "What it does: a thing.\n\nk: length, which\n    may be 1\nallow, deny (ids): what\nRaises ConfigError."
    want = ["What it does: a thing.", "", "- `k`: length, which may be 1", "- `allow`, `deny` (ids): what", ""]
    assert style(text).split("\n") == [*want, "Raises ConfigError."]


def test_a_colon_in_a_text_makes_no_list(style):
    for text in (
        "merged: the first line is no entry",
        "A.\n\nOf one user are\nmerged: time of the last",
        "A.\n\nSource: B.",
    ):
        assert style(text) == text


def test_what_goes_on_belongs_to_its_entry(style):
    assert style("A.\n\nids: one or\nmore of them") == "A.\n\n- `ids`: one or more of them"
    assert style("A.\n\nids: one.\nMore is said.") == "A.\n\n- `ids`: one.\n\nMore is said."


def test_pictures_and_formulas_stay_as_they_are(style):
    text = "A.\n\n    x\n    |- <y>\n\n    z\n\nB <q, v> and `<w>`."
    assert style(text) == "A.\n\n```text\nx\n|- <y>\n\nz\n```\n\nB &lt;q, v> and `<w>`."


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://example.org/x.js"></script>',
        '<link rel="stylesheet" href="//example.org/x.css">',
        '<img srcset="https://example.org/x.png 2x">',
        "<style>@import url(https://example.org/x.css);</style>",
        '<p style="background: url(//example.org/x.png)">',
    ],
)
def test_what_would_be_fetched_is_found(offline, tmp_path, text):
    (tmp_path / "a.html").write_text('<a href="https://example.org">a link is followed by readers only</a>')
    assert offline(tmp_path) == []
    (tmp_path / "b.html").write_text(text)
    assert [place.split(":")[0] for place in offline(tmp_path)] == ["b.html"]


def test_the_page_of_the_benchmarks_has_figures_or_says_how_to_make_them(tmp_path, monkeypatch):
    hooks = script(ROOT / "scripts" / "docs_hooks.py")
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    assert hooks.MARK in text
    monkeypatch.setattr(hooks, "FIGURES", tmp_path / "none.json")
    assert hooks.NONE in hooks.on_page_markdown(text, None)
    assert hooks.on_page_markdown("another page", None) == "another page"
    found = {"sections": {"live": {"command": "x", "result": {"items": 7, "factors": 2, "save, s": 0.25}}}}
    (tmp_path / "some.json").write_text(json.dumps(found))
    monkeypatch.setattr(hooks, "FIGURES", tmp_path / "some.json")
    monkeypatch.setattr(sys, "path", [*sys.path])
    made = hooks.on_page_markdown(text, None)
    assert "| save, s | 0.25 |" in made and hooks.NONE not in made and "Not run: nobody asked for it" in made

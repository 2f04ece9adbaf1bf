"""The code blocks of a Markdown page, and how they are run.

A comment on the line before a block says what is special about it:

    <!-- needs: package -->         it is run where the package is installed
    <!-- smaller: this -> that -->  it is run with ``that`` in the place of ``this``, which takes less time
    <!-- alone: why -->             it is run in a process of its own, with the names of no other block

A block of bash may ask for CHECKOUT, the folder of the checkout. What ``pip install`` would install is looked at, down
to the names of the extras, but not installed.
"""

import itertools
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import traceback
import urllib.error
import urllib.request
import warnings
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_MARK = re.compile(r"^\s*<!-- (needs|smaller|alone): (.*) -->\s*$")
_FENCE = re.compile(r"^(\s*)(```+)\s*([\w-]*)")
_SETS = re.compile(r"[A-Z_]+=")
#: The address that the pages name; each page's server has a free port of its own.
ADDRESS = "127.0.0.1:8000"


@dataclass(frozen=True)
class Block:
    """page: path from the root; line: of the first line of the text, from 1"""

    page: str
    line: int
    language: str
    text: str
    marks: tuple[tuple[str, str], ...] = ()

    @property
    def place(self):
        return f"{self.page}:{self.line}"

    def mark(self, kind):
        return next((text for name, text in self.marks if name == kind), None)

    @property
    def code(self):
        """What is run of it."""
        text = self.text
        for kind, change in self.marks:
            if kind == "smaller":
                this, that = change.split(" -> ")
                assert this in text, f"{self.place}: there is no {this!r} to make smaller"
                text = text.replace(this, that)
        return text


def pages():
    """README.md and everything under docs/, as paths from the root."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [str(path.relative_to(ROOT)) for path in found]


def blocks(page, text=None):
    """All fenced and indented blocks of a page; the language of an indented one is "indented"."""
    lines = ((ROOT / page).read_text() if text is None else text).split("\n")
    out, marks, at = [], [], 0
    while at < len(lines):
        line = lines[at]
        fence, mark = _FENCE.match(line), _MARK.match(line)
        if mark:
            marks.append((mark[1], mark[2]))
        elif fence:
            begin = at + 1
            at = begin
            while at < len(lines) and lines[at].strip() != fence[2]:
                at += 1
            assert at < len(lines), f"{page}:{begin}: the block does not end"
            inside = [x.removeprefix(fence[1]) for x in lines[begin:at]]
            out.append(Block(page, begin + 1, fence[3] or "text", "\n".join(inside), tuple(marks)))
            marks = []
        elif line.startswith("    ") and (not at or not lines[at - 1].strip()) and not _in_list(lines, at):
            begin = at
            while at + 1 < len(lines) and lines[at + 1].startswith("    "):
                at += 1
            out.append(Block(page, begin + 1, "indented", "\n".join(lines[begin : at + 1]), tuple(marks)))
            marks = []
        elif line.strip():
            assert not marks, f"{page}:{at + 1}: a block must follow the comment above"
        at += 1
    return out


def _in_list(lines, at):
    """Whether an indented line goes on with a list or an mkdocstrings block."""
    before = next((line for line in reversed(lines[:at]) if line.strip() and not line.startswith("  ")), "")
    return before.startswith(("- ", "* ", "::: ")) or bool(re.match(r"\d+\. ", before))


class Page:
    """Runs the blocks of one page in order, in one namespace and one folder, which is the working directory."""

    def __init__(self):
        self.names = {"__name__": "__main__"}
        self.server = None
        self.address = ADDRESS

    def run(self, block):
        {"python": self._python, "bash": self._bash}[block.language](block)

    def _python(self, block):
        # The lines before it make the numbers of a traceback those of the page.
        text = "\n" * (block.line - 1) + block.code.replace(ADDRESS, self.address)
        if block.mark("alone"):
            _run([sys.executable, "-W", "ignore", "-c", text], block.place)
            return
        try:
            with warnings.catch_warnings():
                if block.mark("needs"):  # what other packages warn of is not ours
                    warnings.simplefilter("ignore")
                exec(compile(text, block.page, "exec"), self.names)
        except Exception as error:
            at = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == block.page]
            line = at[-1] if at else getattr(error, "lineno", None) or block.line
            raise AssertionError(f"{block.page}:{line}: {type(error).__name__}: {error}") from error

    def _bash(self, block):
        for number, line in _commands(block):
            place = f"{block.page}:{number}"
            words = shlex.split(line, comments=True)
            given = dict(word.split("=", 1) for word in itertools.takewhile(_SETS.match, words))
            if words[len(given) : len(given) + 2] == ["fastrec", "serve"]:
                self._serve(words[len(given) :], place, given)
            elif words[:2] == ["pip", "install"]:
                _look_at_install(words[2:], place)
            elif words[:1] == ["fastrec"]:
                from fastrec import cli

                code = cli.main(words[1:])  # in this process: importing everything again takes seconds
                assert code == 0, f"{place}: fastrec ended with {code}"
            elif words:
                shell = ["bash", "-euo", "pipefail", "-c", line.replace(ADDRESS, self.address)]
                said = _run(shell, place)
                # curl is content with any answer that it gets
                assert '"status":4' not in said and '"status":5' not in said, f"{place}: {said}"

    def _serve(self, words, place, given):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        command = [sys.executable, "-m", "fastrec", *words[1:], "--port", self.address.split(":")[1]]
        self.server = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **given}
        )
        end = time.monotonic() + 240
        while True:
            try:
                with urllib.request.urlopen(f"http://{self.address}/health/ready", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                assert self.server.poll() is None, f"{place}: the server ended with {self.server.returncode}"
                assert time.monotonic() < end, f"{place}: the server did not become ready"
                time.sleep(0.1)

    def close(self):
        if self.server is not None:
            self.server.terminate()
            self.server.wait(60)


def _run(command, place):
    """What a command prints; AssertionError where it fails."""
    env = {**os.environ, "CHECKOUT": str(ROOT), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=env)
    assert done.returncode == 0, f"{place}: ended with {done.returncode}: {done.stderr}"
    return done.stdout


def _look_at_install(specs, place):
    """A dry run; AssertionError where the package cannot be built or an extra is none."""
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--dry-run", "--no-deps"]
    specs = [re.sub(r"^\.", str(ROOT), spec) for spec in specs]
    done = subprocess.run([*pip, "--no-build-isolation", *specs], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{place}: ended with {done.returncode}: {done.stderr}"
    assert "does not provide the extra" not in done.stderr + done.stdout, f"{place}: {done.stderr}"


def _commands(block):
    """(line number, command) of a block of bash; a line that ends in a backslash goes on with the next."""
    whole, begin = "", 0
    for offset, line in enumerate(block.code.split("\n")):
        begin = begin if whole else block.line + offset
        if line.endswith("\\"):
            whole += line[:-1]
            continue
        if (whole + line).strip():
            yield begin, whole + line
        whole = ""

"""The rules of the architecture, read off the imports."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastrec

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "fastrec"

#: What every stage may import, and the stages that must not know each other.
FOUNDATION = {
    "types",
    "config",
    "errors",
    "gate",
    "kinds",
    "modelfiles",
    "ops",
    "profiles",
    "progress",
    "ridge",
    "sequence",
    "side",
    "unchosen",
    "usertext",
    "_native",
}
STAGES = {"data", "encode", "models", "fuse", "retrieve", "score", "store", "metrics", "rerank", "results"}


def imports_of(path):
    """Names of the direct children of fastrec that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "fastrec":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("fastrec.")}
    return found


def files_of(stage):
    folder = PACKAGE / stage
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{stage}.py"]


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_stage_imports_no_neighbour(stage):
    for path in files_of(stage):
        foreign = imports_of(path) - FOUNDATION - {stage}
        assert not foreign, f"{path.relative_to(ROOT)} imports {sorted(foreign)}"


@pytest.mark.parametrize("name", ["types", "config", "errors", "_native"])
def test_the_foundation_stands_on_itself(name):
    # types names PackedItems for the type checker only
    allowed = FOUNDATION - {"ops"} if name != "types" else FOUNDATION
    assert imports_of(PACKAGE / f"{name}.py") <= allowed


def test_public_names_are_sorted_and_complete():
    names = fastrec.__all__
    assert names == sorted(names)
    public = {
        name for name, value in vars(fastrec).items() if not name.startswith("_") and not isinstance(value, type(sys))
    }
    assert public == set(names)


def test_only_bindings_include_pybind11_and_nothing_includes_torch():
    for path in (ROOT / "csrc").iterdir():
        text = path.read_text()
        assert "torch/" not in text and "ATen" not in text, path.name
        if not path.name.startswith("bindings"):
            assert "pybind11" not in text, path.name


def test_the_build_is_not_for_this_machine_alone():
    assert "-march=native" not in (ROOT / "CMakeLists.txt").read_text().replace("so -march=native must never", "")


def test_kernels_is_not_importable_under_its_bare_name():
    # transformers looks for a package named "kernels" and would take our folder for it.
    code = "import transformers, sys; import fastrec.kernels; assert 'kernels' not in sys.modules, sys.path"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT / "tests")


def test_import_is_light():
    code = "import fastrec, sys; print([m for m in ('torch', 'transformers', 'numba') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == "[]"


def test_every_environment_variable_is_in_the_table():
    text = (ROOT / "ENVS.md").read_text()
    names = {n for path in PACKAGE.rglob("*.py") for n in re.findall(r"FASTREC_[A-Z_]+", path.read_text())}
    assert names, "the search found nothing"
    assert {n for n in names if f"`{n}`" not in text} == set()


def test_files_can_be_read_in_one_sitting():
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "csrc").iterdir(), *(ROOT / "tests").rglob("*.py")]:
        assert len(path.read_text().splitlines()) <= 400, path

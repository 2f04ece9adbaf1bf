"""Artifacts: whole or not there, and every damage is named."""

import json

import numpy as np
import pyarrow as pa
import pytest

from fastrec.errors import ArtifactError, ConfigError
from fastrec.store import artifact

ARRAYS = {
    "a": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.arange(5, dtype=np.int64),
    "c": np.array([True, False]),
    "empty": np.empty((0, 7), np.float32),
}


@pytest.fixture
def folder(tmp_path):
    artifact.write(tmp_path / "m", {"goal": "next"}, ARRAYS, {"ids": pa.table({"id": ["x", "y"]})})
    return tmp_path / "m"


@pytest.mark.parametrize("mmap", [True, False])
def test_round_trip(folder, mmap):
    manifest, arrays, tables = artifact.read(folder, mmap=mmap)
    assert manifest["goal"] == "next"
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
    assert tables["ids"]["id"].to_pylist() == ["x", "y"]


def test_replaces_an_older_one_and_leaves_nothing_behind(folder):
    artifact.write(folder, {"goal": "period"}, {"a": np.zeros(3, np.float32)}, {})
    manifest, arrays, tables = artifact.read(folder)
    assert (manifest["goal"], list(arrays), tables) == ("period", ["a"], {})
    assert [p.name for p in folder.parent.iterdir()] == ["m"]


def test_readers_of_the_old_one_are_not_disturbed(folder):
    _, arrays, _ = artifact.read(folder)
    artifact.write(folder, {"goal": "period"}, {"a": np.zeros(3, np.float32)}, {})
    np.testing.assert_array_equal(arrays["a"], ARRAYS["a"])


def test_does_not_delete_what_is_not_ours(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.txt").write_text("ten years of work")
    with pytest.raises(ConfigError, match="no FastRec artifact"):
        artifact.write(tmp_path / "m", {}, ARRAYS, {})
    assert (tmp_path / "m" / "thesis.txt").read_text() == "ten years of work"


def test_a_failed_write_leaves_the_old_one(folder, monkeypatch):
    monkeypatch.setattr(artifact, "_exchange", lambda a, b: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        artifact.write(folder, {"goal": "period"}, ARRAYS, {})
    assert artifact.read(folder)[0]["goal"] == "next"
    assert [p.name for p in folder.parent.iterdir()] == ["m"]


@pytest.mark.parametrize("name", ["manifest.json", "arrays.safetensors", "ids.arrow"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "flipped"])
def test_every_damage_is_an_artifact_error_that_names_the_file(folder, name, damage):
    path = folder / name
    raw = path.read_bytes()
    if damage == "missing":
        path.unlink()
        with pytest.raises(ArtifactError, match=name):
            artifact.read(folder)
    elif damage in ("truncated", "empty"):
        path.write_bytes(raw[: len(raw) // 2] if damage == "truncated" else b"")
        with pytest.raises(ArtifactError, match=name):
            artifact.read(folder)
    else:
        for at in np.linspace(0, len(raw) - 2, 25, dtype=int):  # the last byte of the manifest is a line end
            path.write_bytes(raw[:at] + bytes([raw[at] ^ 0x40]) + raw[at + 1 :])
            with pytest.raises(ArtifactError):
                artifact.read(folder)


def test_another_format_version_is_refused(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["format"] = 99
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="format 99, this version reads 1"):
        artifact.read(folder)


def test_not_a_folder(tmp_path):
    with pytest.raises(ArtifactError, match="expected a saved folder"):
        artifact.read(tmp_path / "nothing")

"""Artifacts: whole or not there, and every damage is named."""

import ctypes
import errno
import hashlib
import json

import numpy as np
import pyarrow as pa
import pytest
import safetensors.numpy

from fastrec.errors import ArtifactError, ConfigError
from fastrec.store import artifact
from fastrec.store.checksum import checksum

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
    with pytest.raises(ArtifactError, match=r"m cannot be written \(disk full\)"):
        artifact.write(folder, {"goal": "period"}, ARRAYS, {})
    assert artifact.read(folder)[0]["goal"] == "next"
    assert [p.name for p in folder.parent.iterdir()] == ["m"]


@pytest.mark.parametrize("name", ["manifest.json", "arrays-0.safetensors", "ids.arrow"])
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
    with pytest.raises(ArtifactError, match="format 99, this version reads 2"):
        artifact.read(folder)


def rewrite(folder, change):
    """The manifest with another entry of arrays-0.safetensors, and a checksum of its own that fits."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest["files"]["arrays-0.safetensors"])
    manifest["sha256"] = artifact._manifest_digest(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_sha256_is_compared_where_it_is_asked_for(folder):
    entry = json.loads((folder / "manifest.json").read_text())["files"]["arrays-0.safetensors"]
    raw = (folder / "arrays-0.safetensors").read_bytes()
    assert (entry["sha256"], entry["checksum"]) == (hashlib.sha256(raw).hexdigest(), checksum(raw))
    artifact.read(folder, full=True)
    rewrite(folder, lambda e: e.update(sha256="0" * 64))
    artifact.read(folder)
    with pytest.raises(ArtifactError, match=r"arrays-0\.safetensors does not match its checksum"):
        artifact.read(folder, full=True)


def test_a_folder_of_before_the_checksum(folder):
    rewrite(folder, lambda e: e.pop("checksum"))
    artifact.read(folder)
    raw = bytearray((folder / "arrays-0.safetensors").read_bytes())
    raw[-1] ^= 1
    (folder / "arrays-0.safetensors").write_bytes(raw)
    with pytest.raises(ArtifactError, match=r"arrays-0\.safetensors does not match its checksum"):
        artifact.read(folder)


def test_a_disk_that_fails(folder, monkeypatch):
    class Libc:
        """A kernel that cannot read the page."""

        @staticmethod
        def madvise(*_):
            ctypes.set_errno(errno.EFAULT)
            return -1

    monkeypatch.setattr(artifact, "_libc", Libc)
    with pytest.raises(ArtifactError, match=r"arrays-0\.safetensors cannot be read"):
        artifact.read(folder)
    Libc.madvise = staticmethod(lambda *_: ctypes.set_errno(errno.EINVAL) or -1)  # a kernel that knows no such advice
    artifact.read(folder)


def test_not_a_folder(tmp_path):
    with pytest.raises(ArtifactError, match="expected a saved folder"):
        artifact.read(tmp_path / "nothing")


@pytest.mark.parametrize("where", ["file/m", "file/deep/m"])
def test_a_place_that_cannot_be_written(tmp_path, where):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ArtifactError, match="cannot be written"):
        artifact.write(tmp_path / where, {}, ARRAYS, {})
    with pytest.raises(ArtifactError, match="cannot be written"):
        artifact.write("/proc/nothing/m", {}, ARRAYS, {})


def test_any_reader_of_safetensors_reads_the_arrays(folder):
    found = safetensors.numpy.load_file(folder / "arrays-0.safetensors")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)


def test_large_arrays_lie_in_files_of_their_own_at_cache_lines(tmp_path):
    large = {f"x{i}": np.full((1 << 18) + 16 * i, i, np.float32) for i in range(12)}
    artifact.write(tmp_path / "m", {}, {**large, **ARRAYS}, {})
    assert len(list((tmp_path / "m").glob("*.safetensors"))) == 8
    arrays = artifact.read(tmp_path / "m")[1]
    for name, array in {**large, **ARRAYS}.items():
        np.testing.assert_array_equal(arrays[name], array)
    assert all(arrays[name].ctypes.data % 64 == 0 for name in large)


KEY = bytes(range(32))


@pytest.fixture
def sealed(tmp_path, monkeypatch):
    monkeypatch.setattr(artifact, "_CHUNK", 100)  # so that files are rows of pieces
    artifact.write(tmp_path / "s", {"goal": "next"}, ARRAYS, {"ids": pa.table({"id": ["a-secret-id"] * 9})}, key=KEY)
    return tmp_path / "s"


def test_sealed_round_trip(sealed):
    manifest, arrays, tables = artifact.read(sealed, key=KEY)
    assert manifest["goal"] == "next"
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
    assert tables["ids"]["id"].to_pylist() == ["a-secret-id"] * 9
    assert not any(b"a-secret-id" in p.read_bytes() for p in sealed.iterdir())


@pytest.mark.parametrize(("key", "message"), [(None, "give its key in FASTREC_KEY"), (bytes(32), "another one")])
def test_another_key_is_refused(sealed, key, message):
    with pytest.raises(ArtifactError, match=rf"manifest\.json: .*{message}"):
        artifact.read(sealed, key=key)


def test_pieces_cannot_be_swapped_even_with_a_new_checksum(sealed):
    path = sealed / "ids.arrow"
    piece = 100 + 28
    raw = path.read_bytes()
    assert len(raw) > 3 * piece
    for changed in (raw[piece : 2 * piece] + raw[:piece] + raw[2 * piece :], raw[: 2 * piece]):
        path.write_bytes(changed)
        manifest = json.loads((sealed / "manifest.json").read_text())
        manifest["files"]["ids.arrow"] = {"sha256": hashlib.sha256(changed).hexdigest(), "bytes": len(changed)}
        manifest["sha256"] = artifact._manifest_digest(manifest)
        (sealed / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(ArtifactError, match="the key is another one"):
            artifact.read(sealed, key=KEY)
        manifest["mac"] = artifact._mac({n: v for n, v in manifest.items() if n not in ("mac", "sha256")}, KEY)
        manifest["sha256"] = artifact._manifest_digest(manifest)
        (sealed / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(ArtifactError, match=r"ids\.arrow cannot be opened"):
            artifact.read(sealed, key=KEY)


@pytest.mark.parametrize("seal", [False, True])
@pytest.mark.parametrize("name", ["manifest.json", "arrays-0.safetensors", "ids.arrow"])
def test_a_thousand_damages(request, name, seal):
    """Byte flips and truncations: ArtifactError, or exactly what was saved."""
    folder = request.getfixturevalue("sealed" if seal else "folder")
    key = KEY if seal else None
    want = artifact.read(folder, key=key)
    path, rng, good = folder / name, np.random.default_rng(5), 0
    unnamed = 0
    raw = path.read_bytes()
    for round_ in range(1000):
        changed = bytearray(raw)
        if round_ % 4 == 3:
            del changed[int(rng.integers(len(raw))) :]
        else:
            for _ in range(int(rng.integers(1, 4))):
                changed[int(rng.integers(len(raw)))] ^= int(rng.integers(1, 256))
        path.write_bytes(changed)
        try:
            manifest, arrays, tables = artifact.read(folder, mmap=False, key=key)
        except ArtifactError as error:
            unnamed += name not in str(error)
            continue
        good += 1
        assert manifest == want[0] and tables.keys() == want[2].keys()
        for part, array in want[1].items():
            np.testing.assert_array_equal(arrays[part], array)
    assert unnamed == 0
    assert good < 50, "white space of the manifest, and nothing else"

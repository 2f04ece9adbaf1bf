"""A saved folder: named arrays, Arrow tables and a manifest with a checksum of each file.

    manifest.json        format version, library versions, config, sha256 and size of every file
    arrays.safetensors   all numeric arrays
    <name>.arrow         Arrow IPC files

The folder is written beside its place, fsynced and renamed, so that a crash leaves the old one or the
new one. Nothing is pickled. Every damage raises ArtifactError with the name of the file.
"""

import ctypes
import errno
import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import safetensors.numpy

from fastrec.errors import ArtifactError, ConfigError

FORMAT = 1
MANIFEST = "manifest.json"
ARRAYS = "arrays.safetensors"

Arrays = dict[str, npt.NDArray[Any]]


def write(folder: str | os.PathLike[str], config: dict[str, Any], arrays: Arrays, tables: dict[str, Any]) -> None:
    """Write a folder atomically; an existing artifact is replaced.

    Raises ConfigError where ``folder`` exists and is no artifact: nothing of somebody else's is deleted.
    """
    target = _path(folder, "save")
    if target.exists() and not (target / MANIFEST).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"[save] {target} exists and is no FastRec artifact; expected a new or an empty folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    beside.mkdir()
    try:
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        safetensors.numpy.save_file(contiguous, beside / ARRAYS)
        for name, table in tables.items():
            with (
                pa.OSFile(str(beside / f"{name}.arrow"), "wb") as out,
                pa.ipc.new_file(out, table.schema) as writer,
            ):
                writer.write_table(table)
        files = {p.name: {"sha256": _digest(p), "bytes": p.stat().st_size} for p in sorted(beside.iterdir())}
        manifest = {"format": FORMAT, **config, "files": files}
        manifest["sha256"] = _manifest_digest(manifest)
        (beside / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
        for path in beside.iterdir():
            _sync(path)
        _sync(beside)
        if target.exists():
            _exchange(beside, target)
            shutil.rmtree(beside)
        else:
            beside.rename(target)
        _sync(target.parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def read(folder: str | os.PathLike[str], *, mmap: bool = True) -> tuple[dict[str, Any], Arrays, dict[str, Any]]:
    """(manifest, arrays, tables) of a folder whose every file has the size and checksum of the manifest.

    With ``mmap`` the arrays are read-only views of the file, shared by the processes of a machine.
    Raises ArtifactError for a missing, truncated or changed file and for another format version.
    """
    target = _path(folder, "load")
    manifest = _manifest(target)
    for name, entry in manifest["files"].items():
        path = target / name
        if not path.is_file():
            raise ArtifactError(f"[load] {path} is missing; save the model again")
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise ArtifactError(f"[load] {path} has {size} bytes, expected {entry['bytes']}; save the model again")
        if _digest(path) != entry["sha256"]:
            raise ArtifactError(f"[load] {path} does not match its checksum; save the model again")
    tables = {}
    for name in manifest["files"]:
        if name.endswith(".arrow"):
            source = pa.memory_map(str(target / name)) if mmap else pa.OSFile(str(target / name))
            tables[name.removesuffix(".arrow")] = pa.ipc.open_file(source).read_all()
    return manifest, _map_arrays(target / ARRAYS, mmap), tables


def _path(folder: Any, call: str) -> Path:
    if not isinstance(folder, (str, os.PathLike)):
        raise ConfigError(f"[{call}] folder is {type(folder).__name__}, expected a path")
    return Path(folder)


def _manifest(target: Path) -> dict[str, Any]:
    path = target / MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except OSError as error:
        raise ArtifactError(f"[load] {path} cannot be read ({error.strerror}); expected a saved folder") from error
    except ValueError as error:
        raise ArtifactError(f"[load] {path} is no valid JSON ({error}); save the model again") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise ArtifactError(f"[load] {path} is no manifest of FastRec; expected a saved folder")
    if manifest.get("format") != FORMAT:
        raise ArtifactError(
            f"[load] {path} has format {manifest.get('format')!r}, this version reads {FORMAT}; "
            "load it with the version that wrote it or save the model again"
        )
    if manifest.get("sha256") != _manifest_digest(manifest):
        raise ArtifactError(f"[load] {path} does not match its checksum; save the model again")
    for name, entry in manifest["files"].items():
        good = isinstance(entry, dict) and isinstance(entry.get("bytes"), int) and isinstance(entry.get("sha256"), str)
        if not good or Path(name).name != name:
            raise ArtifactError(f"[load] {path} has no valid entry for {name!r}; save the model again")
    if ARRAYS not in manifest["files"]:
        raise ArtifactError(f"[load] {path} does not list {ARRAYS}; save the model again")
    return manifest


def _map_arrays(path: Path, mmap: bool) -> Arrays:
    """All arrays of a safetensors file: 8 bytes length of the header, the header in JSON, the data."""
    if not mmap:
        loaded: Arrays = safetensors.numpy.load_file(path)
        return loaded
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    names: dict[str, type[np.generic]] = {"F32": np.float32, "F64": np.float64, "I32": np.int32, "I64": np.int64}
    names |= {"BOOL": np.bool_, "U8": np.uint8, "U16": np.uint16}
    arrays: Arrays = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype, shape, (begin, end) = names[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
        if begin == end:
            arrays[name] = np.empty(shape, dtype)
        else:
            arrays[name] = np.memmap(path, dtype, "r", offset=8 + length + begin, shape=shape).view(np.ndarray)
    return arrays


def _manifest_digest(manifest: dict[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _exchange(a: Path, b: Path) -> None:
    """Swap two folders in one step (renameat2 with RENAME_EXCHANGE): at no moment is either name missing."""
    at_cwd, exchange = -100, 2
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(at_cwd, os.fsencode(a), at_cwd, os.fsencode(b), exchange) == 0:
        return
    if ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(b))
    # A file system without the call: the old folder steps aside for the time of one rename.
    aside = a.with_name(f"{a.name}.old")
    b.rename(aside)
    a.rename(b)
    aside.rename(a)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

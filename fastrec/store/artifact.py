"""A saved folder: named arrays, Arrow tables and a manifest with a checksum of each file.

    manifest.json            format version, library versions, config; of every file sha256, checksum and size
    arrays-<i>.safetensors   all numeric arrays, dealt out so that the files can be checked side by side
    <name>.arrow             Arrow IPC files

The folder is written beside its place, fsynced and renamed, so that a crash leaves the old one or the new one. Nothing
is pickled. Every damage raises ArtifactError with the name of the file: each byte is looked at, by the checksum of
``fastrec.store.checksum``, which is ten times as fast as SHA-256; ``full`` checks both. With a key every file but the
manifest is sealed, and the manifest carries a keyed hash.
"""

import ctypes
import errno
import hashlib
import hmac
import json
import mmap as memory
import os
import shutil
import struct
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastrec import config as settings
from fastrec.errors import ArtifactError, ConfigError
from fastrec.store.checksum import checksum
from fastrec.store.seal import Sealer, derive

FORMAT = 2
MANIFEST = "manifest.json"
#: Files that the arrays are dealt out to, at most; small ones share one.
_SHARDS, _SMALL = 8, 1 << 20
#: Bytes that are hashed, or sealed, at once; a sealed file is a row of pieces of this size.
_CHUNK = 16 << 20
#: Arrays begin at multiples of this in their file: a cache line.
_ALIGN = 64
#: Read everything now: a disk that fails gives an error here, and a signal that ends the process when it is read later.
_POPULATE_READ = 22
_NAMES = {"F32": "f4", "F64": "f8", "I32": "i4", "I64": "i8", "BOOL": "?", "U8": "u1", "U16": "u2"}

_libc = ctypes.CDLL(None, use_errno=True)

Arrays = dict[str, npt.NDArray[Any]]


def write(
    folder: str | os.PathLike[str],
    config: dict[str, Any],
    arrays: Arrays,
    tables: dict[str, Any],
    *,
    key: bytes | None = None,
) -> None:
    """Write a folder atomically; an existing artifact is replaced.

    key: 32 bytes: seal the files
    Raises ConfigError where ``folder`` exists and is no artifact: nothing of somebody else's is deleted. Raises
    ArtifactError where the place cannot be written to; what was there before stays.
    """
    target = _path(folder, "save")
    try:
        if target.exists() and not (target / MANIFEST).is_file() and (not target.is_dir() or any(target.iterdir())):
            raise ConfigError(f"[save] {target} exists and is no FastRec artifact; expected a new or an empty folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        beside.mkdir()
        try:
            _fill(beside, config, arrays, tables, key)
            if target.exists():
                _exchange(beside, target)
                shutil.rmtree(beside)
            else:
                beside.rename(target)
            _sync(target.parent)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
    except OSError as error:
        raise ArtifactError(
            f"[save] {target} cannot be written ({error.strerror or error}); expected a folder with enough space that "
            "this user may write to"
        ) from error


def _fill(beside: Path, config: dict[str, Any], arrays: Arrays, tables: dict[str, Any], key: bytes | None) -> None:
    sealer = None if key is None else Sealer(key)
    files = {}
    for i, names in enumerate(_shards(arrays)):
        files[f"arrays-{i}.safetensors"] = _pieces(names, arrays)
    for name, table in tables.items():
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        files[f"{name}.arrow"] = iter([memoryview(sink.getvalue())])
    entries = {}
    for name, pieces in sorted(files.items()):
        entries[name] = _write_file(beside / name, pieces, sealer)
    manifest = {"format": FORMAT, **config, "files": entries}
    if sealer is not None and key is not None:
        manifest["sealed"] = sealer.check
        manifest["mac"] = _mac(manifest, key)
    manifest["sha256"] = _manifest_digest(manifest)
    (beside / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    _sync(beside / MANIFEST)
    _sync(beside)


def _shards(arrays: Arrays) -> list[list[str]]:
    """Names of the arrays of each file: large ones one by one to the smallest file, small ones together."""
    names = sorted(arrays, key=lambda name: (-arrays[name].nbytes, name))
    large = [name for name in names if arrays[name].nbytes >= _SMALL]
    shards: list[list[str]] = [[name for name in names if arrays[name].nbytes < _SMALL]]
    sizes = [0]
    for name in large:
        if len(shards) < _SHARDS:
            shards.append([])
            sizes.append(0)
            at = len(shards) - 1
        else:
            at = sizes.index(min(sizes))
        shards[at].append(name)
        sizes[at] += arrays[name].nbytes
    return shards


def _pieces(names: list[str], arrays: Arrays) -> Iterator[memoryview]:
    """The bytes of a safetensors file: 8 bytes length of the header, the header in JSON, the data without gaps.

    Arrays whose size is a whole number of cache lines come first, so that they all begin at one.
    """
    order = sorted(names, key=lambda name: (arrays[name].nbytes % _ALIGN != 0, -arrays[name].dtype.itemsize, name))
    header, at = {}, 0
    for name in order:
        array = arrays[name]
        kind = next((k for k, v in _NAMES.items() if np.dtype(v) == array.dtype), None)
        assert kind is not None, (name, array.dtype)
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % _ALIGN)
    yield memoryview(struct.pack("<Q", len(text)) + text)
    for name in order:
        if arrays[name].nbytes:
            yield memoryview(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)


def _write_file(path: Path, pieces: Iterator[memoryview], sealer: Sealer | None) -> dict[str, Any]:
    """Write, sync and hash a file; its entry in the manifest."""
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as out:
        for data in pieces if sealer is None else _sealed(pieces, path.name, sealer):
            for first in range(0, len(data), _CHUNK):
                part = data[first : first + _CHUNK]
                digest.update(part)
                out.write(part)
            size += len(data)
        out.flush()
        os.fsync(out.fileno())
    return {"sha256": digest.hexdigest(), "checksum": checksum(_mapped(path)), "bytes": size}


def _sealed(pieces: Iterator[memoryview], name: str, sealer: Sealer) -> Iterator[memoryview]:
    """Pieces of one size, each with its place and whether it is the last in what it is sealed for."""
    number, held = 0, bytearray()
    for data in pieces:
        for first in range(0, len(data), _CHUNK):
            held += data[first : first + _CHUNK]
            while len(held) > _CHUNK:  # not >=: the last piece must be known as such
                yield memoryview(sealer.seal(bytes(held[:_CHUNK]), _purpose(name, number, False)))
                del held[:_CHUNK]
                number += 1
    yield memoryview(sealer.seal(bytes(held), _purpose(name, number, True)))


def _unsealed(data: memoryview, path: Path, sealer: Sealer) -> bytearray:
    out, piece = bytearray(), _CHUNK + sealer.overhead
    count = max(1, -(-len(data) // piece))
    for number in range(count):
        part = bytes(data[number * piece : (number + 1) * piece])
        out += sealer.open(part, _purpose(path.name, number, number == count - 1), str(path))
    return out


def _purpose(name: str, number: int, last: bool) -> bytes:
    return f"{name} {number} {last}".encode()


def read(
    folder: str | os.PathLike[str], *, mmap: bool = True, key: bytes | None = None, full: bool = False
) -> tuple[dict[str, Any], Arrays, dict[str, Any]]:
    """(manifest, arrays, tables) of a folder whose every file has the size and checksum of the manifest.

    mmap: the arrays are read-only views of the files, shared by the processes of a machine; sealed ones are read into
        memory
    full: compare SHA-256 as well
    Raises ArtifactError for a missing, truncated or changed file, for another format version and for another key.
    """
    target = _path(folder, "load")
    manifest = _manifest(target)
    sealer = None
    if manifest.get("sealed") is not None:
        sealer = _opener(target / MANIFEST, manifest, key)
    arrays: Arrays = {}
    tables = {}
    for name, data in _checked(target, manifest["files"], mmap and sealer is None, full or sealer is not None).items():
        path = target / name
        try:
            if sealer is not None:
                data = _unsealed(memoryview(data), path, sealer)
            if name.endswith(".arrow"):
                tables[name.removesuffix(".arrow")] = pa.ipc.open_file(pa.py_buffer(data)).read_all()
            else:
                arrays |= _arrays(data)
        except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise ArtifactError(f"[load] {path} cannot be read ({error}); save the model again") from error
    return manifest, arrays, tables


def _checked(target: Path, files: dict[str, Any], mmap: bool, full: bool) -> dict[str, Any]:
    """The bytes of every file, mapped or read, which are those that were written."""
    found: dict[str, Any] = {}
    slow = []
    for name, entry in files.items():
        path = target / name
        try:
            size = path.stat().st_size if path.is_file() else None
            if size is None:
                raise ArtifactError(f"[load] {path} is missing; save the model again")
            if size != entry["bytes"]:
                raise ArtifactError(f"[load] {path} has {size} bytes, expected {entry['bytes']}; save the model again")
            found[name] = _mapped(path) if mmap else bytearray(path.read_bytes())
        except OSError as error:
            raise ArtifactError(f"[load] {path} cannot be read ({error.strerror}); save the model again") from error
        if len(found[name]) != size or ("checksum" in entry and checksum(found[name]) != entry["checksum"]):
            raise _changed(path)
        if full or "checksum" not in entry:  # a folder of before there was one
            slow.append(name)
    with ThreadPoolExecutor(settings.threads()) as pool:
        slow.sort(key=lambda name: -files[name]["bytes"])
        for name, digest in zip(slow, pool.map(lambda n: hashlib.sha256(found[n]).hexdigest(), slow), strict=True):
            if digest != files[name]["sha256"]:
                raise _changed(target / name)
    return found


def _changed(path: Path) -> ArtifactError:
    return ArtifactError(f"[load] {path} does not match its checksum; save the model again")


def _mapped(path: Path) -> Any:
    """The bytes of a file as a read-only map."""
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return b""
        mapped = memory.mmap(file.fileno(), 0, access=memory.ACCESS_READ)
    address = np.frombuffer(mapped, np.uint8).ctypes.data
    # By ctypes, which lets other threads run meanwhile.
    if _libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(len(mapped)), _POPULATE_READ):
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOSYS):  # a kernel before 5.14
            raise OSError(code, os.strerror(code), str(path))
    return mapped


def _opener(path: Path, manifest: dict[str, Any], key: bytes | None) -> Sealer:
    if key is None:
        raise ArtifactError(f"[load] {path}: the model is encrypted; give its key in FASTREC_KEY")
    sealer = Sealer(key)
    mac = str(manifest.get("mac"))
    rest = {name: value for name, value in manifest.items() if name not in ("mac", "sha256")}
    if manifest["sealed"] != sealer.check or not hmac.compare_digest(mac, _mac(rest, key)):
        raise ArtifactError(f"[load] {path}: the key is another one than that of the model")
    return sealer


def _mac(manifest: dict[str, Any], key: bytes) -> str:
    text = json.dumps(manifest, sort_keys=True).encode()
    return hashlib.blake2b(text, digest_size=32, key=derive(key, b"fastrec-manifest")).hexdigest()


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
        if not good or not isinstance(entry.get("checksum", ""), str) or Path(name).name != name:
            raise ArtifactError(f"[load] {path} has no valid entry for {name!r}; save the model again")
    return manifest


def _arrays(data: Any) -> Arrays:
    """All arrays of the bytes of a safetensors file, as views of them."""
    view = memoryview(data)
    (length,) = struct.unpack("<Q", view[:8])
    header = json.loads(bytes(view[8 : 8 + length]))
    arrays: Arrays = {}
    for name, entry in header.items():
        dtype, (begin, end) = np.dtype(_NAMES[entry["dtype"]]), entry["data_offsets"]
        flat = np.frombuffer(view[8 + length + begin : 8 + length + end], dtype)
        arrays[name] = flat.reshape(entry["shape"])
    return arrays


def _manifest_digest(manifest: dict[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _exchange(a: Path, b: Path) -> None:
    """Swap two folders in one step (renameat2 with RENAME_EXCHANGE): at no moment is either name missing."""
    at_cwd, exchange = -100, 2
    if _libc.renameat2(at_cwd, os.fsencode(a), at_cwd, os.fsencode(b), exchange) == 0:
        return
    if ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(b))
    # A file system without the call: the old folder steps aside for the time of one rename.
    aside = a.with_name(f"{a.name}.old")
    b.rename(aside)
    a.rename(b)
    aside.rename(a)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

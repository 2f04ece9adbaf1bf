"""Folders of transformers models: where one is, what its JSON files say, and a digest of its content.

Nothing here imports torch or transformers: a run whose results are all cached needs neither. ``where`` and ``field``
are for messages: the stage that asks, and the setting that names the model.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from fastrec.errors import ArtifactError, BackendUnavailable, ConfigError

_EXPECTED = "a folder or a Hugging Face model id"
_REMEDY = "pass a model folder, or let Hugging Face downloads through"
_HUB_NAME = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")
_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
_NO_FILES = ("onnx/*", "openvino/*", "*.msgpack", "*.h5")
_HASH_WHOLE = 1 << 28  # bytes; larger weight files are sampled
_SAMPLES = 64


def check_name(model: object, where: str, field: str, expected: str = _EXPECTED) -> None:
    """ConfigError where ``model`` can be neither a folder nor the name of a model."""
    if not isinstance(model, (str, os.PathLike)):
        raise ConfigError(f"[{where}] {field}={model!r}, expected a str or a path: {expected}")
    if isinstance(model, os.PathLike) or _looks_like_path(model):
        if not Path(model).is_dir():
            raise ConfigError(f"[{where}] {field}={str(model)!r}, expected a folder: there is none of this name")
    elif not _HUB_NAME.fullmatch(model):
        raise ConfigError(f"[{where}] {field}={model!r}, expected {expected}")


def locate(model: str | os.PathLike[str], where: str, field: str, expected: str = _EXPECTED) -> Path:
    """The folder of the model; downloaded, where that is allowed, for a Hugging Face id.

    Raises BackendUnavailable where the model cannot be had, ConfigError where there is none of this name.
    """
    check_name(model, where, field, expected)
    return Path(model) if Path(model).is_dir() else from_hub(str(model), _REMEDY, where)


def from_hub(repo: str, remedy: str, where: str, name: str | None = None) -> Path:
    """As ``locate``, for a Hugging Face id; ``name``: what the caller called it."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
    except ImportError as error:
        raise BackendUnavailable(where, name or repo, str(error), remedy) from error
    kind: dict[str, Any] = {"allow_patterns": list(_FILES), "ignore_patterns": list(_NO_FILES)}
    try:
        # What is on this disk first: no traffic, and the same vectors as last time.
        folder = Path(snapshot_download(repo, local_files_only=True, **kind))
        if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
            return folder
    except Exception:  # not there: the next try says why
        pass
    try:
        return Path(snapshot_download(repo, **kind))
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise ConfigError(f"[{where}] model={repo!r}, expected a model on Hugging Face: {line(error)}") from error
    except Exception as error:  # the network raises what it likes
        reason = f"{repo} cannot be had: {line(error)}"
        raise BackendUnavailable(where, name or repo, reason, remedy) from error


def digest(folder: Path, salt: bytes, where: str) -> str:
    """32 hex digits that change with the salt and the content of the files.

    Small files and weights of up to 256 MB are hashed whole (0.1 s for MiniLM); of larger ones the size,
    the time of the last change and 64 samples of 64 KB.
    """
    found = hashlib.blake2b(salt, digest_size=16)
    try:
        patterns = (*_FILES, "*/config.json")
        files = sorted({file for pattern in patterns for file in folder.glob(pattern)})
        for file in files:
            stat = file.stat()
            found.update(f"\0{file.relative_to(folder)}\0{stat.st_size}\0".encode())
            with open(file, "rb") as stream:
                if stat.st_size <= _HASH_WHOLE:
                    while block := stream.read(1 << 20):
                        found.update(block)
                    continue
                found.update(str(stat.st_mtime_ns).encode())
                last = max(0, stat.st_size - (1 << 16))
                for sample in range(_SAMPLES):
                    stream.seek(sample * last // (_SAMPLES - 1))
                    found.update(stream.read(1 << 16))
    except OSError as error:
        raise ArtifactError(f"[{where}] cannot read the model in {folder}: {error}") from error
    return found.hexdigest()


def read_json(path: Path, kind: type = dict, where: str = "encode") -> Any:
    """The content of a JSON file; None where there is no file, ArtifactError where it is something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"[{where}] {path} cannot be read: {error}") from error
    if not isinstance(content, kind):
        raise ArtifactError(f"[{where}] {path} holds a {type(content).__name__}, expected a {kind.__name__}")
    return content


def line(error: Exception) -> str:
    """The first line of what an exception says, and its type."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def _looks_like_path(model: str) -> bool:
    return model.startswith(("/", "./", "../", "~")) or model.count("/") > 1

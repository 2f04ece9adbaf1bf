"""What a training leaves for one that goes on after a kill: a single safetensors file, replaced by a rename."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrec.errors import ArtifactError
from fastrec.types import Embeddings, Interactions

if TYPE_CHECKING:
    from fastrec.models.sequential import Sequential

_FORMAT = "fastrec-sequential-1"  # raise it when the same settings begin to train otherwise


def path(settings: "Sequential", interactions: Interactions, embeddings: Embeddings | None, goal: str) -> Path | None:
    """File of this training, named after its settings and data; None where no folder is set."""
    if settings.checkpoint is None:
        return None
    digest = hashlib.sha256(f"{_FORMAT} {goal} {interactions.n_items}".encode())
    digest.update(json.dumps({**dataclasses.asdict(settings), "checkpoint": None}, sort_keys=True).encode())
    arrays = [interactions.indptr, interactions.items, interactions.times, interactions.weights]
    arrays += [] if interactions.kinds is None else [interactions.kinds]
    arrays += [] if embeddings is None else [embeddings.vectors, embeddings.known]
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return Path(settings.checkpoint) / f"{digest.hexdigest()[:32]}.safetensors"


def write(target: Path, arrays: dict[str, Any], numbers: dict[str, Any]) -> None:
    """Write beside the place, sync and rename: a kill leaves the old file or the new one."""
    from safetensors.torch import save_file

    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    save_file(arrays, beside, {"training": json.dumps(numbers)})
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    beside.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(target: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """(arrays, numbers) of a file, None where there is none; ArtifactError for a damaged one."""
    import safetensors

    if not target.is_file():
        return None
    try:
        with safetensors.safe_open(target, "pt") as file:
            numbers = json.loads(file.metadata()["training"])
            return {name: file.get_tensor(name) for name in list(file.keys())}, numbers
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"[sequential] {target} is no checkpoint ({error}); delete it to begin again") from error

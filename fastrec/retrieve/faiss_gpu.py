"""FAISS on a GPU, with guards where it goes wrong without a word.

Without a GPU ``index_cpu_to_all_gpus`` gives an empty index that finds nothing, and a GPU index ignores an IDSelector;
both are errors here. The wheels faiss-cpu and faiss-gpu share one folder: with both installed one overwrites the other.
"""

import importlib
import importlib.metadata
import importlib.util
from typing import Any

from fastrec.errors import BackendUnavailable, ConfigError

_CPU, _GPU = ("faiss-cpu",), ("faiss-gpu", "faiss-gpu-cu12", "faiss-gpu-cu11")


def missing() -> tuple[str, str] | None:
    """None where FAISS can use a GPU, else (reason, remedy)."""
    installed = [name for name in (*_CPU, *_GPU) if _installed(name)]
    cpu, gpu = ([n for n in installed if n in names] for names in (_CPU, _GPU))
    if cpu and gpu:
        return (f"{cpu[0]} and {gpu[0]} are both installed and overwrite each other", f"pip uninstall {cpu[0]}")
    if importlib.util.find_spec("faiss") is None:
        return ("faiss is not installed", "pip install 'fastrec-engine[faiss-gpu]'")
    faiss = importlib.import_module("faiss")
    if not hasattr(faiss, "StandardGpuResources"):
        return ("this faiss is built for the CPU", "pip uninstall faiss-cpu; pip install 'fastrec-engine[faiss-gpu]'")
    if faiss.get_num_gpus() == 0:
        return ("faiss finds no GPU", "check the driver with nvidia-smi")
    return None


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def to_gpu(index: Any) -> Any:
    """The index on all GPUs; BackendUnavailable where there is none, instead of an index that finds nothing."""
    gap = missing()
    if gap is not None:
        raise BackendUnavailable("retrieve", "faiss-gpu", *gap)
    moved = importlib.import_module("faiss").index_cpu_to_all_gpus(index)
    if moved.ntotal != index.ntotal:
        reason = f"the index on the GPU holds {moved.ntotal} of {index.ntotal} vectors"
        raise BackendUnavailable("retrieve", "faiss-gpu", reason, "an index of a kind that FAISS supports on GPUs")
    return moved


def search(index: Any, queries: Any, k: int, selector: Any = None) -> tuple[Any, Any]:
    """(scores, rows) [B, k] of a FAISS index on a CPU or a GPU.

    selector: a faiss.IDSelector, for indexes on the CPU. Raises ConfigError for one on a GPU, which would ignore it.
    """
    if selector is None:
        found: tuple[Any, Any] = index.search(queries, k)
        return found
    kind = type(index).__name__
    if kind.startswith("GpuIndex") or kind in ("IndexReplicas", "IndexShards"):
        raise ConfigError(
            f"[retrieve] selector is {type(selector).__name__}, which {kind} ignores; expected None: filter the "
            "candidates, use an index on the CPU, or ops.score_topk, which filters exactly on a GPU"
        )
    faiss = importlib.import_module("faiss")
    found = index.search(queries, k, params=faiss.SearchParameters(sel=selector))
    return found


__all__ = ["missing", "search", "to_gpu"]

"""What runs here: the table of operators and backends with the reason for every gap."""

import importlib.metadata
import os
import platform

from fastrec import _native, config, ops
from fastrec.retrieve import faiss_gpu

_PACKAGES = (
    "fastrec-engine",
    "numpy",
    "numba",
    "polars",
    "pyarrow",
    "torch",
    "transformers",
    "triton",
    "faiss-cpu",
)


def table() -> str:
    """The report as text."""
    lines = [
        f"fastrec {importlib.metadata.version('fastrec-engine')}, Python {platform.python_version()}, "
        f"{platform.machine()}, {config.threads()} threads, SIMD {_simd()}",
        "packages: " + ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
        "environment: "
        + (", ".join(f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith("FASTREC_")) or "-"),
        "",
        f"{'operator':<18}{'backend':<12}{'device':<8}status",
    ]
    for name, op in sorted(ops.CATALOGUE.items()):
        for backend, entry in op.backends.items():
            gap = entry.missing()
            status = "ok" if gap is None else f"missing: {gap[0]}; {gap[1]}"
            lines.append(f"{name:<18}{backend:<12}{entry.device:<8}{status}")
        lines.append(f"{name:<18}{'reference':<12}{'cpu':<8}ok (slow, for tests)")
    gap = faiss_gpu.missing()
    status = "ok" if gap is None else f"missing: {gap[0]}; {gap[1]}"
    lines.append(f"{'retrieve':<18}{'faiss':<12}{'cuda':<8}{status}")
    return "\n".join(lines)


def _simd() -> str:
    """Instruction sets that native operators can use here, the one in use last."""
    gap = _native.missing_cpu()
    return gap[0] if gap is not None else " < ".join(_native.module("doctor").simd_levels())


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "-"

"""Backends as parameters, and garbage in every output before an operator runs."""

import sys

import numpy as np
import pytest

from fastrec import _native, ops
from fastrec.ops import _arrays, _scoring

SIMD = _native._C.simd_levels() if _native._C is not None else []
#: Every instruction set over each screen.
LEVELS = [f"{level}-{screen}" for level in SIMD for screen in ("int8", "bfloat16")]
BACKENDS = [*[f"cpu-{level}" for level in LEVELS], "numba", "reference"]


def force(monkeypatch, level):
    """Run native operators at a level of LEVELS."""
    simd, _, screen = level.partition("-")
    monkeypatch.setenv("FASTREC_SIMD", simd)
    pack = _scoring.pack
    if screen:
        monkeypatch.setattr(_scoring, "pack", lambda *args: ops.pack_items(pack(*args), dtype=screen))


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    """Every backend that runs here; the native one at every level."""
    name, _, level = request.param.partition("-")
    force(monkeypatch, level)
    return name


@pytest.fixture(params=[*BACKENDS, "torch"])
def topk_backend(request, monkeypatch):
    """The same with the one that only score_topk has."""
    name, _, level = request.param.partition("-")
    force(monkeypatch, level)
    return name


@pytest.fixture(params=LEVELS)
def level(request, monkeypatch):
    force(monkeypatch, request.param)
    return request.param


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Outputs are NaN, or rows that no catalogue has, until they are written."""

    def garbage(shape, dtype):
        value = np.nan if np.dtype(dtype).kind == "f" else 77
        return np.full(shape, value, dtype)

    monkeypatch.setattr(_arrays, "empty", garbage)
    # ops.pack_items is the function, so that the module is found by name only.
    monkeypatch.setattr(sys.modules["fastrec.ops.pack_items"], "empty", garbage)

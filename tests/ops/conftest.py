"""Backends as parameters, and garbage in every output before an operator runs."""

import sys

import numpy as np
import pytest

from fastrec import _native, ops  # noqa: F401  (ops loads the module that poison names)
from fastrec.ops import _arrays

LEVELS = _native._C.simd_levels() if _native._C is not None else []
BACKENDS = [*[f"cpu-{level}" for level in LEVELS], "numba", "reference"]


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    """Every backend that runs here; the native one at every SIMD level."""
    name, _, level = request.param.partition("-")
    monkeypatch.setenv("FASTREC_SIMD", level)
    return name


@pytest.fixture(params=LEVELS)
def level(request, monkeypatch):
    monkeypatch.setenv("FASTREC_SIMD", request.param)
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

"""Engines for the GPU operators: the emulator on every machine, and a device where there is one."""

import emulator
import pytest

from fastrec.ops import _cuda


@pytest.fixture(scope="session")
def emulated_module():
    return emulator.load()


@pytest.fixture
def emulated(emulated_module, monkeypatch):
    """The CUDA backends run, on the emulator; outputs are NaN until they are written."""
    monkeypatch.setattr(_cuda, "RUNTIME", emulator.Emulated(emulated_module))
    with emulator.poisoned(monkeypatch):
        yield


@pytest.fixture
def device():
    """A real device, or a skip that says why there is none."""
    gap = _cuda.missing()
    if gap is not None:
        pytest.skip(f"no GPU here: {gap[0]}; {gap[1]}")
    return _cuda.RUNTIME.device()

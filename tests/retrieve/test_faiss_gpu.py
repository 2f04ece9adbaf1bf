"""The guards around FAISS on a GPU, on a stand-in that behaves as FAISS does without one."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from fastrec.errors import BackendUnavailable, ConfigError
from fastrec.retrieve import faiss_gpu


class GpuIndexFlat:
    def __init__(self, ntotal=0):
        self.ntotal = ntotal

    def search(self, queries, k, params=None):
        return ("scores", params)


class IndexFlat(GpuIndexFlat):
    pass


@pytest.fixture
def fake(monkeypatch):
    """faiss with one GPU, as the wheel faiss-gpu-cu12."""
    module = ModuleType("faiss")
    module.__spec__ = ModuleSpec("faiss", None)
    module.StandardGpuResources, module.get_num_gpus = object, lambda: 1
    module.index_cpu_to_all_gpus = lambda index: GpuIndexFlat(index.ntotal if module.get_num_gpus() else 0)
    module.SearchParameters = lambda sel: ("params", sel)
    module.installed = {"faiss-gpu-cu12"}
    monkeypatch.setitem(sys.modules, "faiss", module)
    # Of this module only: others ask for versions too, at their first import.
    monkeypatch.setattr(faiss_gpu, "_installed", lambda name: name in module.installed)
    return module


def test_an_index_goes_to_the_gpu(fake):
    assert faiss_gpu.missing() is None
    assert faiss_gpu.to_gpu(IndexFlat(7)).ntotal == 7


def test_without_a_gpu_there_is_no_silent_empty_index(fake):
    fake.get_num_gpus = lambda: 0
    with pytest.raises(BackendUnavailable, match=r"faiss finds no GPU\. Remedy: check the driver"):
        faiss_gpu.to_gpu(IndexFlat(7))


def test_what_is_installed():
    assert faiss_gpu._installed("numpy") and not faiss_gpu._installed("no-such-package")


def test_the_doctor_shows_the_gap(fake):
    from fastrec import doctor

    assert doctor.table().splitlines()[-1].split() == ["retrieve", "faiss", "cuda", "ok"]
    fake.get_num_gpus = lambda: 0
    (line,) = [x for x in doctor.table().splitlines() if x.startswith("retrieve")]
    assert line.endswith("missing: faiss finds no GPU; check the driver with nvidia-smi")


def test_an_index_that_arrives_empty_is_an_error(fake):
    fake.index_cpu_to_all_gpus = lambda index: GpuIndexFlat(0)
    with pytest.raises(BackendUnavailable, match="holds 0 of 7 vectors"):
        faiss_gpu.to_gpu(IndexFlat(7))


def test_a_build_for_the_cpu(fake):
    del fake.StandardGpuResources
    with pytest.raises(BackendUnavailable, match="built for the CPU"):
        faiss_gpu.to_gpu(IndexFlat(7))


def test_both_wheels_at_once(fake):
    fake.installed.add("faiss-cpu")
    with pytest.raises(BackendUnavailable, match="faiss-cpu and faiss-gpu-cu12 are both installed"):
        faiss_gpu.to_gpu(IndexFlat(7))


def test_a_selector_that_a_gpu_would_ignore(fake):
    with pytest.raises(ConfigError, match=r"\[retrieve\] selector is object, which GpuIndexFlat ignores"):
        faiss_gpu.search(GpuIndexFlat(7), None, 3, selector=object())
    assert faiss_gpu.search(GpuIndexFlat(7), None, 3) == ("scores", None)
    assert faiss_gpu.search(IndexFlat(7), None, 3, selector="s") == ("scores", ("params", "s"))

"""Every operator on its own cases: each backend gives the bits of the reference, at any number of threads."""

import subprocess
import sys

import numpy as np
import pytest

from fastrec import ops
from fastrec.errors import BackendUnavailable, ConfigError
from fastrec.ops import _arrays, _cases
from fastrec.types import Csr

CASES = [
    pytest.param(name, case, id=f"{name}-" + "-".join(f"{k}{v}" for k, v in case.items()))
    for name, op in sorted(ops.CATALOGUE.items())
    for case in op.cases
]


def flat(result):
    """The arrays of a result of any operator."""
    if isinstance(result, ops.PackedItems):
        return [result.rows, result.screen.codes, result.screen.scales]
    if isinstance(result, Csr):
        return [result.indptr, result.indices, result.values]
    return list(result) if isinstance(result, tuple) else [result]


def call(name, args, kwargs, **options):
    return flat(getattr(ops, name)(*args, **kwargs, **options))


@pytest.mark.parametrize(("name", "case"), CASES)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_backends_give_the_bits_of_the_reference(name, case, threads, backend):
    if backend not in ops.CATALOGUE[name].backends and backend != "reference":
        # the one that it has instead of numba; tests/gpu runs those of other devices
        backend = [n for n, b in ops.CATALOGUE[name].backends.items() if b.device == "cpu"][-1]
    args, kwargs = _cases.make(name, case)
    want = call(name, args, kwargs, backend="reference")
    got = call(name, args, kwargs, backend=backend, threads=threads)
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        if ops.CATALOGUE[name].exact:
            np.testing.assert_array_equal(a, b, strict=True)
        else:
            close = ops.CATALOGUE[name].rtol * float(np.abs(b).max(initial=1.0))
            np.testing.assert_allclose(a, b, rtol=0, atol=close, strict=True)


def test_exports():
    assert sorted(ops.__all__, key=str.lower) == ops.__all__
    public = {n for n in vars(ops) if not n.startswith("_")}
    assert set(ops.__all__) == public


def test_catalogue_names_every_function():
    assert set(ops.CATALOGUE) == set(_cases._MAKERS)
    for name, op in ops.CATALOGUE.items():
        assert op.name == name
        assert callable(getattr(ops, name))
        assert op.cases


@pytest.mark.parametrize("name", sorted(set(ops.CATALOGUE)))
def test_unknown_backend_and_threads(name):
    args, kwargs = _cases.make(name, ops.CATALOGUE[name].cases[1])
    with pytest.raises(ConfigError, match=rf"\[{name}\] backend is 'gpu', expected one of"):
        call(name, args, kwargs, backend="gpu")
    with pytest.raises(ConfigError, match="threads=0"):
        call(name, args, kwargs, threads=0)


@pytest.mark.parametrize("name", ["score_topk", "score_pairs"])
def test_simd_level_that_is_none(name, monkeypatch):
    args, kwargs = _cases.make(name, ops.CATALOGUE[name].cases[3])
    monkeypatch.setenv("FASTREC_SIMD", "sse9")
    with pytest.raises(ConfigError, match=rf"\[{name}\] FASTREC_SIMD='sse9', expected one of scalar, avx2, avx512"):
        call(name, args, kwargs, backend="cpu")


def test_simd_level_that_the_machine_lacks(monkeypatch):
    class Old:
        @staticmethod
        def simd_levels():
            return ["scalar"]

    from fastrec import _native

    monkeypatch.setattr(_native, "_C", Old)
    monkeypatch.setenv("FASTREC_SIMD", "avx512")
    with pytest.raises(BackendUnavailable, match="FASTREC_SIMD=avx512, but this machine runs scalar"):
        _arrays.simd("score_topk")


def test_import_is_light():
    code = "import fastrec.ops, sys; print('numba' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"

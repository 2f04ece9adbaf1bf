"""als and item_item on the array API: the same results on any library; here NumPy, and a strict one of its standard."""

import array_api_strict
import numpy as np
import pytest
from helpers import dense, interactions, random_interactions

from fastrec.errors import BackendUnavailable, ConfigError
from fastrec.models import Als, ItemItem, _arrays
from fastrec.profiles import profiles

LIBRARIES = pytest.mark.parametrize("library", [np, array_api_strict], ids=lambda m: m.__name__)


@LIBRARIES
@pytest.mark.parametrize("cells", [64_000_000, 300])  # one block, many blocks
def test_als_is_that_of_the_cpu(library, cells, monkeypatch):
    monkeypatch.setattr(_arrays, "cupy", lambda model: library)
    monkeypatch.setattr(_arrays, "_CELLS", cells)
    data = random_interactions(4, n_users=90, n_items=31)
    settings = {"factors": 7, "alpha": 3.0, "regularization": 0.7, "iterations": 6, "seed": 3}
    here, there = (Als(device=d, **settings).fit(data, None, "next") for d in ("cpu", "cuda"))
    assert np.abs(here.vectors).max() > 0.1
    np.testing.assert_allclose(there.vectors, here.vectors, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(profiles(there, data), profiles(here, data), rtol=2e-3, atol=1e-3)
    assert type(there.vectors) is np.ndarray and there.vectors.dtype == np.float32


@LIBRARIES
def test_items_and_users_without_events(library, monkeypatch):
    monkeypatch.setattr(_arrays, "cupy", lambda model: library)
    source = Als(factors=3, device="cuda").fit(interactions([[0, 1], []], 4), None, "next")
    assert (source.vectors[2:] == 0).all() and source.vectors[:2].any() and np.isfinite(source.vectors).all()
    assert Als(device="cuda").fit(interactions([[0]], 1, weights=[0.0]), None, "next") is None


@LIBRARIES
@pytest.mark.parametrize("similarity", ["cosine", "tfidf", "bm25"])
def test_item_item_is_that_of_the_cpu(library, similarity, monkeypatch):
    monkeypatch.setattr(_arrays, "cupy", lambda model: library)
    monkeypatch.setattr(_arrays, "_USERS", 16)
    monkeypatch.setattr("fastrec.models.item_item._BLOCK_ENTRIES", 100)
    data = random_interactions(5, n_users=90, n_items=31)
    here, there = (
        dense(ItemItem(similarity=similarity, neighbors=40, device=d).fit(data, None, "next").similarity)
        for d in ("cpu", "cuda")
    )
    assert here.max() > 0
    np.testing.assert_allclose(there, here, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", [Als, ItemItem])
def test_without_cupy_the_error_names_the_remedy(model):
    try:
        import cupy

        if cupy.cuda.runtime.getDeviceCount():
            pytest.skip("this machine has CuPy and a CUDA device")
    except Exception:  # neither, as meant here
        pass
    with pytest.raises(BackendUnavailable, match=r"CuPy .*device='cpu', or pip install 'fastrec-engine"):
        model(device="cuda").fit(random_interactions(1), None, "next")


@pytest.mark.parametrize("model", [Als, ItemItem])
def test_another_device(model):
    with pytest.raises(ConfigError, match="device='tpu', expected 'cpu' or 'cuda'"):
        model(device="tpu")

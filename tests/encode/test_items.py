import numpy as np
import pyarrow as pa
import pytest

import fastrec.encode
from fastrec.encode import Encoder, as_encoder, embed_items
from fastrec.errors import ConfigError, DataError
from fastrec.types import Catalog


def lengths(texts):
    """A callable encoder: the length of a text and one."""
    return np.array([[len(t), 1.0] for t in texts])


def vector_column(rows, size, dtype=None):
    return pa.array(rows, pa.list_(dtype or pa.float32(), size))


def test_exported_names_are_sorted():
    names = fastrec.encode.__all__
    assert names == sorted(names, key=str.lower)
    assert all(hasattr(fastrec.encode, name) for name in names)


def test_as_encoder(tiny):
    assert as_encoder(None) is None
    encoder = Encoder(tiny)
    assert as_encoder(encoder) is encoder
    assert as_encoder(str(tiny)).fingerprint == encoder.fingerprint == as_encoder(tiny).fingerprint
    for bad in (5, ["minilm"], Encoder, object()):
        with pytest.raises(ConfigError, match=r"\[encode\] encoder="):
            as_encoder(bad)


def test_a_function_is_called_once_with_distinct_texts_and_normalised():
    calls = []
    encoder = as_encoder(lambda texts: calls.append(texts) or lengths(texts))
    got = encoder.encode(["aa", None, "b", "aa", " "])
    assert calls == [["aa", "b"]]
    assert encoder.fingerprint is None
    assert encoder.dimension == 2
    assert got.dtype == np.float32
    np.testing.assert_allclose(got[0], np.array([2, 1]) / np.sqrt(5), rtol=1e-6)
    np.testing.assert_array_equal(got[3], got[0])
    assert not got[[1, 4]].any()
    assert encoder.encode([]).shape == (0, 2)
    assert as_encoder(lengths).dimension == 2


def test_an_object_with_encode_and_a_torch_result():
    import torch

    class Model:
        def encode(self, texts):
            return torch.tensor(lengths(texts), requires_grad=True)

        def __call__(self, texts):
            raise AssertionError("SentenceTransformer is callable, too, but means something else by it")

    encoder = as_encoder(Model())
    assert encoder.name == "Model"
    np.testing.assert_allclose(np.linalg.norm(encoder.encode(["a"]), axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    "result",
    [np.ones((1, 2)), np.ones(2), [[1, 2], [3]], [["a"], ["b"]], np.ones((2, 0)), np.full((2, 2), np.nan)],
)
def test_a_function_that_gives_something_else(result):
    with pytest.raises(DataError, match=r"\[encode\] encoder <lambda> gave"):
        as_encoder(lambda texts: result).encode(["a", "b"])


def test_text_only():
    catalog = Catalog(pa.table({"title": ["ab", None, "abc"]}), ("title",))
    got = embed_items(catalog, as_encoder(lengths))
    assert got.known.tolist() == [True, False, True]
    np.testing.assert_allclose(got.vectors[0], np.array([2, 1]) / np.sqrt(5), rtol=1e-6)
    assert not got.vectors[1].any()


def test_text_and_vectors_each_count_the_same():
    table = pa.table(
        {
            "title": ["ab", "abc", None, None],
            "v": vector_column([[3, 4], None, [0, 2], None], 2),
            "w": vector_column([[5, 0, 0], None, None, None], 3, pa.float64()),
        }
    )
    got = embed_items(Catalog(table, ("title",), (), ("v", "w")), as_encoder(lengths))
    assert got.known.tolist() == [True, True, True, False]
    text = np.array([2, 1]) / np.sqrt(5)
    np.testing.assert_allclose(got.vectors[0], np.r_[text, 0.6, 0.8, 1, 0, 0] / np.sqrt(3), rtol=1e-6)
    np.testing.assert_allclose(got.vectors[1], np.r_[np.array([3, 1]) / np.sqrt(10), np.zeros(5)], rtol=1e-6)
    np.testing.assert_allclose(got.vectors[2], [0, 0, 0, 1, 0, 0, 0], rtol=1e-6)


def test_vectors_alone_of_any_size_and_in_slices():
    rows = [[1e30, 0.0], None, [0.0, 1e-30], [0.0, 0.0], [1e300, 1e300]]
    table = pa.table({"v": vector_column([[9, 9], *rows], 2, pa.float64())}).slice(1)
    got = embed_items(Catalog(table, (), (), ("v",)), None)
    assert got.known.tolist() == [True, False, True, False, True]
    np.testing.assert_allclose(got.vectors[[0, 2, 4]], [[1, 0], [0, 1], [0.5**0.5] * 2], rtol=1e-6)
    half = pa.array(np.array([1, 0], np.float16))
    table = pa.table({"v": pa.FixedSizeListArray.from_arrays(half, 2)})
    assert embed_items(Catalog(table, (), (), ("v",)), None).vectors.tolist() == [[1, 0]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None])
def test_a_vector_that_is_not_finite_is_named(bad):
    table = pa.table({"v": pa.chunked_array([vector_column([[1, 2], None], 2), vector_column([[1, bad]], 2)])})
    with pytest.raises(DataError, match="column 'v', row 2") as caught:
        embed_items(Catalog(table, (), (), ("v",)), None)
    assert (caught.value.column, caught.value.row) == ("v", 2)


def test_a_column_that_is_no_vector():
    with pytest.raises(DataError, match="fixed-size list"):
        embed_items(Catalog(pa.table({"v": [[1.0], [1.0, 2.0]]}), (), (), ("v",)), None)


def test_no_content():
    table = pa.table({"title": [None, " "], "v": vector_column([None, None], 2)})
    assert embed_items(Catalog(table), as_encoder(lengths)) is None
    assert embed_items(Catalog(table, ("title",)), as_encoder(lengths)) is None
    assert embed_items(Catalog(table, ("title",)), None) is None
    assert embed_items(Catalog(table, ("title",), (), ("v",)), as_encoder(lengths)) is None


def test_the_size_depends_on_the_columns_not_on_the_values():
    table = pa.table({"title": pa.array([None, None], pa.string()), "v": vector_column([[1, 0], None], 2)})
    assert embed_items(Catalog(table, ("title",), (), ("v",)), as_encoder(lengths)).vectors.shape == (2, 4)
    empty = Catalog(table.slice(0, 0), ("title",), (), ("v",))
    assert embed_items(empty, as_encoder(lengths)) is None


def test_a_real_encoder(tiny):
    catalog = Catalog(pa.table({"title": ["red toy", None]}), ("title",))
    got = embed_items(catalog, Encoder(tiny, device="cpu"))
    assert got.vectors.shape == (2, 32)
    assert got.known.tolist() == [True, False]

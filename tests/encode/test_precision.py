"""Precisions of the linear layers, and which one a machine gets."""

import logging

import numpy as np
import pytest

from fastrec import _native
from fastrec.encode import Encoder, precision
from fastrec.encode.native import NativeEncoder
from fastrec.errors import BackendUnavailable, ConfigError

TITLES = [f"{a} {b} {c}" for a in ("red", "moisturising", "12 oz.") for b in ("lipstick", "shampoo") for c in "abcde"]
TITLES += [" ".join(TITLES[i : i + 30]) for i in range(3)]
NEAR = (0.99999, 0.99999)
LEAST = {"exact": (0.999999, 0.999999), "fp32": NEAR, "bf16x3": NEAR, "int16": NEAR}
LEAST |= {"bf16": (0.9999, 0.9999), "int8": (0.995, 0.99)}


def levels():
    return ["", *(_native._C.simd_levels() if _native._C is not None else [])]


@pytest.mark.parametrize("simd", levels())
@pytest.mark.parametrize("asked", ["exact", "fp32", "bf16x3", "int16", "bf16", "int8"])
def test_cosine_to_plain_transformers(minilm, encode_reference, monkeypatch, simd, asked):
    if simd:
        monkeypatch.setenv("FASTREC_SIMD", simd)
    has = _native.module("encode").encode_level(simd)[1]
    if asked not in ("exact", *has):
        with pytest.raises(BackendUnavailable, match=f"cannot compute in {asked}"):
            Encoder(device="cpu", cache=False, precision=asked).encode(["a"])
        return
    texts = TITLES if simd != "scalar" else TITLES[:4]
    if "want" not in _SHARED:
        _SHARED["want"] = encode_reference(minilm, TITLES, max_length=256)
    encoder = Encoder(device="cpu", cache=False, precision=asked)
    got = encoder.encode(texts)
    level = _native.module("encode").encode_level(simd)[0]
    full = {"amx": "bf16x3", "scalar": "fp32", "avx512": "fp32"}.get(level, "int16")
    assert encoder.precision == {"exact": "fp32", "fp32": full}.get(asked, asked)
    cosines = (got * _SHARED["want"][: len(texts)]).sum(1)
    mean, least = LEAST[asked]
    assert cosines.mean() >= mean
    assert cosines.min() >= least


_SHARED: dict[str, np.ndarray] = {}


@pytest.mark.parametrize(
    ("level", "expected"),
    [("scalar", "fp32"), ("avx2", "int8"), ("avx512", "int8"), ("avx512_vnni", "int8"), ("amx", "int8")],
)
def test_auto_picks_by_machine_and_says_which(monkeypatch, caplog, level, expected):
    class Module:
        @staticmethod
        def encode_level(simd):
            return level, ("fp32", "int8", "bf16"), 255

    monkeypatch.setattr(_native, "_C", Module)
    monkeypatch.setattr(precision, "_told", set())
    monkeypatch.delenv("FASTREC_SIMD", raising=False)
    with caplog.at_level(logging.INFO, "fastrec.encode"):
        for _ in range(2):
            assert precision.resolve("auto", "bert", lambda: True) == expected
    assert [r.getMessage() for r in caplog.records] == [
        f"[encode] precision 'auto' is {expected} on this machine (level {level})"
    ]
    assert precision.resolve("auto", "llama", lambda: True) == "fp32"
    assert precision.resolve("auto", "bert", lambda: False) == "fp32"


def test_the_precision_is_part_of_the_fingerprint(tiny):
    prints = {Encoder(tiny, device="cpu", precision=p).fingerprint for p in ("fp32", "int8")}
    assert len(prints) == 2
    assert Encoder(tiny, device="cpu").precision in precision.PRECISIONS


def test_what_makes_no_sense(tiny, make_tiny, monkeypatch):
    with pytest.raises(ConfigError, match="precision='fp16'"):
        Encoder(tiny, precision="fp16")
    with pytest.raises(ConfigError, match="a model of type gpt2"):
        Encoder(make_tiny(kind="gpt2"), device="cpu", precision="int8").encode(["a"])
    monkeypatch.setattr(_native, "_C", None)
    with pytest.raises(BackendUnavailable, match="did not load"):
        Encoder(tiny, device="cpu", precision="int8").encode(["a"])
    assert Encoder(tiny, device="cpu").precision == "fp32"


def test_the_same_bits_whatever_stands_beside_a_text(tiny):
    for asked in ("fp32", "int16", "int8"):
        encoder = Encoder(tiny, device="cpu", cache=False, precision=asked)
        texts = ["toy " * (i % 9 + 1) + str(i) for i in range(50)]
        together = encoder.encode(texts)
        np.testing.assert_array_equal(together[7], encoder.encode(texts[7]))


def test_models_that_run_as_they_are_say_so_once(make_tiny, monkeypatch, caplog):
    monkeypatch.setattr("fastrec.encode.transformer._told", set())
    folder = make_tiny(kind="electra")
    for _ in range(2):
        Encoder(folder, device="cpu", cache=False).encode(["a"])
    (record,) = caplog.records
    assert "runs through transformers as it is, with padding (model type electra)" in record.getMessage()


@pytest.mark.parametrize(("width", "heads"), [(17, 1), (48, 3), (80, 1), (96, 2)])
@pytest.mark.parametrize(
    ("asked", "simd"),
    [
        *((asked, simd) for asked in ("fp32", "int16") for simd in ("", "avx2", "avx512_vnni")),
        ("bf16", ""),
        ("int8", ""),
    ],
)
def test_heads_of_any_size_and_texts_of_any_length(make_tiny, encode_reference, monkeypatch, width, heads, asked, simd):
    if simd not in levels() or asked not in _native.module("encode").encode_level(simd)[1]:
        pytest.skip(f"this machine does not compute in {asked} with {simd}")
    monkeypatch.setenv("FASTREC_SIMD", simd)
    folder = make_tiny(hidden_size=width, num_attention_heads=heads)
    words = ["toys", "for", "the", "red", "cats", "and"]
    texts = [" ".join(words[(i + j) % 6] for j in range(i)) for i in range(1, 63)]
    got = Encoder(folder, device="cpu", cache=False, precision=asked).encode(texts)
    # Random weights make integers rougher than they are with real ones.
    least = {"fp32": 0.99999, "int16": 0.9999, "bf16": 0.999, "int8": 0.97}[asked]
    assert (got * encode_reference(folder, texts)).sum(1).min() >= least


@pytest.mark.parametrize("level", ["avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx", "scalar"])
def test_what_fp32_means(monkeypatch, level):
    class Module:
        @staticmethod
        def encode_level(simd):
            return level, ("fp32", "int8", "int16", *(["bf16x3"] if level == "amx" else [])), 255

    monkeypatch.setattr(_native, "_C", Module)
    monkeypatch.delenv("FASTREC_SIMD", raising=False)
    want = {"amx": "bf16x3", "scalar": "fp32", "avx512": "fp32"}.get(level, "int16")
    assert precision.resolve("fp32", "bert", lambda: True) == want
    assert precision.resolve("exact", "bert", lambda: True) == "fp32"
    assert precision.resolve("fp32", "gpt2", lambda: True) == "fp32"
    assert precision.instead_of("int8", "bert") == want
    assert precision.instead_of("int16", "bert") == "fp32"


def test_fp32_leaves_int16_where_it_costs_a_model_too_much(tiny, encode_reference, monkeypatch, caplog):
    plain, forward = precision.resolve, NativeEncoder.forward
    monkeypatch.setattr(precision, "resolve", lambda p, *more: "int16" if p == "fp32" else plain(p, *more))
    monkeypatch.setattr("fastrec.encode.transformer._told", set())

    def rough(self, tokens):
        out = forward(self, tokens)
        return out + np.float32(0.02 if self.precision == "int16" else 0) * np.roll(out, 1, axis=1)

    monkeypatch.setattr(NativeEncoder, "forward", rough)
    encoder = Encoder(tiny, device="cpu", precision="fp32")
    assert encoder.precision == "int16"
    got = encoder.encode(["red toy"])
    assert "int16 keeps a cosine of 0.999" in caplog.text
    assert encoder.precision == "fp32"
    assert encoder.fingerprint == Encoder(tiny, device="cpu", precision="exact").fingerprint
    assert (got * encode_reference(tiny, ["red toy"])).sum() >= 0.999999
    by_name = Encoder(tiny, device="cpu", precision="int16")
    by_name.encode(["red toy"])
    assert by_name.precision == "int16"


@pytest.fixture
def refused(monkeypatch):
    """Every model is one that int8 ruins, and "auto" means int8."""
    plain, forward = precision.resolve, NativeEncoder.forward
    monkeypatch.setattr(precision, "resolve", lambda p, *more: "int8" if p == "auto" else plain(p, *more))
    monkeypatch.setattr(
        NativeEncoder, "forward", lambda self, t: forward(self, t) * (-1 if self.precision == "int8" else 1)
    )
    monkeypatch.setattr("fastrec.encode.transformer._told", set())


def test_auto_leaves_int8_where_it_costs_a_model_too_much(tiny, encode_reference, refused, caplog):
    encoder = Encoder(tiny, device="cpu")
    assert encoder.precision == "int8"
    got = encoder.encode(["red toy"])
    assert "with this model, and is not used" in caplog.text
    assert encoder.precision == Encoder(tiny, device="cpu", precision="fp32").precision
    assert (got * encode_reference(tiny, ["red toy"])).sum() >= 0.99999


def test_what_auto_refused_is_cached_as_what_it_is(tiny, tmp_path, refused):
    in_int8 = Encoder(tiny, device="cpu", precision="int8").encode(["red toy"])
    auto, full = Encoder(tiny, device="cpu"), Encoder(tiny, device="cpu", precision="fp32")
    got = auto.encode(["red toy", "blue"])  # not what int8 left in the cache
    assert (got[0] * in_int8[0]).sum() < 0
    assert auto.fingerprint == full.fingerprint
    assert auto._open_cache().path == full._open_cache().path
    np.testing.assert_array_equal(full.encode(["red toy", "blue"]), got)
    again = Encoder(tiny, device="cpu")
    assert again.encode_stream(["red toy"], tmp_path / "out.npy") == 1
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), got[:1])

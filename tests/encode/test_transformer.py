import numpy as np
import pytest

from fastrec.encode import Encoder
from fastrec.encode.folder import read_settings
from fastrec.encode.packing import pack
from fastrec.encode.transformer import Transformer

TEXTS = [
    "the red toy",
    "a",
    "toys for cats and dogs, with a story",
    "heat",
    "blue " * 40,
    "red red toy story",
]


def pooling_files(pooling, normalize=True):
    kinds = ["Transformer", "Pooling"] + ["Normalize"] * normalize
    paths = ["", "1_Pooling", "2_Normalize"]
    return {
        "modules": [{"path": p, "type": f"x.{k}"} for k, p in zip(kinds, paths, strict=False)],
        "1_Pooling__config": pooling,
    }


KINDS = ["bert", "roberta", "distilbert", "mpnet", "gpt2", "llama", "mistral", "qwen2", "qwen3", "electra"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
def test_equals_plain_transformers(make_tiny, encode_reference, kind, pooling):
    folder = make_tiny(kind=kind, **pooling_files({"pooling_mode": pooling}))
    expected = encode_reference(folder, TEXTS, pooling)
    got = Encoder(folder, device="cpu", cache=False, precision="exact").encode(TEXTS)
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_fp32_keeps_every_cosine_above_99999(make_tiny, encode_reference, kind):
    folder = make_tiny(kind=kind)
    got = Encoder(folder, device="cpu", cache=False, precision="fp32").encode(TEXTS)
    assert (got * encode_reference(folder, TEXTS)).sum(1).min() >= 0.99999


def test_a_window_of_attention_runs_through_transformers(make_tiny, encode_reference, caplog):
    folder = make_tiny(kind="mistral", sliding_window=3)
    got = Encoder(folder, device="cpu", cache=False).encode(TEXTS)
    assert "sliding windows of attention" in caplog.text
    np.testing.assert_allclose(got, encode_reference(folder, TEXTS), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS[:-1])
@pytest.mark.parametrize("native", [True, False])
def test_packed_equals_padded(make_tiny, monkeypatch, kind, native):
    if not native:
        monkeypatch.setattr("fastrec._native._C", None)
    folder = make_tiny(kind=kind)
    settings = read_settings(folder, None)
    packed = Transformer(folder, settings, "cpu")
    padded = Transformer(folder, settings, "cpu", packed=False)
    assert packed._model is None or packed.packed is not None
    assert (packed.native is not None) == (native and kind in KINDS[:4])
    assert padded.native is padded.packed is None
    tokens = pack(packed.packer.tokenize(TEXTS))  # not sorted: runs of one length each
    np.testing.assert_allclose(packed.forward(tokens), padded.forward(tokens), atol=1e-5)


def test_legacy_pooling_flags_and_no_normalize(make_tiny, encode_reference):
    flags = {
        "pooling_mode_cls_token": True,
        "pooling_mode_mean_tokens": False,
        "word_embedding_dimension": 32,
    }
    folder = make_tiny(**pooling_files(flags, normalize=False))
    encoder = Encoder(folder, device="cpu", cache=False, precision="exact")
    raw, unit = encoder.encode(TEXTS), encoder.encode(TEXTS, normalize_embeddings=True)
    assert np.abs(np.linalg.norm(raw, axis=1) - 1).min() > 0.01
    np.testing.assert_allclose(unit, encode_reference(folder, TEXTS, "cls"), atol=1e-5)


def test_prompt_length_and_lower_case_come_from_the_folder(make_tiny, encode_reference):
    folder = make_tiny(
        sentence_bert_config={"max_seq_length": 8, "do_lower_case": True},
        config_sentence_transformers={"prompts": {"q": "the game: "}, "default_prompt_name": "q"},
    )
    got = Encoder(folder, device="cpu", cache=False, precision="exact").encode([t.upper() for t in TEXTS])
    expected = encode_reference(folder, ["the game: " + t for t in TEXTS], max_length=8)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_loading_is_silent_and_leaves_no_settings_behind(tiny, capfd):
    import transformers

    logging = transformers.utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    Encoder(tiny, device="cpu", cache=False, precision="exact").encode(["toy"])
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")


def test_minilm_equals_plain_transformers(minilm, encode_reference):
    texts = ["Toy Story (1995)", "a", "Red lipstick, long lasting. " * 60, "😀 שלום", "12 oz."] * 2
    got = Encoder(device="cpu", cache=False, precision="exact").encode(texts)
    assert got.shape == (10, 384)
    expected = encode_reference(minilm, texts, max_length=256)
    assert (got * expected).sum(1).min() > 0.99999
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # of sentence-transformers itself
def test_minilm_equals_sentence_transformers(minilm):
    st = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    texts = ["Toy Story (1995)", "a", "Red lipstick, long lasting. " * 60, "CAPS and Ünïcode"]
    theirs = st.SentenceTransformer(str(minilm), device="cpu").encode(texts)
    got = Encoder(device="cpu", cache=False, precision="exact").encode(texts)
    assert (got * theirs).sum(1).min() > 0.99999

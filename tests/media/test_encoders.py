"""Encoders of images and sounds: as transformers has them, cached by content, with what cannot be read left out."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from fastrec import ArtifactError, ConfigError, DataError
from fastrec.encode import MediaEncoder, as_media
from fastrec.encode.media import _batches

COLOURS = [(200, 30, 40), (20, 180, 40), (30, 40, 220)]


@pytest.fixture
def pictures(picture, png):
    return [png(picture(COLOURS[i % 3], seed=i)) for i in range(7)]


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def reference(folder, kind, values):
    """Features by transformers alone, one input at a time."""
    import io

    import torch
    import transformers
    from PIL import Image

    model = transformers.AutoModel.from_pretrained(folder).eval()
    out = []
    with torch.no_grad():
        for value in values:
            if kind == "wav2vec2":
                reader = transformers.AutoFeatureExtractor.from_pretrained(folder)
                ready = reader([value], sampling_rate=8000, return_tensors="pt")
                out.append(model(ready["input_values"]).last_hidden_state[0].mean(0))
                continue
            reader = transformers.AutoImageProcessor.from_pretrained(folder)
            ready = reader(images=[Image.open(io.BytesIO(value))], return_tensors="pt")
            found = model(**ready) if kind == "vit" else model.get_image_features(**ready)
            out.append((found if torch.is_tensor(found) else found.pooler_output)[0])
    return unit(torch.stack(out).numpy())


@pytest.mark.parametrize("kind", ["clip", "siglip", "vit"])
def test_images_as_transformers_has_them(tower, pictures, kind):
    encoder = MediaEncoder("image", tower(kind), device="cpu")
    found, bad = encoder.encode(pictures)
    assert not bad and found.dtype == np.float32 and found.shape == (7, encoder.dimension)
    np.testing.assert_allclose(found, reference(tower(kind), kind, pictures), atol=1e-5)


@pytest.mark.parametrize("kind", ["wav2vec2", "wav2vec2 group"])
def test_sounds_as_transformers_has_them(tower, tone, kind):
    from fastrec.encode.decoding import sound

    encoder = MediaEncoder("audio", tower(kind), device="cpu")
    sounds = [tone(f, seconds) for f, seconds in ((200, 0.3), (500, 0.11), (900, 0.2))]
    found, bad = encoder.encode(sounds)
    assert not bad and found.shape == (3, 32)
    # A shorter sound in a batch is padded, and must be as it is alone.
    np.testing.assert_allclose(found, reference(tower(kind), "wav2vec2", [sound(s, 8000) for s in sounds]), atol=1e-4)
    assert not encoder.reads_text


def test_sounds_in_the_space_of_texts(tower, tone):
    import torch
    import transformers

    from fastrec.encode.decoding import sound

    encoder = MediaEncoder("audio", tower("clap"), device="cpu")
    sounds = [tone(200, 0.5), tone(900, 0.2), tone(500, 2.5)]  # the last is longer than the model takes
    found, bad = encoder.encode(sounds)
    assert not bad and found.shape == (3, 24)
    np.testing.assert_array_equal(MediaEncoder("audio", tower("clap"), cache=False).encode(sounds)[0], found)
    model = transformers.AutoModel.from_pretrained(tower("clap")).eval()
    reader = transformers.AutoFeatureExtractor.from_pretrained(tower("clap"))
    with torch.no_grad():
        ready = reader([sound(s, 8000)[:8000] for s in sounds], sampling_rate=8000, return_tensors="pt")
        want = model.get_audio_features(**ready)
    np.testing.assert_allclose(found, unit((want if torch.is_tensor(want) else want.pooler_output).numpy()), atol=1e-5)
    assert encoder.reads_text and encoder.encode_text(["loud " * 100, "a"]).shape == (2, 24)


def test_texts_stand_in_the_same_space(tower):
    import torch
    import transformers

    for kind in ("clip", "siglip"):
        encoder = MediaEncoder("image", tower(kind), device="cpu")
        assert encoder.reads_text
        found = encoder.encode_text(["a red", "", "blue green a"])
        model = transformers.AutoModel.from_pretrained(tower(kind)).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(tower(kind))
        how = {"padding": "max_length", "max_length": 16} if kind == "siglip" else {}
        with torch.no_grad():
            ready = tokenizer(["a red"], return_tensors="pt", **how)
            ready = {k: v for k, v in ready.items() if k in ("input_ids", "attention_mask")}
            want = model.get_text_features(**ready)
        want = (want if torch.is_tensor(want) else want.pooler_output).numpy()
        np.testing.assert_allclose(found[:1], unit(want), atol=1e-5)
        assert (found[1] == 0).all() and found.shape == (3, encoder.dimension)
        assert encoder.encode_text(["a red " * 200]).shape == (1, encoder.dimension)  # cut at its positions
    with pytest.raises(ConfigError, match="no text tower"):
        MediaEncoder("image", tower("vit")).encode_text(["a"])


def test_the_cache_goes_by_content(tower, pictures, tmp_path, monkeypatch):
    first = MediaEncoder("image", tower("clip"), device="cpu")
    want, _ = first.encode(pictures)
    path = tmp_path / "p.png"
    path.write_bytes(pictures[2])
    again = MediaEncoder("image", tower("clip"), device="cpu")
    monkeypatch.setattr(again, "_load", lambda: pytest.fail("the model is not needed"))
    found, bad = again.encode([str(path), pictures[0], None, pictures[0]])
    np.testing.assert_array_equal(found, [want[2], want[0], np.zeros(24), want[0]])
    assert not bad
    other = MediaEncoder("image", tower("clip", 1), device="cpu")
    assert other.fingerprint != first.fingerprint
    assert not np.allclose(other.encode(pictures)[0], want)


def test_equal_files_are_computed_once(tower, pictures):
    encoder = MediaEncoder("image", tower("clip"), device="cpu", cache=False)
    seen = []
    forward = encoder._load().forward
    encoder._load().forward = lambda images: seen.append(len(images)) or forward(images)
    found, _ = encoder.encode([pictures[0]] * 5 + [pictures[1]])
    assert seen == [2] and (found[:5] == found[0]).all()


def test_what_cannot_be_read_is_named_and_the_others_stand(tower, pictures, tmp_path):
    encoder = MediaEncoder("image", tower("clip"), device="cpu")
    broken = pictures[1][:60]
    values = [pictures[0], broken, None, str(tmp_path / "gone.png"), "https://x/y.png", broken, "", pictures[3]]
    found, bad = encoder.encode(values)
    assert sorted(bad) == [1, 3, 4, 5]
    assert "decoded" in bad[1] and bad[5] == bad[1] and "gone.png" in bad[3] and "URL" in bad[4]
    assert np.flatnonzero(found.any(axis=1)).tolist() == [0, 7]
    np.testing.assert_allclose(found[[0, 7]], encoder.encode([pictures[0], pictures[3]])[0])


def test_batches_by_cost():
    sounds = [(i, np.zeros(n)) for i, n in enumerate([8000, 80_000, 8000, 960_000, 400_000])]
    found = list(_batches(sounds, "audio", 8000))  # 120 seconds: 960,000 samples
    assert [[i for i, _ in batch] for batch in found] == [[3], [4, 1], [0, 2]]
    small, large = SimpleNamespace(size=(10, 10)), SimpleNamespace(size=(5000, 5000))
    assert [len(b) for b in _batches([(i, small) for i in range(70)], "image", 0)] == [32, 32, 6]
    assert [len(b) for b in _batches([(i, large) for i in range(5)], "image", 0)] == [2, 2, 1]


def test_large_files_are_not_all_held_at_once(tower, pictures, monkeypatch):
    encoder = MediaEncoder("image", tower("clip"), device="cpu", cache=False)
    want, _ = encoder.encode(pictures)
    monkeypatch.setattr("fastrec.encode.media._CHUNK_BYTES", 2 * len(pictures[0]))
    chunks = []
    chunk = encoder._chunk
    monkeypatch.setattr(encoder, "_chunk", lambda data, *rest: chunks.append(len(data)) or chunk(data, *rest))
    np.testing.assert_allclose(encoder.encode(pictures)[0], want, atol=1e-6)
    assert max(chunks) <= 3 and sum(chunks) == 7


def test_damaged_folders(tower, tmp_path, pictures):
    import shutil

    folder = shutil.copytree(tower("clip"), tmp_path / "copy")
    (folder / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ArtifactError, match="holds no image model"):
        MediaEncoder("image", folder).encode(pictures)
    (folder / "config.json").unlink()
    with pytest.raises(ArtifactError, match=r"config\.json"):
        MediaEncoder("image", folder).encode(pictures)


def test_what_may_be_an_encoder(tower):
    assert as_media("image", None) is None
    encoder = as_media("image", str(tower("clip")))
    assert isinstance(encoder, MediaEncoder) and as_media("image", encoder) is encoder
    for bad in (3, MediaEncoder, "./nothing-here", "no such name"):
        with pytest.raises(ConfigError, match=r"image_encoder=.*expected"):
            as_media("image", bad)
    with pytest.raises(ConfigError, match="expected one of kind 'audio'"):
        as_media("audio", encoder)
    made = as_media("image", lambda values: [[3.0, 4.0] for _ in values])
    np.testing.assert_allclose(made.encode(["a", None])[0], [[0.6, 0.8], [0, 0]])
    with pytest.raises(DataError, match=r"image_encoder .* gave shape"):
        as_media("image", lambda values: np.full((len(values), 2), np.nan)).encode(["a"])


def test_a_sound_that_is_too_short_is_named_and_the_others_stand(tower, tone):
    # The convolutions read 10 samples, and 8 of what came of those: 45 of them make one frame.
    encoder = MediaEncoder("audio", tower("wav2vec2"))
    assert encoder._load().least == 45
    click, frame = (tone(440, seconds=n / 8000) for n in (44, 45))
    vectors, bad = encoder.encode([tone(440), click, frame])
    assert vectors.any(axis=1).tolist() == [True, False, True]
    assert bad == {1: "44 samples at 8,000 a second, the model needs 45"}


def test_the_image_half_of_clip_alone_has_its_own_width(tower, tmp_path, pictures):
    import transformers

    whole = transformers.AutoModel.from_pretrained(tower("clip"))
    whole.vision_model.config.projection_dim = 24  # which this half does not use
    transformers.CLIPVisionModel(whole.config.vision_config).save_pretrained(tmp_path)
    transformers.AutoImageProcessor.from_pretrained(tower("clip")).save_pretrained(tmp_path)
    encoder = MediaEncoder("image", tmp_path)
    assert encoder.dimension == 32 and encoder.encode(pictures)[0].shape == (len(pictures), 32)


@pytest.mark.parametrize(("kind", "width"), [("siglip", 768), ("clip", 512), ("vit", 768)])
def test_settings_that_are_as_usual_may_be_left_out(tmp_path, kind, width):
    # As in google/siglip-base-patch16-224.
    inner = {} if kind == "vit" else {"vision_config": {"model_type": f"{kind}_vision_model"}}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, **inner}))
    assert MediaEncoder("image", tmp_path).dimension == width

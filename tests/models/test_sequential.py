"""Sequential: what is learned, that serving computes what training did, and data with hardly anything in it."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import hash_encoder

from fastrec import ConfigError, DataError, Recommender, Sequential, load
from fastrec.errors import BackendUnavailable
from fastrec.kinds import COUNT, number
from fastrec.models import _network, _training, resolve
from fastrec.models._loss import sampled_softmax
from fastrec.models._network import Dropout, Network, groups
from fastrec.models._sequences import Sequences
from fastrec.profiles import contributions, profiles
from fastrec.sequence import BACKBONES, gap_buckets, strength_buckets
from fastrec.types import Embeddings, Interactions, SequenceSource

SMALL = Sequential(width=16, length=12, epochs=6, batch_tokens=256, learning_rate=0.02, dropout=0.1, stop=6)


def interactions(histories, n_items, times=None, weights=None):
    indptr = np.cumsum([0] + [len(h) for h in histories]).astype(np.int64)
    flat = np.array([i for h in histories for i in h], np.int32)
    times = np.arange(len(flat), dtype=np.float64) if times is None else np.asarray(times, np.float64)
    weights = np.ones(len(flat), np.float32) if weights is None else np.asarray(weights, np.float32)
    return Interactions(indptr, flat, times, weights, n_items)


def circles(users=80, n_items=24, seed=0):
    """Histories in which item i + 1 follows item i, from random starts and of random lengths."""
    rng = np.random.default_rng(seed)
    starts, lengths = rng.integers(0, n_items, users), rng.integers(2, 20, users)
    return interactions([[(s + j) % n_items for j in range(n)] for s, n in zip(starts, lengths, strict=True)], n_items)


# ---- serving computes what was trained


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("options", [False, True])
def test_serving_gives_the_states_of_training(backbone, options):
    rng = np.random.default_rng(3)
    lengths = np.array([9, 9, 8, 5, 5, 1])
    data = interactions(
        [rng.integers(0, 7, n) for n in lengths],
        7,
        times=10.0 ** rng.uniform(0, 8, 37),
        weights=rng.uniform(0.2, 9, 37),
    )
    data = dataclasses.replace(data, kinds=rng.integers(0, COUNT, 37).astype(np.uint8))
    torch.manual_seed(1)
    net = Network(backbone, 16, 2, 4, 9, options, options, options, None, torch.ones(7, dtype=torch.bool))
    with torch.no_grad():
        for p in net.parameters():  # biases and gaps begin at zero, where an error would not show
            p.add_(0.1 * torch.randn_like(p))
        places = np.concatenate([np.arange(n) for n in lengths])
        gaps, strengths = gap_buckets(data.times, data.indptr), strength_buckets(data.weights)
        arrays = data.items.astype(np.int64), places, gaps, strengths, data.kinds.astype(np.int64)
        tensors = [torch.from_numpy(a) for a in arrays]
        parts = groups(lengths)
        assert any(g.places is not None for g in parts)
        want = net(net.items(), tensors[0], tensors[1], parts, *tensors[2:], Dropout(0.0))[data.indptr[1:] - 1]
        source = SequenceSource("sequential", net.items().numpy(), None, backbone, 4, 2, 9, 1, net.exported())
    got = profiles(source, data)
    np.testing.assert_allclose(got, want.numpy(), atol=2e-5)
    for user in range(len(lengths)):  # the batch changes nothing
        np.testing.assert_array_equal(profiles(source, data.take([user]))[0], got[user])


def test_only_the_newest_entries_count_and_dislikes_do_not():
    source = SMALL.fit(circles(), None, "next")
    long = interactions([list(range(20)), list(range(8, 20))], 24)
    one, other = profiles(source, long)
    np.testing.assert_array_equal(one, other)
    mixed = interactions([[1, 2, 3, 4], [1, 2, 4]], 24, weights=[1, 1, 0, 1, 1, 1, 1])
    one, other = profiles(source, mixed)
    np.testing.assert_array_equal(one, other)
    assert (profiles(source, interactions([[], [3]], 24, weights=[0])) == 0).all()


def test_groups_hold_every_token_once():
    rng = np.random.default_rng(0)
    for _ in range(20):
        lengths = np.sort(rng.integers(1, 30, rng.integers(1, 40)))[::-1].copy()
        parts = groups(lengths)
        assert sum(g.S for g in parts) == len(lengths)
        assert [g.first for g in parts[1:]] == [g.last for g in parts[:-1]]
        for g in parts:
            assert g.last - g.first >= (1 - _network._FILLING) * g.S * g.longest
            if g.places is not None:
                assert len(set(g.places.tolist())) == g.last - g.first


def test_windows_hold_every_transition_once_in_an_epoch():
    rng = np.random.default_rng(2)
    data = interactions([range(n) for n in rng.integers(0, 40, 30)], 40)
    sequences = Sequences(data, 7)
    for epoch in range(3):
        seen = []
        for starts, lengths in sequences.epoch(np.random.default_rng(epoch), 50):
            assert lengths.max() <= 7 and lengths.min() >= 1
            seen += [s + j for s, n in zip(starts, lengths, strict=True) for j in range(n)]
            batch = sequences.batch(starts, lengths)
            np.testing.assert_array_equal(batch.targets, batch.rows + 1)
            assert (np.diff(batch.lengths) <= 0).all()
            shards = batch.shards(13)
            np.testing.assert_array_equal(np.concatenate([s.rows for s in shards]), batch.rows)
            assert all(s.lengths.sum() == len(s.rows) > 0 for s in shards)
        wanted = np.flatnonzero(np.diff(data.users, append=-1) == 0)
        np.testing.assert_array_equal(np.sort(seen), wanted)
        assert len(seen) == sequences.tokens


# ---- learning


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_next_item_of_a_circle_is_learned(backbone):
    source = dataclasses.replace(SMALL, backbone=backbone, heads=2, epochs=20, stop=20).fit(circles(), None, "next")
    asked = interactions([[3, 4, 5], [10, 11], [22, 23], [7]], 24)
    best = (profiles(source, asked) @ source.vectors.T).argmax(axis=1)
    assert best.tolist() == [6, 12, 0, 8]


def test_the_kind_of_the_last_event_decides_what_follows():
    rng = np.random.default_rng(0)
    histories, kinds = [], []
    for _ in range(300):  # after "view" the next item, after "purchase" the one that is opposite
        item, length = int(rng.integers(0, 24)), int(rng.integers(4, 12))
        history, of = [], []
        for _ in range(length):
            history.append(item)
            of.append(number(("view", "purchase")[int(rng.integers(0, 2))]))
            item = (item + (1 if of[-1] == number("view") else 12)) % 24
        histories.append(history)
        kinds.append(np.array(of, np.uint8))
    data = dataclasses.replace(interactions(histories, 24), kinds=np.concatenate(kinds))
    model = dataclasses.replace(SMALL, epochs=25, stop=25)
    asked = interactions([[3, 4, 5], [3, 4, 5]], 24)
    asked = dataclasses.replace(asked, kinds=np.array([number("view")] * 5 + [number("purchase")], np.uint8))
    source = dataclasses.replace(model, kinds=True).fit(data, None, "next")
    assert (profiles(source, asked) @ source.vectors.T).argmax(axis=1).tolist() == [6, 17]
    blind = model.fit(data, None, "next")
    best = (profiles(blind, asked) @ blind.vectors.T).argmax(axis=1)
    assert best[0] == best[1]


def test_an_item_without_events_is_found_by_its_text():
    # Even users read even items: the texts say which is which, and item 23 has a text alone.
    rng = np.random.default_rng(0)
    texts = np.stack([np.eye(8)[i % 2] + 0.1 * rng.normal(size=8) for i in range(24)]).astype(np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    data = interactions([rng.permutation(11)[:6] * 2 + u % 2 for u in range(60)], 24)
    source = SMALL.fit(data, Embeddings(texts, np.ones(24, bool)), "next")
    assert np.allclose(np.linalg.norm(source.vectors, axis=1), 1, atol=1e-5)
    even, odd = profiles(source, interactions([[0, 4, 8], [1, 5, 9]], 24)) @ source.vectors[23]
    assert odd > even + 0.2
    without = SMALL.fit(data, None, "next").vectors
    assert (without[22:] == 0).all() and without[:22].any(axis=1).all()


def test_early_stopping_keeps_the_best_and_a_variant_repeats_it(caplog):
    data = circles(users=300)
    caplog.set_level("INFO", logger="fastrec")
    model = dataclasses.replace(SMALL, stop=None, epochs=30, patience=2)
    source = model.fit(data, None, "next")
    assert 1 <= source.epochs < 30
    assert f"epoch {source.epochs + 2} of 30" in caplog.text and f"epoch {source.epochs + 3} of" not in caplog.text
    ((settled, same),) = model.variants(source, data)
    assert same is source and settled.stop == settled.epochs == source.epochs
    assert settled.variants(source, data) == [(settled, source)]
    assert settled.fit(data, None, "next").epochs == source.epochs
    assert dataclasses.replace(model, epochs=2).fit(data, None, "period").epochs <= 2


def test_any_number_of_threads_gives_the_same(monkeypatch):
    monkeypatch.setattr(_training, "_SHARD", 60)
    monkeypatch.setenv("FASTREC_THREADS", "1")
    before = torch.get_num_threads(), torch.random.get_rng_state()
    one = SMALL.fit(circles(), None, "next")
    monkeypatch.setenv("FASTREC_THREADS", "3")
    again = SMALL.fit(circles(), None, "next")
    np.testing.assert_array_equal(one.vectors, again.vectors)
    assert torch.get_num_threads() == before[0] and torch.equal(torch.random.get_rng_state(), before[1])
    assert (dataclasses.replace(SMALL, seed=1).fit(circles(), None, "next").vectors != one.vectors).any()


# ---- hardly any data


@pytest.mark.parametrize("backbone", BACKBONES)
def test_an_empty_batch(backbone):
    net = Network(backbone, 8, 1, 2, 5, False, False, False, None, torch.ones(3, dtype=torch.bool))
    none = torch.zeros(0, dtype=torch.int64)
    states = net(net.items(), none, none, groups(np.zeros(0, np.int64)), none, none, none, Dropout(0.5, 0))
    assert states.shape == (0, 8)
    loss = sampled_softmax(states, net.items(), none, torch.tensor([[0, 1]]), torch.zeros(3), 0.1)
    loss.backward()
    assert float(loss.detach()) == 0 and not net.delta.grad.any()


def test_nothing_to_learn_from():
    for histories in ([], [[]], [[0], [1], []]):
        assert SMALL.fit(interactions(histories, 2), None, "next") is None
    assert SMALL.fit(interactions([[0, 1]], 2, weights=[1, 0]), None, "next") is None


@pytest.mark.parametrize("stop", [3, None])
@pytest.mark.parametrize(
    ("histories", "n_items"),
    [
        ([[0, 0, 0]], 1),  # a catalogue of one item: the only negative is the target
        ([[0, 1, 2]], 3),  # one user
        ([[0, 1], [2], []], 5),  # a user with one event, one with none, items with none
    ],
)
def test_next_to_nothing_to_learn_from(histories, n_items, stop):
    data = interactions(histories, n_items)
    source = dataclasses.replace(SMALL, stop=stop).fit(data, None, "next")
    got = profiles(source, data)
    assert np.isfinite(got).all() and np.isfinite(source.vectors).all()
    assert [bool(q.any()) for q in got] == [bool(h) for h in histories]
    assert source.vectors[sorted({i for h in histories for i in h})].any(axis=1).all()


def test_recommender_of_one_item_and_of_one_user():
    models = ["popularity", dataclasses.replace(SMALL, stop=None)]
    one = Recommender(encoder=None, models=models).fit({"user_id": ["a", "b"], "item_id": ["x", "x"]})
    assert list(one.recommend("new", 3)) == ["x"]
    alone = Recommender(encoder=None, models=models).fit({"user_id": ["a"] * 3, "item_id": ["x", "y", "z"]})
    assert list(alone.recommend("a", 3)) == [] and len(list(alone.recommend_for_history(["x"], 3))) == 2
    with pytest.raises(DataError, match="none of the models"):
        Recommender(encoder=None, models=[SMALL]).fit({"user_id": ["a"], "item_id": ["x"]})


def test_a_loss_that_is_not_finite_says_what_to_do():
    with pytest.raises(ConfigError, match=r"the loss of epoch 1, step \d+ is nan.*lower the learning rate"):
        dataclasses.replace(SMALL, learning_rate=1e38).fit(circles(), None, "next")


def test_cuda_without_a_device():
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(BackendUnavailable, match="sees no CUDA device"):
        dataclasses.replace(SMALL, device="cuda").fit(circles(), None, "next")


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "rnn"}, {"width": 0}, {"width": True}, {"heads": 5}, {"length": 0}, {"epochs": 2.0}, {"stop": 0},
        {"patience": 0}, {"negatives": 0}, {"temperature": 0}, {"temperature": float("nan")}, {"dropout": 1.0},
        {"dropout": -0.1}, {"learning_rate": "fast"}, {"weight_decay": -1}, {"time_gaps": 1}, {"device": "tpu"},
        {"kinds": 1},
        {"checkpoint": 3}, {"seed": -1}, {"gradient_norm": 0}, {"negative_power": -1}, {"batch_tokens": 0},
    ],
)  # fmt: skip
def test_settings_out_of_range(change):
    with pytest.raises(ConfigError, match=r"\[sequential\] .*expected"):
        Sequential(**change)


# ---- in the ensemble


@pytest.fixture(scope="module")
def fitted(events, items):
    models = [
        "popularity",
        "item_item",
        dataclasses.replace(SMALL, stop=None, time_gaps=True, strengths=True, kinds=True),
    ]
    return Recommender(encoder=hash_encoder, models=models, weights="equal").fit(events, items)


def test_saved_and_loaded(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    for mmap in (True, False):
        again = load(tmp_path / "model", mmap=mmap, encoder=hash_encoder)
        for users in (["u1", "u2", "u3"], "u1"):
            one, other = fitted.recommend(users, 9), again.recommend(users, 9)
            assert one.items.tolist() == other.items.tolist()
            np.testing.assert_array_equal(one.scores, other.scores)
    assert not [p for p in (tmp_path / "model").iterdir() if p.suffix in (".pt", ".pkl", ".bin")]


def test_a_new_event_moves_the_recommendation_and_is_explained(fitted):
    one, other = fitted.recommend_for_history([["i0", "i2"], ["i0", "i2", "i7"]], 5, explain=True).explanations
    assert one != other
    found = fitted.recommend("u1", 4, explain=True)
    for score, why in zip(found.scores, found.explanations, strict=True):
        assert sum(why["sources"].values()) == pytest.approx(float(score), rel=1e-4, abs=1e-5)
        assert "sequential" in why["sources"]
    for vectors in (fitted.user_vectors(["u1"]), fitted.item_vectors(["i1"])):
        assert vectors.shape == (1, 16)
    assert len(list(fitted.similar_items("i1", 5, by="sequential"))) == 5


def test_contributions_are_what_is_lost_without_an_entry():
    source = dataclasses.replace(SMALL, epochs=20, stop=20).fit(circles(), None, "next")
    parts = contributions(source, interactions([[9, 2, 3, 4]], 24), 5)
    assert parts.shape == (4,) and (parts >= 0).all()
    assert parts.argmax() == 3
    assert contributions(source, interactions([[]], 24), 5).shape == (0,)


def test_the_presets():
    assert resolve("best") == [*resolve("fast"), Sequential()]
    assert resolve("auto") == resolve("fast")
    assert resolve([{"name": "sequential", "width": 32}]) == [Sequential(width=32)]

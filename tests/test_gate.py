"""Weights by user: the features, what they do to a fused space, that they are learned, and that noise teaches none."""

import dataclasses

import numpy as np
import pytest
from helpers import hash_encoder, interactions

from fastrec import Recommender, cold, fuse, gating, learn, load
from fastrec.gate import Gate, features, multiples
from fastrec.types import BiasSource, DenseSource
from fastrec.usertext import TextSource

DAY = 86400.0


def test_features_are_length_and_age():
    data = interactions([[0, 1, 2], [], [3]], 5, times=[0, DAY, 3 * DAY, 9 * DAY])
    np.testing.assert_allclose(features(data, (0.0, 10 * DAY)), [[2, 3], [0, 0], [1, 1]])
    # A list of ids has no times: it is of now.
    np.testing.assert_allclose(features(data, (20 * DAY, 30 * DAY))[:, 1], 0)
    assert features(data, (0.0, 5 * DAY))[2, 1] == 0  # nothing is newer than now


def test_factors_have_bounds():
    gate = Gate({"a": np.array([1.0, -0.5])}, np.array([1.0, 0.0]), np.array([2.0, 1.0]), (0.0, 10 * DAY))
    data = interactions([[0, 1, 2], []], 5, times=[0, DAY, 9 * DAY])
    np.testing.assert_allclose(gate.standardised(data), [[0.5, 1.0], [-0.5, 0.0]])
    np.testing.assert_allclose(gate.factors("a", data), np.exp([0.0, -0.5]))
    np.testing.assert_array_equal(gate.factors("other", data), [1, 1])
    assert multiples(np.array([-50.0, 50.0])).tolist() == [pytest.approx(0.25), pytest.approx(4)]


def split_tastes(n_users=1200, n_items=40, signal=True, seed=0):
    """Scores of two sources and a bias: the first is right for long histories, the second for short ones."""
    rng = np.random.default_rng(seed)
    lengths = rng.choice([2, 30], n_users)
    truth = rng.integers(0, n_items, n_users)
    scores = rng.normal(size=(3, n_users, n_items)).astype(np.float32)
    long = lengths > 10 if signal else rng.random(n_users) < 0.5
    for source, right in ((0, long), (1, ~long)):
        scores[source, right, truth[right]] += 2.5
    scores[2] = scores[2, :1]
    histories = interactions([np.zeros(n, int) for n in lengths], n_items, times=np.zeros(lengths.sum()))
    targets = interactions(truth[:, None], n_items)
    return scores, targets, np.ones((n_users, n_items), bool), histories


def learned(scores, targets, open_items, histories):
    names, fixed = ["long", "short", "popularity"], [False, False, True]
    weights = np.array([1.0, 1.0, 0.2])
    given = scores, targets, open_items, weights, histories, (0.0, 0.0)
    return gating.gate(names, fixed, *given, learn._ndcg_by_user)


def test_who_needs_what_is_learned():
    scores, targets, open_items, histories = split_tastes()
    gate = learned(scores, targets, open_items, histories)
    assert set(gate.coefficients) == {"long", "short"}
    assert gate.coefficients["long"][0] > 0.2 > -0.2 > gate.coefficients["short"][0]
    assert (gate.coefficients["long"][1], gate.coefficients["short"][1]) == (0, 0)  # all are of the same age
    fresh = split_tastes(seed=5)
    by_user = np.stack([gate.factors(name, fresh[3]) for name in ("long", "short")])
    plain = fresh[0][0] + fresh[0][1] + 0.2 * fresh[0][2]
    mixed = by_user[0][:, None] * fresh[0][0] + by_user[1][:, None] * fresh[0][1] + 0.2 * fresh[0][2]
    ndcg = [learn._ndcg(s.astype(np.float32), fresh[1], fresh[2]) for s in (plain, mixed)]
    assert ndcg[1] > ndcg[0] + 0.02


def test_noise_teaches_nothing():
    assert learned(*split_tastes(signal=False)) is None
    scores, targets, open_items, histories = split_tastes(n_users=100)
    assert learned(scores, targets, open_items, histories) is None  # too few


def test_the_gradient_is_that_of_the_loss():
    scores, targets, open_items, _ = split_tastes(n_users=300)
    z = np.random.default_rng(0).normal(size=(300, 2))
    found = {}

    def keep(loss, start, jac, method, options):
        found["loss"], found["start"] = loss, start
        return type("Found", (), {"x": start})

    original, gating.scipy.optimize.minimize = gating.scipy.optimize.minimize, keep
    try:
        gating._coefficients(scores, targets, open_items, np.array([1.0, 0.5, 0.2]), [0, 1], z)
    finally:
        gating.scipy.optimize.minimize = original
    x = np.random.default_rng(1).normal(0, 0.2, len(found["start"]))
    slope = found["loss"](x)[1]
    for i in range(len(x)):
        step = np.eye(len(x))[i] * 1e-2
        difference = (found["loss"](x + step)[0] - found["loss"](x - step)[0]) / 2e-2
        assert slope[i] == pytest.approx(difference, abs=2e-3)


def test_a_gate_multiplies_the_queries_and_shares_still_sum(events, items, tmp_path):
    models = ["popularity", "item_item", "als", "content"]
    rec = Recommender(encoder=hash_encoder, models=models, weights="equal", progress=False).fit(events, items)
    state = rec._live.state
    times = state.interactions.times
    gate = Gate(
        {"item_item": np.array([0.4, 0.1]), "als": np.array([-0.3, 0.2])},
        np.array([2.0, 1.0]),
        np.array([1.0, 2.0]),
        (float(times.min()), float(times.max())),
    )
    users = state.interactions.take(np.arange(20))
    plain = fuse.queries(state.features, users)
    rec._live.state = dataclasses.replace(state, features=dataclasses.replace(state.features, gate=gate))
    moved = fuse.queries(rec._live.state.features, users)
    dense = [s for s in state.features.sources if isinstance(s, DenseSource)]
    column = 0
    for source in dense:
        span = slice(column, column + source.vectors.shape[1])
        want = plain.vectors[:, span] * gate.factors(source.name, users)[:, None]
        np.testing.assert_allclose(moved.vectors[:, span], want, rtol=1e-5, atol=1e-7)
        column = span.stop
    by_entry = np.repeat(gate.factors("item_item", users), np.diff(users.indptr))
    np.testing.assert_allclose(moved.history.values, plain.history.values * by_entry, rtol=1e-5)
    found = rec.recommend(["u1", "u2"], 5, explain=True)
    for scores, why in zip(found.scores, found.explanations, strict=True):
        for score, one in zip(scores, why, strict=True):
            assert sum(one["sources"].values()) == pytest.approx(float(score), rel=1e-4, abs=1e-5)
    rec.save(tmp_path / "m")
    again = load(tmp_path / "m", encoder=hash_encoder)
    np.testing.assert_array_equal(again.recommend(["u1", "u2"], 5).scores, found.scores)
    assert isinstance(state.features.sources[0], BiasSource)


def test_the_seed_of_the_recommender_is_that_of_the_models():
    from fastrec.models import Als, ItemItem, Sequential
    from fastrec.pipeline import seeded

    assert seeded([Als(), ItemItem(), Sequential(seed=3)], 7) == [Als(seed=7), ItemItem(), Sequential(seed=3)]


def test_new_items_in_the_history_of_a_gated_reader(events, items, tmp_path):
    """Items that came after fitting, weights by user and a source that reads titles, all at once."""
    models = ["popularity", "item_item", "als", "content", "user_text"]
    rec = Recommender(encoder=hash_encoder, models=models, weights="equal", progress=False).fit(events, items)
    state = rec._live.state
    gate = Gate({"user_text": np.array([0.5, 0.0])}, np.array([2.0, 1.0]), np.array([1.0, 2.0]), (0.0, 1.0))
    rec._live.state = dataclasses.replace(state, features=dataclasses.replace(state.features, gate=gate))
    rec.add_items({"item_id": ["fresh"], "title": ["steel hammer tool of another kind"], "category": ["tools"]})
    rec.update([{"user_id": "u1", "item_id": "fresh", "timestamp": 20_000_000}])
    history, _ = rec._live.state.histories.take(rec._live.state.users.rows(["u1"]))
    source = next(s for s in rec._live.state.features.sources if isinstance(s, TextSource))
    read = []
    spying = dataclasses.replace(source, read=lambda texts: read.extend(texts) or source.read(texts))
    sources = tuple(spying if s is source else s for s in rec._live.state.features.sources)
    cold.queries(dataclasses.replace(rec._live.state.features, sources=sources), history)
    assert "steel hammer tool of another kind" in read[0].split("; ")[-1]
    found = rec.recommend(["u1"], 5, explain=True)
    for score, one in zip(found.scores[0], found.explanations[0], strict=True):
        assert sum(one["sources"].values()) == pytest.approx(float(score), rel=1e-4, abs=1e-5)
    rec.save(tmp_path / "m")
    back = load(tmp_path / "m", encoder=hash_encoder)
    assert back.recommend(["u1"], 5).items.tolist() == found.items.tolist()
    np.testing.assert_array_equal(back.recommend(["u1"], 5).scores, found.scores)

"""The last stage in a Recommender: what it reorders, what it leaves alone, and how much it is made to count."""

import shutil

import numpy as np
import polars as pl
import pytest
from helpers import hash_encoder
from readers import save_model

from fastrec import ArtifactError, ConfigError, Recommender, Rerank, load, metrics, pipeline, split
from fastrec.reranking import best_weight


@pytest.fixture(scope="module")
def fitted(events, items, random_gpt2):
    """With a model that knows nothing and a weight that was given."""
    return fit(events, items, random_gpt2, weight=0.2)


def fit(events, items, folder, models=("popularity", "item_item"), **settings):
    rerank = None if folder is None else Rerank(str(folder), **{"candidates": 8, "device": "cpu", **settings})
    return Recommender(encoder=None, models=list(models), weights="equal", rerank=rerank, progress=False).fit(
        events, items
    )


@pytest.fixture(scope="module")
def plain(events, items):
    return fit(events, items, None)


def test_the_best_change_places_and_nothing_else(fitted, plain):
    users = [f"u{i}" for i in range(20)]
    before, after = plain.recommend(users, 12), fitted.recommend(users, 12)
    for old, new in zip(before.items, after.items, strict=True):
        assert set(old[:8]) == set(new[:8]) and old[8:].tolist() == new[8:].tolist()
    assert (before.items != after.items).any()
    found = after.scores[np.isfinite(after.scores)]
    assert len(found) and (np.diff(after.scores, axis=1)[np.isfinite(after.scores[:, 1:])] <= 0).all()
    np.testing.assert_array_equal(before.scores[:, 8:], after.scores[:, 8:])


def test_scores_are_the_blend_and_explanations_say_so(fitted, plain, items):
    why = fitted.recommend("u3", 8, explain=True)
    title = dict(items.select("item_id", "title").iter_rows())
    reader = fitted._fitted("test").rerank.reader
    fused = dict(zip(plain.recommend("u3", 8).items, plain.recommend("u3", 8).scores, strict=True))
    shares = []
    for item, score, one in zip(why.items, why.scores, why.explanations, strict=True):
        assert list(one["sources"]) == ["popularity", "item_item", "rerank"]
        assert sum(one["sources"].values()) == pytest.approx(float(score), abs=1e-4)
        assert one["sources"]["rerank"] == pytest.approx(float(score - fused[item]), abs=1e-4)
        shares.append(one["sources"]["rerank"])
    assert min(shares) == 0 and max(shares) > 0.1
    history = fitted._fitted("test").histories.take([fitted.user_ids.index("u3")])[0].items[-10:]
    known = fitted.item_ids
    logs = reader.likelihoods([[title[known[j]] for j in history]], [[title[i] for i in why.items]])[0]
    np.testing.assert_allclose(shares, 0.2 * (logs - logs.min()), atol=1e-3)


def test_k_below_the_candidates_gives_the_head(fitted):
    long, short = fitted.recommend(["u1", "u2"], 8), fitted.recommend(["u1", "u2"], 3)
    assert (long.items[:, :3] == short.items).all()
    np.testing.assert_allclose(long.scores[:, :3], short.scores, atol=1e-6)


def test_rules_hold(fitted, events):
    seen = set(events.filter(events["user_id"] == "u1")["item_id"].to_list())
    assert not seen & set(fitted.recommend("u1", 8).items.tolist())
    allowed = ["i0", "i3", "i5", "i7"]
    assert set(fitted.recommend("u1", 8, allow=allowed, filter_seen=False)) == set(allowed)
    assert "i4" not in list(fitted.recommend("u0", 8, deny=["i4"]))
    food = fitted.recommend("u1", 5, where={"category": "food"})
    assert all(int(i[1:]) % 2 == 0 for i in food)
    assert len(fitted.recommend("u1", 5, at=1)) == 5  # before any event of the user
    first = fitted.rank("u1", ["i2", "i4", "i6"])
    assert sorted(first) == ["i2", "i4", "i6"]


def test_histories_of_strangers(fitted, plain, events):
    mine = events.filter(events["user_id"] == "u5").sort("timestamp")["item_id"].to_list()
    np.testing.assert_array_equal(fitted.recommend_for_history(mine, 5).items, fitted.recommend("u5", 5).items)
    np.testing.assert_array_equal(fitted.recommend("stranger", 5).items, plain.recommend("stranger", 5).items)
    assert (fitted.similar_items("i1", 5).items == plain.similar_items("i1", 5).items).all()


def test_saved_and_loaded(fitted, plain, tmp_path, random_gpt2):
    fitted.save(tmp_path / "m")
    users = ["u1", "u2", "u3"]
    again = load(tmp_path / "m")
    np.testing.assert_array_equal(again.recommend(users, 9).items, fitted.recommend(users, 9).items)
    np.testing.assert_array_equal(again.recommend(users, 9).scores, fitted.recommend(users, 9).scores)
    off = load(tmp_path / "m", rerank=False)
    np.testing.assert_array_equal(off.recommend(users, 9).items, plain.recommend(users, 9).items)
    off.save(tmp_path / "n")
    np.testing.assert_array_equal(load(tmp_path / "n").recommend(users, 9).items, off.recommend(users, 9).items)


def test_other_weights_of_the_model_are_noticed(events, items, histories, tmp_path):
    folder = save_model(tmp_path / "lm", histories)
    fit(events, items, folder, weight=1.0).save(tmp_path / "m")
    save_model(folder, histories, seed=1)
    with pytest.raises(ArtifactError, match=r"has other weights now.*rerank=False"):
        load(tmp_path / "m")
    assert len(load(tmp_path / "m", rerank=False).recommend("u1", 3)) == 3
    shutil.rmtree(folder)
    with pytest.raises(
        ConfigError, match=r"\[rerank\] model=.*there is none of this name; put it back, or .* rerank=False"
    ):
        load(tmp_path / "m")
    assert len(load(tmp_path / "m", rerank=False).recommend("u1", 3)) == 3


def test_events_after_fitting_are_read(fitted, events, items, random_gpt2):
    rec = fit(events, items, random_gpt2, weight=0.2)
    before = rec.recommend("u3", 8, filter_seen=False).scores.copy()
    rec.update({"user_id": "u3", "item_id": "i1", "timestamp": 20_000_000})
    assert (rec.recommend("u3", 8, filter_seen=False).scores != before).any()
    rec.add_items({"item_id": ["new"], "title": ["a steel thing"]})
    assert "new" in list(rec.recommend("u3", 3, allow=["new", "i5", "i7"], filter_seen=False))


@pytest.mark.parametrize("weights", ["learned", "equal", {"item_item": 1.0, "content": 0.5}], ids=str)
def test_a_useless_model_gets_no_weight(events, items, random_gpt2, weights):
    settings = {"encoder": hash_encoder, "models": ["popularity", "item_item", "content"], "weights": weights}
    rec = Recommender(**settings, rerank=str(random_gpt2), progress=False).fit(events, items)
    last = rec._fitted("test").rerank
    assert last.weight == 0 and any(n.startswith("rerank:") for n in rec.report.notes)
    off = Recommender(**settings, progress=False).fit(events, items)
    np.testing.assert_array_equal(rec.recommend(["u1", "u2"], 9).scores, off.recommend(["u1", "u2"], 9).scores)
    assert last.reader.cost.users > 0
    read = last.reader.cost.users
    rec.recommend(["u1", "u2"], 9)
    assert last.reader.cost.users == read  # a stage of weight 0 reads nothing


def test_only_so_many_users_are_searched_for_as_the_weight_needs(events, items, random_gpt2, monkeypatch):
    searched, top_k = [], pipeline.top_k
    monkeypatch.setattr(pipeline, "USERS_AT_ONCE", 8)
    monkeypatch.setattr(pipeline, "top_k", lambda f, h, *rest: searched.append(h.n_users) or top_k(f, h, *rest))
    told = []
    for sample in (20, 21, 500):
        searched.clear()
        rec = fit(events, items, random_gpt2, weight="learned", candidates=20, sample=sample)
        told.append(([n for n in rec.report.notes if n.startswith("rerank:")][0], sum(searched)))
    assert "learned on 20 users" in told[0][0] and "learned on 21 users" in told[1][0]
    assert told[0][1] < told[2][1] and set(searched[:-1]) == {8}


def test_a_model_trained_on_behaviour_helps(tmp_path):
    # Every user walks along one of four circles of items: what comes next is certain, and popularity knows nothing.
    rng = np.random.default_rng(0)
    words = ["apple", "brick", "chair", "drum"]
    names = [f"{colour} {word}" for colour in ("red", "blue", "green", "grey") for word in words]
    rows = []
    for user in range(160):
        circle, start = int(rng.integers(4)), int(rng.integers(4))
        rows += [(f"u{user}", circle * 4 + (start + step) % 4, step) for step in range(3)]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    items = {"item_id": list(range(16)), "title": names}
    train, test = split.leave_one_out(events)
    # The model has read users who came earlier, and none of these.
    texts = ["".join(f"{names[c * 4 + (s + t) % 4]}\n" for t in range(3)) for c in range(4) for s in range(4)]
    folder = save_model(tmp_path / "lm", texts, steps=600, width=48)
    settings = {"encoder": None, "models": ["popularity"], "progress": False}
    rec = Recommender(**settings, rerank=Rerank(str(folder), candidates=16)).fit(train, items)
    off = Recommender(**settings).fit(train, items)
    users = test["user_id"].to_list()
    relevant = [[i] for i in test["item_id"].to_list()]
    ndcg = {name: metrics.ndcg(r.recommend(users, 14).items, relevant, 14) for name, r in (("on", rec), ("off", off))}
    assert rec._fitted("test").rerank.weight > 0
    assert ndcg["on"] > ndcg["off"] + 0.3, (ndcg, rec.report.notes)


def test_the_weight_is_the_minimum_of_the_loss():
    rng = np.random.default_rng(3)
    wanted = np.zeros((400, 10), bool)
    wanted[np.arange(400), rng.integers(0, 10, 400)] = True
    fused, noise = rng.normal(size=(2, 400, 10))
    # Scores that are log probabilities up to noise of known size: the best factor is that of the signal.
    informed = fused + 0.0
    likely = 2.0 * wanted + noise
    weight, before, after = best_weight(informed, likely, wanted)

    def loss(w):
        logits = informed + w * likely
        return float((np.log(np.exp(logits).sum(axis=1)) - logits[wanted]).mean())

    assert after > before + 0.1
    assert loss(weight) <= min(loss(w) for w in np.linspace(0, 5, 501)) + 1e-4
    assert best_weight(informed, noise, wanted)[0] == 0
    assert best_weight(informed, np.zeros_like(noise), wanted)[0] == 0
    closed = fused.copy()
    closed[:, 8:] = -np.inf
    wanted[:, 8:] = False
    wanted[~wanted.any(axis=1), 0] = True
    assert np.isfinite(best_weight(closed, likely, wanted)).all()


def test_items_without_titles(events, random_gpt2, items):
    with pytest.raises(ConfigError, match="rerank reads titles"):
        Recommender(encoder=None, models=["item_item"], rerank=str(random_gpt2)).fit(events)
    few = items.with_columns(title=items["title"].set(items["item_id"].is_in(["i0", "i1"]), None))
    rec = fit(events, few, random_gpt2, weight=0.2)
    found = rec.recommend("u0", 8, filter_seen=False, explain=True, allow=["i0", "i2", "i4", "i6"])
    shares = {item: e["sources"]["rerank"] for item, e in zip(found, found.explanations, strict=True)}
    assert shares["i0"] == pytest.approx(np.mean([shares[i] for i in ("i2", "i4", "i6")]), abs=1e-5)


def test_with_diversity(events, items, random_gpt2):
    settings = {"encoder": hash_encoder, "models": ["item_item", "content"], "weights": "equal", "progress": False}
    rec = Recommender(**settings, rerank=Rerank(str(random_gpt2), weight=0.2)).fit(events, items)
    found = rec.recommend("u1", 6, diversity=0.5, explain=True)
    off = Recommender(**settings).fit(events, items).recommend("u1", 6, diversity=0.5)
    assert len(set(found)) == 6 and list(found) != list(off)
    for score, one in zip(found.scores, found.explanations, strict=True):
        assert sum(one["sources"].values()) == pytest.approx(float(score), abs=1e-4)

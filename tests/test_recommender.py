"""The public object on small data: what it returns, in which order, and that rules hold."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers import hash_encoder, history_of

from fastrec import ConfigError, ItemItem, NotFittedError, Recommender, UnknownIdError, load


def test_learns_the_groups(rec, events):
    found = rec.recommend([f"u{u}" for u in range(60)], 5)
    same = [int(item[1:]) % 2 == int(user[1:]) % 2 for user, items in found for item in items]
    assert np.mean(same) > 0.95


def test_one_id_gives_one_dimension_and_iterates_over_items(rec, events):
    found = rec.recommend("u1", 4)
    assert found.items.shape == (4,) and found.scores.shape == (4,)
    assert found.scores.dtype == np.float32
    assert list(found) == found.items.tolist()
    assert (np.diff(found.scores) <= 0).all()
    assert not set(found) & set(history_of(events, "u1"))


def test_a_batch_gives_two_dimensions_and_tables(rec):
    found = rec.recommend(["u1", "u2"], 3)
    assert found.users.tolist() == ["u1", "u2"] and found.items.shape == (2, 3)
    table = found.to_pandas()
    assert table.columns.tolist() == ["user_id", "item_id", "score", "rank"]
    assert table["rank"].tolist() == [1, 2, 3, 1, 2, 3]
    assert found.to_polars()["item_id"].to_list() == found.items.ravel().tolist()
    assert found.to_dicts()[0] == {
        "user_id": "u1",
        "item_id": found.items[0, 0],
        "score": found.scores[0, 0],
        "rank": 1,
    }
    assert found.to_arrow().num_rows == 6


@pytest.mark.parametrize("kind", [list, tuple, np.array, pd.Series, pl.Series])
def test_any_sequence_of_users(rec, kind):
    assert rec.recommend(kind(["u3", "u4"]), 3).users.tolist() == ["u3", "u4"]


def test_no_users(rec):
    found = rec.recommend([], 3)
    assert found.items.shape == (0, 3) and found.to_pandas().empty


def test_k_beyond_the_catalogue_is_filled_with_none(rec):
    found = rec.recommend("u1", 100)
    assert found.items.shape == (100,)
    assert [i is None for i in found.items] == np.isneginf(found.scores).tolist()
    assert len(list(found)) == 42 - 12


@pytest.mark.parametrize("k", [0, -1, 2.5, "3", True, None])
def test_k_out_of_range(rec, k):
    with pytest.raises(ConfigError, match=r"\[recommend\] k="):
        rec.recommend("u1", k)


def test_unknown_users(rec):
    with pytest.raises(UnknownIdError, match=r"\[recommend\] 2 unknown user id\(s\): 'nobody', 7"):
        rec.recommend(["u1", "nobody", 7], on_unknown="raise")
    assert rec.recommend(["u1", "nobody"], on_unknown="skip").users.tolist() == ["u1"]
    found = rec.recommend(["nobody", "u1"], 5)
    assert found.users.tolist() == ["nobody", "u1"]
    alone = rec.recommend("somebody else", 5)
    assert alone.items.tolist() == found.items[0].tolist()
    with pytest.raises(ConfigError, match="on_unknown='ignore'"):
        rec.recommend("u1", on_unknown="ignore")


@pytest.mark.parametrize("models", [["item_item"], ["content"], ["item_item", "content"], ["popularity", "content"]])
def test_unknown_users_get_popular_items_whatever_the_models(events, items, models):
    extra = pl.DataFrame(
        {"user_id": [f"x{i}" for i in range(99)], "item_id": ["i7"] * 99, "timestamp": [9_999_999] * 99}
    )
    rec = Recommender(encoder=hash_encoder, models=models, weights="equal").fit(pl.concat([events, extra]), items)
    diversity = 0.3 if "content" in models else 0.0
    found = rec.recommend(["u1", "nobody", "u2"], 5, explain=True, diversity=diversity)
    assert found.items[1, 0] == "i7"
    assert found.explanations[1][0]["sources"].keys() >= {"popularity"}
    assert found.items[0].tolist() == rec.recommend("u1", 5, diversity=diversity).items.tolist()
    assert rec.recommend_for_history([["i2"], ["never"]], 1).items[1, 0] == "i7"
    assert rec.recommend("nobody", 5, deny=["i7"]).items[0] != "i7"
    if "content" in models:
        assert rec.recommend_for_text(["red apple", " "], 1).items[1, 0] == "i7"


def test_somebody_who_only_disliked_gets_popular_items(events, items):
    extra = {"user_id": ["grump"], "item_id": ["i3"], "timestamp": [1], "event": ["dislike"]}
    rec = Recommender(encoder=hash_encoder).fit(pl.concat([events, pl.DataFrame(extra)], how="diagonal"), items)
    assert "i3" not in set(rec.recommend("grump", 42))
    assert rec.recommend("grump", 5).items.tolist() == [i for i in rec.recommend("nobody", 6) if i != "i3"][:5]


def test_the_same_alone_in_a_batch_and_with_other_threads(rec, monkeypatch):
    users = [f"u{u % 60}" for u in range(1000)]
    batch = rec.recommend(users, 7)
    monkeypatch.setenv("FASTREC_THREADS", "1")
    one = rec.recommend(users, 7)
    monkeypatch.setenv("FASTREC_THREADS", "2")
    two = rec.recommend(users, 7)
    for other in (one, two):
        assert (other.items == batch.items).all()
        np.testing.assert_array_equal(other.scores, batch.scores)
    for u in (0, 1, 33, 59):
        alone = rec.recommend(users[u], 7)
        assert alone.items.tolist() == batch.items[u].tolist()
        np.testing.assert_array_equal(alone.scores, batch.scores[u])


@pytest.mark.parametrize("backend", ["cpu", "numba", "reference"])
def test_backends_agree(events, items, rec, backend):
    other = Recommender(encoder=hash_encoder, backend=backend).fit(events, items)
    want, got = rec.recommend(["u1", "u2", "new"], 10), other.recommend(["u1", "u2", "new"], 10)
    assert (want.items == got.items).all()
    np.testing.assert_allclose(want.scores, got.scores, rtol=1e-6)


def test_score_is_what_recommend_ranks_by(rec):
    found = rec.recommend(["u1", "u2"], 6)
    for row, user in enumerate(["u1", "u2"]):
        np.testing.assert_array_equal(rec.score([user], found.items[row]), found.scores[[row]])
    everything = rec.score(["u1"], [f"i{i}" for i in range(42)])
    assert everything.shape == (1, 42) and everything.dtype == np.float32
    with pytest.raises(UnknownIdError, match="'i999'"):
        rec.score(["u1"], ["i1", "i999"])
    with pytest.raises(UnknownIdError, match=r"\[score\] 1 unknown user"):
        rec.score(["nobody"], ["i1"])


# ---- other questions


def test_for_history(rec, events):
    mine = history_of(events.sort("timestamp", maintain_order=True), "u1")
    found = rec.recommend_for_history(mine, 5)
    assert found.items.tolist() == rec.recommend("u1", 5).items.tolist()
    many = rec.recommend_for_history([mine, ["i2", "i4"], []], 5)
    assert many.users.tolist() == [0, 1, 2]
    assert many.items[0].tolist() == found.items.tolist()
    assert many.items[2].tolist() == rec.recommend("nobody", 5).items.tolist()
    assert all(int(i[1:]) % 2 == 0 for i in many.items[1])


def test_for_history_as_a_table(rec, events):
    mine = events.filter(pl.col("user_id").is_in(["u1", "u2"]))
    found = rec.recommend_for_history(mine.with_columns(pl.col("user_id") + "x"), 5)
    assert found.users.tolist() == ["u1x", "u2x"]
    assert found.items.tolist() == rec.recommend(["u1", "u2"], 5).items.tolist()


def test_for_history_with_repeats_and_unknown_items(rec):
    plain = rec.recommend_for_history(["i2", "i4"], 5)
    assert rec.recommend_for_history(["i4", "never", "i2", "i4"], 5).items.tolist() == plain.items.tolist()
    with pytest.raises(UnknownIdError, match="'never'"):
        rec.recommend_for_history(["i4", "never"], on_unknown="raise")
    assert rec.recommend_for_history([["never"], ["i2"]], 3, on_unknown="skip").users.tolist() == [1]


def test_for_text(rec):
    found = rec.recommend_for_text("red apple", 8)
    assert all(int(i[1:]) % 2 == 0 for i in found)
    many = rec.recommend_for_text(["red apple", "hammer", "  "], 8, where={"price": (0, 20)})
    assert all(int(i[1:]) % 2 == 1 for i in many.items[1])
    assert many.items.shape == (3, 8)
    assert rec.recommend_for_text(["hammer", ""], 3, on_unknown="skip").users.tolist() == [0]


def test_a_cold_item_is_found_by_its_text(rec):
    assert rec.recommend_for_text("red apple fruit number40 category: food tags: all t1", 1).items.tolist() == ["i40"]
    assert "i41" in set(rec.similar_items("i1", 20, by="content"))


def test_text_needs_an_encoder_and_texts(events, items):
    without = Recommender(encoder=None).fit(events, items)
    with pytest.raises(ConfigError, match="no text encoder"):
        without.recommend_for_text("apple")
    bare = Recommender(encoder=hash_encoder).fit(events)
    with pytest.raises(ConfigError, match="no content source"):
        bare.recommend_for_text("apple")


def test_similar_items(rec):
    found = rec.similar_items("i2", 5)
    assert "i2" not in set(found) and all(int(i[1:]) % 2 == 0 for i in found)
    both = rec.similar_items(["i2", "i3"], 5, by="item_item", where={"price": (0, 30)})
    assert both.users.tolist() == ["i2", "i3"] and both.items.shape == (2, 5)
    with pytest.raises(UnknownIdError, match="'i77'"):
        rec.similar_items("i77")
    with pytest.raises(
        ConfigError,
        match=r"no source 'popularity' compares items, the model has \['als', 'content', 'directed', 'item_item'\]",
    ):
        rec.similar_items("i2", by="popularity")


def test_rank(rec):
    found = rec.rank("u1", ["i3", "i9", "i2"])
    scores = rec.score(["u1"], ["i3", "i9", "i2"])[0]
    assert list(found) == [i for _, i in sorted(zip(-scores, ["i3", "i9", "i2"], strict=True))]
    assert set(rec.rank(["u1", "u2"], {"u1": ["i1"], "u2": ["i2", "i4"]}).items[1]) == {"i2", "i4"}


def test_vectors(rec):
    n, width = rec.user_vectors(["u1", "u2"]).shape
    assert n == 2 and width >= 24  # content, and what else was kept
    assert rec.item_vectors(["i1"]).shape == (1, width)


# ---- the object itself


def test_ties_go_to_the_item_seen_first():
    events = {"user_id": ["a", "b", "c", "d"], "item_id": ["z", "y", "x", "w"], "timestamp": [4, 3, 2, 1]}
    rec = Recommender(encoder=None, models=["popularity"], weights="equal").fit(events, {"item_id": ["v", "x"]})
    assert list(rec.recommend("new", 5)) == ["z", "y", "x", "w", "v"]


def test_integer_ids_come_back_as_ints(events):
    numbered = events.select(pl.all().exclude("timestamp").str.slice(1).cast(pl.Int32), "timestamp")
    rec = Recommender(encoder=None).fit(numbered)
    found = rec.recommend([1, np.int64(2)], 3)
    assert all(type(i) is int for i in found.items.ravel()) and found.users.tolist() == [1, 2]
    assert rec.recommend("1", 3).items.tolist() == rec.recommend(999, 3).items.tolist()


def test_same_seed_same_result(events, items, rec):
    again = Recommender(encoder=hash_encoder).fit(events, items)
    assert again.weights == rec.weights
    np.testing.assert_array_equal(again.recommend(["u1", "u2"]).scores, rec.recommend(["u1", "u2"]).scores)


def test_not_fitted():
    with pytest.raises(NotFittedError, match=r"\[recommend\] the recommender has no model yet; call fit"):
        Recommender(encoder=None).recommend("u1")


def test_a_failed_fit_leaves_the_model_as_it_was(events, items):
    rec = Recommender(encoder=hash_encoder).fit(events, items)
    before = rec.recommend("u1", 5)
    with pytest.raises(ValueError, match="user_id"):
        rec.fit({"item_id": ["a"]})
    assert rec.recommend("u1", 5).items.tolist() == before.items.tolist()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"models": "quick"}, "models='quick'"),
        ({"device": "tpu"}, "device='tpu', expected one of 'auto', 'cpu', 'cuda'"),
        ({"backend": "fpga"}, "backend is 'fpga'"),
        ({"weights": "best"}, "weights='best'"),
        ({"weights": {"content": -1}}, r"weights\['content'\]=-1"),
        ({"seed": -1}, "seed=-1"),
        ({"store": 3}, "store=3"),
    ],
)
def test_settings_out_of_range(keywords, message):
    with pytest.raises(ConfigError, match=message):
        Recommender(encoder=None, **keywords)


def test_given_weights(events, items):
    rec = Recommender(encoder=hash_encoder, weights={"content": 2.0, "popularity": 1.0}).fit(events, items)
    assert rec.weights == {"popularity": 1.0, "content": 2.0}
    with pytest.raises(ConfigError, match=r"weights name \['ease'\]"):
        Recommender(encoder=hash_encoder, weights={"ease": 1.0}).fit(events, items)
    with pytest.raises(ConfigError, match="no source any weight"):
        Recommender(encoder=hash_encoder, weights={"content": 0}).fit(events, items)


def test_precomputed_vectors_need_no_encoder(events):
    vectors = np.random.default_rng(0).normal(size=(42, 6)).astype(np.float32)
    table = {"item_id": [f"i{i}" for i in range(42)], "vector": list(vectors)}
    rec = Recommender(encoder=None, models=["content"], weights="equal").fit(events, pl.DataFrame(table))
    assert rec.item_vectors(["i0"]).shape == (1, 6)


# ---- saving and loading


@pytest.mark.parametrize("mmap", [True, False])
def test_save_and_load(rec, tmp_path, mmap):
    rec.save(tmp_path / "model")
    other = load(tmp_path / "model", mmap=mmap, encoder=hash_encoder)
    for ask in (
        lambda r: r.recommend(["u1", "u2", "nobody"], 9, where={"category": "food"}),
        lambda r: r.recommend_for_text("red apple", 4),
        lambda r: r.similar_items("i3", 4),
        lambda r: r.similar_items("i3", 4, by="item_item"),
    ):
        want, got = ask(rec), ask(other)
        assert (want.items == got.items).all()
        np.testing.assert_array_equal(want.scores, got.scores)
    assert other.weights == rec.weights and other.report == rec.report
    assert other.evaluate(split="loo").rows == rec.evaluate(split="loo").rows


def test_save_replaces_and_load_keeps_models_settings(events, items, tmp_path):
    rec = Recommender(encoder=None, models=[ItemItem(neighbors=3, decay=1.5), "popularity"]).fit(events, items)
    rec.save(tmp_path / "m")
    rec.save(tmp_path / "m")
    other = load(tmp_path / "m")
    assert other.fit(events, items).recommend("u1").items.tolist() == rec.recommend("u1").items.tolist()


# ---- evaluation


@pytest.mark.parametrize("split", ["time", "loo"])
def test_evaluate_splits_itself(rec, split):
    result = rec.evaluate(split=split, k=5)
    names = result.table.index.tolist()
    assert (names[0], names[-1]) == ("fastrec", "recent popularity")
    assert set(names[1:-1]) <= {"popularity", "item_item", "directed", "als", "content", "ease"}
    assert result.table.loc["fastrec", "ndcg"] > result.table.loc["recent popularity", "ndcg"]
    assert "fastrec" in str(result) and result.to_json().startswith("{")
    assert rec.evaluate(split=split, k=5, per_model=False).table.index.tolist() == [
        "fastrec",
        "recent popularity",
    ]


def test_evaluate_given_events_by_hand(rec):
    best = rec.recommend("u1", 3).items
    result = rec.evaluate({"user_id": ["u1", "u1", "u2"], "item_id": [best[1], "never seen", "i41"]}, k=3)
    assert result.users == 2 and result.events == 2
    hit = 1 / np.log2(3)
    second = rec.recommend("u2", 3).items.tolist()
    other = 1 / np.log2(second.index("i41") + 2) if "i41" in second else 0.0
    assert result.table.loc["fastrec", "ndcg"] == pytest.approx((hit + other) / 2)
    assert any("1 test events are of items that the model does not know" in note for note in result.notes)


def test_evaluate_bad_input(rec):
    with pytest.raises(ConfigError, match="split='random'"):
        rec.evaluate(split="random")
    with pytest.raises(ConfigError, match=r"\[evaluate\] k=0"):
        rec.evaluate(k=0)
    with pytest.raises(ValueError, match="no user of the test set"):
        rec.evaluate({"user_id": ["u1"], "item_id": ["never seen"]})

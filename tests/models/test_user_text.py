"""UserText: what is written of a history, what is read, the stand-in, and a model that is saved and loaded."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from helpers import hash_encoder, interactions

from fastrec import ConfigError, Recommender, UserText, load, usertext
from fastrec.encode.encoder import unit_rows
from fastrec.profiles import contributions, profiles
from fastrec.side import Texts
from fastrec.types import Embeddings

SHORT = UserText(last=3, characters=20)
TITLES = ["red apple", "green apple", "steel hammer", "", "iron saw", "ripe plum and more words than there is room for"]


def read(texts):
    return unit_rows(hash_encoder(list(texts)))


def known(titles=TITLES, alone=True):
    vectors = read(titles)
    shown = vectors if alone else np.concatenate([vectors, np.ones((len(titles), 2), np.float32)], axis=1)
    return Embeddings(shown, vectors.any(axis=1), Texts(lambda: titles, read, alone))


def fitted(model=SHORT, **kwargs):
    data = interactions([[0, 1, 2, 4], [2, 4], [1, 0], [3]], len(TITLES))
    return model.fit(data, known(**kwargs), "next")


def test_the_newest_entries_are_written_newest_last():
    data = interactions([[0, 2, 1, 4], [2], [3], [], [5, 3, 0]], 6, weights=[1, 1, 1, 1, 0, 1, 1, 1, 1])
    got = usertext.written(TITLES, data, 3)
    assert got == ["steel hammer; green apple; iron saw", "", "", "", f"{TITLES[5]}; red apple"]


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("ab", "ab"),
        ("a word more", "a word"),
        ("unbreakable", "unbreaka"),
        ("a unbreakable", "a unbrea"),
        ("one two", "one two"),
    ],
)
def test_shortened(text, short):
    assert usertext.shortened(text, 8) == short


def test_a_query_is_what_the_encoder_reads():
    source = fitted()
    data = interactions([[0, 2], [3], [], [5, 1, 4, 0]], 6)
    wanted = read(["red apple; steel hammer", "", "", "green apple; iron saw; red apple"])
    np.testing.assert_allclose(profiles(source, data), wanted, atol=1e-6)
    assert source.titles[5] == "ripe plum and more"
    np.testing.assert_array_equal(source.vectors, read(TITLES))


def test_item_vectors_are_those_of_the_texts_alone():
    np.testing.assert_allclose(fitted(alone=False).vectors, read(TITLES), atol=1e-6)


def test_the_stand_in_is_exact_where_reading_is_linear():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 7)).astype(np.float32)
    data = interactions([rng.permutation(30)[: rng.integers(1, 9)] for _ in range(200)], 30)
    places, offset = np.array([0.9, 0.5, 0.2, 0.1]), rng.normal(size=7)
    truth = np.stack(
        [
            offset + sum(places[r] * vectors[i] for r, i in enumerate(h[::-1][:4])) / min(len(h), 4)
            for h in np.split(data.items, data.indptr[1:-1])
        ]
    ).astype(np.float32)
    got_places, got_offset, cosine = usertext.stand_in(vectors, data, 4, truth)
    np.testing.assert_allclose(got_places, places, atol=1e-3)
    np.testing.assert_allclose(got_offset, offset, atol=1e-3)
    assert cosine > 0.99999
    source = dataclasses.replace(
        fitted(), vectors=vectors, places=got_places, offset=got_offset, last=4, exact=False, read=None
    )
    wanted = truth / np.linalg.norm(truth, axis=1, keepdims=True)
    np.testing.assert_allclose(profiles(source, data), wanted, atol=1e-3)
    assert not profiles(source, interactions([[]], 30)).any()


def test_the_stand_in_calls_no_encoder_and_is_near():
    source = fitted(UserText(last=3, exact=False))
    exact = dataclasses.replace(source, exact=True)
    data = interactions([[0, 1], [2, 4]], 6)
    near = (profiles(source, data) * profiles(exact, data)).sum(axis=1)
    assert (near > 0.8).all() and 0.8 < source.cosine <= 1
    quiet = dataclasses.replace(source, read=None)
    np.testing.assert_array_equal(profiles(quiet, data), profiles(source, data))
    with pytest.raises(ConfigError, match=r"this model has none: hand it to fastrec.load"):
        profiles(dataclasses.replace(quiet, exact=True), data)


def test_what_weighs_in_an_explanation():
    source = fitted()
    parts = contributions(source, interactions([[5, 2, 0, 3]], 6, weights=[1, 1, 1, 1]), 1)
    assert parts.shape == (4,) and (parts >= 0).all()
    assert parts.argmax() == 2 and parts[0] == 0 == parts[3]
    assert contributions(source, interactions([[]], 6), 1).shape == (0,)


def test_nothing_to_read():
    data = interactions([[0, 1]], 2)
    assert UserText().fit(data, None, "next") is None
    assert UserText().fit(data, Embeddings(np.eye(2, dtype=np.float32), np.ones(2, bool)), "next") is None
    assert UserText().fit(interactions([[0], []], 2), known(["", "apple"]), "next") is None
    one = UserText().fit(interactions([[1], []], 2), known(["", "apple"]), "next")
    assert np.isfinite(one.places).all() and np.isfinite(one.offset).all()
    assert UserText().variants(one, data) == [(UserText(), one)]


@pytest.mark.parametrize("change", [{"last": 0}, {"characters": True}, {"exact": 1}, {"last": 2.0}])
def test_settings_out_of_range(change):
    with pytest.raises(ConfigError, match=r"\[user_text\] .*expected"):
        UserText(**change)


@pytest.mark.parametrize("exact", [True, False])
def test_in_the_ensemble_saved_and_loaded(events, items, tmp_path, exact):
    models = ["popularity", "item_item", "content", UserText(last=4, exact=exact)]
    rec = Recommender(encoder=hash_encoder, models=models, weights="equal", progress=False).fit(events, items)
    found = rec.recommend(["u1", "u2"], 5, explain=True)
    for scores, why in zip(found.scores, found.explanations, strict=True):
        for score, one in zip(scores, why, strict=True):
            assert sum(one["sources"].values()) == pytest.approx(float(score), rel=1e-4, abs=1e-5)
            assert "user_text" in one["sources"]
    alone = rec.recommend("u2", 5)
    np.testing.assert_array_equal(alone.scores, found.scores[1])
    assert [i[1:] for i in rec.similar_items("i1", 3, by="user_text")][0] != ""
    rec.save(tmp_path / "m")
    again = load(tmp_path / "m", encoder=hash_encoder)
    np.testing.assert_array_equal(again.recommend(["u1", "u2"], 5).scores, found.scores)
    again.evaluate(split="loo")  # the texts are there to fit again
    mute = load(tmp_path / "m")
    if exact:
        with pytest.raises(ConfigError, match="read by the encoder, and this model has none"):
            mute.recommend("u1")
    else:
        np.testing.assert_array_equal(mute.recommend(["u1", "u2"], 5).scores, found.scores)


def test_vector_columns_stay_out_of_what_is_read(events, items):
    more = items.with_columns(
        pl.Series("look", np.random.default_rng(0).normal(size=(len(items), 5)), dtype=pl.Array(pl.Float64, 5))
    )
    models = [UserText(last=4), "content"]
    rec = Recommender(encoder=hash_encoder, models=models, weights="equal", progress=False).fit(events, more)
    assert rec.item_vectors(["i1"]).shape == (1, 24 + 24 + 5)
    assert len(list(rec.recommend("u1", 3))) == 3

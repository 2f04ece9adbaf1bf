"""A user with one event, an item with no events, a catalogue of one item, one single user: for every source."""

import numpy as np
import polars as pl
import pytest
from helpers import hash_encoder, interactions

from fastrec import Recommender, load
from fastrec.errors import DataError
from fastrec.models import resolve
from fastrec.side import Links, Texts, unit
from fastrec.types import Embeddings

EVERY = ["popularity", "item_item", "directed", "ease", "als", "bpr", "graph", "content", "user_text"]
EVERY += ["knowledge", "sequential"]
MODELS = [*EVERY, EVERY]
#: They need something to compare, or to follow.
COMPARING = ["bpr", "graph", "knowledge", "sequential"]


def fitted(pairs, titles, models):
    """Fitted on (user, item) pairs; with the source alone, or with all of them."""
    events = pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row")
    words = [title.split() for title in titles.values()]  # a list of strings: labels, for "knowledge" and "graph"
    items = pl.DataFrame({"item_id": list(titles), "title": list(titles.values()), "words": words})
    models = [models] if isinstance(models, str) else models
    return Recommender(encoder=hash_encoder, models=models, progress=False).fit(events, items)


def sane(found, k, forbidden=()):
    """No NaN, scores fall, nothing twice, nothing forbidden; the ids that came."""
    items = [i for i in found.items.tolist() if i is not None]
    scores = found.scores[: len(items)]
    assert np.isfinite(scores).all() and (np.diff(scores) <= 0).all()
    assert len(set(items)) == len(items) <= k and not set(items) & set(forbidden)
    assert (found.scores[len(items) :] == -np.inf).all()
    return items


def name(models):
    return models if isinstance(models, str) else "all"


PAIRS = [(u, i) for u, row in {"a": "pqr", "b": "pqs", "c": "qrs", "d": "ps"}.items() for i in row]
TITLES = {"p": "red apple", "q": "green apple", "r": "red hammer", "s": "steel hammer"}


@pytest.mark.parametrize("models", MODELS, ids=name)
def test_a_user_with_one_event(models):
    rec = fitted([*PAIRS, ("one", "p")], TITLES, models)
    assert set(sane(rec.recommend("one", 10), 10, "p")) == {"q", "r", "s"}
    assert set(sane(rec.recommend_for_history(["p"], 10), 10, "p")) == {"q", "r", "s"}


@pytest.mark.parametrize("models", MODELS, ids=name)
def test_an_item_with_no_events(models, tmp_path):
    rec = fitted(PAIRS, TITLES | {"new": "red apple"}, models)
    assert "new" in sane(rec.recommend("d", 10), 10, "ps")  # it may come last, but it can be recommended
    if models != "popularity":
        sane(rec.similar_items("new", 3), 3, ["new"])
    rec.save(tmp_path / "m")
    again = load(tmp_path / "m", encoder=hash_encoder)
    assert again.recommend("d", 10).scores.tolist() == rec.recommend("d", 10).scores.tolist()


@pytest.mark.parametrize("models", [m for m in MODELS if m not in COMPARING], ids=name)
def test_a_catalogue_of_one_item(models):
    rec = fitted([("a", "p"), ("b", "p")], {"p": "red apple"}, models)
    assert sane(rec.recommend("a", 3), 3) == []  # there is no other item
    assert sane(rec.recommend("a", 3, filter_seen=False), 3) == ["p"]
    assert sane(rec.recommend("stranger", 3), 3) == ["p"]


@pytest.mark.parametrize("models", COMPARING)
def test_one_item_cannot_be_compared_and_the_error_says_what_can_be_done(models):
    with pytest.raises(DataError, match=rf"none of the models \({models}\) can use this data; .* add 'popularity'"):
        fitted([("a", "p"), ("b", "p")], {"p": "red apple"}, models)


@pytest.mark.parametrize("models", MODELS, ids=name)
def test_one_single_user(models):
    rec = fitted([("a", "p"), ("a", "q"), ("a", "r")], TITLES, models)
    assert sane(rec.recommend("a", 10), 10, "pqr") == ["s"]
    assert set(sane(rec.recommend("stranger", 10), 10)) == set(TITLES)


@pytest.mark.parametrize("models", MODELS, ids=name)
def test_one_user_with_one_event_and_nothing_else(models):
    only, items = [("a", "p")], {"p": "red apple", "q": "hammer"}
    if models in ("knowledge", "sequential"):  # nothing in common, and nothing that followed
        with pytest.raises(DataError, match=rf"none of the models \({models}\)"):
            fitted(only, items, models)
        return
    assert sane(fitted(only, items, models).recommend("a", 3), 3, "p") == ["q"]


def described(n_items):
    """Every item reads the same, and all have one label in common."""
    texts = ["red apple"] * n_items
    vectors = unit(hash_encoder(texts))
    links = Links(np.arange(n_items, dtype=np.int32), np.full(n_items, n_items, np.int32), n_items, n_items + 1)
    read = Texts(lambda: texts, lambda given: unit(hash_encoder(given)), alone=True)
    return Embeddings(vectors, np.ones(n_items, np.bool_), read, links)


@pytest.mark.parametrize("models", EVERY)
def test_a_source_says_nothing_that_is_no_number(models):
    (model,) = resolve([models])
    for data in (
        interactions([[0]], 1),
        interactions([[0], []], 3),
        interactions([[0, 1, 2]], 3, weights=[0, 0, 0]),
        interactions([[], []], 2),
    ):
        source = model.fit(data, described(data.n_items), "next")
        for array in ("vectors", "bias", "gram"):
            assert np.isfinite(getattr(source, array, 0)).all()
        if hasattr(source, "similarity"):
            assert np.isfinite(source.similarity.values).all()

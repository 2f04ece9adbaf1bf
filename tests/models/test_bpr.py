"""BPR: its own loss, the derivation of the fold-in, determinism, and popularity on MovieLens 100K."""

import numpy as np
import pytest
from helpers import groups, interactions, pairwise_loss, random_interactions

from fastrec import datasets, fuse, learn, metrics
from fastrec.data import clean
from fastrec.errors import DataError
from fastrec.models import Bpr, Popularity
from fastrec.pipeline import top_k
from fastrec.profiles import profiles


def test_the_loss_falls_epoch_by_epoch():
    data = groups()
    losses = [pairwise_loss(data, *Bpr(factors=8, epochs=e).train(data, data), 0.01) for e in (1, 5, 20, 60)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("n_items", [2, 5, 16, 40])
def test_a_chosen_item_moves_above_the_others(n_items):
    data = interactions([[0]] * 30, n_items)
    users, items = Bpr(factors=4).train(data, data)
    scores = users @ items.T
    assert (scores[:, 0] > scores[:, 1:].max(axis=1)).all()


def test_the_fold_in_knows_the_group_of_a_new_history():
    data = groups()
    source = Bpr(factors=8).fit(data, None, "next")
    fresh = interactions([[0, 3, 6], [1, 4], [2]], data.n_items)
    scores = profiles(source, fresh) @ source.vectors.T
    for u, row in enumerate(scores):
        best = np.argsort(-row)[:8]
        assert (best % 3 == u).all()


def test_it_is_the_same_with_any_number_of_threads(monkeypatch):
    data = random_interactions(8, n_users=200, n_items=90)
    monkeypatch.setenv("FASTREC_THREADS", "1")
    one = Bpr(factors=6, epochs=5).fit(data, None, "next")
    monkeypatch.setenv("FASTREC_THREADS", "3")
    again = Bpr(factors=6, epochs=5).fit(data, None, "next")
    np.testing.assert_array_equal(again.vectors, one.vectors)
    np.testing.assert_array_equal(again.gram, one.gram)
    assert (Bpr(factors=6, epochs=5, seed=1).fit(data, None, "next").vectors != one.vectors).any()


def test_what_cannot_be_compared_is_left_out():
    assert Bpr().fit(interactions([[0]], 1), None, "next") is None
    assert Bpr().fit(interactions([[0]], 2, weights=[0]), None, "next") is None
    # A user who has had everything has no negative, and nobody else is there.
    source = Bpr(factors=3).fit(interactions([[0, 1]], 2), None, "next")
    assert np.isfinite(source.vectors).all()


def test_items_without_events_stand_in_the_middle():
    data = interactions([[0, 1], [1, 2]], 6)
    source = Bpr(factors=3).fit(data, None, "next")
    assert (source.vectors[3:] == 0).all() and (source.vectors[:3] != 0).any()
    np.testing.assert_allclose(source.vectors.sum(axis=0), 0, atol=1e-5)


def test_it_beats_popularity_by_far_on_movielens():
    try:
        films = datasets.load("ml-100k")
    except DataError as error:
        pytest.skip(f"MovieLens 100K cannot be had here: {error}")
    train, held = learn.holdout(clean(films.interactions).interactions, "next")
    relevant = [row.tolist() for row in np.split(held.items, held.indptr[1:-1])]

    popular = Popularity().fit(train, None, "next")

    def ndcg(source):
        space = fuse.fuse([source], {source.name: 1.0}, train.n_items)
        return metrics.ndcg(top_k(space, train, 10, train.seen(), popular).rows, relevant, 10)

    assert ndcg(Bpr().fit(train, None, "next")) > 2 * ndcg(popular)

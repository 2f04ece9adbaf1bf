"""EASE against the closed form written down plainly, and its refusal."""

import numpy as np
import pytest
from helpers import dense, interactions, random_interactions

from fastrec import config
from fastrec.errors import ConfigError
from fastrec.models import Ease, ease


def naive(data, regularization):
    x = np.zeros((data.n_users, data.n_items))
    x[data.users, data.items] = data.weights > 0
    p = np.linalg.inv(x.T @ x + regularization * np.eye(data.n_items))
    b = p / -np.diag(p)
    np.fill_diagonal(b, 0)
    return b


@pytest.mark.parametrize("rows", [1, 7, 512])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_closed_form(seed, rows, monkeypatch):
    monkeypatch.setattr(ease, "_ROWS", rows)
    data = random_interactions(seed, n_users=90, n_items=31)
    got = Ease(regularization=3.0, neighbors=None).fit(data, None, "next").similarity
    np.testing.assert_allclose(dense(got), naive(data, 3.0), rtol=0, atol=1e-6)


def test_the_largest_entries_are_kept_whatever_their_sign():
    data = random_interactions(4, n_users=200)
    full = dense(Ease(regularization=1.0, neighbors=None).fit(data, None, "next").similarity)
    few = Ease(regularization=1.0, neighbors=5).fit(data, None, "next").similarity
    assert (np.diff(few.indptr) == 5).all()
    kept = dense(few)
    assert (kept < 0).any() and (kept > 0).any()
    for r in range(data.n_items):
        at = np.flatnonzero(kept[r])
        np.testing.assert_array_equal(kept[r, at], full[r, at])
        assert (np.diff(few.indices[few.indptr[r] : few.indptr[r + 1]]) > 0).all()
        assert np.abs(kept[r, at]).min() >= np.delete(np.abs(full[r]), at).max()


def test_of_equal_entries_the_smaller_columns_stay():
    block = np.array([[0, 2, -2, 2, 1], [0, 0, 0, 0, 3]], np.float32)
    counts, columns, values = ease._largest(block, 2)
    assert counts.tolist() == [2, 1]
    assert columns.tolist() == [1, 2, 4] and values.tolist() == [2, -2, 3]


def test_auto_regularization_grows_with_the_events_of_an_item():
    data = interactions([[0, 1], [0, 1], [0, 2]], 5)  # 6 events of 3 items
    auto = dense(Ease(neighbors=None).fit(data, None, "next").similarity)
    np.testing.assert_allclose(auto, naive(data, 8.0), atol=1e-6)


def test_dislikes_do_not_count_and_nothing_gives_nothing():
    liked = interactions([[0, 1, 2]] * 3, 3, weights=[1, 1, 0] * 3)
    got = dense(Ease().fit(liked, None, "next").similarity)
    assert got[0, 1] > 0 and (got[:, 2] == 0).all() and (got[2] == 0).all()
    for nothing in (interactions([[0]], 1, weights=[0]), interactions([[0]], 1), interactions([[]], 4)):
        assert dense(Ease().fit(nothing, None, "next").similarity).any() == np.False_


def test_more_than_the_memory_holds_is_refused_with_a_way_out(monkeypatch):
    data = random_interactions(0, n_items=1000)
    monkeypatch.setattr(config, "free_memory", lambda: 2_000_000)
    with pytest.raises(ConfigError, match=r"\[ease\] 1,000 items need .* at most 500 items .*'item_item' or 'als'"):
        Ease(neighbors=1).fit(data, None, "next")


def test_a_catalogue_beyond_patience_is_refused():
    with pytest.raises(ConfigError, match=r"100,000 items need 80\.\d GB"):
        Ease(neighbors=10).fit(interactions([[0, 1]], 100_000), None, "next")


def test_in_a_preset_it_is_for_periods_and_small_catalogues():
    data, large = random_interactions(0), interactions([[0, 1]], 5001)
    assert Ease(optional=True).fit(data, None, "next") is None
    assert Ease(optional=True).fit(large, None, "period") is None
    assert Ease(optional=True).fit(data, None, "period").name == "ease"
    assert Ease().fit(data, None, "next").name == "ease"


def test_free_memory_is_a_number_of_bytes():
    assert config.free_memory() > 1_000_000

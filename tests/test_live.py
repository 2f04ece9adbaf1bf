"""A model that moves: events, new and removed items."""

import numpy as np
import polars as pl
import pytest
from helpers import everything, history_of

from fastrec import DataError, NotFittedError, Recommender, UnknownIdError
from fastrec.models import Als, Popularity, Sequential

ONE = {"user_id": "u1", "item_id": "i3"}


# ---- events


def test_an_event_counts_from_the_next_call_on(fit, events):
    rec = fit()
    first = rec.recommend("u1", 1).items[0]
    counts = rec.update({"user_id": "u1", "item_id": first, "timestamp": 2e7})
    assert counts == {"dropped": 0, "events": 1, "unknown_items": 0, "new_users": 0}
    assert first not in rec.recommend("u1", 50).items.tolist()
    assert rec.recommend("u1", 50, filter_seen=False).items.tolist().count(first) == 1
    why = rec.recommend("u1", 1, explain=True).explanations[0]
    assert first in [item for item, _ in why["history"]], "the newest event weighs most"


def test_it_is_what_a_history_of_the_same_events_gives(fit, events):
    rec = fit()
    rec.update({"user_id": "u1", "item_id": "i40", "timestamp": 2e7})
    rec.update({"user_id": "new", "item_id": "i3", "timestamp": 1.0})
    for user, past in (("u1", [*history_of(events, "u1"), "i40"]), ("new", ["i3"])):
        live, told = rec.recommend(user, 10), rec.recommend_for_history(past, 10)
        assert live.items.tolist() == told.items.tolist()
        np.testing.assert_array_equal(live.scores, told.scores)
    assert "new" in rec.user_ids


def test_an_earlier_event_takes_its_place_in_time(fit, events):
    rec = fit()
    rec.update({"user_id": "u1", "item_id": "i40", "timestamp": 0.0})
    told = rec.recommend_for_history(["i40", *history_of(events, "u1")], 10)
    assert rec.recommend("u1", 10).items.tolist() == told.items.tolist()


def test_popularity_moves_and_decays(fit):
    rec = fit(models=[Popularity(half_life=1.0)])
    start = 1e7
    rec.update([{"user_id": f"x{i}", "item_id": "i40", "timestamp": start + i} for i in range(30)])
    assert rec.recommend("nobody", 1).items.tolist() == ["i40"]
    later = start + 20 * 86400
    rec.update([{"user_id": f"x{i}", "item_id": "i41", "timestamp": later + i} for i in range(5)])
    assert rec.recommend("nobody", 2).items.tolist() == ["i41", "i40"], "30 events of three weeks ago are less than 5"


def test_tables_and_single_events_are_read_alike(fit):
    rows = [("u1", "i40", 1.1e7), ("new", "i0", 1.2e7), ("u1", "i41", 1.3e7), ("u1", "i41", 1.3e7)]
    dicts = [dict(zip(("user_id", "item_id", "timestamp"), row, strict=True)) for row in rows]
    table = pl.DataFrame(dicts)
    results = []
    for given in (dicts, table, table.to_pandas(), table.to_dict(as_series=False)):
        rec = fit(store=None)
        assert rec.update(given) == {"dropped": 1, "events": 3, "unknown_items": 0, "new_users": 1}
        results.append(everything(rec))
    rec = fit(store=None)
    for row in dicts[:3]:
        rec.update(row)
    assert all(result == everything(rec) for result in results)


def test_strengths_are_those_of_fitting(items):
    rows = [
        ("a", "i1", 2.0, "rating", 1),
        ("a", "i2", 4.0, "rating", 2),
        ("b", "i1", 0, "like", 3),
        ("b", "i3", 3, "rating", 4),
    ]
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "value", "event", "timestamp"], orient="row", strict=False)
    rec = Recommender(encoder=None, models=[Popularity()]).fit(table, items)
    rec.update({"user_id": "c", "item_id": "i3", "value": 6.0, "event": "Rating", "timestamp": 9})
    rec.update({"user_id": "c", "item_id": "i2", "event": "dislike", "timestamp": 9})
    rec.update({"user_id": "c", "item_id": "i1", "event": "purchase", "timestamp": 9})
    history = rec._live.state.histories.user(2)
    assert history.weights.tolist() == [2.0, 0.0, 4.0], "6 stars by a mean of 3; a dislike; a purchase"


def test_what_is_dropped_is_counted(fit):
    rec = fit()
    before = everything(rec)
    got = rec.update([{"user_id": "u1", "item_id": "nothing"}, {"user_id": "", "item_id": "i1"}, {"item_id": None}])
    assert got == {"dropped": 2, "events": 0, "unknown_items": 1, "new_users": 0}
    assert rec.update([]) == {"dropped": 0}
    assert everything(rec) == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("missing.csv", "missing.csv"),
        (7, "interactions"),
        ({"user": "u1", "item_id": "i1"}, "user_id"),
        ({"user_id": 5, "item_id": "i1"}, "expected one kind"),
        ({"user_id": "u1", "item_id": "i1", "timestamp": "soon"}, "'soon' is no time"),
        ({"user_id": "u1", "item_id": "i1", "value": "many"}, "'many' is no number"),
        ({"user_id": "u1", "item_id": ["i1"]}, "side by side"),
    ],
)
def test_wrong_events_change_nothing(fit, given, message):
    rec = fit()
    before = everything(rec)
    with pytest.raises(DataError, match=message):
        rec.update(given)
    assert everything(rec) == before
    assert rec._store.version == 0


def test_one_wrong_event_among_good_ones_changes_nothing(fit):
    rec = fit()
    for wrong, message in (
        ({"user_id": 5, "item_id": "i1"}, "int and str"),
        ({"user_id": "a", "item_id": ["i1"]}, "list and str"),
    ):
        with pytest.raises(DataError, match=message):
            rec.update([ONE, wrong])
    assert rec._store.version == 0


def test_fit_comes_first():
    for call, given in (("update", ONE), ("add_items", {}), ("remove_items", "i1"), ("erase_users", "u1")):
        with pytest.raises(NotFittedError, match=call):
            getattr(Recommender(encoder=None), call)(given)


# ---- items


def test_new_items_are_found_by_their_text(fit):
    rec = fit()
    counts = rec.add_items({"item_id": ["n1", "n2", "i3"], "title": ["steel hammer tool big", "red apple", "other"]})
    assert counts == {"already_known": 1, "dropped": 0, "added": 2}
    assert rec.item_ids[-2:] == ["n1", "n2"]
    tools, food = rec.recommend("u1", 60).items.tolist(), rec.recommend("u0", 60).items.tolist()
    assert tools.index("n1") < tools.index("n2")
    assert food.index("n2") < food.index("n1")
    assert rec.similar_items("n1", 3).items[0] in [f"i{i}" for i in range(1, 42, 2)]
    assert "n1" in rec.similar_items("i1", 42, by="content").items.tolist()
    assert rec.recommend_for_text("steel hammer tool big", 1).items.tolist() == ["n1"]
    assert rec.recommend("u1", 60, where={"title": "red apple"}).items.tolist()[:2] == ["n2", None]
    assert rec.item_vectors(["i1", "n1"]).shape == (2, 8 + 24)


def test_old_scores_stay_as_they_are(fit, items):
    rec = fit(store=None)
    users, known = rec.user_ids, rec.item_ids
    before = rec.score(users, known)
    rec.add_items({"item_id": ["n1"], "title": ["steel hammer tool"]})
    np.testing.assert_array_equal(rec.score(users, known), before)


def test_a_new_item_like_an_old_one_scores_like_it(fit):
    """A text that is like one fitted item alone is that item in every source but popularity."""
    rec = fit(store=None, models=["item_item", "directed", Als(factors=8), "content"])
    rec._live.state.landmarks[:] = rec._live.state.items.rows(["i7"])[0]
    rec.add_items(
        {"item_id": ["n1"], "title": ["steel hammer tool number7"], "category": ["tools"], "tags": [["all", "t1"]]}
    )
    users = [f"u{u}" for u in range(0, 60, 7)]
    scores = rec.score(users, ["i7", "n1"])
    np.testing.assert_allclose(scores[:, 1], scores[:, 0], rtol=1e-4, atol=1e-4)
    for user in users:
        alike = rec.recommend(user, 60, filter_seen=False, allow=["i7", "n1"])
        np.testing.assert_allclose(sorted(alike.scores[:2]), sorted(rec.score([user], ["i7", "n1"])[0]), rtol=1e-6)
    one, other = (rec.recommend_for_history(["i9", x], 10, deny=["i7", "n1"]) for x in ("i7", "n1"))
    assert one.items.tolist() == other.items.tolist()
    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-4)


def test_scores_of_all_ways_agree(fit):
    rec = fit()
    rec.add_items({"item_id": ["n1", "n2"], "title": ["steel hammer", "red apple"]})
    rec.update(
        [{"user_id": "u1", "item_id": "n1"}, {"user_id": "u2", "item_id": "n2"}, {"user_id": "new", "item_id": "n1"}]
    )
    for user in ("u1", "u2", "u3", "new"):
        found = rec.recommend(user, 60, filter_seen=False, explain=True)
        items = [i for i in found.items.tolist() if i is not None]
        assert len(items) == 44
        np.testing.assert_array_equal(rec.score(user, items)[0], found.scores[:44])
        for score, why in zip(found.scores, found.explanations, strict=False):
            np.testing.assert_allclose(sum(why["sources"].values()), score, rtol=1e-4, atol=1e-4)
        alone = rec.recommend(user, 60, filter_seen=False)
        together = rec.recommend(["u5", user, "u1"], 60, filter_seen=False)
        np.testing.assert_array_equal(together.scores[1], alone.scores)
    assert "n1" in [item for item, _ in rec.recommend("new", 1, explain=True).explanations[0]["history"]]
    assert len({*rec.recommend("u1", 10, diversity=0.7).items.tolist()}) == 10


def test_an_item_without_text_is_recommendable_too(fit):
    rec = fit()
    rec.add_items({"item_id": ["bare"]})
    assert "bare" in rec.recommend("u1", 60).items.tolist()
    rec.update([{"user_id": f"x{i}", "item_id": "bare", "timestamp": 1e7} for i in range(50)])
    assert rec.recommend("nobody", 1).items.tolist() == ["bare"]
    assert len(rec.similar_items("bare", 3).items) == 3


def test_a_model_without_content(events):
    rec = Recommender(encoder=None, models=["popularity", "item_item"]).fit(events)
    assert rec.add_items({"item_id": ["n1"], "title": ["words"]})["added"] == 1
    assert "n1" in rec.recommend("u1", 60).items.tolist()


def test_sequential_scores_a_new_item_by_its_text(fit):
    rec = fit(models=[Sequential(width=16, epochs=8, stop=8, batch_tokens=256, length=20)])
    rec.add_items({"item_id": ["n1", "n2"], "title": ["steel hammer tool", "red apple fruit"]})
    scores = rec.score([f"u{u}" for u in range(60)], ["n1", "n2"])
    right = [scores[u, 0] > scores[u, 1] if u % 2 else scores[u, 1] > scores[u, 0] for u in range(60)]
    assert np.mean(right) > 0.9
    rec.update({"user_id": "new", "item_id": "n1"})
    assert rec.recommend("new", 1).items[0] in [f"i{i}" for i in range(1, 42, 2)]


def test_removed_items_are_gone_until_they_come_back(fit, events):
    rec = fit()
    rec.add_items({"item_id": ["n1"], "title": ["steel hammer tool"]})
    assert rec.remove_items(["i3", "n1", "nothing"]) == {"removed": 2, "unknown": 1}
    users = [f"u{u}" for u in range(60)]
    for found in (
        rec.recommend([*users, "nobody"], 60, filter_seen=False),
        rec.recommend(users, 60, allow=["i3", "n1", "i5"], filter_seen=False),
        rec.similar_items("i5", 60),
        rec.recommend_for_text("steel hammer tool", 60),
        rec.recommend_for_history(["i3", "i5"], 60, filter_seen=False),
        rec.rank("u1", ["i3", "i5", "n1"]),
    ):
        assert not {"i3", "n1"} & set(np.ravel(found.items).tolist())
    assert {"i3", "n1"} & set(rec.item_ids) == set()
    with pytest.raises(UnknownIdError, match="'i3'"):
        rec.similar_items("i3")
    assert rec.update({"user_id": "u1", "item_id": "n1"})["unknown_items"] == 1
    assert rec.add_items({"item_id": ["i3"], "title": ["steel hammer tool"]})["added"] == 1
    had = {u for u in users if "i3" in history_of(events, u)}
    assert had
    for user in users:
        assert ("i3" in rec.recommend(user, 60).items.tolist()) == (user not in had), "it is seen by who had it"


def test_an_item_table_that_does_not_fit(fit):
    rec = fit()
    before = everything(rec)
    for given, message in (
        ({"item_id": [1]}, "expected one kind"),
        ({"title": ["x"]}, "item_id"),
        ({"item_id": ["n"], "price": ["cheap"]}, "column 'price' is"),
    ):
        with pytest.raises(DataError, match=message):
            rec.add_items(given)
    assert rec.add_items({"item_id": ["i3", "i4"]}) == {"added": 0, "already_known": 2, "dropped": 0}
    assert everything(rec) == before


def test_evaluate_knows_the_fitted_items_alone(fit, events):
    rec = fit()
    rec.add_items({"item_id": ["n1"], "title": ["steel hammer tool"]})
    rec.update({"user_id": "u1", "item_id": "n1"})
    test = pl.DataFrame({"user_id": ["u1", "u2"], "item_id": ["i40", "i41"], "timestamp": [2e7, 2e7]})
    assert "fastrec" in str(rec.evaluate(test))

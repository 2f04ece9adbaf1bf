"""A model that moves: events, new and removed items, erased users, and a log that brings it all back."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from helpers import hash_encoder, history_of

from fastrec import ArtifactError, DataError, NotFittedError, Recommender, UnknownIdError, load
from fastrec.models import Als, Content, Directed, ItemItem, Popularity, Sequential

MODELS = [Popularity(half_life=30.0), ItemItem(decay=3.0), Directed(decay=2.0), Als(factors=8, decay=3.0), Content()]
ONE = {"user_id": "u1", "item_id": "i3"}


@pytest.fixture
def fit(events, items, tmp_path):
    """A fresh model whose every source counts."""

    def fit(store=True, models=MODELS, **keywords):
        path = tmp_path / "log.sqlite" if store is True else store
        rec = Recommender(encoder=hash_encoder, models=models, weights="equal", store=path, **keywords)
        return rec.fit(events, items)

    return fit


def everything(rec, k=50):
    """All that a model answers, as comparable values."""
    users = sorted(rec.user_ids)
    found = rec.recommend([*users, "nobody"], k)
    similar = rec.similar_items(sorted(rec.item_ids), 5)
    return [a.tolist() for a in (found.items, found.scores, similar.items, similar.scores)], users


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
    rec = fit(store=None, models=MODELS[1:])
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


# ---- erasing


def test_an_erased_user_is_nobody(fit):
    rec, other = fit(), fit(store=None)
    rec.update([{"user_id": "ghost", "item_id": f"i{i}"} for i in range(5)])
    got = rec.erase_users(["ghost", "never"])
    assert got == {"users": 1, "events": 5, "records": 5}
    other.update({"user_id": "u1", "item_id": "i1"})  # wakes the counts
    rec.update({"user_id": "u1", "item_id": "i1"})
    assert "ghost" not in rec.user_ids
    with pytest.raises(UnknownIdError):
        rec.recommend("ghost", on_unknown="raise")
    np.testing.assert_array_equal(rec.recommend("nobody", 42).items, other.recommend("nobody", 42).items)
    rec.update({"user_id": "ghost", "item_id": "i2"})
    assert "i1" in rec.recommend("ghost", 50).items.tolist(), "who comes back begins anew"


def test_after_erasing_no_file_holds_the_user(fit, tmp_path):
    rec = fit(cache_dir=tmp_path / "cache")
    words = "a-very-private-remark"
    rec.update([{"user_id": "ghost-7", "item_id": f"i{i}", "text": words} for i in range(30)])
    rec.save(tmp_path / "m")
    everywhere = lambda: b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())  # noqa: E731
    assert b"ghost-7" in everywhere() and words.encode() in everywhere()
    rec.erase_users(["ghost-7", "u5"])
    rec.save(tmp_path / "m")
    assert b"ghost-7" not in everywhere() and words.encode() not in everywhere()
    assert b"u4" in everywhere()
    model = load(tmp_path / "m", encoder=hash_encoder, store=tmp_path / "log.sqlite")
    assert "u5" not in model.user_ids and "ghost-7" not in model.user_ids
    assert everything(model) == everything(rec)


def test_nothing_about_a_user_is_logged(fit, caplog):
    rec = fit()
    with caplog.at_level("DEBUG"):
        rec.update({"user_id": "ghost-7", "item_id": "i1", "text": "private words"})
        rec.recommend("ghost-7")
        rec.erase_users("ghost-7")
    assert "ghost-7" not in caplog.text and "private" not in caplog.text


# ---- coming back


def changes(rec):
    """A bit of everything; each step is acknowledged when it returns."""
    yield rec.update({"user_id": "u1", "item_id": "i40", "timestamp": 2e7})
    yield rec.add_items({"item_id": ["n1", "n2"], "title": ["steel hammer", "red apple"], "price": [1.0, 2.0]})
    yield rec.update([{"user_id": f"x{i}", "item_id": f"n{1 + i % 2}", "timestamp": 2e7 + i} for i in range(9)])
    yield rec.remove_items(["i7", "n2"])
    yield rec.erase_users(["x3", "u9"])
    yield rec.update({"user_id": "u2", "item_id": "n1", "timestamp": 9e7})
    yield rec.add_items({"item_id": ["n2", "n3"], "title": ["red apple", "green pear"]})
    yield rec.update({"user_id": "x3", "item_id": "n3", "timestamp": 9.1e7})


def test_snapshot_and_log_give_the_same_bits(fit, tmp_path):
    rec = fit()
    rec.save(tmp_path / "m0")
    for step, _ in enumerate(changes(rec), 1):
        rec.save(tmp_path / f"m{step}")
    want = everything(rec)
    for step in range(9):
        again = load(tmp_path / f"m{step}", encoder=hash_encoder, store=tmp_path / "log.sqlite")
        assert everything(again) == want, step


def test_two_processes_on_one_log_agree(fit, tmp_path):
    rec = fit()
    rec.save(tmp_path / "m")
    other = load(tmp_path / "m", encoder=hash_encoder, store=tmp_path / "log.sqlite")
    for _ in changes(rec):
        other.update({"user_id": "u30", "item_id": "i8", "timestamp": 3e7})
    rec.update({"user_id": "u31", "item_id": "i9", "timestamp": 3e7})
    other.update({"user_id": "u31", "item_id": "i11", "timestamp": 4e7})
    rec.update({"user_id": "u31", "item_id": "i13", "timestamp": 5e7})
    other.update({"user_id": "u32", "item_id": "i8", "timestamp": 6e7})
    rec.update({"user_id": "u33", "item_id": "i9", "timestamp": 6e7})
    other._live.replay()
    assert everything(rec) == everything(other)


def test_another_log_is_refused(fit, tmp_path):
    rec = fit()
    rec.update(ONE)
    rec.save(tmp_path / "m")
    with pytest.raises(ArtifactError, match="ends at version 0, the model is at 1"):
        load(tmp_path / "m", encoder=hash_encoder, store=tmp_path / "other.sqlite")


SERVER = """
import json, sys
sys.path.insert(0, sys.argv[1])
from helpers import hash_encoder
from fastrec import load
folder, log, start = sys.argv[2:]
rec = load(folder, encoder=hash_encoder, store=log)
print(json.dumps("ready"), flush=True)
i = int(start)
while True:
    rec.update({"user_id": f"k{i % 7}", "item_id": f"i{i % 40}", "timestamp": 2e7 + i})
    print(json.dumps(["event", i]), flush=True)
    if i % 5 == 0:
        rec.add_items({"item_id": [f"n{i}"], "title": [f"steel hammer number{i}"]})
        print(json.dumps(["item", i]), flush=True)
    if i % 9 == 0:
        rec.save(folder)
    i += 1
"""


@pytest.mark.slow
def test_kill_9_under_load_loses_nothing_acknowledged(fit, tmp_path):
    rounds = 20
    rec = fit()
    folder, log = tmp_path / "m", tmp_path / "log.sqlite"
    rec.save(folder)
    rec._store.close()
    start, rng = 0, np.random.default_rng(0)
    for _ in range(rounds):
        command = [sys.executable, "-c", SERVER, str(Path(__file__).parent), str(folder), str(log), str(start)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert json.loads(child.stdout.readline()) == "ready"
        lines = [json.loads(child.stdout.readline()) for _ in range(int(rng.integers(1, 30)))]
        child.send_signal(signal.SIGKILL)
        lines += [json.loads(line) for line in child.communicate()[0].split(b"\n")[:-1]]
        start = max(i for _, i in lines) + 1
        again = load(folder, encoder=hash_encoder, store=log)
        mine = {kind: {i for k, i in lines if k == kind} for kind in ("event", "item")}
        for i in mine["event"]:
            seen = again.recommend(f"k{i % 7}", 99).items.tolist()
            assert f"i{i % 40}" not in seen, f"event {i} was acknowledged and is lost"
        assert {f"n{i}" for i in mine["item"]} <= set(again.item_ids)
        again._store.close()
    # What never died and was told the same comes to the same.
    recovered = load(folder, encoder=hash_encoder, store=log)
    whole = fit(store=None)
    whole._live._apply(recovered._store.since(0), recovered._store.version)
    assert everything(whole) == everything(recovered)

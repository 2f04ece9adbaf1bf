"""Retraining beside the service: what is worse does not take the place of what is better."""

import json

import numpy as np
import polars as pl
import pytest
from helpers import hash_encoder

from fastrec import ConfigError, DataError, Recommender, cli, load
from fastrec.inside import recover
from fastrec.models import Als
from fastrec.refit import material, refit

MODELS = ["popularity", "item_item", Als(factors=8), "content"]


@pytest.fixture
def served(events, items, tmp_path):
    """A saved model and its log: since fitting, users of both groups have found new items to share."""

    def served():
        log = tmp_path / "log.sqlite"
        rec = Recommender(encoder=hash_encoder, models=MODELS, weights="equal", store=log).fit(events, items)
        rec.save(tmp_path / "m")
        rec.add_items({"item_id": ["n0", "n1"], "title": ["red apple fruit", "steel hammer tool"]})
        rng = np.random.default_rng(1)
        for u in range(60):
            for j, i in enumerate(rng.permutation(20)[:8]):
                rec.update({"user_id": f"u{u}", "item_id": f"i{2 * i + u % 2}", "timestamp": 1.5e7 + 100 * j + u})
            rec.update({"user_id": f"u{u}", "item_id": f"n{u % 2}", "timestamp": 1.6e7 + u})
        rec.remove_items(["i2", "i3"])
        rec.erase_users(["u5"])
        return rec, tmp_path / "m", log

    return served


def test_the_new_model_knows_what_came_since(served):
    rec, folder, log = served()
    result = refit(folder, store=log, encoder=hash_encoder, margin=0.1)  # 32 users are few
    assert result.replaced and result.honest and result.users > 20
    assert "the live model is replaced" in str(result)
    new = load(folder, encoder=hash_encoder, store=log)
    assert set(new.item_ids) == set(rec.item_ids) and set(new.user_ids) == set(rec.user_ids)
    assert new._live.state.fresh is None and new._live.state.version == rec._live.state.version
    assert new.report.items == 42
    for user in ("u1", "u2"):
        got = new.recommend(user, 99).items.tolist()
        assert not {"i2", "i3"} & set(got)
        assert set(got) == set(rec.recommend(user, 99).items.tolist())
    # What was a guess from the text is now known from the events: a tool, for those who use tools.
    alike = new.similar_items("n1", 3, by="item_item").items.tolist()
    assert all(i is not None and int(i[1:]) % 2 for i in alike)
    rec.update({"user_id": "u1", "item_id": "i40", "timestamp": 2e7})
    assert "i40" not in load(folder, encoder=hash_encoder, store=log).recommend("u1", 99).items.tolist()


def test_events_that_came_before_their_item(served):
    rec, folder, log = served()
    early = [{"user_id": f"u{u}", "item_id": "late", "timestamp": 1.7e7 + u} for u in range(1, 40, 2)]
    early += [{"user_id": "guest", "item_id": "late"}, {"user_id": "guest", "item_id": "never"}]
    assert rec.update(early)["unknown_items"] == 22
    rec.update({"user_id": "u5", "item_id": "late"})
    rec.erase_users(["u7", "u5"])
    rec.add_items({"item_id": ["late"], "title": ["steel hammer tool"]})
    rec.update({"user_id": "u2", "item_id": "late", "timestamp": 1.8e7})
    rec.remove_items(["late"])
    rec.add_items({"item_id": ["late"], "title": ["steel hammer tool"]})
    live = load(folder, encoder=hash_encoder, store=log)
    assert "late" in live.recommend("u1", 99).items.tolist()
    again = load(folder, encoder=hash_encoder, store=log)
    assert recover(again) == 19  # u5 and u7 are nobody, u2 has it, the guest is there
    assert recover(again) == 0
    refit(folder, store=log, encoder=hash_encoder, force=True)
    new = load(folder, encoder=hash_encoder, store=log)
    for user in ("u1", "u39", "u2", "guest"):
        assert "late" not in new.recommend(user, 99).items.tolist()
    assert "late" in new.recommend("u4", 99).items.tolist()
    assert not {"u5", "u7", "never"} & {*new.user_ids, *new.item_ids}


def test_a_worse_one_is_refused_unless_forced(served):
    _, folder, log = served()
    before = (folder / "manifest.json").read_text()
    # A live model with all the settings of one that learns nothing: the candidate can only be worse.
    manifest = json.loads(before)
    manifest["settings"]["models"] = [{"name": "popularity", "half_life": 1e-4}]
    from fastrec.store import artifact

    manifest["sha256"] = artifact._manifest_digest(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    worse = refit(folder, store=log, encoder=hash_encoder)
    assert worse.candidate < worse.live and not worse.replaced
    assert "--force overrides" in str(worse)
    assert json.loads((folder / "manifest.json").read_text()) == manifest, "nothing was written"
    assert refit(folder, store=log, encoder=hash_encoder, margin=0.99).replaced


def test_force(served):
    _, folder, log = served()
    assert refit(folder, store=log, encoder=hash_encoder, force=True).replaced


def test_nothing_new_is_not_honest(events, items, tmp_path):
    Recommender(encoder=None, models=MODELS[:2]).fit(events, items).save(tmp_path / "m")
    result = refit(tmp_path / "m")
    assert not result.honest and "flatters" in str(result)


def test_what_cannot_be_compared(tmp_path):
    one = pl.DataFrame({"user_id": ["a", "b"], "item_id": ["x", "y"], "timestamp": [1, 2]})
    Recommender(encoder=None, models=["popularity"]).fit(one).save(tmp_path / "m")
    with pytest.raises(DataError, match="expected some to compare on"):
        refit(tmp_path / "m")
    for bad in (-0.1, 1.0, True, "much"):
        with pytest.raises(ConfigError, match="margin"):
            refit(tmp_path / "m", margin=bad)


def test_material_keeps_the_events_of_what_came_back(served):
    rec, _, _ = served()
    had = rec._live.state.interactions
    old = rec._live.state.items.series.to_list().index("i2")
    rec.add_items({"item_id": ["i2"], "title": ["red apple fruit"]})
    data = material(rec._live.state)
    names = rec._live.state.items.ids(data.rows).tolist()
    assert len(set(names)) == len(names)
    users = set(had.users[had.items == old].tolist())
    assert users
    assert set(data.interactions.users[data.interactions.items == names.index("i2")].tolist()) == users


def test_the_command(events, items, tmp_path, capsys):
    events.write_parquet(tmp_path / "e.parquet")
    assert cli.main(["fit", str(tmp_path / "e.parquet"), "--encoder", "none", "--out", str(tmp_path / "m")]) == 0
    code = cli.main(["refit", str(tmp_path / "m"), "--store", str(tmp_path / "log.sqlite"), "--force"])
    assert code == 0
    assert "NDCG@10 on the newest" in capsys.readouterr().out
    assert cli.main(["refit", str(tmp_path / "nothing")]) == 1


def test_links_move_with_the_items():
    from fastrec.refit import _moved_links
    from fastrec.side import Links

    # Items 0 to 2, entities 3 and 4; item 1 is removed.
    links = Links(np.array([0, 1, 2, 0], np.int32), np.array([3, 3, 4, 2], np.int32), 3, 5)
    moved = _moved_links(links, np.array([0, -1, 1]), 2)
    assert (moved.n_items, moved.n_nodes) == (2, 4)
    assert list(zip(moved.heads.tolist(), moved.tails.tolist(), strict=True)) == [(0, 2), (1, 3), (0, 1)]

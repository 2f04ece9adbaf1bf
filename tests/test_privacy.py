"""Pseudonyms, encryption at rest, k-anonymous statistics, and training that tells little about one user."""

import math
from typing import ClassVar

import numpy as np
import polars as pl
import pytest
from helpers import everything, hash_encoder, interactions

from fastrec import ArtifactError, ConfigError, DataError, Recommender, load
from fastrec.models import Als, PrivateAls, UserText
from fastrec.privacy import Pseudonyms, item_statistics, membership_auc, new_key, read_key

KEY = bytes(range(32))


def test_pseudonyms(tmp_path, monkeypatch):
    names = Pseudonyms(KEY)
    assert names.name("ann") == names.name("ann") != names.name("bob")
    assert names.name(7) != names.name("7")
    assert names.name("ann") != Pseudonyms(bytes(32)).name("ann")
    assert len(names.name("ann")) == 32
    (tmp_path / "raw").write_bytes(KEY)
    (tmp_path / "hex").write_text(KEY.hex() + "\n")
    for source in (tmp_path / "raw", str(tmp_path / "hex")):
        assert Pseudonyms(source).name("ann") == names.name("ann")
    for value in (KEY.hex(), str(tmp_path / "raw")):
        monkeypatch.setenv("FASTREC_KEY", value)
        assert Pseudonyms().name("ann") == names.name("ann")


def test_a_model_of_pseudonyms_is_the_same_model(events, items):
    names = Pseudonyms(KEY)
    plain = Recommender(encoder=None, models=["popularity", "item_item"]).fit(events, items)
    hidden = Recommender(encoder=None, models=["popularity", "item_item"]).fit(names.table(events), items)
    assert not set(plain.user_ids) & set(hidden.user_ids)
    for user in ("u1", "u8"):
        assert hidden.recommend(names.name(user)).items.tolist() == plain.recommend(user).items.tolist()


def test_pseudonyms_of_what_is_no_id():
    names = Pseudonyms(KEY)
    assert names.table({"user_id": ["a", None]})["user_id"].to_list() == [names.name("a"), None]
    with pytest.raises(DataError, match="no column 'user_id'"):
        names.table({"uid": ["a"]})
    with pytest.raises(DataError, match="an id is float"):
        names.name(1.5)


@pytest.mark.parametrize("value", ["", "no/such/file", "abc"])
def test_no_key(monkeypatch, value):
    monkeypatch.setenv("FASTREC_KEY", value)
    with pytest.raises(ConfigError, match="key"):
        Pseudonyms()


def test_errors_do_not_show_the_key(tmp_path, monkeypatch):
    for source in (b"secret-secret", tmp_path / "short"):
        (tmp_path / "short").write_text("secret-secret")
        with pytest.raises(ConfigError) as caught:
            read_key(source)
        assert "secret" not in str(caught.value)
    monkeypatch.setenv("FASTREC_KEY", "secret-secret")
    with pytest.raises(ConfigError) as caught:
        read_key(None)
    assert "secret" not in str(caught.value)
    assert read_key(new_key()) != read_key(new_key())


def test_with_a_key_nothing_lies_open(events, items, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTREC_KEY", KEY.hex())
    rec = Recommender(encoder=hash_encoder, models=["popularity", "content"], store=tmp_path / "log").fit(events, items)
    rec.update({"user_id": "ghost-7", "item_id": "i1", "text": "private words"})
    rec.save(tmp_path / "m")
    shown = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    for word in (b"ghost-7", b"private words", b"u17", b"steel hammer", b"i33"):
        assert word not in shown
    assert everything(load(tmp_path / "m", encoder=hash_encoder, store=tmp_path / "log")) == everything(rec)
    for other, message in ((bytes(32).hex(), "another one"), ("", "give its key in FASTREC_KEY")):
        monkeypatch.setenv("FASTREC_KEY", other)
        with pytest.raises(ArtifactError, match=message):
            load(tmp_path / "m", encoder=hash_encoder)
        with pytest.raises(ArtifactError, match="was begun with"):
            Recommender(encoder=None, store=tmp_path / "log")


def test_no_statistic_tells_of_fewer_than_k(events, items):
    rec = Recommender(encoder=None, models=["popularity"]).fit(events, items)
    counts = dict(events["item_id"].value_counts().iter_rows())
    k = int(np.median(list(counts.values())))
    table = item_statistics(rec, k)
    assert table["item_id"].to_list() == rec.item_ids
    told = 0
    for item, users, weight in table.iter_rows():
        n = counts.get(item, 0)
        assert (users, weight) == ((n, 1.0) if n >= k else (None, None))
        told += users is not None
    assert 0 < told < len(table)
    assert table.schema == {"item_id": pl.String, "users": pl.Int64, "mean_weight": pl.Float64}
    for bad in (1, True, 2.0):
        with pytest.raises(ConfigError, match="expected a whole number >= 2"):
            item_statistics(rec, bad)


# ---- training


def cliques(seed, n_users, n_items=400, length=8):
    """Users who share nothing: whatever a model knows of a user's items, it knows from this user."""
    rng = np.random.default_rng(seed)
    return interactions([rng.permutation(n_items)[:length] for _ in range(n_users)], n_items)


def test_an_attacker_tells_members_apart_without_noise_and_not_with_it():
    members, others = cliques(1, 150), cliques(2, 150)
    open_book = Als(factors=64, regularization=0.1, decay=None).fit(members, None, "next")
    assert membership_auc(open_book, members, others) > 0.9
    for epsilon in (1.0, 4.0):
        closed = PrivateAls(epsilon=epsilon, factors=64, regularization=0.1, most_items=8, seed=3)
        assert abs(membership_auc(closed.fit(members, None, "next"), members, others) - 0.5) < 0.1
    loud = PrivateAls(epsilon=1e6, factors=64, regularization=0.1, most_items=8, seed=3).fit(members, None, "next")
    assert membership_auc(loud, members, others) > 0.8, (
        "without noise the same method leaks: it is the noise that helps"
    )


def test_the_noise_is_what_epsilon_asks_for():
    model = PrivateAls(epsilon=2.0, delta=1e-5)
    assert model.spent(1) == pytest.approx(2.0)
    assert 2.0 < model.spent(2) < 4.0, "trainings add up, by less than their sum"
    log = math.log(1e5)
    assert model.rho + 2 * math.sqrt(model.rho * log) == pytest.approx(2.0)


def test_one_user_cannot_move_the_sums_by_more_than_was_said():
    """The bounds behind the noise, measured: two data sets that differ in one user."""
    data = cliques(4, 30, 50, 20)
    model = PrivateAls(most_items=5, factors=8)
    had = model._bounded(data)
    assert had.sum(axis=1).max() == 5
    rng = np.random.default_rng(0)
    users = had @ rng.normal(size=(50, 8))
    users /= np.linalg.norm(users, axis=1, keepdims=True)
    for u in range(30):
        rest = np.delete(np.arange(30), u)
        gram = users.T @ users - users[rest].T @ users[rest]
        sums = had.T @ users - had[rest].T @ users[rest]
        assert np.linalg.norm(gram) <= 1 + 1e-9
        assert np.linalg.norm(sums) <= math.sqrt(5) + 1e-9


def test_it_still_learns_what_many_users_share():
    rng = np.random.default_rng(5)
    data = interactions([rng.permutation(20)[:10] * 2 + u % 2 for u in range(2000)], 40)
    source = PrivateAls(epsilon=4.0, factors=8, most_items=10, seed=1).fit(data, None, "next")
    like = source.vectors @ source.vectors.T
    kind = np.arange(40) % 2
    same = kind[:, None] == kind[None, :]
    assert like[same & ~np.eye(40, dtype=bool)].mean() > like[~same].mean() + 3 * like[~same].std() / 20


def test_the_report_says_what_was_spent(events, items, tmp_path):
    model = PrivateAls(epsilon=3.0, factors=8)
    rec = Recommender(encoder=None, models=["popularity", model], weights="equal").fit(events, items)
    assert any("(3, 1e-06)-differentially private" in note for note in rec.report.notes)
    rec.save(tmp_path / "m")
    assert load(tmp_path / "m").recommend("u1").items.tolist() == rec.recommend("u1").items.tolist()
    learned = Recommender(encoder=None, models=["popularity", model]).fit(events, items)
    assert any("after 2 training(s)" in note for note in learned.report.notes)
    for bad in ({"epsilon": 0}, {"delta": 1.0}, {"factors": 0}, {"most_items": 1.5}, {"decay": -1}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            PrivateAls(**bad)


def test_erasing_a_user_takes_the_vectors_of_his_texts_out_of_the_cache(events, items):
    class Spy:
        """An encoder that notes what it is to forget."""

        forgotten: ClassVar[list[str]] = []

        def __call__(self, texts):
            return hash_encoder(texts)

        def forget(self, texts):
            self.forgotten += texts

    models = ["popularity", UserText(last=2)]
    rec = Recommender(encoder=hash_encoder, models=models, weights="equal", progress=False).fit(events, items)
    rec._live._encoder = Spy()
    titles = dict(zip(items["item_id"], items["title"], strict=True))
    mine = events.filter(events["user_id"] == "u1").sort("timestamp")["item_id"].to_list()
    rec.erase_users(["u1", "nobody"])
    assert all(text.count("; ") < 2 for text in Spy.forgotten)
    assert len(Spy.forgotten) == len(mine)
    assert any(text.startswith(titles[mine[0]]) and "; " not in text for text in Spy.forgotten)
    assert any(titles[mine[-1]] in text and titles[mine[-2]] in text for text in Spy.forgotten)

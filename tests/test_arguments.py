"""Odd arguments: each was once a wrong answer or a traceback from inside."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from fastrec import ConfigError, DataError, Recommender, UnknownIdError, load


def test_k_far_beyond_the_catalogue_costs_nothing_and_absurd_k_is_refused(rec):
    assert rec.recommend("u1", 10**6).items.shape == (10**6,)
    with pytest.raises(ConfigError, match="k=1000000000 for 1 users"):
        rec.recommend("u1", 10**9)


def test_rank_gives_nothing_to_users_that_the_dict_does_not_name(rec):
    assert list(rec.rank("u0", {"u1": ["i1"]})) == []
    assert list(rec.rank("u0", {})) == []
    assert set(rec.rank("u0", iter(["i1", "i2"]))) == {"i1", "i2"}
    assert rec.rank("u0", "i1").items.tolist() == ["i1"]
    with pytest.raises(ConfigError, match="k=0"):
        rec.rank("u0", ["i1"], k=0)
    for bad in (5.0, None, {"u0": 5.0}):
        with pytest.raises(DataError, match=r"\[rank\] candidates"):
            rec.rank("u0", bad)


def test_unknown_items_of_a_history_table_are_named(rec):
    table = {"user_id": ["q", "q"], "item_id": ["zz", "i0"], "timestamp": [2, 1]}
    with pytest.raises(UnknownIdError, match=r"1 unknown item id\(s\): 'zz'"):
        rec.recommend_for_history(table, on_unknown="raise")


def test_tables_are_read_under_the_names_of_the_fit(events, items, tmp_path):
    named = events.rename({"user_id": "uid", "item_id": "sku", "timestamp": "when"})
    fitted = Recommender(encoder=None, half_life=50.0).fit(
        named, items.rename({"item_id": "sku"}), user_id="uid", item_id="sku", timestamp="when"
    )
    fitted.save(tmp_path / "m")
    for rec in (fitted, load(tmp_path / "m")):
        mine = named.filter(pl.col("uid") == "u1")
        assert rec.recommend_for_history(mine).users.tolist() == ["u1"]
        assert rec.recommend_for_history(mine.drop("when")).users.tolist() == ["u1"]
        assert rec.evaluate({"uid": ["u1"], "sku": [rec.recommend("u1").items[0]]}, k=3).users == 1


def test_ids_of_the_other_kind_can_be_written_down(rec):
    found = rec.recommend(["u0", 5, 10**20, "\ud800"], 2)
    assert found.to_polars()["user_id"].unique(maintain_order=True).to_list() == ["u0", "5", str(10**20), "?"]


@pytest.mark.parametrize(
    "users",
    [pd.DataFrame({"user_id": ["u1"]}), pl.DataFrame({"user_id": ["u1"]}), np.array([["u1"]]), pa.table({"u": ["u1"]})],
)
def test_a_table_is_no_list_of_ids(rec, users):
    with pytest.raises(DataError, match=r"\[recommend\] users is"):
        rec.recommend(users)


def test_arrow_ids(rec):
    assert rec.recommend(pa.array(["u1", "u2"]), 2).users.tolist() == ["u1", "u2"]


def test_histories_of_any_sequence_and_no_mix(rec):
    want = rec.recommend_for_history([["i0"]], 3).items.tolist()
    for one in (pd.Series(["i0"]), ("i0",), np.array(["i0"], object)):
        assert rec.recommend_for_history([one], 3).items.tolist() == want
    with pytest.raises(DataError, match="mixes lists and the id 'i2'"):
        rec.recommend_for_history([["i0"], "i2"])


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda r: r.recommend_for_text(None), DataError, "texts is NoneType"),
        (lambda r: r.recommend_for_text({"a": 1}), DataError, "texts is dict"),
        (lambda r: r.recommend_for_text(["a", 3]), DataError, "text 1 is int"),
        (lambda r: r.recommend_for_text("a", at="x"), ConfigError, "at='x'"),
        (lambda r: r.similar_items("i1", by=["content"]), ConfigError, "no source"),
        (lambda r: r.recommend("u1", where={"price": 2**70}), ConfigError, "does not fit"),
        (lambda r: r.recommend("u1", where={"price": object()}), ConfigError, "does not fit"),
        (lambda r: r.recommend("u1", where={"price": range(3)}), ConfigError, "does not fit"),
        (lambda r: r.recommend("u1", boost={"i1": 10**400}), ConfigError, "boost factor"),
        (lambda r: r.recommend("u1", at=10**400), ConfigError, "at="),
        (lambda r: r.recommend("u1", at=pd.NaT), ConfigError, "at="),
        (lambda r: r.recommend("u1", at=np.datetime64("NaT")), ConfigError, "at="),
        (lambda r: r.recommend("u1", at=datetime.date(2020, 1, 1)), ConfigError, "at="),
        (lambda r: r.recommend("u1", filter_seen="no"), ConfigError, "filter_seen='no'"),
        (lambda r: r.save(None), ConfigError, "folder is NoneType"),
        (lambda r: load(None), ConfigError, "folder is NoneType"),
        (lambda r: Recommender(encoder=None, event_weights=[1]), ConfigError, "event_weights is list"),
        (lambda r: Recommender(encoder=None).fit({"user_id": [1]}, strict="x"), ConfigError, "strict='x'"),
    ],
)
def test_typed_errors(rec, ask, error, message):
    with pytest.raises(error, match=message):
        ask(rec)


def test_numpy_numbers_are_numbers(events):
    rec = Recommender(encoder=None, seed=np.int64(3)).fit(events)
    assert rec.recommend("u1", np.int32(3), diversity=np.float32(0)).items.shape == (3,)


def test_where_on_categories_and_null_lists(events, items):
    table = items.with_columns(
        pl.col("category").cast(pl.Categorical),
        pl.when(pl.col("item_id") == "i9").then(None).otherwise(pl.col("tags")).alias("tags"),
        pl.lit(2).cast(pl.Decimal(10, 2)).alias("cost"),
    )
    rec = Recommender(encoder=None).fit(events, table)
    assert set(rec.recommend("nobody", 42, where={"category": ["food"]})) == {f"i{i}" for i in range(0, 42, 2)}
    assert list(rec.recommend("nobody", 42, where={"tags": None})) == ["i9"]
    assert rec.recommend("nobody", 2, boost="cost").items.shape == (2,)
    with pytest.raises(ConfigError, match=r"\[recommend\] where: range"):
        rec.recommend("nobody", where={"price": (1, 2, 3)})

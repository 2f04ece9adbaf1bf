"""What the tests share: small data with known structure."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from helpers import hash_encoder

from fastrec import Recommender
from fastrec.models import Als, Content, Directed, ItemItem, Popularity

MODELS = [Popularity(half_life=30.0), ItemItem(decay=3.0), Directed(decay=2.0), Als(factors=8, decay=3.0), Content()]
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def events():
    """60 users in two groups: even users choose even items, odd users odd ones; 40 items, 12 events a user."""
    rng = np.random.default_rng(7)
    rows = []
    for user in range(60):
        items = rng.permutation(20)[:12] * 2 + user % 2
        times = np.sort(rng.integers(0, 10_000_000, 12))
        rows += [(f"u{user}", f"i{item}", int(t)) for item, t in zip(items, times, strict=True)]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


@pytest.fixture(scope="session")
def items():
    """The 40 items and two that nobody chose; the words of the title tell the group, the price the number."""
    words = {0: "red apple fruit", 1: "steel hammer tool"}
    return pl.DataFrame(
        {
            "item_id": [f"i{i}" for i in range(42)],
            "title": [f"{words[i % 2]} number{i}" for i in range(42)],
            "category": [("food", "tools")[i % 2] for i in range(42)],
            "tags": [["all", f"t{i % 3}"] for i in range(42)],
            "price": [float(i) if i != 5 else None for i in range(42)],
        }
    )


@pytest.fixture(scope="session")
def rec(events, items):
    """Fitted with every model; not to be changed by a test."""
    return Recommender(encoder=hash_encoder).fit(events, items)


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real data beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the shared data folder {SHARED_DATA} is absent")
    return SHARED_DATA


@pytest.fixture
def fit(events, items, tmp_path):
    """A function that gives a fresh model whose every source counts, with a log in ``tmp_path``."""

    def fit(store=True, models=MODELS, **keywords):
        path = tmp_path / "log.sqlite" if store is True else store
        rec = Recommender(encoder=hash_encoder, models=models, weights="equal", store=path, **keywords)
        return rec.fit(events, items)

    return fit

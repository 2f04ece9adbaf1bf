"""What small language models read, and one with random weights."""

import pytest
from readers import save_model

from fastrec.rerank import history_text


@pytest.fixture(scope="session")
def histories(events, items):
    """The titles of every user's history without the last event, as a text."""
    title = dict(items.select("item_id", "title").iter_rows())
    by_user = events.sort("timestamp", maintain_order=True).group_by("user_id", maintain_order=True).agg("item_id")
    return [history_text([title[i] for i in ids[:-1]]) for ids in by_user["item_id"].to_list()]


@pytest.fixture(scope="session")
def random_gpt2(tmp_path_factory, histories):
    return save_model(tmp_path_factory.mktemp("random"), histories)

"""Neighbours do not depend on the blocks in which they are found on a GPU; those of the CPU: tests/ops."""

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import dense, random_interactions

from fastrec.models import Directed, ItemItem, _arrays, _neighbors, item_item


@pytest.mark.parametrize("most", [1, 37, 500])
def test_blocks_on_a_gpu_change_nothing(monkeypatch, most):
    monkeypatch.setattr(_arrays, "cupy", lambda model: np)
    data = random_interactions(4, 300, 60)
    models = [ItemItem(similarity=s, neighbors=100, device="cuda") for s in ("cosine", "bm25", "tfidf")]
    whole = [dense(m.fit(data, None, "next").similarity) for m in models]
    monkeypatch.setattr(item_item, "_BLOCK_ENTRIES", most)
    for one, model in zip(whole, models, strict=True):
        np.testing.assert_allclose(dense(model.fit(data, None, "next").similarity), one, rtol=1e-5)


def test_directed_is_its_definition():
    data, n = random_interactions(9, 50, 17), 17
    want = np.zeros((n, n))
    for u in range(data.n_users):
        span = slice(data.indptr[u], data.indptr[u + 1])
        items, liked = data.items[span], np.minimum(data.weights[span], 1)
        for i in range(len(items)):
            for gap in range(1, min(10, len(items) - 1 - i) + 1):
                want[items[i], items[i + gap]] += np.exp(-(gap - 1) / 3.0) * liked[i] * liked[i + gap]
    scale = (np.bincount(data.items, minlength=n) + 1.0) ** -0.2
    want *= np.outer(scale, scale)
    np.testing.assert_allclose(dense(Directed(neighbors=n).fit(data, None, "next").similarity), want, rtol=2e-6)


def test_spans_cost_no_more_than_they_may():
    costs = np.array([5.0, 1, 1, 9, 0, 0, 3, 3, 1])
    assert _neighbors.spans(costs, 6).tolist() == [0, 2, 3, 4, 8, 9]
    assert _neighbors.spans(costs, 1e9).tolist() == [0, 9]
    assert _neighbors.spans(np.zeros(0), 5).tolist() == [0]


def test_no_item_at_all():
    found = _neighbors.neighbors(lambda first, last: sp.csr_matrix((last - first, 0)), np.array([0]), 3)
    assert found.n_rows == found.n_cols == 0

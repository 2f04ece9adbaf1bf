"""Single models beside ``implicit`` at equal settings."""

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import dense, interactions, random_interactions
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender
from threadpoolctl import threadpool_limits

from fastrec import learn, metrics
from fastrec.models import Als, ItemItem
from fastrec.profiles import profiles


@pytest.fixture(autouse=True)
def one_blas_thread():
    """``implicit`` warns where BLAS has threads beside its own."""
    with threadpool_limits(1, "blas"):
        yield


def matrix(data, add=0.0):
    likes = data.select(data.weights > 0)
    return sp.csr_matrix((likes.weights + np.float32(add), likes.items, likes.indptr), (data.n_users, data.n_items))


@pytest.mark.filterwarnings("ignore:Method expects CSR input")  # that of its own weighting
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("similarity", "peer"),
    [
        ("cosine", CosineRecommender(K=1000)),
        ("tfidf", TFIDFRecommender(K=1000)),
        ("bm25", BM25Recommender(K=1000, K1=100, B=0.8)),
    ],
)
def test_item_item_is_that_of_implicit(seed, similarity, peer):
    data = random_interactions(seed, n_users=150, n_items=60)
    peer.fit(matrix(data), show_progress=False)
    want = peer.similarity.toarray()
    np.fill_diagonal(want, 0)  # there an item is its own neighbour
    got = dense(ItemItem(similarity=similarity, shrinkage=0.0, neighbors=1000).fit(data, None, "next").similarity)
    assert want.max() > 0.1
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


def tastes(seed, n_users=400, n_items=120, tastes=6):
    """Users who mostly choose among the items of one of their two tastes, popular ones more often."""
    rng = np.random.default_rng(seed)
    kind, pull = rng.integers(0, tastes, n_items), rng.zipf(2.0, n_items).clip(max=20)
    histories = []
    for _ in range(n_users):
        mine = rng.permutation(tastes)[:2]
        chance = pull * np.where(np.isin(kind, mine), 12.0, 1.0)
        histories.append(rng.choice(n_items, rng.integers(6, 20), replace=False, p=chance / chance.sum()))
    return interactions(histories, n_items)


def test_als_is_as_good_as_that_of_implicit_within_noise():
    ours, theirs = [], []
    for seed in range(6):
        train, held = learn.holdout(tastes(seed), "next")
        relevant = [row.tolist() for row in np.split(held.items, held.indptr[1:-1])]

        def ndcg(users, items, train=train, relevant=relevant):
            scores = users @ items.T
            scores[train.users, train.items] = -np.inf
            return metrics.ndcg(np.argsort(-scores, axis=1)[:, :10], relevant, 10)

        model = Als(factors=16, alpha=4.0, regularization=5.0, iterations=12, steps=3, decay=None, seed=seed)
        source = model.fit(train, None, "next")
        ours.append(ndcg(profiles(source, train), source.vectors))
        # Its confidence is alpha times the entry: 1 + 4 for ours.
        peer = AlternatingLeastSquares(16, 5.0, 1.0, iterations=12, random_state=seed)
        peer.fit(matrix(train, add=0.25) * 4, show_progress=False)
        theirs.append(ndcg(peer.user_factors, peer.item_factors))
    apart = np.subtract(ours, theirs)
    assert np.mean(theirs) > 0.1
    # Two standard errors over the data sets, and a thousandth where they agree to the digit.
    assert abs(apart.mean()) < 2 * apart.std(ddof=1) / np.sqrt(len(apart)) + 0.001, (ours, theirs)
    assert np.mean(ours) == pytest.approx(np.mean(theirs), rel=0.03)

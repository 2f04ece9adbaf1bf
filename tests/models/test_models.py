"""Each model against its formula on data with a known answer."""

import numpy as np
import pytest
from helpers import dense, interactions, random_interactions

from fastrec import ridge
from fastrec.errors import ConfigError
from fastrec.models import Als, Bpr, Content, Directed, Ease, Graph, ItemItem, Popularity, resolve
from fastrec.models.popularity import choose_half_life, decayed_counts
from fastrec.profiles import contributions, profiles
from fastrec.types import Embeddings

DAY = 86400.0


# ---- popularity


def test_popularity_counts_half_after_a_half_life():
    data = interactions([[0, 1], [1]], 3, times=[0, 10 * DAY, 10 * DAY])
    np.testing.assert_allclose(decayed_counts(data, 10.0), [0.5, 2.0, 0.0])
    np.testing.assert_allclose(decayed_counts(data, np.inf), [1.0, 2.0, 0.0])


def test_popularity_is_the_log_of_scaled_counts():
    data = interactions([[0, 1], [1]], 3, times=[0, 10 * DAY, 10 * DAY])
    bias = Popularity(half_life=10.0).fit(data, None, "next").bias
    np.testing.assert_allclose(bias, np.log1p(np.array([0.5, 2.0, 0.0]) * 3 / 2.5), rtol=1e-6)


def test_half_life_follows_the_data():
    # Fashion: in week w all choose item w or w + 1. Evergreen: the same two items all the time.
    weeks = [[w, w + 1] for w in range(50)]
    times = np.repeat(np.arange(50) * 7 * DAY, 2)
    assert choose_half_life(interactions(weeks, 60, times=times)) <= 7.0
    assert choose_half_life(interactions([[0, 1]] * 50, 60, times=times)) == np.inf


def test_variants_are_settled():
    data = random_interactions(1)
    for model in (
        Popularity(),
        ItemItem(),
        Directed(),
        Als(factors=3),
        Bpr(factors=3),
        Graph(factors=3, epochs=3),
        Ease(),
    ):
        source = model.fit(data, None, "next")
        found = model.variants(source, data)
        assert len(found) >= 7
        for settled, variant in found:
            assert settled.variants(variant, data) == [(settled, variant)]
            again = settled.fit(data, None, "next")
            assert getattr(again, "decay", None) == getattr(variant, "decay", None)
            if isinstance(model, Popularity):
                np.testing.assert_array_equal(again.bias, variant.bias)


def test_popularity_without_weight_or_events():
    data = interactions([[0], [1]], 2, weights=[0, 0])
    assert (Popularity().fit(data, None, "next").bias == 0).all()
    assert (Popularity().fit(interactions([[]], 2), None, "next").bias == 0).all()


# ---- item-item


@pytest.mark.parametrize("seed", range(4))
def test_cosine_is_its_formula(seed):
    data = random_interactions(seed)
    x = np.zeros((data.n_users, data.n_items))
    x[data.users, data.items] = data.weights
    norms = np.linalg.norm(x, axis=0)
    want = (x.T @ x) / (np.outer(norms, norms) + 4.0)
    np.fill_diagonal(want, 0)
    got = ItemItem(shrinkage=4.0, neighbors=100).fit(data, None, "next").similarity
    np.testing.assert_allclose(dense(got), want, rtol=1e-5, atol=1e-7)
    for r in range(got.n_rows):
        assert (np.diff(got.indices[got.indptr[r] : got.indptr[r + 1]]) > 0).all()


@pytest.mark.parametrize("similarity", ["cosine", "tfidf", "bm25"])
def test_only_the_strongest_neighbours_are_kept(similarity):
    data = random_interactions(9)
    full = dense(ItemItem(similarity=similarity, neighbors=100).fit(data, None, "next").similarity)
    best = dense(ItemItem(similarity=similarity, neighbors=3).fit(data, None, "next").similarity)
    for r in range(data.n_items):
        kept = np.flatnonzero(best[r])
        np.testing.assert_array_equal(best[r, kept], full[r, kept])
        if len(kept):
            assert len(kept) == min(3, np.count_nonzero(full[r]))
            assert best[r, kept].min() >= np.delete(full[r], kept).max()


def test_a_fit_does_not_touch_its_input():
    data = random_interactions(5)
    before = (data.indptr.copy(), data.items.copy(), data.weights.copy())
    for model in (Popularity(), ItemItem(), ItemItem(similarity="bm25"), Directed(), Ease(), Als(factors=4)):
        model.fit(data, None, "next")
    for was, array in zip(before, (data.indptr, data.items, data.weights), strict=True):
        np.testing.assert_array_equal(array, was)


def test_item_item_of_one_item_and_of_one_user():
    assert ItemItem().fit(interactions([[0]], 1), None, "next").similarity.indptr.tolist() == [0, 0]
    got = dense(ItemItem(shrinkage=0).fit(interactions([[0, 1]], 2), None, "next").similarity)
    np.testing.assert_allclose(got, [[0, 1], [1, 0]])


# ---- directed


@pytest.mark.parametrize("seed", range(3))
def test_directed_is_its_formula(seed):
    data = random_interactions(seed)
    want = np.zeros((data.n_items, data.n_items))
    for u in range(data.n_users):
        span = range(data.indptr[u], data.indptr[u + 1])
        for i in span:
            for j in span:
                if 0 < j - i <= 7:
                    liked = min(data.weights[i], 1) * min(data.weights[j], 1)
                    want[data.items[i], data.items[j]] += liked * np.exp(-(j - i - 1) / 2.0)
    n = np.bincount(data.items, minlength=data.n_items) + 1.0
    want /= np.outer(n, n) ** 0.3
    got = Directed(horizon=2.0, popularity=0.3, neighbors=100).fit(data, None, "next").similarity
    np.testing.assert_allclose(dense(got), want, rtol=1e-4, atol=1e-7)


def test_directed_knows_before_from_after():
    got = dense(Directed().fit(interactions([[0, 1]] * 5, 2), None, "next").similarity)
    assert got[0, 1] > 0
    assert got[1, 0] == 0
    assert dense(Directed().fit(interactions([[0], []], 2), None, "next").similarity).sum() == 0


def test_directed_with_a_horizon_beyond_all_histories_counts_every_successor_alike():
    for horizon in (1e12, 1e308):
        model = Directed(horizon=horizon, popularity=0.0)
        got = dense(model.fit(interactions([[0, 1, 2], [2]], 3), None, "next").similarity)
        np.testing.assert_array_equal(got, np.triu(np.ones((3, 3)), 1))
    assert dense(model.fit(interactions([[], []], 2), None, "next").similarity).sum() == 0


# ---- als


def exact_als(data, factors, alpha, regularization, rounds, seed):
    """Alternating least squares with every row solved exactly, in float64."""
    p = np.zeros((data.n_users, data.n_items))
    p[data.users, data.items] = data.weights
    rng = np.random.default_rng(seed)
    x, y = rng.normal(0, 0.01, (data.n_users, factors)), rng.normal(0, 0.01, (data.n_items, factors))
    for _ in range(rounds):
        for rows, others, weights in ((x, y, p), (y, x, p.T)):
            gram = others.T @ others + regularization * np.eye(factors)
            for u in range(len(rows)):
                c = alpha * weights[u]
                rows[u] = np.linalg.solve(gram + (others.T * c) @ others, ((1 + c) * (weights[u] > 0)) @ others)
    return p, x, y


def als_loss(p, x, y, alpha, regularization):
    c = 1 + alpha * p
    return (c * ((p > 0) - x @ y.T) ** 2).sum() + regularization * ((x**2).sum() + (y**2).sum())


@pytest.mark.parametrize("seed", range(2))
def test_als_reaches_the_loss_of_exact_solutions(seed):
    data = random_interactions(seed)
    p, x, y = exact_als(data, 5, 4.0, 0.5, 15, seed)
    source = Als(factors=5, alpha=4.0, regularization=0.5, iterations=15, steps=5, decay=None, seed=seed).fit(
        data, None, "next"
    )
    mine = profiles(source, data.select(data.weights > 0))
    items = source.vectors.astype(np.float64)
    assert als_loss(p, mine, items, 4.0, 0.5) <= 1.01 * als_loss(p, x, y, 4.0, 0.5)


def test_als_is_the_same_with_any_number_of_threads(monkeypatch):
    data = random_interactions(8)
    monkeypatch.setattr(ridge, "_TASK", 7)
    monkeypatch.setenv("FASTREC_THREADS", "1")
    one = Als(factors=6).fit(data, None, "next").vectors
    monkeypatch.setenv("FASTREC_THREADS", "3")
    np.testing.assert_array_equal(Als(factors=6).fit(data, None, "next").vectors, one)
    assert (Als(factors=6, seed=1).fit(data, None, "next").vectors != one).any()


def test_als_without_any_liking_and_with_strangers():
    assert Als().fit(interactions([[0]], 1, weights=[0.0]), None, "next") is None
    source = Als(factors=3).fit(interactions([[0, 1], []], 4), None, "next")
    assert (source.vectors[2:] == 0).all()
    assert np.isfinite(source.vectors).all()


def test_contributions_of_a_fold_in_add_up_to_the_score():
    data = random_interactions(4)
    source = Als(factors=5, decay=2.0).fit(data, None, "next")
    user = int(np.diff(data.indptr).argmax())
    mine = data.take([user])
    parts = contributions(source, mine, 3)
    score = profiles(source, mine)[0].astype(float) @ source.vectors[3]
    assert parts.sum() == pytest.approx(score, rel=1e-4)


# ---- content and the registry


def test_content_is_left_out_without_content():
    data = interactions([[0, 1]], 2)
    assert Content().fit(data, None, "next") is None
    nothing = Embeddings(np.zeros((2, 3), np.float32), np.zeros(2, bool))
    assert Content().fit(data, nothing, "next") is None
    some = Embeddings(np.eye(2, 3, dtype=np.float32), np.ones(2, bool))
    assert Content(decay=None).fit(data, some, "next").decay is None


def test_resolve():
    assert [m.name for m in resolve("fast")] == ["popularity", "item_item", "directed", "ease", "als", "content"]
    assert resolve(["popularity", ItemItem(neighbors=5)])[1].neighbors == 5
    assert resolve([{"name": "item_item", "neighbors": 7}])[0] == ItemItem(neighbors=7)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ("quick", "models='quick', expected fast, best, auto or a list"),
        (
            ["popularitee"],
            "unknown model 'popularitee', this version has popularity, item_item, directed, ease, als, bpr, graph",
        ),
        (["popularity", Popularity()], "each at most once"),
        ([], "at least one model"),
        (7, "models=7"),
        ([ItemItem], "expected a name or an object"),
    ],
)
def test_resolve_refuses(models, message):
    with pytest.raises(ConfigError, match=message):
        resolve(models)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Popularity(half_life=0),
        lambda: Popularity(half_life="long"),
        lambda: ItemItem(neighbors=0),
        lambda: ItemItem(neighbors=True),
        lambda: ItemItem(similarity="euclid"),
        lambda: ItemItem(shrinkage=-1),
        lambda: ItemItem(shrinkage=float("nan")),
        lambda: ItemItem(decay=0),
        lambda: Content(decay=float("nan")),
        lambda: Als(factors=0),
        lambda: Als(alpha=0),
        lambda: Als(regularization=float("inf")),
        lambda: Als(steps=2.0),
        lambda: Directed(horizon=0),
        lambda: Directed(popularity=-1),
        lambda: Directed(neighbors=0),
        lambda: Directed(decay="late"),
        lambda: Content(decay="soon"),
        lambda: Bpr(factors=0),
        lambda: Bpr(epochs=1.5),
        lambda: Bpr(learning_rate=0),
        lambda: Bpr(regularization=-1),
        lambda: Bpr(decay=0),
        lambda: Graph(layers=0),
        lambda: Graph(epochs=True),
        lambda: Graph(learning_rate=-1),
        lambda: Graph(regularization=float("nan")),
        lambda: Graph(decay=""),
        lambda: Ease(regularization=0),
        lambda: Ease(regularization="much"),
        lambda: Ease(neighbors=0),
        lambda: Ease(decay=-1),
        lambda: Ease(optional="yes"),
    ],
)
def test_settings_out_of_range(make):
    with pytest.raises(ConfigError, match="expected"):
        make()

"""Knowledge and the links of Graph: the propagation, the metric, items without events, the real triples."""

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from helpers import interactions, random_interactions

from fastrec import ConfigError, DataError, Recommender, datasets, load, metrics
from fastrec.models import Graph, Knowledge
from fastrec.models.graph import entities, propagation
from fastrec.models.knowledge import entity_features, leading, metric_root
from fastrec.profiles import profiles
from fastrec.side import Links, unit
from fastrec.types import Embeddings

_COLLABORATIVE = ["popularity", "item_item", "directed"]


def graph(pairs, n_items, n_nodes):
    heads, tails = np.array(pairs, np.int32).reshape(-1, 2).T
    return Links(np.ascontiguousarray(heads), np.ascontiguousarray(tails), n_items, n_nodes)


def known(links):
    n = links.n_items
    return Embeddings(np.zeros((n, 0), np.float32), np.zeros(n, bool), None, links)


def genres(n_items=48, kinds=3, noise=6):
    """Item i has the entity of its kind, and one that says nothing."""
    return graph(
        [(i, n_items + i % kinds) for i in range(n_items)]
        + [(n_items + kinds + i % noise // 2 * 2 // 2, i) for i in range(n_items)],
        n_items,
        n_items + kinds + noise,
    )


def choices(n_users=80, n_items=48, cold=12):
    """Users of three kinds who choose among the items of their kind, never among the last ones."""
    rng = np.random.default_rng(2)
    few = (n_items - cold) // 3
    return interactions([rng.permutation(few)[:6] * 3 + u % 3 for u in range(n_users)], n_items)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_features_are_their_formula(layers):
    # 0 - e3 - 1, 2 is linked to 1, e4 - e3, and an entity that 0 alone has
    links = graph([(0, 3), (1, 3), (2, 1), (4, 3), (4, 0), (0, 5), (1, 1), (3, 0)], 3, 6)
    a = np.zeros((5, 5))
    for x, y in [(0, 3), (1, 3), (2, 1), (4, 3), (4, 0)]:
        a[x, y] = a[y, x] = 1
    scale = a.sum(axis=1) ** -0.5
    a = a * scale[:, None] * scale
    whole = sum(np.linalg.matrix_power(a, power) for power in range(1, layers + 1)) / layers
    want = whole[:3, [1, 2, 3, 4]]  # 1 and 2 are entities of each other, 0 is of no item
    np.testing.assert_allclose(entity_features(links, layers).toarray(), want, atol=1e-12)


def test_the_leading_part_is_the_same_sparse_and_dense(monkeypatch):
    from fastrec.models import knowledge

    features = sp.random(60, 40, 0.2, "csr", rng=np.random.default_rng(0))
    z = leading(features, 5)
    monkeypatch.setattr(knowledge, "_DENSE", 5)
    other = leading(features, 5)
    np.testing.assert_allclose(other @ other.T, z @ z.T, atol=1e-9)
    best = np.linalg.svd(features.toarray())
    np.testing.assert_allclose(z @ z.T, best[0][:, :5] * best[1][:5] ** 2 @ best[0][:, :5].T, atol=1e-9)


def test_the_metric_is_the_ridge_regression_on_both_sides():
    data, rng = random_interactions(4), np.random.default_rng(1)
    z = rng.normal(size=(data.n_items, 4))
    x = np.zeros((data.n_users, data.n_items))
    x[data.users, data.items] = data.weights > 0
    x /= np.maximum(np.linalg.norm(x, axis=0), 1e-12)
    cosines = x.T @ x - np.diag((x**2).sum(axis=0))
    some = x.any(axis=0)
    shrunk = np.linalg.inv(z[some].T @ z[some] + 0.7 * np.eye(4))
    w = shrunk @ z.T @ cosines @ z @ shrunk
    values, vectors = np.linalg.eigh(w)
    root = metric_root(z, data, 0.7)
    np.testing.assert_allclose(root @ root.T, vectors * np.maximum(values, 0) @ vectors.T, atol=1e-9)


@pytest.mark.parametrize("model", [Knowledge(factors=8), Graph(factors=8, epochs=40)], ids=lambda m: m.name)
def test_items_without_events_are_found_by_what_they_have_in_common(model):
    data, links = choices(), genres()
    source = model.fit(data, known(links), "next")
    cold = np.arange(36, 48)
    asked = interactions([[0, 3, 6], [1, 4], [2]], 48)
    for kind, row in enumerate(profiles(source, asked) @ source.vectors.T):
        assert set((cold[np.argsort(-row[cold])[:4]] % 3).tolist()) == {kind}
    if isinstance(model, Graph):
        alone = Graph(factors=8, epochs=5, links=False).fit(data, known(links), "next")
        assert (alone.vectors[cold] == 0).all() and source.vectors[cold].any(axis=1).all()
    else:
        assert source.vectors[cold].any(axis=1).all()


def test_the_metric_learns_which_entities_matter():
    # Both entities of an item are as common; only the first one decides what is chosen.
    rng = np.random.default_rng(0)
    kind, other = np.arange(60) % 3, rng.permutation(60) % 3
    links = graph([(i, 60 + k) for i, k in enumerate(kind)] + [(i, 63 + k) for i, k in enumerate(other)], 60, 66)
    data = interactions([rng.permutation(np.flatnonzero(kind == u % 3))[:8] for u in range(90)], 60)
    vectors = Knowledge(factors=8).fit(data, known(links), "next").vectors
    vectors = unit(vectors)
    likeness = vectors @ vectors.T
    same = kind[:, None] == kind
    assert likeness[same].mean() > likeness[~same].mean() + 0.5
    shared = other[:, None] == other
    assert abs(likeness[shared & ~same].mean() - likeness[~shared & ~same].mean()) < 0.2


def test_entities_of_a_graph_and_its_propagation():
    links = graph([(0, 3), (1, 3), (2, 1), (0, 4), (3, 4)], 3, 5)
    common = entities(links)
    assert sorted(map(tuple, common.toarray().tolist())) == [(0, 1, 1), (0, 1, 1), (1, 1, 0)]
    data = interactions([[0, 2], [1]], 3)
    x = np.concatenate([[[1, 0, 1], [0, 1, 0]], common.toarray()])
    a = np.block([[np.zeros((5, 5)), x], [x.T, np.zeros((3, 3))]])
    scale = 1 / np.sqrt(a.sum(axis=1))
    a = a * scale[:, None] * scale
    start = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    rows, items = propagation(data, 2, common)(start[:5], start[5:])
    np.testing.assert_allclose(np.concatenate([rows, items]), (start + a @ start + a @ a @ start) / 3, atol=1e-5)


def test_nothing_to_know():
    data = interactions([[0, 1], [2]], 3)
    assert Knowledge().fit(data, None, "next") is None
    assert Knowledge().fit(data, Embeddings(np.eye(3, dtype=np.float32), np.ones(3, bool)), "next") is None
    assert Knowledge().fit(data, known(graph([(0, 3), (1, 4)], 3, 5)), "next") is None  # nothing is shared
    assert Knowledge().fit(interactions([[], []], 3), known(graph([(0, 3), (1, 3)], 3, 4)), "next") is None
    one = Knowledge().fit(interactions([[0], [0]], 1), known(graph([(0, 1)], 1, 2)), "next")
    assert one is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: Knowledge(factors=0),
        lambda: Knowledge(layers=True),
        lambda: Knowledge(ridge=0),
        lambda: Knowledge(ridge=float("nan")),
        lambda: Knowledge(decay="soon"),
        lambda: Graph(links="yes"),
    ],
)
def test_settings_out_of_range(make):
    with pytest.raises(ConfigError, match="expected"):
        make()


def test_labels_alone_saved_and_loaded(events, items, tmp_path):
    models = ["popularity", Knowledge(factors=4), Graph(factors=4, epochs=5)]
    rec = Recommender(encoder=None, models=models, weights="equal", progress=False).fit(events, items)
    best = rec.similar_items("i41", 5, by="knowledge")
    assert all(int(item[1:]) % 2 for item in best)  # tools with tools, and the item has no event
    rec.save(tmp_path / "m")
    again = load(tmp_path / "m")
    np.testing.assert_array_equal(again.recommend(["u1", "u2"], 5).scores, rec.recommend(["u1", "u2"], 5).scores)
    table = {row["model"]: row for row in again.evaluate(split="loo").rows}
    assert "knowledge" in table
    with pytest.raises(DataError, match="none of the models"):
        Recommender(encoder=None, models=["knowledge"]).fit(events)


def test_real_triples_help_on_cold_items(shared_data):
    # RecBole ships these triples with ml-100k, but they name items by the ids of ml-1m (item:260 is Star Wars there,
    # item:50 in ml-100k): titles bring the one to the other.
    try:
        data = datasets.load("ml-100k")
    except DataError as error:
        pytest.skip(f"ml-100k cannot be had: {error}")
    if data.knowledge is None:
        pytest.skip("this copy of ml-100k has no triples")
    theirs = pl.read_parquet(shared_data / "ml-1m" / "items.parquet").select(pl.col("item_id").alias("other"), "title")
    same = data.items.select("item_id", "title").join(theirs, on="title").select(
        pl.format("item:{}", "other").alias("from"), pl.format("item:{}", "item_id").alias("to")
    )  # fmt: skip
    names = dict(same.iter_rows())
    ends = {
        e: pl.col(e).replace_strict(names, default=pl.col(e).str.replace("^item:", "film ")) for e in ("head", "tail")
    }
    triples = data.knowledge.with_columns(**ends)
    ids = data.items["item_id"].to_list()
    cold = np.random.default_rng(0).permutation(ids)[: len(ids) // 5].tolist()
    hidden = pl.col("item_id").is_in(cold)
    train, test = data.interactions.filter(~hidden), data.interactions.filter(hidden)
    users = test["user_id"].unique(maintain_order=True).to_list()
    wanted = dict(test.group_by("user_id").agg("item_id").iter_rows())
    # The ids of the set begin with well-known films: in their order ties would be broken by popularity.
    items = data.items.select("item_id", "title").sample(fraction=1.0, shuffle=True, seed=0)
    found = {}
    for name, models in {"alone": _COLLABORATIVE, "fused": [*_COLLABORATIVE, "knowledge"]}.items():
        rec = Recommender(encoder=None, models=models, progress=False).fit(train, items, knowledge=triples)
        ranked = rec.recommend(users, 10, allow=cold).items
        found[name] = metrics.ndcg(ranked, [wanted[u] for u in users], 10)
    why = rec.recommend(users[:5], 3, allow=cold, explain=True)
    for scores, explained in zip(why.scores, why.explanations, strict=True):
        for score, one in zip(scores, explained, strict=True):
            assert sum(one["sources"].values()) == pytest.approx(float(score), rel=1e-4, abs=1e-6)
    # Without texts nothing else tells cold items from one another.
    assert found["fused"] > found["alone"] + 0.05, (found, rec.weights)

"""Explanations name the path of the graph from what a user had to what is recommended."""

import json

import numpy as np
import polars as pl
import pytest
from helpers import interactions

from fastrec import Recommender, load
from fastrec.models import Graph, Knowledge
from fastrec.score import paths
from fastrec.side import Links
from fastrec.types import DenseSource

FILMS = ["Heat", "Ali", "Jaws", "Hook", "Duel"]
TRIPLES = {
    "head": ["Heat", "Ali", "Jaws", "Hook", "item:Duel", "Jaws", "Hook", "Heat", "Ali", "Ali"],
    "relation": ["director"] * 5 + ["genre"] * 4 + ["sequel of"],
    "tail": ["Mann", "Mann", "Spielberg", "Spielberg", "Spielberg", "film", "film", "film", "film", "Heat"],
}


@pytest.fixture(scope="module")
def rec():
    rows = [(f"u{u}", film) for u in range(12) for film in (("Heat", "Ali") if u % 2 else ("Jaws", "Hook"))]
    rows += [("fan", "Jaws"), ("other", "Heat")]
    events = pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row")
    table = {"item_id": FILMS, "colour": [["grey", "blue"], ["grey"], None, None, None]}
    models = ["popularity", Knowledge(factors=4, ridge=0.1, decay=3.0)]
    return Recommender(encoder=None, models=models, weights="equal", progress=False).fit(
        events, table, knowledge=TRIPLES
    )


def path_to(rec, user, item):
    found = rec.recommend(user, 5, explain=True)
    return dict(zip(found, found.explanations, strict=True))[item]["paths"]


def test_the_path_goes_by_what_fewest_share(rec):
    # By the genre, which more films have, there would be a way too.
    assert path_to(rec, "fan", "Hook") == [["Jaws", "director", "Spielberg", "director", "Hook"]]
    assert path_to(rec, "fan", "Duel") == [["Jaws", "director", "Spielberg", "director", "Duel"]]  # it has no event


def test_an_edge_between_items_comes_first(rec):
    assert path_to(rec, "other", "Ali") == [["Heat", "sequel of", "Ali"]]


def test_labels_are_entities_too():
    rows = [(f"u{u}", i) for u in range(8) for i in (("a", "b") if u % 2 else ("c", "d"))] + [("x", "a")]
    events = pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row")
    table = {"item_id": list("abcde"), "brand": [["Acme: fine", "y"], ["Acme: fine"], ["Zed"], ["Zed"], ["Acme: fine"]]}
    model = Knowledge(factors=4, ridge=0.1, decay=3.0)
    rec = Recommender(encoder=None, models=[model], weights="equal", progress=False).fit(events, table)
    assert path_to(rec, "x", "e") == [["a", "brand", "Acme: fine", "brand", "e"]]


def test_saved_loaded_and_new_items(rec, tmp_path):
    rec.save(tmp_path / "m")
    again = load(tmp_path / "m")
    for user in ("fan", "other"):
        one, two = (r.recommend(user, 5, explain=True).explanations for r in (rec, again))
        assert [e["paths"] for e in one] == [e["paths"] for e in two]
    again.add_items({"item_id": ["Ray"]})
    found = again.recommend("fan", 6, explain=True, allow=["Ray", "Duel"])
    told = dict(zip(found, found.explanations, strict=True))
    assert told["Ray"]["paths"] == [] and told["Duel"]["paths"]
    assert json.dumps(told["Duel"])  # as the server says it


def test_without_a_graph_there_is_nothing_to_tell(rec, events, items):
    plain = Recommender(encoder=None, models=["popularity", "item_item"], weights="equal", progress=False)
    told = plain.fit(events, items).recommend("u1", 2, explain=True).explanations
    assert all(set(one) == {"sources", "history"} for one in told)
    model = Graph(factors=4, epochs=5, decay=3.0)
    graph = Recommender(encoder=None, models=["popularity", model], weights="equal", progress=False)
    told = graph.fit(events, items).recommend("u1", 2, explain=True).explanations
    ways = [way for one in told for way in one["paths"]]
    assert ways and all(way[1] == way[3] and way[1] in ("category", "tags") for way in ways)


@pytest.mark.parametrize("seed", range(3))
def test_paths_against_a_search_by_hand(seed):
    rng = np.random.default_rng(seed)
    n, entities = 9, 6
    heads = rng.integers(0, n + entities, 30).astype(np.int32)
    tails = rng.integers(0, n + entities, 30).astype(np.int32)
    relations = rng.integers(0, 3, 30).astype(np.int32)
    links = Links(heads, tails, n, n + entities, tuple("abcdef"), relations, ("r0", "r1", "r2"))
    edges = [(int(h), int(t)) for h, t in zip(heads, tails, strict=True)]
    both = edges + [(t, h) for h, t in edges]
    degree = np.bincount([h for h, _ in both], minlength=n + entities)
    for first in range(n):
        for last in range(n):
            if first == last:
                continue
            found = links.path(first, last)
            mine, theirs = ({t for h, t in both if h == end} for end in (first, last))
            middle = (mine & theirs) - {first, last}
            if last in mine:
                assert len(found) == 1
            elif not middle:
                assert found is None
            else:
                assert found[1] == min(middle, key=lambda node: (degree[node], node))
                for end, relation in ((first, found[0]), (last, found[2])):
                    names = {links.kinds[r] for (h, t), r in zip(edges, relations, strict=True)
                             if {h, t} == {end, found[1]}}  # fmt: skip
                    assert relation in names


def test_links_without_names_have_no_paths():
    links = Links(np.array([0, 1], np.int32), np.array([2, 2], np.int32), 2, 3)
    source = DenseSource("knowledge", np.ones((2, 1), np.float32), None)
    assert links.path(0, 1) is None and paths(source, links, interactions([[0]], 2), 1) == []

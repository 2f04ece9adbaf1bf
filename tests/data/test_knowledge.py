"""Triples and labels -> Links."""

import numpy as np
import polars as pl
import pytest

from fastrec.data import clean
from fastrec.errors import DataError

EVENTS = {"user_id": ["u", "u"], "item_id": ["a", "b"]}
ITEMS = {"item_id": ["a", "b", "c"], "brand": ["x", "x", None], "tags": [["p", "q"], [], ["q", " "]]}


def edges(links):
    return {tuple(sorted(pair)) for pair in zip(links.heads.tolist(), links.tails.tolist(), strict=True)}


def test_labels_are_entities_of_their_column():
    items = pl.DataFrame(ITEMS | {"maker": ["x", None, "x"]}, schema_overrides={"brand": pl.Categorical})
    links = clean(EVENTS, items.with_columns(pl.col("maker").cast(pl.Categorical))).links
    assert links.n_items == 3 and links.n_nodes == 3 + 4  # brand x, p, q, maker x
    by_entity = {}
    for item, entity in edges(links):
        by_entity.setdefault(entity, set()).add(item)
    assert sorted(map(sorted, by_entity.values())) == [[0], [0, 1], [0, 2], [0, 2]]


def test_no_labels_no_links():
    assert clean(EVENTS).links is None
    assert clean(EVENTS, {"item_id": ["a"], "title": ["An apple"]}).links is None


@pytest.mark.parametrize("prefix", ["", "item:"])
@pytest.mark.parametrize("ints", [False, True])
def test_triples_name_items_by_their_ids(prefix, ints):
    ids = [7, 8, 9] if ints else ["a", "b", "c"]
    events = {"user_id": ["u", "u", "u"], "item_id": ids}
    name = [f"{prefix}{i}" for i in ids]
    triples = {
        "head": [name[0], "someone", name[2], "someone"],
        "relation": ["director", "directed", "sequel_of", "born_in"],
        "tail": ["someone", name[1], name[0], "somewhere"],
    }
    cleaned = clean(events, knowledge=pl.DataFrame(triples))
    links = cleaned.links
    assert (links.n_items, links.n_nodes) == (3, 5)
    assert edges(links) == {(0, 3), (1, 3), (0, 2), (3, 4)}
    assert "knowledge: 4 triples, 0 without an end left out, 3 of 3 items named" in cleaned.report.notes


def test_ends_that_are_missing():
    triples = {"head": ["a", None, "b"], "relation": ["r"] * 3, "tail": ["e", "e", None]}
    cleaned = clean(EVENTS, knowledge=triples)
    assert edges(cleaned.links) == {(0, 2)}
    assert any("3 triples, 2 without an end" in note for note in cleaned.report.notes)
    with pytest.raises(DataError, match=r"knowledge: column 'head' row 1: the end of the triple is missing"):
        clean(EVENTS, knowledge=triples, strict=True)


def test_what_cannot_be_understood():
    with pytest.raises(DataError, match=r"knowledge.*'relation'"):
        clean(EVENTS, knowledge={"head": ["a"], "tail": ["e"]})
    with pytest.raises(DataError, match=r"none of the 1 triples names an item \(the first head is 'z', an item is"):
        clean(EVENTS, knowledge={"head": ["z"], "relation": ["r"], "tail": ["e"]})
    with pytest.raises(DataError, match="none of the 0 triples names an item"):
        clean(EVENTS, knowledge=pl.DataFrame(schema=dict.fromkeys(("head", "relation", "tail"), pl.String)))


def test_an_entity_is_no_label_of_the_same_name():
    triples = {"head": ["a"], "relation": ["r"], "tail": ["brand: x"]}
    links = clean(EVENTS, ITEMS, knowledge=triples).links
    assert links.n_nodes == 3 + len({"brand x", "p", "q", "entity"})
    assert np.max(links.tails) == links.n_nodes - 1


def test_ids_that_a_gap_made_floats_and_empty_ends():
    events = {"user_id": ["u", "u"], "item_id": [1, 123456789]}
    triples = pl.DataFrame({"head": [1.0, 123456789.0, None, 1.0], "tail": [2.5, 1.0, 7.0, float("nan")]})
    found = clean(events, knowledge=triples.with_columns(relation=pl.lit("r")))
    assert edges(found.links) == {(0, 2), (0, 1)} and found.links.names == ("2.5",)
    assert "4 triples, 2 without an end left out, 2 of 2 items named" in found.report.notes[-1]
    texts = {"head": ["1", "123456789"], "relation": ["r", "r"], "tail": ["", "x"]}
    assert clean(events, knowledge=texts).links.names == ("x",)  # "" is no thing that two items have in common
    with pytest.raises(DataError, match="column 'tail' row 0: holds List"):
        clean(events, knowledge=texts | {"tail": [["a"], ["b"]]})


def test_the_id_itself_comes_before_the_form_with_item():
    triples = {"head": ["a", "item:a"], "relation": ["r", "r"], "tail": ["x", "y"]}
    found = clean({"user_id": ["u", "u"], "item_id": ["a", "item:a"]}, knowledge=triples)
    assert found.links.heads.tolist() == [0, 1]

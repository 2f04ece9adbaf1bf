"""Ids to rows and back."""

import numpy as np
import polars as pl
import pytest

from fastrec.data import Vocab
from fastrec.data import vocab as module


@pytest.fixture(params=["one by one", "in bulk"])
def looked_up(request, monkeypatch):
    """Both ways of looking ids up."""
    monkeypatch.setattr(module, "_BULK", 10_000 if request.param == "one by one" else 0)


@pytest.mark.usefixtures("looked_up")
def test_rows_of_str():
    vocab = Vocab.from_ids(["b", "a", "é"])
    asked = ["a", "é", "b", "c", 1, None, b"a", True, "\ud800", np.str_("a")]
    assert vocab.rows(asked).tolist() == [1, 2, 0, -1, -1, -1, -1, -1, -1, 1]
    assert vocab.rows([]).tolist() == [] and vocab.rows([]).dtype == np.int64
    assert not vocab.is_int and len(vocab) == 3


@pytest.mark.usefixtures("looked_up")
def test_rows_of_int():
    vocab = Vocab.from_ids([np.int64(7), -1, 0])
    asked = [0, np.int32(7), -1, 5, "7", 7.0, None, 2**70, -(2**70), np.uint64(2**63)]
    assert vocab.rows(asked).tolist() == [2, 0, 1, -1, -1, -1, -1, -1, -1, -1]
    assert vocab.is_int


def test_ids():
    vocab = Vocab.from_ids(["b", "a"])
    assert vocab.ids([1, -1, 0, 1]).tolist() == ["a", None, "b", "a"]
    assert type(Vocab.from_ids([3, 4]).ids([1])[0]) is int
    assert Vocab.from_ids([]).ids([-1]).tolist() == [None]


@pytest.mark.parametrize("ids", [["b", "a"], [3, -4], []])
def test_round_trip_through_arrow(ids):
    vocab = Vocab.from_arrow(Vocab.from_ids(ids).to_arrow())
    assert vocab.series.to_list() == ids
    assert vocab.rows(ids).tolist() == list(range(len(ids)))


def test_encode_numbers_by_first_appearance():
    vocab, rows = module.encode(pl.Series(["b", "a", "b", "c", "a"]))
    assert vocab.series.to_list() == ["b", "a", "c"]
    assert rows.tolist() == [0, 1, 0, 2, 1] and rows.dtype == np.int32

"""Ids to rows and back."""

import numpy as np
import pytest

from fastrec.data import Vocab, vocab


@pytest.mark.parametrize("ids", [["b", "a", "é😀"], [5, -1, 2**60]])
@pytest.mark.parametrize("bulk", [0, 10_000])
def test_there_and_back(ids, bulk, monkeypatch):
    monkeypatch.setattr(vocab, "_BULK", bulk)
    v = Vocab.from_ids(ids)
    assert len(v) == 3
    assert v.rows(ids[::-1]).tolist() == [2, 1, 0]
    assert v.ids([2, -1, 0]).tolist() == [ids[2], None, ids[0]]
    assert v.rows(["none", 99, None, 1.5, True, b"a"]).tolist() == [-1] * 6
    assert v.rows([]).tolist() == []
    assert v.ids([]).tolist() == []
    again = Vocab.from_arrow(v.to_arrow())
    assert again.rows(ids).tolist() == [0, 1, 2]
    assert again.is_int == v.is_int


def test_numpy_scalars_are_ids():
    assert Vocab.from_ids([3, 4]).rows([np.int32(4), np.int64(3)]).tolist() == [1, 0]
    assert Vocab.from_ids(["a"]).rows([np.str_("a")]).tolist() == [0]


def test_ids_are_plain_python():
    assert [type(i) for i in Vocab.from_ids([3]).ids([0])] == [int]
    assert [type(i) for i in Vocab.from_ids(["x"]).ids([0])] == [str]


def test_an_empty_vocabulary():
    assert Vocab.from_ids([]).rows(["a"]).tolist() == [-1]
    assert Vocab.from_ids([]).ids([-1]).tolist() == [None]

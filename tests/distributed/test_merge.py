"""What the shards of a catalogue find, put together: no Ray is needed for that."""

import itertools

import numpy as np
import pytest

from fastrec import cold, ops, retrieve
from fastrec.distributed.items import shard
from fastrec.inside import state_of
from fastrec.retrieve import parts
from fastrec.types import Candidates, Csr


@pytest.mark.parametrize("edges", [[0, 42], [0, 1, 42], [0, 13, 14, 41, 42], [0, 20, 42]])
@pytest.mark.parametrize("k", [1, 7, 42])
def test_the_shards_of_a_model(rec, edges, k):
    state = state_of(rec, "test")
    rows = np.arange(len(state.users))
    histories, seen = state.histories.take(rows)
    asked = cold.queries(state.features, histories)
    want = retrieve.search(state.features, asked, k, seen=seen)
    several = []
    for first, last in itertools.pairwise(edges):
        some = shard(state.features, first, last)
        found = retrieve.search(some, asked, min(k, last - first), seen=parts.columns(seen, first, last))
        several.append(parts.shifted(found, first))
    got = parts.best(several, k)
    np.testing.assert_array_equal(got.rows, want.rows)
    np.testing.assert_array_equal(got.scores, want.scores)


def test_equal_scores_stand_by_row():
    rng = np.random.default_rng(0)
    items = rng.integers(-1, 2, (101, 3)).astype(np.float32)
    queries = rng.integers(-1, 2, (9, 3)).astype(np.float32)
    want = ops.score_topk(queries, items, 30)
    several = []
    for first, last in ((0, 40), (40, 41), (41, 101)):
        scores, rows = ops.score_topk(queries, items[first:last], min(30, last - first))
        several.append(parts.shifted(Candidates(rows, scores), first))
    got = parts.best(several, 30)
    np.testing.assert_array_equal(got.scores, want[0])
    np.testing.assert_array_equal(got.rows, want[1])


def test_columns_of_lists():
    lists = Csr(np.array([0, 2, 2, 5]), np.array([1, 4, 0, 3, 4], np.int32), 6, np.arange(5, dtype=np.float32))
    some = parts.columns(lists, 1, 4)
    assert some.indptr.tolist() == [0, 1, 1, 2] and some.indices.tolist() == [0, 2] and some.n_cols == 3
    assert some.values.tolist() == [0.0, 3.0]

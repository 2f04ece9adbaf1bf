"""Metrics against values worked out by hand and against a slow definition."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrec import metrics
from fastrec.errors import DataError

RECOMMENDED = [["a", "b", "c"], ["d", "e", None], ["f", "g", "h"]]
RELEVANT = [["b", "x"], ["d"], ["z"]]


def test_by_hand():
    assert metrics.hit_rate(RECOMMENDED, RELEVANT, 3) == pytest.approx(2 / 3)
    assert metrics.recall(RECOMMENDED, RELEVANT, 3) == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert metrics.mrr(RECOMMENDED, RELEVANT, 3) == pytest.approx((1 / 2 + 1 + 0) / 3)
    first = (1 / math.log2(3)) / (1 + 1 / math.log2(3))
    assert metrics.ndcg(RECOMMENDED, RELEVANT, 3) == pytest.approx((first + 1 + 0) / 3)
    assert metrics.map(RECOMMENDED, RELEVANT, 3) == pytest.approx((1 / 2 / 2 + 1 + 0) / 3)
    assert metrics.coverage(RECOMMENDED, 16, 3) == 8 / 16


def test_users_without_a_relevant_item_do_not_count_and_empty_lists_count_as_zero():
    assert metrics.recall([["a"], ["b"]], [["a"], []], 1) == 1
    assert metrics.recall([["a"], []], [["a"], ["b"]], 1) == 0.5
    assert metrics.ndcg([], [], 5) == 0


def test_a_repeated_item_hits_once():
    assert metrics.recall([["a", "a"]], [["a", "b"]], 2) == 0.5
    assert metrics.ndcg([["a", "a"]], [["a", "b"]], 2) < 1


def test_rows_with_minus_one_are_empty_places():
    assert metrics.hit_rate(np.array([[3, -1], [-1, -1]]), [[3], [-1]], 2) == 0.5


def test_gini_novelty_diversity():
    assert metrics.gini([["a"], ["b"]], 2) == pytest.approx(0)
    assert metrics.gini([["a"], ["a"]], 4) == pytest.approx(0.75)
    assert metrics.novelty([["a", "b"]], {"a": 0.5, "b": 0.25}) == pytest.approx(1.5)
    vectors = {"a": np.array([1.0, 0]), "b": np.array([0, 2.0]), "c": np.array([3.0, 0])}
    assert metrics.diversity([["a", "b"]], vectors) == pytest.approx(1)
    assert metrics.diversity([["a", "c"], ["a"]], vectors) == pytest.approx(0)


def test_bad_input():
    with pytest.raises(DataError, match=r"1 rankings but 2 sets"):
        metrics.recall([["a"]], [["a"], ["b"]])
    with pytest.raises(DataError, match="k=0"):
        metrics.ndcg([["a"]], [["a"]], 0)


@given(
    st.lists(st.permutations(range(8)), min_size=1, max_size=5),
    st.integers(1, 10),
    st.integers(0, 2**32 - 1),
)
def test_against_the_definition(rankings, k, seed):
    rng = np.random.default_rng(seed)
    relevant = [rng.permutation(8)[: rng.integers(1, 8)].tolist() for _ in rankings]
    ndcg, ap = [], []
    for row, wanted in zip(rankings, relevant, strict=True):
        hit = [item in wanted for item in row[:k]]
        gain = sum(h / math.log2(r + 2) for r, h in enumerate(hit))
        ndcg.append(gain / sum(1 / math.log2(r + 2) for r in range(min(k, len(wanted)))))
        ap.append(sum(h * sum(hit[: r + 1]) / (r + 1) for r, h in enumerate(hit)) / min(k, len(wanted)))
    assert metrics.ndcg(rankings, relevant, k) == pytest.approx(np.mean(ndcg), abs=1e-12)
    assert metrics.map(rankings, relevant, k) == pytest.approx(np.mean(ap), abs=1e-12)


RANX = """
import json, sys
from ranx import Qrels, Run, evaluate
rankings, relevant, asked = json.load(sys.stdin)
qrels = Qrels({f"u{u}": {f"i{i}": 1 for i in row} for u, row in enumerate(relevant)})
run = Run({f"u{u}": {f"i{i}": 100.0 - r for r, i in enumerate(row)} for u, row in enumerate(rankings)})
print(json.dumps({name: float(evaluate(qrels, run, name)) for name in asked}))
"""


def test_they_are_those_of_ranx():
    rng = np.random.default_rng(0)
    rankings = [rng.permutation(60)[: rng.integers(1, 25)].tolist() for _ in range(200)]
    relevant = [rng.permutation(60)[: rng.integers(1, 15)].tolist() for _ in rankings]
    asked = [f"{name}@{k}" for name in ("ndcg", "recall", "hit_rate", "mrr") for k in (1, 5, 10, 30)]
    # Its average precision divides by all relevant items, ours by those that fit into k places: from k of the
    # longest list of relevant items on they are one.
    asked.append("map@15")
    # Left to compile its metrics it would take a minute; as plain Python they are the same.
    out = subprocess.run(
        [sys.executable, "-c", RANX],
        input=json.dumps([rankings, relevant, asked]),
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        check=True,
        text=True,
    )
    for name, value in json.loads(out.stdout).items():
        metric, k = name.split("@")
        assert getattr(metrics, metric)(rankings, relevant, int(k)) == pytest.approx(value, abs=1e-9), name

"""Duplicates and repeats against slow definitions."""

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from fastrec.data import merge

ROW = st.tuples(
    st.integers(0, 2),
    st.integers(0, 2),
    st.sampled_from([0.0, -0.0, 1.0, 2.0, None]),
    st.sampled_from(["a", "b", "", None]),
)


@given(st.lists(ROW, min_size=1, max_size=40))
def test_first_of_duplicates(rows):
    user, item, value, text = (list(c) for c in zip(*rows, strict=True))
    rest = pl.DataFrame({"value": value, "text": text}, schema={"value": pl.Float64, "text": pl.String})
    got = merge.first_of_duplicates(np.array(user, np.int32), np.array(item, np.int32), rest)
    want = [row not in rows[:i] for i, row in enumerate(rows)]
    assert (got is None and all(want)) or got.tolist() == want


def test_equal_hashes_of_different_events(monkeypatch):
    rest = pl.DataFrame({"value": [1.0, 2.0, 1.0]})
    monkeypatch.setattr(pl.Expr, "hash", lambda self, seed: pl.lit(0, pl.UInt64) * self.is_null().cast(pl.UInt64))
    rows = np.zeros(3, np.int32)
    assert merge.first_of_duplicates(rows, rows, rest).tolist() == [True, True, False]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 5), st.integers(0, 8)), max_size=40))
def test_merge(rows):
    user, item, time, weight = np.array(rows, np.float64).reshape(-1, 4).T
    got = merge.merge(user.astype(np.int32), item.astype(np.int32), time, weight, 4, 5)
    want = {}
    for u, i, t, w in sorted(rows, key=lambda r: (r[0], r[2])):
        want[u, i] = (t, want.pop((u, i), (0, 0))[1] + w)
    want = dict(sorted(want.items(), key=lambda e: e[0][0]))  # stable: by user, else as it was
    assert list(zip(got.users.tolist(), got.items.tolist(), strict=True)) == list(want)
    assert got.times.tolist() == [t for t, _ in want.values()]
    assert got.weights.tolist() == [min(w, 10) for _, w in want.values()]
    assert got.n_users == 4 and got.n_items == 5

"""Histories that change one user at a time give what fitting everything at once gives."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import interactions, random_interactions

from fastrec.histories import MOST_WEIGHT, Histories
from fastrec.trend import Trend
from fastrec.types import Interactions


def listed(taken):
    data, seen = taken
    spans = zip(data.indptr[:-1], data.indptr[1:], strict=True)
    return [
        (
            list(zip(data.items[a:b].tolist(), data.times[a:b].tolist(), data.weights[a:b].tolist(), strict=True)),
            seen.indices[seen.indptr[u] : seen.indptr[u + 1]].tolist(),
        )
        for u, (a, b) in enumerate(spans)
    ]


def model(n_users):
    """The definition: a dict {item: (time, place, weight)} for each user."""
    return [{} for _ in range(n_users)]


def test_any_changes_give_what_a_dict_gives():
    rng = np.random.default_rng(3)
    histories = Histories.of(interactions([[]] * 5, 17))
    users = model(9)
    for clock in range(1, 301):
        user, item = int(rng.integers(9)), int(rng.integers(17))
        time, weight = float(rng.integers(20)), float(rng.choice([0.0, 0.5, 3.0]))
        old = users[user].get(item, (0.0, 0, 0.0))
        users[user][item] = (max(time, old[0]), clock, min(MOST_WEIGHT, old[2] + weight))
        moved, before = histories.user(user).moved(item, time, weight)
        assert (before is None) == (old[1] == 0)
        histories = histories.put({user: moved}, max(histories.n_users, user + 1))
        if clock % 50 == 0:
            rows = [8, 0, -1, 3, 3, 7, 1, 5]
            want = []
            for row in rows:
                mine = users[row] if 0 <= row < histories.n_users else {}
                entries = sorted(((t, at, i, w) for i, (t, at, w) in mine.items()))
                want.append(([(i, t, w) for t, _, i, w in entries], sorted(mine)))
            assert listed(histories.take(rows)) == want


def test_a_reader_keeps_what_it_holds():
    data = random_interactions(1)
    first = Histories.of(data)
    before = listed(first.take(range(40)))
    second = first.put({3: first.user(3).moved(5, 1e9, 1.0)[0], 41: first.user(41).moved(0, 1.0, 1.0)[0]}, 42)
    assert listed(first.take(range(40))) == before
    assert (first.n_users, second.n_users, first.n_changed, second.n_changed) == (40, 42, 0, 2)
    assert listed(second.take([41, 40, 3]))[:2] == [([(0, 1.0, 1.0)], [0]), ([], [])]
    after = listed(second.take(range(40)))
    assert [u for u in range(40) if after[u] != before[u]] == [3]


def test_folding_changes_nothing():
    first = Histories.of(random_interactions(2))
    second = first.put({7: first.user(7).moved(22, 5.0, 2.0)[0], 40: first.user(40).moved(1, 2.0, 1.0)[0]}, 41)
    folded, seen = second.folded()
    assert listed((folded, seen)) == listed(second.take(range(41)))
    assert listed((folded, folded.seen())) == listed((folded, seen))
    assert second.folded()[0] is folded


def test_what_was_seen_under_an_older_row():
    histories = Histories.of(interactions([[0, 2], [1]], 3)).widened(5, {2: 3}).widened(6, {3: 5})
    seen = histories.take([0, 1, -1])[1]
    assert [seen.indices[a:b].tolist() for a, b in zip(seen.indptr[:-1], seen.indptr[1:], strict=True)] == [
        [0, 2, 3, 5],
        [1],
        [],
    ]
    assert histories.folded()[1].indices.tolist() == [0, 2, 1], "folded is what was chosen, not what may be shown"


DAY = 86400.0


def trend_of(data, half_life=2.0, **keywords):
    newest = float(data.times.max())
    return Trend(data, half_life, newest, newest, **keywords)


def test_counts_are_those_of_the_popularity_model():
    from fastrec.models.popularity import decayed_counts

    rng = np.random.default_rng(4)
    data = random_interactions(5)
    data = Interactions(data.indptr, data.items, rng.random(len(data.items)) * 20 * DAY, data.weights, data.n_items)
    for half_life in (1.0, 30.0, np.inf):
        counts = decayed_counts(data, half_life)
        want = np.log1p(counts * len(data.items) / counts.sum())
        bias, rows = trend_of(data, half_life).fresh(np.zeros(data.n_items, np.float32))
        assert rows is None
        np.testing.assert_allclose(bias, want, rtol=2e-3, atol=2e-3)


def test_one_event_moves_one_item_and_taking_it_away_leaves_no_trace():
    data = random_interactions(6, n_users=400)
    trend = trend_of(data)
    first, _ = trend.fresh(np.zeros(data.n_items, np.float32))
    assert not trend.stale
    trend.add(4, float(data.times.max()), 1.0)
    second, rows = trend.fresh(first)
    assert rows.tolist() == [4] and np.flatnonzero(first != second).tolist() == [4] and second[4] > first[4]
    trend.add(4, float(data.times.max()), 1.0, sign=-1)
    third, _ = trend.fresh(second)
    np.testing.assert_array_equal(third, first)


@pytest.mark.parametrize("half_life", [0.5, np.inf])
def test_the_way_does_not_matter(half_life):
    """Events one by one, over many half-lives, give the counts of all at once."""
    rng = np.random.default_rng(8)
    histories = Histories.of(interactions([[0, 1], [2]], 6, times=[1.0, 2.0, 3.0]))
    trend = trend_of(histories.base, half_life)
    for step in range(200):
        user, item, time = int(rng.integers(2)), int(rng.integers(6)), step * 0.1 * DAY
        moved, before = histories.user(user).moved(item, time, 1.0)
        histories = histories.put({user: moved}, 2)
        if trend.seen_until(time):
            trend.recount(histories.folded()[0])
            continue
        if before is not None:
            trend.add(item, *before, sign=-1)
        at = moved.items.tolist().index(item)
        trend.add(item, float(moved.times[at]), float(moved.weights[at]))
    again = Trend(histories.folded()[0], half_life, trend.start, trend.latest, trend.scale)
    assert again.reference == trend.reference
    assert (again.reference > trend.start) == np.isfinite(half_life)
    np.testing.assert_array_equal(again.counts, trend.counts)
    zeros = np.zeros(6, np.float32)
    np.testing.assert_array_equal(again.fresh(zeros)[0], trend.fresh(zeros)[0])


def test_the_sanitized_mix_does_without_polars():
    """Which does not start under the thread sanitizer (tests/native_mix.py)."""
    native = pytest.importorskip("fastrec._C").__file__
    code = "import sys; sys.modules['polars'] = None; import native_mix; native_mix.enter(sys.argv[1]); "
    code += "from fastrec import cold, fresh, fuse; from fastrec.histories import Histories"
    done = subprocess.run(
        [sys.executable, "-c", code, native], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr

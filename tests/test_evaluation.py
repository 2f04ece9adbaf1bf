"""What the evaluation reports beside the means: intervals, sources with and without, segments, the ladder; the page."""

import dataclasses
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers import interactions

from fastrec import Recommender, fuse, metrics, report
from fastrec.errors import ConfigError
from fastrec.evaluation import measure
from fastrec.results import Evaluation
from fastrec.types import BiasSource, DenseSource


@pytest.fixture(scope="module")
def result(rec):
    return rec.evaluate(split="loo", k=5, ladder=True)


def random_ranking(seed, n_items=30, users=40, k=7):
    rng = np.random.default_rng(seed)
    ranked = np.stack([rng.permutation(n_items)[:k] for _ in range(users)])
    ranked[0, 3:] = -1
    ranked[1] = -1
    return ranked, interactions([rng.permutation(n_items)[: rng.integers(1, 15)] for _ in range(users)], n_items)


@pytest.mark.parametrize("k", [1, 5, 7, 10])
def test_the_metrics_of_users_have_the_means_of_the_public_ones(k):
    ranked, targets = random_ranking(k)
    relevant = [row.tolist() for row in np.split(targets.items, targets.indptr[1:-1])]
    found = metrics.by_user(ranked, targets, k)
    assert list(found) == ["ndcg", "recall", "hit_rate", "mrr", "map"]
    for name, values in found.items():
        assert values.shape == (len(ranked),)
        assert values.mean() == pytest.approx(getattr(metrics, name)(ranked, relevant, k), abs=1e-12)


def test_intervals_hold_the_mean_and_narrow_with_the_users(result, rec):
    for row in result.rows:
        for metric, (low, high) in result.intervals[row["model"]].items():
            assert 0 <= low <= row[metric] <= high <= 1
    assert result.intervals == rec.evaluate(split="loo", k=5).intervals
    # The standard error of a share p of B users is sqrt(p (1 - p) / B), and the interval is 3.92 of them wide.
    share = result.table.loc["recent popularity", "hit_rate"]
    low, high = result.intervals["recent popularity"]["hit_rate"]
    assert high - low == pytest.approx(3.92 * np.sqrt(share * (1 - share) / result.users), rel=0.15)


def two_sources():
    """Four users whose next item is their number; one source knows it, one says nothing, one knows it for two."""
    held = interactions([[0], [1], [2], [3]], 8)
    train = interactions([[4], [5], [6], []], 8)
    knows = np.eye(8, dtype=np.float32)
    knows[[4, 5, 6]] = knows[[0, 1, 2]]
    return train, held, DenseSource("knows", knows, None), BiasSource("bias", np.arange(8, dtype=np.float32)[::-1] / 8)


def test_alone_fused_without_by_hand():
    train, held, knows, bias = two_sources()
    features = fuse.fuse([knows, bias], {"knows": 5.0, "bias": 1.0}, 8)
    counts = np.bincount(train.items, minlength=8)
    found = measure(features, [knows, bias], bias, train, held, counts, split="given", k=2, per_model=True)
    rows = {s["source"]: s for s in found.sources}
    # Alone the first finds the three users with a history; the fourth has none, so all items are alike to it.
    assert rows["knows"]["alone"] == pytest.approx(3 / 4)
    assert rows["bias"]["alone"] == pytest.approx((1 + 1 / np.log2(3)) / 4)
    assert rows["knows"]["fused"] == rows["bias"]["fused"] == pytest.approx(3 / 4)
    assert rows["knows"]["without"] == rows["bias"]["alone"]
    assert rows["bias"]["without"] == rows["knows"]["alone"]
    assert rows["knows"]["gain"] == pytest.approx(rows["knows"]["fused"] - rows["knows"]["without"])
    segments = {s["segment"]: s for s in found.segments}
    assert segments["cold users (no history)"]["users"] == 1
    assert segments["history 1 to 4"]["users"] == 3
    assert segments["history 1 to 4"]["ndcg"]["fastrec"] == pytest.approx(1)
    assert segments["cold items (no event before)"]["events"] == 4 and "known items" not in segments


def test_users_without_history_get_what_recommend_gives_them():
    train, held, knows, bias = two_sources()
    features = fuse.fuse([knows], {"knows": 1.0}, 8)  # popularity has no weight
    turned = dataclasses.replace(bias, bias=bias.bias[::-1].copy())  # 7 is the most popular, then 6
    held = held.select(held.users == 3)
    for wanted, ndcg in ((7, 1.0), (6, 1 / np.log2(3)), (0, 0.0)):
        asked = dataclasses.replace(held, items=np.array([wanted], np.int32))
        counts = np.ones(8, np.int64)
        result = measure(features, [knows], turned, train, asked, counts, split="given", k=2, per_model=True)
        assert result.table.loc["fastrec", "ndcg"] == pytest.approx(ndcg)
        assert result.table.loc["knows", "ndcg"] == pytest.approx(ndcg)


def test_a_source_of_weight_0_is_shown_and_gains_nothing(events, items):
    rec = Recommender(encoder=None, models=["popularity", "item_item", "directed"], weights={"item_item": 1.0})
    found = rec.fit(events, items).evaluate(split="loo", k=5, ladder=True)
    rows = {s["source"]: s for s in found.sources}
    assert set(rows) == {"popularity", "item_item", "directed"}
    assert rows["directed"]["weight"] == rows["directed"]["gain"] == 0 and rows["directed"]["alone"] > 0
    assert rows["item_item"]["without"] == 0
    assert [(s["step"], s["sources"]) for s in found.ladder] == [
        ("collaborative", ["item_item"]),
        ("hybrid", ["item_item"]),
    ]


def test_segments_cover_every_user_and_every_event_once(result):
    by_length = [s for s in result.segments if s["segment"].startswith(("history", "cold users"))]
    by_item = [s for s in result.segments if "items" in s["segment"]]
    assert sum(s["users"] for s in by_length) == result.users
    assert sum(s["events"] for s in by_length) == sum(s["events"] for s in by_item) == result.events
    mean = sum(s["users"] * s["ndcg"]["fastrec"] for s in by_length) / result.users
    assert mean == pytest.approx(result.table.loc["fastrec", "ndcg"])
    assert "recent popularity" in by_length[0]["ndcg"]


def test_the_ladder_goes_from_popularity_to_everything(result):
    assert [s["step"] for s in result.ladder] == ["popularity", "collaborative", "content", "hybrid"]
    first, last = result.ladder[0], result.ladder[-1]
    assert first["ndcg"] == pytest.approx(result.table.loc["recent popularity", "ndcg"])
    assert last["ndcg"] == pytest.approx(result.table.loc["fastrec", "ndcg"])
    assert set(result.ladder[2]["sources"]) <= {"popularity", "content"}
    for step in result.ladder:
        assert step["ndcg_interval"][0] <= step["ndcg"] <= step["ndcg_interval"][1]


def test_the_ladder_needs_a_split(rec):
    with pytest.raises(ConfigError, match="ladder=True fits every step on the past"):
        rec.evaluate({"user_id": ["u1"], "item_id": ["i1"]}, ladder=True)


def test_the_text_has_every_part(result):
    text = str(result)
    for word in ("95 % interval", "without", "segment (ndcg)", "step (ndcg)", "recent popularity"):
        assert word in text
    assert max(map(len, text.splitlines())) < 200
    assert set(result.to_dict()) >= {"models", "intervals", "sources", "segments", "ladder", "notes"}


# ---- the page


class Balance(HTMLParser):
    """Counts what is open, so that an unclosed table shows."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "rect", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("rect", "line"):
            assert self.open.pop() == tag


def test_the_page_stands_alone_and_is_well_formed(result):
    page = report.html(result)
    check = Balance()
    check.feed(page)
    assert check.open == []
    assert not re.search(r"https?:|src=|@import|url\(|<script|<link", page)
    plots = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(plots) == 4
    for plot in plots:
        for element in ET.fromstring(plot).iter():
            for name, number in element.attrib.items():
                if name in ("x", "y", "x1", "x2", "y1", "y2", "width", "height"):
                    assert np.isfinite(float(number)) and -20 <= float(number) <= 800
    for row in result.rows:
        assert row["model"] in page and f"{row['ndcg']:.4f}" in page


def test_names_are_escaped_and_parts_may_be_missing():
    rows = [{"model": "<b>&", "ndcg": 0.0}, {"model": "recent popularity", "ndcg": 0.0}]
    page = report.html(Evaluation(rows, "given", 10, 1, 1, ("a < b",)))
    assert "<b>&<" not in page and "&lt;b&gt;&amp;" in page and "a &lt; b" in page
    assert "NaN" not in page and "nan" not in page

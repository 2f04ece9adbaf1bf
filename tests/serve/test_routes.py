"""The routes of API.md give what the recommender gives."""

import asyncio
import io
import json

import numpy as np
import pyarrow as pa
import pytest
from helpers import hash_encoder

from fastrec import Recommender
from fastrec.serve import ServeSettings, app
from fastrec.serve.problems import Problem


def results(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def same(result, row_of, scores=None):
    assert [r["item_id"] for r in result["items"]] == [i for i in row_of if i is not None]
    assert [r["rank"] for r in result["items"]] == list(range(1, len(result["items"]) + 1))
    if scores is not None:
        assert np.array_equal(np.float32([r["score"] for r in result["items"]]), scores[: len(result["items"])])


def test_recommend_for_users(asgi, made, rec):
    got = results(asgi(made, "POST", "/recommend", json={"users": ["u1", "u2", "nobody"], "k": 7}))
    want = rec.recommend(["u1", "u2", "nobody"], 7)
    assert [r["user_id"] for r in got] == ["u1", "u2", "nobody"]
    for result, items, scores in zip(got, want.items, want.scores, strict=True):
        same(result, items, scores)


@pytest.mark.parametrize(
    ("sent", "keywords"),
    [
        ({"filter_seen": False}, {"filter_seen": False}),
        ({"allow": ["i1", "i2", "i3"]}, {"allow": ["i1", "i2", "i3"]}),
        ({"deny": {"u1": ["i1"]}}, {"deny": {"u1": ["i1"]}}),
        ({"where": {"category": "tools"}}, {"where": {"category": "tools"}}),
        ({"where": {"price": {"max": 20}}}, {"where": {"price": (None, 20)}}),
        ({"where": {"price": [None, 20]}}, {"where": {"price": (None, 20)}}),
        ({"where": {"category": ["tools", "food"]}}, {"where": {"category": ["tools", "food"]}}),
        ({"boost": {"i3": 4}}, {"boost": {"i3": 4}}),
        ({"boost": "price"}, {"boost": "price"}),
        ({"diversity": 0.5}, {"diversity": 0.5}),
        ({"at": 4_000_000}, {"at": 4_000_000}),
        ({"at": "1970-02-10T00:00:00"}, {"at": 40 * 86400}),
        ({"on_unknown": "skip"}, {"on_unknown": "skip"}),
    ],
    ids=str,
)
def test_every_keyword_arrives(asgi, made, rec, sent, keywords):
    got = results(asgi(made, "POST", "/recommend", json={"users": ["u1"], "k": 5, **sent}))
    same(got[0], rec.recommend(["u1"], 5, **keywords).items[0])


def test_history_text_and_a_single_id(asgi, made, rec):
    got = results(asgi(made, "POST", "/recommend", json={"history": ["i1", "i3"], "k": 4}))
    same(got[0], rec.recommend_for_history(["i1", "i3"], 4).items)
    got = results(asgi(made, "POST", "/recommend", json={"history": [["i1"], ["i2"]], "k": 4}))
    same(got[1], rec.recommend_for_history(["i2"], 4).items)
    got = results(asgi(made, "POST", "/recommend", json={"text": "red apple", "k": 4}))
    same(got[0], rec.recommend_for_text("red apple", 4).items)
    got = results(asgi(made, "POST", "/recommend", json={"users": "u5", "k": 4}))
    assert got[0]["user_id"] == "u5"
    assert results(asgi(made, "POST", "/recommend", json={"users": []})) == []


def test_explanations(asgi, made, rec):
    got = results(asgi(made, "POST", "/recommend", json={"users": ["u1"], "k": 3, "explain": True}))
    for row, why in zip(got[0]["items"], rec.recommend("u1", 3, explain=True).explanations, strict=True):
        assert row["explanation"]["sources"] == why["sources"]
        assert sum(row["explanation"]["sources"].values()) == pytest.approx(row["score"], abs=1e-3)
        assert [(h["item_id"], h["weight"]) for h in row["explanation"]["history"]] == why["history"]


def test_similar_and_rank(asgi, made, rec):
    got = results(asgi(made, "POST", "/similar", json={"items": ["i1", "i2"], "k": 3, "by": "content"}))
    same(got[1], rec.similar_items("i2", 3, by="content").items)
    got = results(asgi(made, "POST", "/rank", json={"user": "u1", "candidates": ["i4", "i1", "nothing", "i3"]}))
    same(got[0], rec.rank("u1", ["i4", "i1", "nothing", "i3"]).items)


def test_arrow(asgi, made, rec):
    kind = "application/vnd.apache.arrow.stream"
    answer = asgi(made, "POST", "/recommend", json={"users": ["u1", "u2"], "k": 3}, headers={"Accept": kind})
    assert answer.headers["content-type"] == kind
    table = pa.ipc.open_stream(io.BytesIO(answer.content)).read_all()
    assert table.equals(rec.recommend(["u1", "u2"], 3).to_arrow())
    assert table.schema.metadata[b"model_version"]


def problem(answer, status, field=None):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == status and told["type"].startswith("urn:fastrec:problem:") and told["title"]
    assert "Traceback" not in answer.text
    if field is not None:
        assert field in [e["field"] for e in told["errors"]], told
    return told


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"users": ["u1"], "k": 0}, "k"),
        ({"users": ["u1"], "k": 1001}, "k"),
        ({"users": ["u1"], "k": "5"}, "k"),
        ({"users": [1.5]}, "users"),
        ({"users": [True]}, "users"),
        ({"users": ["u1"] * 1001}, "users"),
        ({"users": ["u1"], "text": "red"}, "body"),
        ({}, "body"),
        ([], "body"),
        ({"users": ["u1"], "diversity": 2}, "diversity"),
        ({"users": ["u1"], "diversity": "0"}, "diversity"),
        ({"users": ["u1"], "filter_seen": 1}, "filter_seen"),
        ({"users": ["u1"], "where": {"nothing": 1}}, "where"),
        ({"users": ["u1"], "boost": "nothing"}, "boost"),
        ({"users": ["u1"], "boost": {"i1": -1}}, "boost"),
        ({"users": ["u1"], "at": "yesterday"}, "at"),
        ({"users": ["u1"], "on_unknown": "guess"}, "on_unknown"),
        ({"users": ["u1"], "unheard": 1}, "unheard"),
        ({"text": 5}, "text"),
        ({"history": [1.5]}, "history"),
    ],
    ids=lambda v: json.dumps(v)[:40],
)
def test_bad_input_names_the_field(asgi, made, body, field):
    problem(asgi(made, "POST", "/recommend", json=body), 400, field)


def test_what_came_is_not_repeated(asgi, made):
    assert "secret" not in asgi(made, "POST", "/recommend", json={"users": ["u1"], "k": "secret"}).text


def test_unknown_ids(asgi, made):
    problem(asgi(made, "POST", "/recommend", json={"users": ["u1", "nobody"], "on_unknown": "raise"}), 404)
    problem(asgi(made, "POST", "/similar", json={"items": ["nothing"]}), 404)
    problem(asgi(made, "GET", "/nothing"), 404)
    problem(asgi(made, "GET", "/recommend"), 405)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"users": ["\xff"]}',
        b"[" * 100_000,
        b"1" * 10_000,
        b'{"k": NaN}',
        b'{"users": ["\\ud800"]}',
    ],
    ids=lambda b: repr(b[:12]),
)
def test_bodies_that_are_no_json(asgi, made, content):
    answer = asgi(made, "POST", "/recommend", content=content, headers={"Content-Type": "application/json"})
    problem(answer, 400)


def test_the_body_limit_counts_what_came(asgi, rec):
    small = app(rec, ServeSettings(max_body=1000))
    problem(asgi(small, "POST", "/recommend", content=b" " * 1001), 413)

    async def chunks():
        for _ in range(11):
            yield b" " * 100

    problem(asgi(small, "POST", "/recommend", content=chunks(), headers={"Content-Type": "application/json"}), 413)


def test_what_this_version_has_not_is_told(asgi, rec):
    class Plain:
        """A recommender without live updates."""

        recommend, user_ids, item_ids = rec.recommend, rec.user_ids, rec.item_ids

    plain = app(Plain(), ServeSettings())
    event = {"user_id": "u1", "item_id": "i1"}
    for verb, path, body in (
        ("POST", "/events", event),
        ("POST", "/items", {"item_id": "new"}),
        ("DELETE", "/items/i1", None),
        ("DELETE", "/users/u1", None),
    ):
        problem(asgi(plain, verb, path, json=body), 501)


def test_health_version_metrics(asgi, rec):
    own = app(rec, ServeSettings())
    assert asgi(own, "GET", "/health/live").json() == {"status": "ok"}
    ready = asgi(own, "GET", "/health/ready").json()
    version = asgi(own, "GET", "/version").json()
    assert ready["model_version"] == version["model_version"]
    answer = asgi(own, "POST", "/recommend", json={"users": ["u1"], "k": 1})
    assert answer.json()["model_version"] == version["model_version"]
    text = asgi(own, "GET", "/metrics").text
    assert 'fastrec_requests_total{method="POST",route="/recommend",status="200"} 1.0' in text
    assert "fastrec_batch_users_sum 1.0" in text
    assert f'fastrec_model_info{{version="{version["model_version"]}"}} 1.0' in text
    for name in ("queue_length", "stage_seconds_bucket", "model_age_seconds", "request_seconds_bucket"):
        assert f"fastrec_{name}" in text
    own.state.core.state.draining = True
    assert "Retry-After" in asgi(own, "GET", "/health/ready").headers


def test_headers(asgi, made):
    answer = asgi(made, "GET", "/version", headers={"X-Request-Id": "abc-1"})
    assert answer.headers["x-request-id"] == "abc-1"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "access-control-allow-origin" not in answer.headers
    made_up = asgi(made, "GET", "/version", headers={"X-Request-Id": "no spaces, please\tor more"})
    assert len(made_up.headers["x-request-id"]) == 16


def test_cors_only_where_asked_for(asgi, rec):
    own = app(rec, ServeSettings(cors=("https://shop.example",)))
    for origin, want in (("https://shop.example", "https://shop.example"), ("https://other.example", None)):
        answer = asgi(own, "GET", "/version", headers={"Origin": origin})
        assert answer.headers.get("access-control-allow-origin") == want


def test_the_openapi_describes_the_routes(asgi, made):
    paths = asgi(made, "GET", "/openapi.json").json()["paths"]
    assert {"/recommend", "/similar", "/rank", "/events", "/items", "/admin/reload", "/version"} <= set(paths)
    assert "400" in paths["/recommend"]["post"]["responses"]


def test_the_page_and_docs_ask_nobody_else(asgi, made):
    for path in ("/", "/docs"):
        answer = asgi(made, "GET", path)
        assert answer.status_code == 200
        assert "http://" not in answer.text and "https://" not in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "sha256-" in answer.headers["content-security-policy"]


def test_an_app_without_a_store_says_that_events_do_not_last(asgi, events, items, tmp_path, caplog):
    for store in (None, tmp_path / "log"):
        caplog.clear()
        rec = Recommender(encoder=None, models=["popularity"], store=store).fit(events, items)
        own = app(rec, ServeSettings())
        assert ("no event store" in caplog.text) is (store is None)
        assert asgi(own, "GET", "/health/ready").json()["durable"] is (store is not None)


def test_writes_count_from_the_next_request_on(asgi, events, items):
    own = app(Recommender(encoder=hash_encoder).fit(events, items), ServeSettings())

    def best(user):
        found = results(asgi(own, "POST", "/recommend", json={"users": [user], "k": 42}))
        return [one["item_id"] for one in found[0]["items"]]

    first = best("u1")[0]
    event = {"user_id": "u1", "item_id": first, "timestamp": 20_000_000}
    assert asgi(own, "POST", "/events", json=event).json() == {"accepted": 1}
    assert first not in best("u1")
    assert first in best("newcomer")
    assert asgi(own, "POST", "/events", json=[{**event, "user_id": "newcomer"}]).status_code == 202
    assert first not in best("newcomer")
    item = {"item_id": "later", "title": "red apple fruit of another kind", "category": "food"}
    assert asgi(own, "POST", "/items", json=item).json()["added"] == 1
    assert "later" in best("u2")
    for name in ("image", "Audio"):
        refused = asgi(own, "POST", "/items", json=[{"item_id": "x"}, {"item_id": "spy", name: "/etc/hostname"}])
        assert refused.status_code == 400 and refused.json()["errors"][0]["field"] == name
    assert asgi(own, "POST", "/items", json={"item_id": "plain", "image": None}).json()["added"] == 1
    assert asgi(own, "DELETE", "/items/later").json()["removed"] == 1
    assert "later" not in best("u2")
    assert asgi(own, "DELETE", "/users/newcomer").json()["users"] == 1
    assert first in best("newcomer")


def test_views_do_not_pile_up(made, monkeypatch):
    core, asked = made.state.core, []

    async def scenario():
        async def never(what, *args):
            asked.append(args)
            await asyncio.sleep(60)

        monkeypatch.setattr(core.engine, "do", never)
        waiting = [asyncio.ensure_future(core.view("map")) for _ in range(64)]
        await asyncio.sleep(0)
        with pytest.raises(Problem, match="views") as refused:
            await core.view("map")
        assert refused.value.status_code == 503 and len(asked) == 64
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert core._viewing == 0

    asyncio.run(scenario())

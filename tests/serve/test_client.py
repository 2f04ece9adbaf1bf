"""fastrec.Client gives what Recommender gives."""

import asyncio
import http.server
import json
import threading

import numpy as np
import polars as pl
import pytest

import fastrec
from fastrec.client import ServerError

USERS = ["u1", "u2", "nobody"]


def same(got, want):
    assert got.single == want.single
    assert got.items.tolist() == want.items.tolist()
    assert np.array_equal(got.scores, want.scores)
    assert got.users.tolist() == want.users.tolist()


@pytest.fixture(scope="module")
def model(saved):
    return saved[0][1]


@pytest.fixture
def client(server):
    with fastrec.Client(server.url) as made:
        yield made


CALLS = [
    ("recommend", (USERS, 4), {}),
    ("recommend", ("u1",), {"k": 3, "where": {"price": (10, 30)}, "deny": ["i11"]}),
    ("recommend", ("u1", 3), {"where": {"category": ["food"]}, "filter_seen": False}),
    ("recommend", ("u1", 3), {"boost": {"i3": 2.0}, "allow": {"u1": ["i3", "i5", "i7"]}}),
    ("recommend_for_history", (["i1", "i3"], 4), {}),
    ("recommend_for_history", ([["i1"], ["i2", "i4"]], 4), {}),
    ("similar_items", ("i1", 3), {"where": {"category": "tools"}}),
    ("similar_items", (["i1", "i2"], 3), {"by": "item_item"}),
    ("rank", ("u1", ["i1", "i2", "i3"]), {}),
]


@pytest.mark.parametrize(("name", "arguments", "keywords"), CALLS, ids=lambda v: str(v)[:30])
def test_the_same_answers(client, model, name, arguments, keywords):
    same(getattr(client, name)(*arguments, **keywords), getattr(model, name)(*arguments, **keywords))


def test_the_same_answers_with_coroutines(server, model):
    async def ask():
        async with fastrec.AsyncClient(server.url) as client:
            return await asyncio.gather(*[getattr(client, n)(*a, **k) for n, a, k in CALLS])

    for (name, arguments, keywords), got in zip(CALLS, asyncio.run(ask()), strict=True):
        same(got, getattr(model, name)(*arguments, **keywords))


def test_explanations(client, model):
    got, want = client.recommend("u1", 3, explain=True), model.recommend("u1", 3, explain=True)
    assert got.explanations == want.explanations


def test_errors_are_those_of_the_engine(client):
    with pytest.raises(fastrec.UnknownIdError, match="nobody"):
        client.recommend(USERS, on_unknown="raise")
    with pytest.raises(fastrec.ConfigError, match="diversity"):
        client.recommend("u1", diversity=3)
    with pytest.raises(fastrec.ConfigError, match="encoder"):
        client.recommend_for_text("red")
    with pytest.raises(fastrec.ArtifactError):
        client.reload("/nothing/there")
    with pytest.raises(fastrec.ConfigError, match="url"):
        fastrec.Client("localhost:8000")
    with fastrec.Client("http://127.0.0.1:9", retries=0) as nobody, pytest.raises(ServerError) as refused:
        nobody.version()
    assert refused.value.status == 0


def test_version(client, server):
    assert client.version()["fastrec"] == fastrec.__version__


@pytest.fixture
def scripted():
    """A server that answers what a test lays down: [(status, headers, body)]; it notes what it was asked."""
    script, asked = [], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.path, json.loads(body), self.headers.get("Authorization")))
            status, headers, answer = script.pop(0)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}", script, asked
        finally:
            running.shutdown()
            thread.join()


GOOD = (200, {}, json.dumps({"results": [{"user_id": "u1", "items": []}], "model_version": "x"}).encode())
BUSY = (503, {"Retry-After": "0"}, json.dumps({"type": "urn:fastrec:problem:busy", "detail": "later"}).encode())


def test_503_is_tried_again(scripted):
    url, script, asked = scripted
    script += [BUSY, (503, {}, b"no json"), GOOD]
    with fastrec.Client(url, key="k") as client:
        assert list(client.recommend("u1")) == []
    assert len(asked) == 3 and {a[2] for a in asked} == {"Bearer k"}
    script += [BUSY, BUSY, BUSY]
    with fastrec.Client(url, retries=1) as client, pytest.raises(ServerError, match="later") as error:
        client.recommend("u1")
    assert error.value.status == 503 and len(script) == 1


def test_503_is_tried_again_with_coroutines(scripted):
    url, script, asked = scripted
    script += [BUSY, GOOD]

    async def ask():
        async with fastrec.AsyncClient(url) as client:
            await client.recommend("u1")

    asyncio.run(ask())
    assert len(asked) == 2


def test_500_is_not_tried_again(scripted):
    url, script, asked = scripted
    script += [(500, {}, b"{}")]
    with fastrec.Client(url) as client, pytest.raises(ServerError, match="500"):
        client.update({"user_id": "u1", "item_id": "i1"})
    assert len(asked) == 1


@pytest.mark.parametrize(
    "table",
    [
        {"user_id": ["u1", "u2"], "item_id": ["i1", "i2"]},
        [{"user_id": "u1", "item_id": "i1"}, {"user_id": "u2", "item_id": "i2"}],
        pl.DataFrame({"user_id": ["u1", "u2"], "item_id": ["i1", "i2"]}),
    ],
    ids=["columns", "rows", "polars"],
)
def test_events_are_sent_as_rows(scripted, table):
    url, script, asked = scripted
    script += [(202, {}, b'{"accepted": 2}')]
    with fastrec.Client(url) as client:
        assert client.update(table) == {"accepted": 2}
    assert asked[0][1] == [{"user_id": "u1", "item_id": "i1"}, {"user_id": "u2", "item_id": "i2"}]

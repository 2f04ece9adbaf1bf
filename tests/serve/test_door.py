"""The door before the parser: the same refusal as the long way, and only for what is plainly one whole request."""

import asyncio
import json
import re
import socket
import threading

import pytest
import uvicorn

from fastrec.serve import ServeSettings, app
from fastrec.serve.batcher import Batcher
from fastrec.serve.connection import Connection
from fastrec.serve.door import Door
from fastrec.serve.problems import busy

BODY = b'{"users":["u1"],"k":3}'
HEAD = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 22\r\n\r\n"
ASK = HEAD + BODY


@pytest.fixture
def full(saved):
    """(address of a server, its core), whose queue is full while ``core.closed`` is set."""
    made = app(saved[0][1], ServeSettings(target=30.0))
    core = made.state.core
    core.closed = threading.Event()
    real = core.enter

    def enter():
        if core.closed.is_set():
            core.metrics.rejected.labels("queue_full").inc()
            raise busy("[serve] 9 requests wait already; ask again", 2.0)
        return real()

    core.enter = enter
    made.user_middleware[0].kwargs["enter"] = lambda: core.enter()

    class Here(Connection):
        door = Door(core)

    server = uvicorn.Server(
        uvicorn.Config(made, port=0, http=Here, lifespan="off", log_config=None, server_header=False)
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    while not server.started:
        thread.join(0.01)
    yield server.servers[0].sockets[0].getsockname(), core
    server.should_exit = True
    thread.join(20)


def received(connection, n=1):
    """The next n answers of a connection: (status, headers, body)."""
    found, got = [], b""
    while len(found) < n:
        head, end, rest = got.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in lines[1:] if b": " in line)
        length = int(headers.get(b"content-length", b"0"))
        if end and len(rest) >= length:
            found.append((int(lines[0].split()[1]), headers, rest[:length]))
            got = rest[length:]
            continue
        more = connection.recv(65536)
        assert more, got
        got += more
    return found


def answers(address, *parts, n=1):
    """The n answers to bytes sent on one connection, part by part."""
    with socket.create_connection(address, timeout=20) as c:
        for part in parts:
            c.sendall(part)
            threading.Event().wait(0.05 * (len(parts) > 1))
        return received(c, n)


def test_the_refusal_is_that_of_the_long_way(full):
    address, core = full
    core.closed.set()
    short = answers(address, ASK)[0]
    long = answers(address, ASK[:30], ASK[30:])[0]  # in two parts: the parser must see it
    assert short[0] == long[0] == 503
    assert json.loads(short[2]) == json.loads(long[2])
    for headers in (short[1], long[1]):
        assert len(headers.pop(b"x-request-id")) == 16
        headers.pop(b"date", None)
    assert short[1] == long[1]
    assert short[1][b"retry-after"] == b"2"


def test_a_connection_goes_on_after_a_refusal(full):
    address, core = full
    with socket.create_connection(address, timeout=20) as c:
        for closed, status in ((True, 503), (True, 503), (False, 200), (True, 503), (False, 200)):
            (core.closed.set if closed else core.closed.clear)()
            c.sendall(ASK)
            assert received(c)[0][0] == status


def test_the_id_that_was_sent_comes_back(full):
    address, core = full
    core.closed.set()
    with_id = ASK.replace(b"Host:", b"X-Request-ID: abc-1\r\nHost:")
    assert answers(address, with_id)[0][1][b"x-request-id"] == b"abc-1"
    odd = ASK.replace(b"Host:", b"X-Request-Id: a\x01b\r\nHost:").replace(b"\x01", b"!")
    assert answers(address, odd)[0][1][b"x-request-id"] != b"a!b"


def test_refusals_are_counted(full):
    address, core = full
    core.closed.set()
    for _ in range(3):
        answers(address, ASK)
    text = core.metrics.text()[0].decode()
    assert 'fastrec_requests_total{method="POST",route="/recommend",status="503"} 3.0' in text
    assert 'fastrec_rejected_total{reason="queue_full"} 3.0' in text


CHUNKED = HEAD.replace(b"Content-Length: 22", b"Transfer-Encoding: chunked")


@pytest.mark.parametrize("reason", ["queue_full", "no_model"])
@pytest.mark.parametrize(
    "parts",
    [
        (ASK,),
        (ASK[:30], ASK[30:]),
        (HEAD[:60], HEAD[60:], BODY),
        (HEAD, BODY),
        (HEAD, BODY[:9], BODY[9:]),
        (CHUNKED, b"16\r\n" + BODY + b"\r\n", b"0\r\n\r\n"),
    ],
    ids=len,
)
def test_a_refused_request_counts_once_in_however_many_pieces_it_comes(full, parts, reason, monkeypatch):
    address, core = full
    if reason == "queue_full":
        monkeypatch.setattr(Batcher, "_stuck", property(lambda self: True))
    else:
        monkeypatch.setattr(core.engine, "check", lambda: (_ for _ in ()).throw(busy("[serve] no model")))
    for _ in range(2):
        assert answers(address, *parts)[0][0] == 503
    text = answers(address, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")[0][2].decode()
    assert f'fastrec_rejected_total{{reason="{reason}"}} 2.0' in text
    assert sum(float(n) for n in re.findall(r'requests_total{method="POST".*status="503"} (.*)', text)) == 2.0
    # The batcher steers the limit of the wait by its own count.
    assert sum(b._refused for b in core._batchers.values()) == (2 if reason == "queue_full" else 0)


@pytest.mark.parametrize(
    "sent",
    [
        ASK[:-1],
        ASK + b"x",
        ASK + ASK,
        ASK.replace(b"/recommend", b"/version"),
        ASK.replace(b"Length: 22", b"Length: 22\r\nContent-Length: 22"),
        ASK.replace(b"Content-Length: 22", b"Transfer-Encoding: chunked"),
        ASK.replace(b"Host", b"Expect: 100-continue\r\nHost"),
        ASK.replace(b"Host", b"Connection: close\r\nHost"),
        ASK.replace(b"Content-Length: 22\r\n", b""),
        ASK.replace(b"HTTP/1.1", b"HTTP/1.0"),
        b"\x00\r\n\r\n",
        b"POST /recommend HTTP/1.1\r\n",
    ],
)
def test_what_is_not_plainly_one_request_goes_to_the_parser(full, sent):
    _, core = full
    core.closed.set()

    async def refuse(data):
        return Door(core).refuse(data)

    assert asyncio.run(refuse(sent)) is None
    assert asyncio.run(refuse(ASK)).startswith(b"HTTP/1.1 503 ")
    core.closed.clear()
    assert asyncio.run(refuse(ASK)) is None


def test_two_requests_in_one_write_are_both_answered(full):
    address, core = full
    core.closed.set()
    assert [status for status, _, _ in answers(address, ASK + ASK, n=2)] == [503, 503]
    core.closed.clear()
    assert [status for status, _, _ in answers(address, ASK + ASK, n=2)] == [200, 200]
    assert core._batchers and all(b.coming == 0 for b in core._batchers.values())

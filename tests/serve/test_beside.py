"""A model in a process of its own: the same answers, and a front that outlives it."""

import asyncio
import json
import os
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from helpers import until
from serving import PLAIN, batch, gone

from fastrec import Client
from fastrec.client import ServerError
from fastrec.errors import ArtifactError, UnknownIdError
from fastrec.serve import ServeSettings
from fastrec.serve.beside import Beside
from fastrec.serve.calls import Answered, Call
from fastrec.serve.engine import Here
from fastrec.serve.model import load
from fastrec.serve.problems import Problem


def ready(http):
    return http.get("/health/ready").status_code == 200


def items_of(http, user, k=40):
    answer = http.post("/recommend", json={"users": [user], "k": k})
    assert answer.status_code == 200, answer.text
    return [row["item_id"] for row in answer.json()["results"][0]["items"]]


@pytest.fixture(params=["here", "beside"])
def engine(request, saved, tmp_path):
    """run(scenario) with a model in this process and in another, which has a store beside it."""
    folder = str(shutil.copytree(saved[0][0], tmp_path / "m"))
    settings = ServeSettings(store=str(tmp_path / "log.sqlite"), writes=2)

    def run(scenario):
        if request.param == "here":
            made = Here(load(folder, settings.store), settings.store, settings.writes)
        else:
            made = Beside(folder, settings)

        async def whole():
            await made.begin()
            try:
                await asyncio.wait_for(scenario(made), 60)
            finally:
                await made.close()

        try:
            asyncio.run(whole())
        finally:
            made.end()

    return run


def test_both_ways_to_a_model_are_one(engine, saved):
    rec = saved[0][1]

    async def scenario(engine):
        engine.check()
        facts = engine.facts
        assert facts.durable and facts.ints == {"user": False, "item": False} and len(facts.writes) == 4
        found = await batch(
            engine,
            [
                Call("recommend", ["u1"], 5, PLAIN),
                Call("similar_items", ["nothing"], 3, {"by": None, "where": None}),
                Call("recommend", ["u2"], 3, PLAIN, arrow=True),
            ],
        )
        assert isinstance(found, Answered) and found.seconds > 0
        first, wrong, arrow = found.results
        assert facts.version.encode() in first[0] and all(f'"{i}"'.encode() in first[0] for i in rec.recommend("u1", 5))
        assert isinstance(wrong, UnknownIdError) and wrong.ids == ["nothing"]
        assert arrow[1].endswith("arrow.stream")
        first = next(iter(rec.recommend("u1", 1)))
        counts = await engine.do("write", "update", [{"user_id": "u1", "item_id": first, "timestamp": 2e7}])
        assert sum(counts.values()) >= 1
        assert (await engine.do("view", "history", "u1", 1))[1]["events"][0]["item_id"] == first
        fresh, about = await engine.do("view", "about")
        assert fresh and about["model_version"] == facts.version and about["users"] == 60
        described = (await engine.do("view", "describe", ["i1", "nothing"]))[1]
        assert [one["title"] for one in described] == ["steel hammer tool number1", None]
        assert len((await engine.do("view", "map"))[1]["points"]) == 42
        one = Call("recommend", ["u3"], 5, {**PLAIN, "explain": True})
        as_it_is, _ = (await engine.do("view", "recommend", one, {}))[1]
        assert json.loads(as_it_is)["results"] == json.loads((await batch(engine, [one])).results[0][0])["results"]
        popular, _ = (await engine.do("view", "recommend", one, {"item_item": 0.0}))[1]
        assert json.loads(popular)["results"] != json.loads(as_it_is)["results"]
        with pytest.raises(UnknownIdError):
            await engine.do("view", "history", "no such user", 1)
        with pytest.raises(ArtifactError):
            await engine.do("reload", "/nothing/there")
        assert engine.facts == facts
        other = await engine.do("reload", str(saved[1][0]))
        assert engine.facts == other and other.version != facts.version
        await engine.do("catch_up")

    engine(scenario)


def test_many_things_at_once(engine):
    async def scenario(engine):
        one = Call("recommend", ["u1"], 3, PLAIN)
        writes = [engine.do("write", "update", [{"user_id": f"n{i}", "item_id": "i1"}]) for i in range(20)]
        await asyncio.gather(batch(engine, [one]), *writes)
        views = [engine.do("view", "history", f"n{i}", 5) for i in range(20)]
        searches = [engine.do("view", "search", "item", str(i), 5) for i in range(40)]
        _, *found = await asyncio.gather(batch(engine, [one]), *views, *searches)
        assert all(told["total"] == 1 for _, told in found[:20])
        assert [row["id"] for row in found[20 + 33][1]] == ["i33"]

    engine(scenario)


def test_what_is_asked_of_a_model_that_dies_or_is_away(saved, caplog):
    async def scenario(engine):
        await engine.begin()
        pid = engine._life.pid
        os.kill(pid, signal.SIGSTOP)  # so that both are under way when it dies
        asked = asyncio.ensure_future(batch(engine, [Call("recommend", ["u1"], 3, PLAIN)]))
        written = asyncio.ensure_future(engine.do("write", "update", [{"user_id": "u1", "item_id": "i1"}]))
        await asyncio.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        died = await asyncio.wait_for(asked, 10)
        assert died.status_code == 503 and int(died.headers["Retry-After"]) >= 1
        with pytest.raises(Problem) as interrupted:
            await written
        assert interrupted.value.status_code == 503 and interrupted.value.name == "interrupted"
        with pytest.raises(Problem):
            engine.check()
        with pytest.raises(Problem):
            await engine.do("view", "about")
        refused = await batch(engine, [Call("recommend", ["u1"], 3, PLAIN)])
        assert refused.status_code == 503 and int(refused.headers["Retry-After"]) >= 1
        came = asyncio.get_running_loop().create_future()
        engine.on_return = came.set_result
        assert (await asyncio.wait_for(came, 60)).version == engine.facts.version
        assert isinstance(await batch(engine, [Call("recommend", ["u1"], 3, PLAIN)]), Answered)
        await engine.close()
        assert gone(pid) and gone(engine._next.pid)

    engine = Beside(str(saved[0][0]), ServeSettings())
    try:
        asyncio.run(scenario(engine))
    finally:
        engine.end()
    assert "ended with -9" in caplog.text and "served again" in caplog.text


def test_who_dies_again_and_again_is_waited_for_longer(saved, monkeypatch, tmp_path, caplog):
    folder = shutil.copytree(saved[0][0], tmp_path / "m")
    pauses, real = [], asyncio.sleep

    async def sleep(seconds):
        pauses.append(seconds)
        await real(0)
        if len(pauses) == 8:  # the folder is back
            (tmp_path / "away").rename(folder)

    async def scenario(engine):
        await engine.begin()
        Path(folder).rename(tmp_path / "away")
        monkeypatch.setattr("fastrec.serve.beside.asyncio.sleep", sleep)
        came = asyncio.get_running_loop().create_future()
        engine.on_return = came.set_result
        os.kill(engine._life.pid, signal.SIGKILL)
        await asyncio.wait_for(came, 120)
        await engine.close()

    # Loading where there is nothing fails without a process: what is tried is the waiting.
    engine = Beside(str(folder), ServeSettings())
    try:
        asyncio.run(scenario(engine))
    finally:
        engine.end()
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert caplog.text.count("could not be loaded again") == 7 and "manifest.json" in caplog.text


def test_an_end_while_the_next_one_is_loading(saved):
    async def scenario(engine):
        await engine.begin()
        os.kill(engine._life.pid, signal.SIGKILL)
        before = engine._next
        while engine._next is before:
            await asyncio.sleep(0.05)
        await engine.close()

    engine = Beside(str(saved[0][0]), ServeSettings())
    try:
        asyncio.run(asyncio.wait_for(scenario(engine), 30))
    finally:
        engine.end()
    assert gone(engine._next.pid)


def test_a_model_process_that_dies_while_loading_is_one_error(saved, monkeypatch):
    monkeypatch.setattr("fastrec.serve.beside.sys.path", ["/nothing/there"])
    with pytest.raises(ArtifactError, match="ended with 1 while it loaded"):
        Beside(str(saved[0][0]), ServeSettings())


def test_a_killed_model_under_load(serve, saved, tmp_path):
    """kill -9 twice under load: 200s and 503s, the newest model and all events are there again."""
    server = serve(shutil.copytree(saved[0][0], tmp_path / "a"), "--target-ms", "10000")
    with httpx.Client(base_url=server.url, timeout=60) as http:
        version = http.post("/admin/reload", json={"path": str(saved[1][0])}).json()["model_version"]
        taken = items_of(http, "u1")[0]
        event = {"user_id": "u1", "item_id": taken, "timestamp": 20_000_000}
        assert http.post("/events", json=event).status_code == 202
        assert taken not in items_of(http, "u1")

        statuses, wrong, stop = [], [], threading.Event()

        def many(seed):
            with httpx.Client(base_url=server.url, timeout=60) as own:
                while not stop.is_set():
                    answer = own.post("/recommend", json={"users": [f"u{seed}"], "k": 5})
                    statuses.append(answer.status_code)
                    if answer.status_code == 503:
                        if int(answer.headers["retry-after"]) < 1:
                            wrong.append(answer.text)
                        stop.wait(0.02)
                    elif answer.json()["model_version"] != version:
                        wrong.append(answer.text)

        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(many, seed) for seed in range(4)]
            try:
                for _ in range(2):
                    before = statuses.count(200)
                    until(lambda: statuses.count(200) > before + 100, 60)  # noqa: B023
                    killed = server.model_process()
                    os.kill(killed, signal.SIGKILL)
                    until(lambda: not ready(http), 10)
                    assert http.get("/health/live").status_code == 200
                    assert http.get("/version").json()["model_version"] == version
                    assert http.post("/events", json=event).status_code == 503
                    assert http.get("/inspect/model").status_code == 503
                    until(lambda: ready(http), 60)
                    assert server.model_process() not in (killed, None)
                    assert taken not in items_of(http, "u1")
            finally:
                stop.set()
            for one in running:
                one.result(60)
        assert wrong == [] and set(statuses) == {200, 503}
        assert http.get("/health/ready").json() == {"status": "ready", "model_version": version, "durable": True}
        metrics = http.get("/metrics").text
        assert "fastrec_model_restarts_total 2.0" in metrics and 'rejected_total{reason="no_model"}' in metrics
    assert server.log().count("ended with -9") == 2 and "Traceback" not in server.log()
    last = server.model_process()
    assert server.end() == 0 and gone(last)


def test_signals_and_the_end_of_the_front(serve, saved):
    server = serve(saved[0][0])
    beside = server.model_process()
    with httpx.Client(base_url=server.url) as http:
        for sig in (signal.SIGTERM, signal.SIGINT):  # as they go to a whole group
            os.kill(beside, sig)
        items_of(http, "u1")
        assert server.model_process() == beside
    server.end(signal.SIGKILL)
    until(lambda: gone(beside), 10)


def test_a_front_that_is_killed_while_the_model_loads_leaves_nothing(serve, saved):
    server = serve(saved[0][0])
    os.kill(server.model_process(), signal.SIGKILL)
    until(lambda: server.model_process() is not None and "starts in" in server.log(), 30)
    loading = server.model_process()
    server.end(signal.SIGKILL)
    until(lambda: gone(loading), 20)


def test_one_process_where_that_is_asked_for(serve, saved):
    server = serve(saved[0][0], "--no-model-process")
    with httpx.Client(base_url=server.url) as http:
        items_of(http, "u1")
    assert server.model_process() is None
    assert server.end() == 0


def test_each_worker_has_a_model_process_of_its_own(serve, saved):
    server = serve(saved[0][0], "--workers", "2")

    def models():
        return [server.model_process(worker) for worker in server.children()]

    until(lambda: len(models()) == 2 and None not in models(), 60)
    with httpx.Client(base_url=server.url, timeout=60) as http:
        until(lambda: ready(http), 60)
    first, other = models()
    os.kill(first, signal.SIGKILL)
    until(lambda: None not in models() and first not in models(), 60)
    assert models()[1] == other
    last = [*models(), *server.children()]
    assert server.end() == 0
    assert all(gone(pid) for pid in last)


def test_an_event_whose_fate_is_unknown_is_not_sent_again():
    sent = []

    def answer(request):
        sent.append(request.url.path)
        problem = {"type": "urn:fastrec:problem:interrupted", "status": 503, "detail": "[serve] ended"}
        return httpx.Response(503, json=problem, headers={"Retry-After": "0"})

    client = Client("http://localhost", retries=2)
    client._http = httpx.Client(base_url="http://localhost", transport=httpx.MockTransport(answer))
    with pytest.raises(ServerError, match="ended"):
        client.update({"user_id": "u1", "item_id": "i1"})
    with pytest.raises(ServerError, match="ended"):
        client.reload("/models/too-large")
    with pytest.raises(ServerError, match="ended"):
        client.erase_users("u1")
    assert sent == ["/events", "/admin/reload"] + 3 * ["/users/u1"]

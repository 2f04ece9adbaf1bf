"""What goes wrong around the model stays with the one request, and what is under way at an exchange is not lost."""

import asyncio
import os
import shutil
import threading

import pytest
from serving import PLAIN, batch, gone

from fastrec import inside
from fastrec.serve import ServeSettings
from fastrec.serve.beside import Beside
from fastrec.serve.calls import Answered, Call
from fastrec.serve.host import Host
from fastrec.serve.model import load

ODD = """
import fastrec.serve.calls as calls

class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} {two}")

def made(model, asked, real=calls._made):
    if asked[0].subjects == ["odd"]:
        raise Odd(1, 2)
    return real(model, asked)

calls._made = made
"""


def run(saved, scenario):
    """The scenario over an engine of the first saved model, which ends whatever happens."""
    engine = Beside(str(saved[0][0]), ServeSettings())
    try:
        asyncio.run(scenario(engine))
    finally:
        engine.end()


def test_a_bug_in_a_batch_does_not_end_the_model(saved, monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(ODD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("FASTREC_API_KEY", "secret")
    monkeypatch.setenv("FASTREC_ADMIN_KEY", "secret")

    async def scenario(engine):
        await engine.begin()
        pid = engine._life.pid
        with open(f"/proc/{pid}/environ") as variables:  # it answers no HTTP, and needs no key of it
            assert "secret" not in variables.read()
        found = await batch(engine, [Call("recommend", ["u1"], 3, PLAIN), Call("recommend", ["odd"], 20, PLAIN)])
        first, wrong = found.results
        assert saved[0][1].recommend("u1", 1).items[0] in first[0].decode()
        assert str(wrong) == "Odd: 1 2" and "in made" in wrong.__notes__[0]
        assert engine._life.pid == pid and not gone(pid)
        await engine.close()

    run(saved, scenario)


def test_what_cannot_be_written_leaves_nothing_behind(saved):
    deep = []
    for _ in range(100_000):
        deep = [deep]

    async def scenario(engine):
        await engine.begin()
        for _ in range(2):
            with pytest.raises(RecursionError):
                await engine.do("write", "add_items", [{"item_id": "x", "a": deep}])
            with pytest.raises(RecursionError):
                engine.submit([Call("recommend", [deep], 3, PLAIN)], print)
        assert engine._life._waiting == {}
        assert isinstance(await batch(engine, [Call("recommend", ["u1"], 3, PLAIN)]), Answered)
        await engine.close()

    run(saved, scenario)


@pytest.fixture
def host(saved, tmp_path):
    folder = str(shutil.copytree(saved[0][0], tmp_path / "m"))
    store = str(tmp_path / "log.sqlite")
    return Host(load(folder, store), store)


def test_a_write_that_an_exchange_overtakes_is_in_the_new_model(host, saved, monkeypatch):
    begun, go = threading.Event(), threading.Event()
    old = host.current.recommender
    update = old.update

    def slow(rows):
        begun.set()
        assert go.wait(20)
        return update(rows)

    monkeypatch.setattr(old, "update", slow)
    event = {"user_id": "overtaken", "item_id": "i1"}
    writing = threading.Thread(target=host.write, args=("update", [event]))
    writing.start()
    assert begun.wait(20)
    host.reload(str(saved[1][0]))
    go.set()
    writing.join(20)
    assert host.current.recommender is not old
    assert host.view("history", "overtaken", 5)[1]["total"] == 1


def test_an_exchange_is_told_though_the_store_fails_after_it(host, saved, monkeypatch, caplog):
    def fails(recommender):
        raise OSError("disk")

    monkeypatch.setattr(inside, "catch_up", fails)
    assert host.reload(str(saved[1][0])).version == host.current.facts.version
    assert "disk" in caplog.text


def test_exchanges_leave_no_files_open_and_no_old_model(host, saved):
    def files():
        return len(os.listdir("/proc/self/fd"))

    host.view("about")
    host.reload(str(saved[1][0]))
    before = files()
    for _ in range(6):
        host.view("about")
        host.reload(str(saved[1][0]))
    assert files() <= before + 2
    assert host._views is None  # they would hold the old one

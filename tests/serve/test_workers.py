"""How a worker follows the others; that several of them run is in test_server.py."""

import asyncio
from types import SimpleNamespace

import pytest

from fastrec.errors import ArtifactError
from fastrec.serve import ServeSettings
from fastrec.serve.problems import busy
from fastrec.serve.workers import Note, follow


class Worker:
    """A worker whose model does what ``wrong`` says."""

    def __init__(self):
        self.wrong, self.followed, self.caught_up, self.away = None, [], 0, False
        self.settings = ServeSettings(store="somewhere")
        self.engine = SimpleNamespace(check=self.check, do=self.do)

    def check(self):
        if self.away:
            raise busy("[serve] away")

    async def do(self, what):
        assert what == "catch_up"
        self.caught_up += 1

    async def follow(self, folder):
        self.followed.append(folder)
        if self.wrong is not None:
            raise self.wrong


def looks(worker, note, times=3):
    for _ in range(times):
        asyncio.run(follow(worker, note))


def test_a_reload_is_told_to_the_others_and_not_to_oneself(tmp_path):
    mine, other = Note(str(tmp_path)), Note(str(tmp_path))
    worker = Worker()
    looks(worker, other)
    mine.tell("/models/b")
    assert mine.news() is None
    looks(worker, other)
    assert worker.followed == ["/models/b"] and worker.caught_up == 5
    assert Note(str(tmp_path)).folder == "/models/b"  # a worker that is started later begins with it
    mine.tell("/models/b")  # the folder has another model by now
    looks(worker, other)
    assert worker.followed == ["/models/b", "/models/b"]


def test_what_is_told_while_the_model_is_away_is_not_missed(tmp_path):
    mine, other = Note(str(tmp_path)), Note(str(tmp_path))
    worker = Worker()
    worker.away = True
    mine.tell("/models/b")
    looks(worker, other)
    assert worker.followed == [] and worker.caught_up == 0
    worker.away, worker.wrong = False, busy("[serve] it died over the reload")
    looks(worker, other, 2)
    worker.wrong = None
    looks(worker, other)
    assert worker.followed == ["/models/b"] * 3 and worker.caught_up == 2


def test_a_model_that_cannot_be_loaded_is_tried_once(tmp_path):
    mine, other = Note(str(tmp_path)), Note(str(tmp_path))
    worker = Worker()
    worker.wrong = ArtifactError("[load] damaged")
    mine.tell("/models/b")
    with pytest.raises(ArtifactError):
        looks(worker, other, 1)
    looks(worker, other)
    assert worker.followed == ["/models/b"]

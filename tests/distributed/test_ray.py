"""On a real Ray on this machine: the results of the embedded path, to the last bit, and after an actor was killed."""

import dataclasses
import os
import signal
import threading
import time
import warnings

import numpy as np
import pytest
from helpers import hash_encoder

import fastrec
from fastrec import Recommender, batch, encode, reranking
from fastrec.errors import BackendUnavailable, ConfigError
from fastrec.types import Candidates

ray = pytest.importorskip("ray", reason="the extra 'distributed' is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # those of Ray are not ours

from fastrec.distributed import RayEncoder, ShardedCatalogue, recommend_all  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Two CPUs, no dashboard, a small store of objects."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        here = os.path.dirname(__file__)
        ray.init(
            num_cpus=2,
            object_store_memory=100 << 20,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            runtime_env={"env_vars": {"PYTHONPATH": os.path.dirname(here), "PYTHONWARNINGS": "ignore"}},
        )
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def saved(rec, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ray") / "model"
    rec.save(folder)
    return folder


def files(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_all_users_by_two_actors_of_which_one_is_killed(rec, saved, tmp_path, monkeypatch):
    rec.recommend_all(tmp_path / "embedded", 7, users_per_part=4, deny=["i1"])
    victims = []
    init = fastrec.distributed.pool.Pool.__init__

    def noted(self, *arguments, **keywords):
        init(self, *arguments, **keywords)
        victims.append(self)

    def kill():
        while not any((tmp_path / "ray").glob("part-*")):
            time.sleep(0.005)
        pid = ray.get(victims[0].actors[0].__ray_call__.remote(lambda self: os.getpid()))
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    killed = []
    monkeypatch.setattr(fastrec.distributed.pool.Pool, "__init__", noted)
    killer = threading.Thread(target=kill)
    killer.start()
    counts = recommend_all(saved, tmp_path / "ray", 7, users_per_part=4, deny=["i1"], progress=False)
    killer.join()
    assert counts == {"users": 60, "parts": 15, "written": 15} and killed
    assert files(tmp_path / "ray") == files(tmp_path / "embedded")
    # Each goes on with what the other began.
    for number in (1, 7):
        (tmp_path / "ray" / batch.part_name(number)).unlink()
    assert rec.recommend_all(tmp_path / "ray", 7, users_per_part=4, deny=["i1"])["written"] == 2
    assert files(tmp_path / "ray") == files(tmp_path / "embedded")
    with pytest.raises(ConfigError, match="begun with k=7"):
        recommend_all(saved, tmp_path / "ray", 8, users_per_part=4, deny=["i1"])


def test_a_catalogue_in_shards_before_and_after_a_kill(rec, saved):
    users = rec.user_ids
    with ShardedCatalogue(saved, shards=2) as catalogue:
        for k, filter_seen in ((1, True), (10, True), (10, False), (60, True)):
            got, want = (one.recommend(users, k, filter_seen=filter_seen) for one in (catalogue, rec))
            np.testing.assert_array_equal(got.items, want.items)
            np.testing.assert_array_equal(got.scores, want.scores)
        pid = ray.get(catalogue._pool.actors[1].__ray_call__.remote(lambda self: os.getpid()))
        os.kill(pid, signal.SIGKILL)
        np.testing.assert_array_equal(catalogue.recommend(users, 9).items, rec.recommend(users, 9).items)
        again = ray.get(catalogue._pool.actors[1].__ray_call__.remote(lambda self: os.getpid()))
        assert again != pid
    with pytest.raises(ConfigError, match="shards=99 for 42 items"):
        ShardedCatalogue(saved, shards=99)
    with pytest.raises(ConfigError, match="has room for 2"):
        ShardedCatalogue(saved, shards=3)
    with pytest.raises(ConfigError, match="shards=0"):
        ShardedCatalogue(saved, shards=0)


def test_actors_for_which_there_is_no_room_are_not_waited_for(saved, tmp_path, monkeypatch):
    with ShardedCatalogue(saved, shards=2):
        monkeypatch.setattr(fastrec.distributed.pool, "_PATIENCE", 0.5)
        with pytest.raises(ConfigError, match="others hold some of it"):
            recommend_all(saved, tmp_path / "out", workers=1, progress=False)
    monkeypatch.undo()
    assert recommend_all(saved, tmp_path / "out", workers=1, progress=False)["written"] == 1


class Reversed:
    """A last stage that turns the best five around."""

    candidates, weight = 5, 1.0


def test_shards_speak_for_silent_users_and_have_the_last_stage(saved, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(20), 8)
    kinds = np.where(users == 3, "dislike", "view").tolist()
    events = {"user_id": users, "item_id": rng.integers(0, 30, 160), "event": kinds}
    rec = Recommender(encoder=None, models=["item_item", "als"], progress=False).fit(events)
    rec.save(tmp_path / "m")
    with ShardedCatalogue(tmp_path / "m", shards=2) as catalogue:
        for turned in (False, True):
            if turned:
                monkeypatch.setattr(
                    reranking, "apply", lambda r, c, h, found: (turn(found), np.zeros((len(found.rows), 5)))
                )
                rec._live.state = dataclasses.replace(rec._live.state, rerank=Reversed())
                catalogue._state = dataclasses.replace(catalogue._state, rerank=Reversed())
            for k, filter_seen in ((3, True), (7, False), (40, True)):
                got, want = (one.recommend(range(20), k, filter_seen=filter_seen) for one in (catalogue, rec))
                np.testing.assert_array_equal(got.items, want.items)
                np.testing.assert_array_equal(got.scores, want.scores)


def turn(found):
    order = np.r_[4:-1:-1, 5 : found.rows.shape[1]]
    return Candidates(found.rows[:, order], found.scores[:, order])


def test_texts_are_encoded_by_actors(events, items, monkeypatch):
    monkeypatch.setattr(fastrec.distributed.encode, "_CHUNK", 5)
    encoder = RayEncoder(hash_encoder, workers=2)
    texts = [*(f"text {i}" for i in range(23)), "", "text 3", None]
    try:
        want = encode.as_encoder(hash_encoder).encode(texts)
        np.testing.assert_array_equal(encoder.encode(texts), want)
        pid = ray.get(encoder.pool.actors[0].__ray_call__.remote(lambda self: os.getpid()))
        os.kill(pid, signal.SIGKILL)
        ours = Recommender(encoder=encoder, models=["popularity", "content"]).fit(events, items)
    finally:
        encoder.close()
    want = Recommender(encoder=hash_encoder, models=["popularity", "content"]).fit(events, items)
    np.testing.assert_array_equal(ours.item_vectors(ours.item_ids), want.item_vectors(want.item_ids))
    with pytest.raises(ConfigError, match="workers=0"):
        RayEncoder(hash_encoder, workers=0)


def test_what_a_task_raises_is_raised_here(monkeypatch):
    monkeypatch.setattr(fastrec.distributed.pool, "_TRIES", 0)

    def broken(texts):
        raise KeyError("no such text")

    def deadly(texts):
        os._exit(1)

    for function, error, message in (
        (broken, KeyError, "no such text"),
        (deadly, BackendUnavailable, "an actor died 1 times over one task"),
    ):
        encoder = RayEncoder(function, workers=1)
        with pytest.raises(error, match=message):
            encoder.encode(["a"])
        encoder.close()

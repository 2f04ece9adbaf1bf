"""What is erased is gone, and what was acknowledged comes back to the same bits."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import everything, hash_encoder
from mix import run
from servers import RedisServer, redis_server

from fastrec import ArtifactError, UnknownIdError, load

ONE = {"user_id": "u1", "item_id": "i3"}


# ---- erasing


def test_an_erased_user_is_nobody(fit):
    rec, other = fit(), fit(store=None)
    rec.update([{"user_id": "ghost", "item_id": f"i{i}"} for i in range(5)])
    got = rec.erase_users(["ghost", "never"])
    assert got == {"users": 1, "events": 5, "records": 5}
    other.update({"user_id": "u1", "item_id": "i1"})  # wakes the counts
    rec.update({"user_id": "u1", "item_id": "i1"})
    assert "ghost" not in rec.user_ids
    with pytest.raises(UnknownIdError):
        rec.recommend("ghost", on_unknown="raise")
    np.testing.assert_array_equal(rec.recommend("nobody", 42).items, other.recommend("nobody", 42).items)
    rec.update({"user_id": "ghost", "item_id": "i2"})
    assert "i1" in rec.recommend("ghost", 50).items.tolist(), "who comes back begins anew"


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("redis", marks=redis_server)])
def test_after_erasing_no_file_holds_the_user(fit, tmp_path, kind):
    server = RedisServer(tmp_path) if kind == "redis" else None
    log = server.url if server else tmp_path / "log.sqlite"
    try:
        rec = fit(store=log, cache_dir=tmp_path / "cache")
        words = "a-very-private-remark"
        rec.update([{"user_id": "ghost-7", "item_id": f"i{i}", "text": words} for i in range(30)])
        rec.update({"user_id": "somebody-else", "item_id": "i1"})
        rec.save(tmp_path / "m")
        everywhere = lambda: b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())  # noqa: E731
        assert b"ghost-7" in everywhere() and words.encode() in everywhere()
        rec.erase_users(["ghost-7", "u5"])
        rec.save(tmp_path / "m")
        assert b"ghost-7" not in everywhere() and words.encode() not in everywhere()
        assert b"u4" in everywhere() and b"somebody-else" in everywhere()
        model = load(tmp_path / "m", encoder=hash_encoder, store=log)
        assert "u5" not in model.user_ids and "ghost-7" not in model.user_ids
        assert everything(model) == everything(rec)
        for one in (rec, model):
            one._store.close()
    finally:
        if server:
            server.kill()


def test_nothing_about_a_user_is_logged(fit, caplog):
    rec = fit()
    with caplog.at_level("DEBUG"):
        rec.update({"user_id": "ghost-7", "item_id": "i1", "text": "private words"})
        rec.recommend("ghost-7")
        rec.erase_users("ghost-7")
    assert "ghost-7" not in caplog.text and "private" not in caplog.text


# ---- coming back


def changes(rec):
    """A bit of everything; each step is acknowledged when it returns."""
    yield rec.update({"user_id": "u1", "item_id": "i40", "timestamp": 2e7})
    yield rec.add_items({"item_id": ["n1", "n2"], "title": ["steel hammer", "red apple"], "price": [1.0, 2.0]})
    yield rec.update([{"user_id": f"x{i}", "item_id": f"n{1 + i % 2}", "timestamp": 2e7 + i} for i in range(9)])
    yield rec.remove_items(["i7", "n2"])
    yield rec.erase_users(["x3", "u9"])
    yield rec.update({"user_id": "u2", "item_id": "n1", "timestamp": 9e7})
    yield rec.add_items({"item_id": ["n2", "n3"], "title": ["red apple", "green pear"]})
    yield rec.update({"user_id": "x3", "item_id": "n3", "timestamp": 9.1e7})


def test_snapshot_and_log_give_the_same_bits(fit, tmp_path):
    rec = fit()
    rec.save(tmp_path / "m0")
    for step, _ in enumerate(changes(rec), 1):
        rec.save(tmp_path / f"m{step}")
    want = everything(rec)
    for step in range(9):
        again = load(tmp_path / f"m{step}", encoder=hash_encoder, store=tmp_path / "log.sqlite")
        assert everything(again) == want, step


def test_two_processes_on_one_log_agree(fit, tmp_path):
    rec = fit()
    rec.save(tmp_path / "m")
    other = load(tmp_path / "m", encoder=hash_encoder, store=tmp_path / "log.sqlite")
    for _ in changes(rec):
        other.update({"user_id": "u30", "item_id": "i8", "timestamp": 3e7})
    rec.update({"user_id": "u31", "item_id": "i9", "timestamp": 3e7})
    other.update({"user_id": "u31", "item_id": "i11", "timestamp": 4e7})
    rec.update({"user_id": "u31", "item_id": "i13", "timestamp": 5e7})
    other.update({"user_id": "u32", "item_id": "i8", "timestamp": 6e7})
    rec.update({"user_id": "u33", "item_id": "i9", "timestamp": 6e7})
    other._live.replay()
    assert everything(rec) == everything(other)


def test_another_log_is_refused(fit, tmp_path):
    rec = fit()
    rec.update(ONE)
    rec.save(tmp_path / "m")
    with pytest.raises(ArtifactError, match="ends at version 0, the model is at 1"):
        load(tmp_path / "m", encoder=hash_encoder, store=tmp_path / "other.sqlite")


SERVER = """
import json, sys
sys.path.insert(0, sys.argv[1])
from helpers import hash_encoder
from fastrec import load
folder, log, start = sys.argv[2:]
rec = load(folder, encoder=hash_encoder, store=log)
print(json.dumps("ready"), flush=True)
i = int(start)
while True:
    rec.update({"user_id": f"k{i % 7}", "item_id": f"i{i % 40}", "timestamp": 2e7 + i})
    print(json.dumps(["event", i]), flush=True)
    if i % 5 == 0:
        rec.add_items({"item_id": [f"n{i}"], "title": [f"steel hammer number{i}"]})
        print(json.dumps(["item", i]), flush=True)
    if i % 9 == 0:
        rec.save(folder)
    i += 1
"""


@pytest.mark.slow
def test_kill_9_under_load_loses_nothing_acknowledged(fit, tmp_path):
    rounds = 20
    rec = fit()
    folder, log = tmp_path / "m", tmp_path / "log.sqlite"
    rec.save(folder)
    rec._store.close()
    start, rng = 0, np.random.default_rng(0)
    for _ in range(rounds):
        command = [sys.executable, "-c", SERVER, str(Path(__file__).parent), str(folder), str(log), str(start)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert json.loads(child.stdout.readline()) == "ready"
        lines = [json.loads(child.stdout.readline()) for _ in range(int(rng.integers(1, 30)))]
        child.send_signal(signal.SIGKILL)
        lines += [json.loads(line) for line in child.communicate()[0].split(b"\n")[:-1]]
        start = max(i for _, i in lines) + 1
        again = load(folder, encoder=hash_encoder, store=log)
        mine = {kind: {i for k, i in lines if k == kind} for kind in ("event", "item")}
        for i in mine["event"]:
            seen = again.recommend(f"k{i % 7}", 99).items.tolist()
            assert f"i{i % 40}" not in seen, f"event {i} was acknowledged and is lost"
        assert {f"n{i}" for i in mine["item"]} <= set(again.item_ids)
        again._store.close()
    # What never died and was told the same comes to the same.
    recovered = load(folder, encoder=hash_encoder, store=log)
    whole = fit(store=None)
    whole._live._apply(recovered._store.since(0), recovered._store.version)
    assert everything(whole) == everything(recovered)


@pytest.mark.parametrize("durable", [False, True])
def test_eight_threads_of_everything(tmp_path, durable):
    calls, wrong, mix = run(5.0, tmp_path / "log.sqlite" if durable else None)
    assert wrong == []
    assert all(calls.get(kind) for kind in ("update", "recommend", "several", "items", "erase"))
    rec = mix.rec
    if durable:  # and what they did together can be done again
        rec.save(tmp_path / "m")
        again = load(tmp_path / "m", encoder=hash_encoder, store=tmp_path / "log.sqlite")
        assert everything(again, 10) == everything(rec, 10)


@redis_server
def test_processes_share_a_redis_log(fit, tmp_path):
    server = RedisServer(tmp_path)
    try:
        rec = fit(store=server.url)
        rec.save(tmp_path / "m")
        for _ in changes(rec):
            pass
        again = load(tmp_path / "m", encoder=hash_encoder, store=server.url)
        assert everything(again) == everything(rec)
        server.kill()
        server.start()
        back = load(tmp_path / "m", encoder=hash_encoder, store=server.url)
        assert everything(back) == everything(again)
        for one in (rec, again, back):
            one._store.close()
    finally:
        server.kill()

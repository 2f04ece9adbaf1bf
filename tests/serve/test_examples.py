"""The examples run as they stand."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def module(path, monkeypatch, model):
    monkeypatch.setenv("MODEL", str(model))
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_fastapi_mounts_the_app(asgi, saved, monkeypatch):
    folder, rec = saved[0]
    app = module(EXAMPLES / "fastapi_app.py", monkeypatch, folder).app
    assert asgi(app, "GET", "/hello/u1").json() == {"for you": list(rec.recommend("u1", 3))}
    answer = asgi(app, "POST", "/rec/recommend", json={"users": ["u1"], "k": 3})
    assert [r["item_id"] for r in answer.json()["results"][0]["items"]] == list(rec.recommend("u1", 3))
    assert "inspector" in asgi(app, "GET", "/rec/").text
    # Rules and limits hold below the mount, too.
    assert asgi(app, "POST", "/rec/recommend", json={"users": ["u1"]}, client="192.0.2.1").status_code == 403


def test_flask(saved, monkeypatch):
    pytest.importorskip("flask")
    folder, rec = saved[0]
    client = module(EXAMPLES / "flask_app.py", monkeypatch, folder).app.test_client()
    got = client.get("/recommend/u1?k=3").get_json()
    assert [r["item_id"] for r in got] == list(rec.recommend("u1", 3))
    assert client.get("/recommend/nobody").status_code == 404
    assert client.get("/recommend/u1?k=0").status_code == 400


def test_the_batch_job(saved, tmp_path):
    folder, rec = saved[0]
    out = tmp_path / "out.parquet"
    subprocess.run([sys.executable, str(EXAMPLES / "batch_job.py"), str(folder), str(out), "4"], check=True)
    assert pq.read_table(out).equals(rec.recommend(rec.user_ids, 4).to_arrow())


def test_the_triton_model(saved, monkeypatch):
    folder, rec = saved[0]
    model = module(EXAMPLES / "triton_models" / "fastrec" / "1" / "model.py", monkeypatch, folder).TritonPythonModel()
    model.initialize({"model_config": f'{{"parameters": {{"model": {{"string_value": "{folder}"}}}}}}'})
    items, scores = model.recommend(["u1", "nobody"])
    want = rec.recommend(["u1", "nobody"], 10)
    assert [[i.decode() or None for i in row] for row in items] == want.items.tolist()
    assert scores.tolist() == want.scores.tolist()


RAY = """
import json, sys, urllib.request
import ray
from ray import serve
import ray_serve_app
port, k = int(sys.argv[1]), 3
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", _temp_dir=sys.argv[2])
try:
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    handle = serve.run(ray_serve_app.app, route_prefix="/rec")
    url = f"http://127.0.0.1:{port}/rec"
    def post(path, body):
        asked = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return json.load(answer)
    pending = [handle.recommend.remote(f"u{u}") for u in range(60)]
    lists = [one.result(timeout_s=60) for one in pending]
    told = post("/recommend", {"users": ["u1"], "k": 3})
    post("/events", {"user_id": "u1", "item_id": told["results"][0]["items"][0]["item_id"]})
    again = post("/recommend", {"users": ["u1"], "k": 3})
    with urllib.request.urlopen(url + "/health/ready", timeout=60) as answer:
        health = json.load(answer)
    print("FOUND", json.dumps([told, again, health, lists]))
finally:
    serve.shutdown()
    ray.shutdown()
"""


@pytest.mark.slow
def test_ray_serve(saved, tmp_path):
    pytest.importorskip("ray.serve", reason="ray is absent: extra 'ray'")
    folder, rec = saved[0]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "MODEL": str(folder), "PYTHONPATH": str(EXAMPLES), "RAY_USAGE_STATS_ENABLED": "0"}
    short = tempfile.mkdtemp(prefix="r")  # Ray's sockets lie there, and their paths may not be long
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", RAY, str(port), short],
            capture_output=True, text=True, env=env, cwd=tmp_path, timeout=240,
        )  # fmt: skip
    finally:
        shutil.rmtree(short, ignore_errors=True)
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(x for x in done.stdout.splitlines() if x.startswith("FOUND "))
    told, again, health, lists = json.loads(line.removeprefix("FOUND "))
    first = [r["item_id"] for r in told["results"][0]["items"]]
    assert first == list(rec.recommend("u1", 3))
    assert first[0] not in [r["item_id"] for r in again["results"][0]["items"]]
    assert health["status"] == "ready"
    assert lists == [list(rec.recommend(f"u{u}", 10).items) for u in range(60)]


def test_a_forked_worker_answers_with_the_app_of_its_parent(saved, asgi):
    # As gunicorn --preload does: the model is loaded, the app is made and even used, then the process forks.
    from fastrec.serve import ServeSettings, app

    made = app(saved[0][1], ServeSettings(target=60.0))

    def answer():
        return asgi(made, "POST", "/recommend", json={"users": ["u1"], "k": 3}).json()

    want = answer()
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if answer() == want else 3)
        finally:
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert answer() == want

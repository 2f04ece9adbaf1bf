"""A real server: exchange of the model, the end, several processes."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from helpers import until

USERS = [f"u{i}" for i in range(60)]


def ask(http, user, k=5):
    return http.post("/recommend", json={"users": [user], "k": k})


def test_requests_during_ten_swaps_each_get_one_whole_model(serve, saved):
    server = serve(saved[0][0], "--target-ms", "10000")
    beside = server.model_process()
    assert beside is not None
    with httpx.Client(base_url=server.url) as http:
        want = {}
        for folder, rec in saved:
            version = http.post("/admin/reload", json={"path": str(folder)}).json()["model_version"]
            found = rec.recommend(USERS, 5)
            want[version] = {
                u: [i for i in row if i is not None] for u, row in zip(USERS, found.items.tolist(), strict=True)
            }
        assert len(want) == 2
        a, b = want.values()
        assert all(a[u] != b[u] for u in USERS)

        counted, stop = [], threading.Event()

        def many(seed):
            with httpx.Client(base_url=server.url) as own:
                for i in range(10**6):
                    user = USERS[(seed + i) % 60]
                    answer = ask(own, user)
                    assert answer.status_code == 200, answer.text
                    told = answer.json()
                    got = [r["item_id"] for r in told["results"][0]["items"]]
                    assert got == want[told["model_version"]][user]
                    counted.append(told["model_version"])
                    if stop.is_set():
                        return

        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(many, 7 * seed) for seed in range(4)]
            try:
                for swap in range(10):
                    answer = http.post("/admin/reload", json={"path": str(saved[swap % 2][0])}, timeout=60)
                    assert answer.status_code == 200, answer.text
                until(lambda: len(counted) >= 1000 or any(r.done() for r in running), 120)
            finally:
                stop.set()
            for one in running:
                one.result(60)
        assert len(counted) >= 1000 and set(counted) == set(want)
        assert server.model_process() == beside and "served again" not in server.log()
    assert server.end() == 0


def test_what_is_written_lies_beside_the_model_and_not_in_it(serve, saved, tmp_path):
    folder = shutil.copytree(saved[0][0], tmp_path / "m")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    for again in (False, True):  # the next server of this folder finds it
        server = serve(folder)
        with httpx.Client(base_url=server.url) as http:
            if not again:
                assert http.get("/health/ready").json()["durable"] is True
                assert http.post("/items", json={"item_id": "later", "title": "a"}).json()["added"] == 1
            found = http.post("/recommend", json={"users": ["u1"], "allow": ["later"]}).json()["results"][0]["items"]
            assert [one["item_id"] for one in found] == ["later"]
        assert server.end() == 0
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert any(p.name.startswith("m.events") for p in tmp_path.iterdir())


def test_a_bad_model_changes_nothing(serve, saved, tmp_path):
    server = serve(saved[0][0])
    with httpx.Client(base_url=server.url) as http:
        before = http.get("/version").json()["model_version"]
        (tmp_path / "broken").mkdir()
        for name, content in (("manifest.json", "{"), ("manifest.json", '{"sha256": "0"}')):
            (tmp_path / "broken" / name).write_text(content)
            answer = http.post("/admin/reload", json={"path": str(tmp_path / "broken")})
            assert answer.status_code == 400 and answer.json()["type"].endswith("bad-artifact")
        assert http.post("/admin/reload", json={"path": "/nothing/there"}).status_code == 400
        assert http.get("/version").json()["model_version"] == before
        assert ask(http, "u1").status_code == 200


def test_sigterm_under_load_loses_no_request_that_was_taken(serve, saved):
    server = serve(saved[0][0], "--target-ms", "10000")
    lost, answered = [], []
    beside = server.model_process()
    assert beside is not None
    started = threading.Event()

    def many(seed):
        with httpx.Client(base_url=server.url) as own:
            for i in range(10**6):
                try:
                    answer = ask(own, USERS[(seed + i) % 60])
                except httpx.ConnectError:
                    return  # refused: the server takes no more
                except httpx.TransportError as error:
                    lost.append(repr(error))
                    return
                assert answer.status_code == 200, answer.text
                answered.append(1)
                if len(answered) > 100:
                    started.set()

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(many, seed) for seed in range(8)]
        assert started.wait(60)
        code = server.end(signal.SIGTERM)
        for one in running:
            one.result(60)
    assert code == 0
    assert lost == []
    assert not os.path.exists(f"/proc/{beside}/fd/0")


def test_workers_share_the_reload_and_the_metrics(serve, saved):
    server = serve(saved[0][0], "--workers", "2")

    def version():
        with httpx.Client(base_url=server.url, timeout=60) as http:  # a new connection may meet another worker
            return ask(http, "u1").json()["model_version"]

    first = version()
    with httpx.Client(base_url=server.url, timeout=60) as http:
        second = http.post("/admin/reload", json={"path": str(saved[1][0])}).json()["model_version"]
        assert first != second
        until(lambda: all(version() == second for _ in range(20)), 60)
        # All requests of both workers, whichever answers.
        text = http.get("/metrics").text
        line = next(x for x in text.splitlines() if x.startswith("fastrec_requests_total") and '"/recommend"' in x)
        assert float(line.split()[-1]) >= 21
    assert server.end() == 0


def test_a_dead_worker_is_replaced(serve, saved):
    server = serve(saved[0][0], "--workers", "2")
    with httpx.Client(base_url=server.url, timeout=60) as http:
        assert ask(http, "u1").status_code == 200
    workers = server.children()
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)

    def answered():
        with httpx.Client(base_url=server.url, timeout=30) as http:
            return ask(http, "u1").status_code == 200

    until(lambda: len(server.children()) == 2 and workers[0] not in server.children(), 60)
    assert all(answered() for _ in range(10))
    left = server.children()
    server.end(signal.SIGKILL)  # the workers do not outlive the one who watches them
    until(lambda: not any(os.path.exists(f"/proc/{pid}/fd/0") for pid in left), 60)


@pytest.mark.parametrize(
    ("arguments", "env", "message"),
    [
        (["--host", "0.0.0.0"], {}, "FASTREC_API_KEY"),
        (["--port", "70000"], {}, "port=70000"),
        (["--workers", "0"], {}, "workers=0"),
        (["--rate", "-1"], {}, "rate=-1"),
        (["--host", "0.0.0.0"], {"FASTREC_API_KEY": "read:"}, "read:KEY"),
    ],
    ids=str,
)
def test_bad_arguments_are_one_line_and_exit_code_2(saved, arguments, env, message):
    own = {n: v for n, v in os.environ.items() if not n.startswith("FASTREC_A")} | env
    done = subprocess.run(
        [sys.executable, "-m", "fastrec", "serve", str(saved[0][0]), *arguments],
        capture_output=True,
        text=True,
        env=own,
        timeout=60,
    )
    assert done.returncode == 2
    assert message in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_missing_model_and_a_taken_port(saved, tmp_path, server):
    for arguments, message in (
        ([str(tmp_path / "nothing")], "manifest.json"),
        ([str(saved[0][0]), "--port", str(server.address[1])], "cannot listen"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "fastrec", "serve", *arguments], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr


def test_with_a_key_the_server_may_be_open(serve, saved):
    server = serve(saved[0][0], "--host", "0.0.0.0", env={"FASTREC_API_KEY": "k"})
    url = f"http://127.0.0.1:{server.address[1]}"
    with httpx.Client(base_url=url) as http:
        assert ask(http, "u1").status_code == 401
        assert http.post("/recommend", json={"users": ["u1"]}, headers={"X-API-Key": "k"}).status_code == 200


def test_importing_fastrec_imports_no_server():
    code = "import fastrec, sys; print([m for m in ('fastapi', 'httpx', 'uvicorn', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_the_server_imports_nothing_but_its_extra():
    # What the test environment has beside it must not be leaned on.
    code = (
        "import sys\n"
        "for name in ('implicit', 'hypothesis', 'pytest', 'flask', 'playwright', 'httpx'):\n"
        "    sys.modules[name] = None\n"
        "import fastrec.serve.server\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)

"""schemathesis against the OpenAPI of a real server: no 500, no hang, and answers as the schema promises them."""

import re
import subprocess
import sysconfig
from pathlib import Path

import httpx
import pytest

#: Limits that depend on the settings, and rules between fields, are no part of the schema: 400 may answer them.
CONFIG = """
[checks]
positive_data_acceptance.enabled = false
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 408, 413, 501]
"""


def test_schemathesis_finds_nothing(server, tmp_path):
    pytest.importorskip("schemathesis", reason="schemathesis is absent: extra 'dev'")
    (tmp_path / "config.toml").write_text(CONFIG)
    command = [str(Path(sysconfig.get_path("scripts")) / "schemathesis"), "--config-file", "config.toml", "run"]
    command += [f"{server.url}/openapi.json", "--max-examples", "40", "--seed", "1", "--request-timeout", "20"]
    command += ["--max-response-time", "15", "--no-color"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=240)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    tested = re.search(r"Tested: (\d+)", done.stdout)
    assert tested is not None and int(tested[1]) >= 12, done.stdout  # and not none of them
    with httpx.Client(base_url=server.url) as http:
        assert http.post("/recommend", json={"users": ["u1"], "k": 3}).status_code == 200
    assert "Traceback" not in server.log()


def test_the_schema_is_there_and_names_every_route(server):
    with httpx.Client(base_url=server.url) as http:
        paths = http.get("/openapi.json").json()["paths"]
    for path in ("/recommend", "/similar", "/rank", "/events", "/items", "/items/{id}", "/users/{id}", "/admin/reload"):
        assert any(known.replace(":path", "") == path for known in paths), (path, sorted(paths))

"""Who may do what."""

import hmac
import logging

import pytest

from fastrec.errors import ConfigError
from fastrec.serve import ServeSettings, app
from fastrec.serve import settings as module
from fastrec.serve.guard import Buckets
from fastrec.serve.server import serve

ASK = {"users": ["u1"], "k": 1}


@pytest.fixture(scope="module")
def keyed(rec):
    return app(rec, ServeSettings(keys=module.parse_keys("rw, read:ro", "boss")))


def key(secret):
    return {"X-API-Key": secret}


@pytest.mark.parametrize(
    "headers", [{}, key("wrong"), key(""), {"Authorization": "Basic rw"}, {"Authorization": "Bearer"}]
)
def test_without_a_valid_key_nothing(asgi, keyed, headers):
    for verb, path in (
        ("POST", "/recommend"),
        ("POST", "/events"),
        ("DELETE", "/users/u1"),
        ("POST", "/admin/reload"),
        ("GET", "/metrics"),
        ("GET", "/inspect/model"),
        ("GET", "/nothing"),
    ):
        answer = asgi(keyed, verb, path, json=ASK, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert asgi(keyed, "GET", "/health/live", headers=headers).status_code == 200
    assert asgi(keyed, "GET", "/", headers=headers).status_code == 200


def test_both_ways_to_send_a_key(asgi, keyed):
    for headers in (key("rw"), {"Authorization": "Bearer rw"}, {"Authorization": "bearer  rw"}):
        assert asgi(keyed, "POST", "/recommend", json=ASK, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("secret", "recommend", "write", "erase", "reload"),
    [("ro", 200, 403, 403, 403), ("rw", 200, None, None, 403), ("boss", 200, None, None, None)],
)
def test_scopes(asgi, keyed, secret, recommend, write, erase, reload):
    headers = key(secret)
    calls = (
        ("POST", "/recommend", ASK, recommend),
        ("POST", "/events", [], write),
        ("POST", "/items", [], write),
        ("DELETE", "/users/no-such-user", None, erase),
        ("DELETE", "/items/no-such-item", None, erase),
        ("POST", "/admin/reload", {"path": "/nothing/there"}, reload),
    )
    for verb, path, body, want in calls:
        got = asgi(keyed, verb, path, json=body, headers=headers).status_code
        assert got == want if want is not None else got not in (401, 403), (verb, path, got)


def test_doors_are_matched_as_the_router_does(asgi, keyed):
    # A path that the guard takes for another than the router does would let a read key write.
    for path in (
        "//events",
        "/events/",
        "/./events",
        "/%65vents",
        "/EVENTS",
        "/events?x=1",
        "/admin//reload",
        "//admin/reload",
    ):
        got = asgi(keyed, "POST", path, json={"user_id": "u1", "item_id": "i1"}, headers=key("ro"))
        assert got.status_code in (403, 404, 307, 405), (path, got.status_code)
        if got.status_code == 307:
            assert "events" in got.headers["location"]


def test_every_key_is_compared_in_constant_time(monkeypatch):
    compared, digests_equal = [], hmac.compare_digest

    def compare(a, b):
        compared.append((a, b))
        return digests_equal(a, b)

    monkeypatch.setattr(module.hmac, "compare_digest", compare)
    keys = module.parse_keys("first,second,read:third", "fourth")
    for secret, scope in ((b"first", 2), (b"third", 1), (b"fourth", 3), (b"no", None)):
        compared.clear()
        found = module.find_key(keys, secret)
        assert (found and found.scope) == scope
        # All of them, whichever fits; and digests of one length, so that the length of a key does not show.
        assert len(compared) == 4 and {len(x) for pair in compared for x in pair} == {32}


def test_keys_are_not_kept_or_shown():
    settings = ServeSettings(keys=module.parse_keys("topsecret", None))
    assert "topsecret" not in repr(settings) + repr(settings.keys)


def test_a_wrong_variable_is_refused():
    with pytest.raises(ConfigError, match="read:KEY"):
        module.parse_keys("read:", None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_without_keys_no_host_beyond_loopback(saved, host):
    with pytest.raises(ConfigError, match="FASTREC_API_KEY"):
        serve(saved[0][0], host=host, settings=ServeSettings())


@pytest.mark.parametrize(
    ("client", "host", "status"),
    [
        ("127.0.0.1", "localhost:8000", 200),
        ("127.0.0.1", "127.0.0.1", 200),
        ("::1", "[::1]:8000", 200),
        ("::ffff:127.0.0.1", "localhost", 200),
        ("192.0.2.7", "localhost", 403),
        ("2001:db8::1", "localhost", 403),
        ("127.0.0.1", "evil.example", 403),  # a page whose name was pointed at this machine
    ],
)
def test_without_keys_only_loopback_is_answered(asgi, made, client, host, status):
    answer = asgi(made, "POST", "/recommend", client=client, json=ASK, headers={"Host": host})
    assert answer.status_code == status


def test_rate_limit_by_key(asgi, rec):
    own = app(rec, ServeSettings(keys=module.parse_keys("a,b", None), rate=0.001, burst=3))
    got = [asgi(own, "POST", "/recommend", json=ASK, headers=key("a")) for _ in range(5)]
    assert [g.status_code for g in got] == [200, 200, 200, 429, 429]
    assert int(got[-1].headers["retry-after"]) > 1
    assert asgi(own, "POST", "/recommend", json=ASK, headers=key("b")).status_code == 200


def test_buckets_fill_again_and_are_bounded():
    buckets = Buckets(rate=2, burst=2, most=5)
    assert [buckets.wait("a", 0.0) > 0 for _ in range(3)] == [False, False, True]
    assert buckets.wait("a", 0.5) == 0 and buckets.wait("a", 0.5) > 0
    for i in range(50):
        buckets.wait(str(i), 1.0)
    assert len(buckets._buckets) == 5


def test_logs_hold_no_user_data(asgi, rec, caplog):
    own = app(rec, ServeSettings())
    with caplog.at_level(logging.DEBUG, logger="fastrec"):
        asgi(own, "POST", "/recommend", json={"users": ["u1", "private-person"], "k": 3})
        asgi(own, "POST", "/recommend", json={"text": "private wish"})
        asgi(own, "DELETE", "/users/private-person")
        asgi(own, "GET", "/inspect/history?user=private-person")
    lines = [r.getMessage() for r in caplog.records if r.name == "fastrec.serve"]
    assert len(lines) >= 4
    assert "private" not in " ".join(r.getMessage() for r in caplog.records)
    assert any('"route": "/users/{id:path}"' in line for line in lines)

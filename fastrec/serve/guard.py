"""What every request passes first and last: who asks, how much, how often; ids, headers, logs and counts.

A plain ASGI middleware: it reads headers and counts bytes, and costs microseconds where it refuses.
"""

import asyncio
import ipaddress
import json
import logging
import os
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastrec.errors import FastRecError
from fastrec.serve import problems
from fastrec.serve.batcher import PLACE, Place
from fastrec.serve.metrics import Metrics
from fastrec.serve.problems import Problem
from fastrec.serve.settings import ADMIN, READ, WRITE, Key, ServeSettings, find_key
from fastrec.serve.tracing import Tracing

log = logging.getLogger("fastrec.serve")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

OPEN = 0
_METHODS = {"GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"}
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
API_HEADERS = [
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
]
#: A body that is too large is read on for so long, so that its client gets to read the answer.
_DRAIN_SECONDS = 2.0


def needed(method: str, path: str) -> int:
    """What a key must be allowed for this request; OPEN needs none."""
    if path.startswith("/admin/"):
        return ADMIN
    if method == "DELETE" or path in ("/events", "/items"):
        return WRITE
    if path in ("", "/", "/docs", "/health/live", "/health/ready"):
        return OPEN
    return READ


class Buckets:
    """Token buckets by name; the ones that were not used for the longest time are forgotten."""

    def __init__(self, rate: float, burst: int, most: int = 10_000) -> None:
        self._rate, self._burst, self._most = rate, burst, most
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, name: str, now: float) -> float:
        """0 where a request may pass now, else the seconds until one may."""
        tokens, last = self._buckets.pop(name, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - last) * self._rate)
        passes = tokens >= 1
        self._buckets[name] = (tokens - passes, now)
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return 0.0 if passes else (1 - tokens) / self._rate


class State:
    """What the server tells the guard. draining: no more requests on a connection after this one."""

    draining = False
    in_flight = 0


class Guard:
    """The middleware. enter gives a request room before the model, or raises a Problem where there is none."""

    def __init__(
        self,
        app: Any,
        settings: ServeSettings,
        metrics: Metrics,
        state: State,
        enter: Callable[[], Place],
        trace: Tracing,
    ) -> None:
        self._app, self._settings, self._metrics, self._state = app, settings, metrics, state
        self._enter, self._trace = enter, trace
        self._buckets = None if settings.rate is None else Buckets(settings.rate, settings.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        given = dict(scope["headers"])
        sent = given.get(b"x-request-id", b"")
        request_id = sent if REQUEST_ID.fullmatch(sent) else os.urandom(8).hex().encode()
        exchange = _Exchange(request_id, self._state, send, began)
        caller, place = "-", None
        self._state.in_flight += 1
        begun = self._trace.begin(given, str(scope["method"]))
        try:
            path = _path(scope)
            key = self._admit(scope, given, path)
            caller = key.name if key else "-"
            self._limit(scope, key, began)
            if scope["method"] == "POST" and path in ("/recommend", "/similar", "/rank"):
                place = self._enter()
                PLACE.set(place)
            length = given.get(b"content-length", b"0")
            if length.isdigit() and int(length) > self._settings.max_body:
                await self._too_large(receive, exchange)
            else:
                scope.setdefault("state", {})["request_id"] = request_id.decode()
                await self._app(scope, self._bounded(receive), exchange)
        except Problem as problem:
            await exchange.problem(problem)
        except Exception as error:  # a bug: told to the log, not to the client
            log.exception("request %s failed: %s", request_id.decode(), type(error).__name__)
            await exchange.problem(problems.of_error(FastRecError()))
        finally:
            self._state.in_flight -= 1
            if place is not None:
                place.leave()
            route = getattr(scope.get("route"), "path", None) or "unmatched"
            method = scope["method"] if scope["method"] in _METHODS else "OTHER"
            seconds = time.perf_counter() - began
            self._trace.end(begun, method, route, exchange.status, request_id)
            self._metrics.finished(route, method, exchange.status, seconds)
            if log.isEnabledFor(logging.INFO):
                line = {
                    "event": "request",
                    "request_id": request_id.decode(),
                    "method": method,
                    "route": route,
                    "status": exchange.status,
                    "ms": round(1000 * seconds, 2),
                    "key": caller,
                }
                log.info("%s", json.dumps(line))

    def _admit(self, scope: Scope, given: dict[bytes, bytes], path: str) -> Key | None:
        """The key of the request; Problem 401 or 403 where it may not pass."""
        keys = self._settings.keys
        need = needed(scope["method"], path)
        if not keys:
            if not self._settings.anonymous:
                _loopback_only(scope, given)
            return None
        secret = given.get(b"x-api-key", b"")
        if not secret:
            kind, _, secret = given.get(b"authorization", b"").partition(b" ")
            secret = secret.strip() if kind.lower() == b"bearer" else b""
        key = find_key(keys, secret)
        preflight = scope["method"] == "OPTIONS"
        if need == OPEN or (preflight and self._settings.cors):
            return key
        if key is None:
            raise Problem(
                401,
                "no-key",
                "[serve] expected a valid key, as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if key.scope < need:
            wanted = {WRITE: "write", ADMIN: "administer"}[need]
            raise Problem(403, "not-allowed", f"[serve] this key may not {wanted}")
        return key

    def _limit(self, scope: Scope, key: Key | None, now: float) -> None:
        if self._buckets is None:
            return
        client = scope.get("client") or ("local", 0)
        wait = self._buckets.wait(key.name if key else f"ip {client[0]}", now)
        if wait:
            self._metrics.rejected.labels("rate").inc()
            detail = f"[serve] more than {self._settings.rate:g} requests a second; ask again in {wait:.2f} s"
            raise Problem(429, "too-many", detail, headers={"Retry-After": str(int(wait) + 1)})

    def _bounded(self, receive: Receive) -> Receive:
        """``receive`` with the limits of size and time; Problem 413 or 408 beyond them."""
        got, complete = 0, False
        ends = time.perf_counter() + self._settings.body_timeout

        async def bounded() -> Message:
            nonlocal got, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout(max(0.0, ends - time.perf_counter())):
                    message = await receive()
            except TimeoutError as error:
                detail = f"[serve] the body was not complete after {self._settings.body_timeout:g} s"
                raise Problem(408, "slow-body", detail, headers={"Connection": "close"}) from error
            got += len(message.get("body", b""))
            if got > self._settings.max_body:
                raise self._large()
            complete = not message.get("more_body", False)
            return message

        return bounded

    def _large(self) -> Problem:
        detail = f"[serve] the body is over {self._settings.max_body:,} bytes; send fewer at once"
        return Problem(413, "too-large", detail, headers={"Connection": "close"})

    async def _too_large(self, receive: Receive, exchange: "_Exchange") -> None:
        """The answer goes out first; what still comes is thrown away for a while and the connection ends."""
        await exchange.problem(self._large(), last=False)
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while (await receive()).get("more_body"):
                    pass
        except TimeoutError:
            pass
        await exchange({"type": "http.response.body", "body": b"", "more_body": False})


class _Exchange:
    """``send`` with the headers that every answer has; remembers the status."""

    def __init__(self, request_id: bytes, state: State, send: Send, began: float) -> None:
        self._id, self._state, self._send, self._began = request_id, state, send, began
        self.status = 499  # nothing was sent
        self._ended = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self._id), *HEADERS]
            has = {name for name, _ in headers}
            headers += [pair for pair in API_HEADERS if pair[0] not in has]
            if self._state.draining and b"connection" not in has:
                headers.append((b"connection", b"close"))
            # What the server has spent in all, beside the queue and the model that the route has told.
            total = b"total;dur=%.2f" % (1000 * (time.perf_counter() - self._began))
            headers = [(n, v + b", " + total if n == b"server-timing" else v) for n, v in headers]
            message = {**message, "headers": headers}
        await self._send(message)

    async def problem(self, problem: Problem, last: bool = True) -> None:
        if self.status != 499:
            raise problem  # half an answer is out: only the connection can still tell
        content = problems.body(problem.status_code, problem.name, str(problem.detail), problem.fields)
        headers = [
            (b"content-type", problems.MEDIA_TYPE.encode()),
            (b"content-length", str(len(content)).encode()),
            *((name.lower().encode(), value.encode()) for name, value in (problem.headers or {}).items()),
        ]
        await self({"type": "http.response.start", "status": problem.status_code, "headers": headers})
        await self({"type": "http.response.body", "body": content, "more_body": not last})


def _path(scope: Scope) -> str:
    """The path below the place where the app is mounted."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(root) else path


def _loopback_only(scope: Scope, given: dict[bytes, bytes]) -> None:
    """Problem 403 for a client beyond loopback, and for a page of elsewhere whose name was pointed at us."""
    client = scope.get("client")
    address = _address(str(client[0])) if client else None
    if address is None:  # a unix socket, or a client in this process
        return
    host = given.get(b"host", b"localhost").decode("latin-1").lower()
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    named = _address(name)
    own = name == "localhost" or name.endswith(".localhost") or (named is not None and named.is_loopback)
    if not address.is_loopback or not own:
        detail = "[serve] without FASTREC_API_KEY only loopback is answered, under a loopback name"
        raise Problem(403, "no-keys", detail)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(found, "ipv4_mapped", None)
    return mapped or found

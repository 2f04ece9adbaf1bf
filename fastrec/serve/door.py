"""The door before the parser: while the queue is full, a plain request is refused from its first bytes.

Answering 503 the long way (parser, task, middleware) costs as much as taking the request, and under five times the
load that is what the server would be busy with. Here it is one look at the bytes of a connection that is between two
requests. Whatever is not plainly one whole request for the model goes the long way, and so does every request while
there is room. Keys and rate limits are not looked at: who is told to come back later learns nothing.
"""

import asyncio
import os
import re
import time

from fastrec.serve.core import Core
from fastrec.serve.guard import API_HEADERS, HEADERS, REQUEST_ID
from fastrec.serve.problems import MEDIA_TYPE, Problem, body

_ROUTE = re.compile(rb"POST (/recommend|/similar|/rank) HTTP/1\.1\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,7})[ \t]*\r\n")
_ID = re.compile(rb"\r\nx-request-id:[ \t]*([^\r\n]*?)[ \t]*\r\n", re.IGNORECASE)
#: Headers of requests that need the parser.
_SPECIAL = (b"\r\ntransfer-encoding:", b"\r\nexpect:", b"\r\nconnection:", b"\r\nupgrade:", b"\r\n ", b"\r\n\t")


class Door:
    """The door of one app that is served alone, not mounted in another."""

    def __init__(self, core: Core) -> None:
        self._core = core
        names = [*HEADERS, *API_HEADERS, (b"content-type", MEDIA_TYPE.encode())]
        self._fixed = b"HTTP/1.1 503 Service Unavailable\r\n" + b"".join(b"%s: %s\r\n" % pair for pair in names)

    def refuse(self, data: bytes) -> bytes | None:
        """The answer to these bytes, which are one whole request; None where the request must be taken."""
        route = _ROUTE.match(data)
        if route is None or self._core.state.draining:
            return None
        began = time.perf_counter()
        head = _head(data)
        if head is None:  # before there is a refusal, which counts: the guard would refuse the request once more
            return None
        try:
            place = self._core.enter()
            # The room is held until the task that the parser makes of these bytes begins, and takes it itself.
            asyncio.get_running_loop().call_soon(place.leave)
        except Problem as problem:
            answer = self._answer(problem, head)
            self._core.metrics.refused(route[1].decode(), time.perf_counter() - began)
            return answer
        return None

    def _answer(self, problem: Problem, head: bytes) -> bytes:
        sent = _ID.search(head)
        known = sent is not None and REQUEST_ID.fullmatch(sent[1])
        request_id = sent[1] if sent is not None and known else os.urandom(8).hex().encode()
        content = body(problem.status_code, problem.name, str(problem.detail))
        wait = str((problem.headers or {}).get("Retry-After", 1)).encode()
        own = b"x-request-id: %s\r\nretry-after: %s\r\ncontent-length: %d\r\n\r\n" % (request_id, wait, len(content))
        return self._fixed + own + content


def _head(data: bytes) -> bytes | None:
    """The request line and the headers of what is plainly one whole request; None for anything else."""
    end = data.find(b"\r\n\r\n")
    head = data[: end + 2].lower()
    length = _LENGTH.search(head)
    if end < 0 or length is None or head.count(b"\r\ncontent-length:") != 1 or len(data) != end + 4 + int(length[1]):
        return None
    return None if any(special in head for special in _SPECIAL) else data[: end + 2]

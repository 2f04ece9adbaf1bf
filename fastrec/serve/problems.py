"""Errors as RFC 9457 problem+json."""

import json
import re
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from fastrec.errors import (
    ArtifactError,
    BackendUnavailable,
    ConfigError,
    DataError,
    FastRecError,
    NotFittedError,
    UnknownIdError,
)

MEDIA_TYPE = "application/problem+json"


class Problem(HTTPException):
    """An answer that is no success. name: last part of the type; fields: [{"field", "message"}]."""

    def __init__(
        self,
        status: int,
        name: str,
        detail: str,
        *,
        fields: list[dict[str, str]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, headers)
        self.name, self.fields = name, fields


def busy(detail: str, seconds: float = 1.0) -> Problem:
    """503 with the seconds after which to ask again."""
    return Problem(503, "busy", detail, headers={"Retry-After": str(max(1, round(seconds)))})


def body(status: int, name: str, detail: str, fields: list[dict[str, str]] | None = None) -> bytes:
    """The JSON of a problem."""
    document: dict[str, Any] = {
        "type": f"urn:fastrec:problem:{name}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if fields:
        document["errors"] = fields
    return json.dumps(document).encode()


def of_error(error: FastRecError) -> Problem:
    """What a caller is told about an error of the engine."""
    text = str(error)
    match error:
        case UnknownIdError():
            return Problem(404, "unknown-id", text)
        case ConfigError() | DataError():
            # The message begins with the call and the name of the argument: [recommend] k=0, expected ...
            named = re.match(r"\[\w+\] (\w+)", text)
            field = getattr(error, "column", None) or (named[1] if named else "")
            name = "bad-data" if isinstance(error, DataError) else "bad-setting"
            return Problem(400, name, text, fields=[{"field": str(field), "message": text}])
        case ArtifactError():
            return Problem(400, "bad-artifact", text)
        case NotFittedError():
            return Problem(503, "not-ready", text, headers={"Retry-After": "1"})
        case BackendUnavailable():
            return Problem(501, "unavailable", text)
    return Problem(500, "failure", "[serve] the engine failed; the log of the server says more under this request id")


def _answer(problem: Problem) -> Response:
    return Response(
        body(problem.status_code, problem.name, str(problem.detail), problem.fields),
        problem.status_code,
        headers=dict(problem.headers or {}),
        media_type=MEDIA_TYPE,
    )


async def on_http(_request: Request, error: Exception) -> Response:
    if isinstance(error, Problem):
        return _answer(error)
    assert isinstance(error, HTTPException)
    names = {400: "bad-body", 404: "no-route", 405: "no-method"}
    name = names.get(error.status_code, HTTPStatus(error.status_code).phrase.lower().replace(" ", "-"))
    headers = dict(error.headers or {})
    return _answer(Problem(error.status_code, name, f"[serve] {error.detail}", headers=headers))


async def on_invalid(_request: Request, error: Exception) -> Response:
    """400 naming the fields; what came is not repeated."""
    assert isinstance(error, RequestValidationError)
    fields: dict[str, str] = {}
    for entry in error.errors():
        place = [str(part) for part in entry["loc"][1:]]
        # Behind the name of a field stand the branches of a union that were tried.
        fields.setdefault(place[0] if place else "body", str(entry["msg"]))
    listed = [{"field": field, "message": message} for field, message in fields.items()]
    detail = "[serve] " + "; ".join(f"{f['field']}: {f['message']}" for f in listed)
    return _answer(Problem(400, "bad-body", detail, fields=listed))


async def on_fastrec(_request: Request, error: Exception) -> Response:
    assert isinstance(error, FastRecError)
    return _answer(of_error(error))

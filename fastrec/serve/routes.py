"""The routes of API.md."""

import platform
import time
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path
from fastapi.responses import Response

import fastrec
from fastrec.serve import calls, schemas
from fastrec.serve.core import Core
from fastrec.serve.problems import MEDIA_TYPE, Problem, busy

#: Lists and objects within each other that the value of an item may be.
_MOST_LEVELS = 8

Accept = Annotated[str, Header(max_length=1000)]
PathId = Annotated[str, Path(max_length=4096)]

_PROBLEM = {
    "model": schemas.ProblemDocument,
    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
}
_STATUS = {
    400: "the input is wrong: names the field",
    401: "no valid key",
    403: "not allowed",
    404: "unknown id",
    408: "the body came too slowly",
    413: "the body is too large",
    429: "over the limit of the key",
    501: "this model cannot do that",
    503: "busy or not ready: Retry-After says when to ask again",
}
PROBLEMS: dict[int | str, dict[str, Any]] = {s: {**_PROBLEM, "description": text} for s, text in _STATUS.items()}
_BOTH: dict[str, Any] = {"content": {calls.ARROW: {"schema": {"type": "string", "format": "binary"}}}}


def router(core: Core) -> APIRouter:
    """All routes but those of the inspector."""
    api = APIRouter(responses=PROBLEMS)
    results: dict[str, Any] = {"response_model": schemas.Results, "responses": {200: _BOTH}}

    @api.post("/recommend", **results)
    async def recommend(body: schemas.Recommend, accept: Accept = "*/*") -> Response:
        """The best items for users, for a history, or for a sentence."""
        call = calls.recommend(body, core.facts, _arrow(accept))
        return await core.answer(call)

    @api.post("/similar", **results)
    async def similar(body: schemas.Similar, accept: Accept = "*/*") -> Response:
        """The items most like each given one; ``user_id`` of a result is that item."""
        return await core.answer(calls.similar(body, _arrow(accept)))

    @api.post("/rank", **results)
    async def rank(body: schemas.Rank, accept: Accept = "*/*") -> Response:
        """Candidates in the order of the model."""
        return await core.answer(calls.rank(body, _arrow(accept)))

    @api.post("/events", status_code=202)
    async def events(body: schemas.Events) -> dict[str, int]:
        """One event or a list; with an event store they are on disk before the answer ("durable" of /health/ready)."""
        core.needs("update")
        listed = body if isinstance(body, list) else [body]
        if listed:
            await core.write("update", [e.model_dump(exclude_none=True) for e in listed])
        return {"accepted": len(listed)}

    @api.post("/items")
    async def items(body: schemas.Items) -> dict[str, int]:
        """New items; recommendable at once."""
        core.needs("add_items")
        listed = [item.model_dump() for item in (body if isinstance(body, list) else [body])]
        _without_files(listed)
        _not_deep(listed)
        return await core.write("add_items", listed) if listed else {}

    @api.delete("/items/{id:path}")
    async def remove(id: PathId) -> dict[str, int]:
        """The item is never recommended again."""
        return await core.write("remove_items", [core.facts.id("item", id)])

    @api.delete("/users/{id:path}")
    async def erase(id: PathId) -> dict[str, int]:
        """Everything that is known of the user is gone, from disk too."""
        return await core.write("erase_users", [core.facts.id("user", id)])

    @api.post("/admin/reload")
    async def reload(body: schemas.Reload) -> dict[str, str]:
        """Load beside, check, swap; requests go on meanwhile."""
        return {"model_version": (await core.reload(body.path)).version}

    _about(api, core)
    return api


def _about(api: APIRouter, core: Core) -> None:
    @api.get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @api.get("/health/ready")
    async def ready() -> dict[str, Any]:
        """503 while the server ends, its queue is full or no model is there.

        durable: whether events outlive the process
        """
        if core.state.draining:
            raise busy("[serve] the server is shutting down")
        core.check_door()
        return {"status": "ready", "model_version": core.facts.version, "durable": core.facts.durable}

    @api.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        content, kind = core.metrics.text()
        return Response(content, headers={"content-type": kind})

    @api.get("/version")
    async def version() -> dict[str, Any]:
        model = core.facts
        return {
            "fastrec": fastrec.__version__,
            "model_version": model.version,
            "loaded_at": model.loaded_at,
            "age_seconds": round(time.time() - model.loaded_at, 3),
            "python": platform.python_version(),
        }


def _arrow(accept: str) -> bool:
    return calls.ARROW in accept


def _not_deep(items: list[dict[str, Any]]) -> None:
    """Problem 400 where a value holds lists or objects in each other beyond what any column is made of."""
    for name, value in ((name, value) for item in items for name, value in item.items()):
        if _deeper(value, _MOST_LEVELS):
            told = [{"field": name, "message": f"expected at most {_MOST_LEVELS} levels of lists and objects"}]
            raise Problem(400, "bad-body", f"[serve] items: {name!r} is nested too deeply", fields=told)


def _deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, (list, dict)):
        return False
    inner = value if isinstance(value, list) else value.values()
    return levels == 0 or any(_deeper(one, levels - 1) for one in inner if isinstance(one, (list, dict)))


def _without_files(items: list[dict[str, Any]]) -> None:
    """Problem 400 where an item names a file: who may write items need not be one for whom this machine opens files."""
    for name in {name for item in items for name, value in item.items() if value is not None}:
        if name.lower() in ("image", "audio"):
            detail = f"[serve] items: {name!r} is the path of a file, which is not opened for a request"
            told = [{"field": name, "message": "expected none; add_items in Python reads files"}]
            raise Problem(400, "bad-body", f"{detail}; add such items in Python", fields=told)

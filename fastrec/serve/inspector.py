"""The page to look inside (GET /), and what it asks beside the public routes."""

import base64
import hashlib
import re
import time
from importlib import resources
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from fastrec.serve import calls, schemas
from fastrec.serve.core import Core


class Listed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    items: Annotated[list[schemas.Id], Field(max_length=2000)]


def page(name: str) -> tuple[str, dict[str, str]]:
    """(HTML, headers) of a page of ours; by the policy its own script and style may run, and nothing else."""
    text = resources.files("fastrec.serve").joinpath(name).read_text(encoding="utf-8")

    def hashes(tag: str) -> str:
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(t.encode()).digest()).decode()}'" for t in found)

    policy = (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, {"Content-Security-Policy": policy, "Cache-Control": "no-cache"}


class Weighed(BaseModel):
    """A recommend body, and a factor for the weight of each source."""

    model_config = ConfigDict(extra="forbid")
    ask: schemas.Recommend
    factors: Annotated[dict[str, Annotated[float, Field(ge=0, le=10)]], Field(max_length=50)] = {}


def router(core: Core) -> APIRouter:
    """The page and its routes."""
    api = APIRouter(include_in_schema=False)

    @api.get("/")
    async def inspector() -> HTMLResponse:
        text, headers = page("inspector.html")
        return HTMLResponse(text, headers=headers)

    @api.get("/docs")
    async def docs() -> HTMLResponse:
        text, headers = page("docs.html")
        return HTMLResponse(text, headers=headers)

    @api.get("/inspect/model")
    async def about() -> Any:
        return await core.view("about")

    @api.get("/inspect/search")
    async def search(
        kind: Annotated[str, Query(pattern="^(user|item)$")],
        q: Annotated[str, Query(max_length=200)] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> Any:
        return await core.view("search", kind, q, limit)

    @api.get("/inspect/history")
    async def history(
        user: Annotated[str, Query(max_length=4096)], limit: Annotated[int, Query(ge=1, le=500)] = 50
    ) -> Any:
        return await core.view("history", core.facts.id("user", user), limit)

    @api.post("/inspect/items")
    async def items(body: Listed) -> Any:
        return await core.view("describe", body.items)

    @api.post("/inspect/recommend")
    async def recommend(body: Weighed) -> Response:
        core.check_sizes(call := calls.recommend(body.ask, core.facts, arrow=False))
        content, media_type = await core.view("recommend", call, body.factors)
        return Response(content, media_type=media_type)

    @api.get("/inspect/map")
    async def plane() -> Any:
        return await core.view("map")

    @api.get("/inspect/latency")
    async def latency() -> dict[str, Any]:
        return {"seconds": core.metrics.latency(), "now": int(time.time())}

    return api

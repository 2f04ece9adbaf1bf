"""The FastAPI app, put together."""

from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from starlette.exceptions import HTTPException

import fastrec
from fastrec.errors import FastRecError
from fastrec.serve import inspector, problems, routes
from fastrec.serve.core import Core
from fastrec.serve.guard import Guard
from fastrec.serve.model import Model
from fastrec.serve.settings import ServeSettings


def make(recommender: Any, settings: ServeSettings | None = None) -> FastAPI:
    """See ``fastrec.serve.app``. recommender: a Recommender, or a Model for one with a version of its own."""
    settings = ServeSettings.from_env() if settings is None else settings
    model = recommender if isinstance(recommender, Model) else Model.of(recommender)
    core = Core(model, settings)
    app = FastAPI(title="FastRec", version=fastrec.__version__, docs_url=None, redoc_url=None)
    app.state.core = core
    app.include_router(routes.router(core))
    app.include_router(inspector.router(core))
    app.add_exception_handler(HTTPException, problems.on_http)
    app.add_exception_handler(RequestValidationError, problems.on_invalid)
    app.add_exception_handler(FastRecError, problems.on_fastrec)
    app.add_middleware(
        Guard, settings=settings, metrics=core.metrics, state=core.state, enter=core.enter, trace=core.trace
    )
    if settings.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-Id"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    return app

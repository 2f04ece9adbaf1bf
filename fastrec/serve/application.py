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
from fastrec.serve.engine import Engine, Here
from fastrec.serve.guard import Guard
from fastrec.serve.model import Model
from fastrec.serve.settings import ServeSettings


def make(recommender: Any, settings: ServeSettings | None = None) -> FastAPI:
    """See ``fastrec.serve.app``. recommender: a Recommender, or the way to a model."""
    settings = ServeSettings.from_env() if settings is None else settings
    if not isinstance(recommender, Engine):
        recommender = Here(Model.of(recommender), settings.store, settings.writes)
    core = Core(recommender, settings)
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

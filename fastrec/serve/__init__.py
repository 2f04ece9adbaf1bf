"""The HTTP server: ``app(recommender)`` is an ASGI app, ``run(model folder)`` serves it. Needs the extra "serve".

settings.py    limits, keys               problems.py   errors as problem+json
schemas.py     bodies                     batcher.py    asks of one window go to the model together
guard.py       ids, keys, limits          metrics.py    Prometheus; tracing.py: spans
door.py        refusal before parsing     connection.py deadlines and number of connections
routes.py      API.md as routes           inspector.py  the routes of the page to look inside
core.py        what routes share          application.py the app, put together
server.py      uvicorn, SIGTERM           workers.py    several of them

engine.py      the one way from the routes to the model, and the model in this process
beside.py      the model in another process, which is started again when it dies; process.py: what runs there
host.py        the model and what is asked of it, in the process that holds it
model.py       a loaded model, its facts  calls.py      requests -> calls -> answers
views.py       what the page shows
"""

from typing import TYPE_CHECKING, Any

from fastrec.serve.settings import ServeSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["app", "run", "ServeSettings"]


def app(recommender: Any, settings: ServeSettings | None = None) -> "FastAPI":
    """The ASGI app of a fitted Recommender, to run or to mount.

    Nothing starts before the first request, so that a process may load, make the app and fork. Without ``settings``
    the keys come from FASTREC_API_KEY and FASTREC_ADMIN_KEY. Raises BackendUnavailable where the extra is missing.
    """
    _needed()
    from fastrec.serve.application import make

    return make(recommender, settings)


def run(model: Any, **options: Any) -> None:
    """Serve a model folder until SIGTERM or SIGINT; the options are those of ``fastrec.serve.server.serve``."""
    _needed()
    from fastrec.serve.server import serve

    serve(model, **options)


def _needed() -> None:
    from fastrec.errors import BackendUnavailable

    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
    except ImportError as error:
        raise BackendUnavailable(
            "serve", "http", f"{error.name} is not installed", "pip install fastrec-engine[serve]"
        ) from error

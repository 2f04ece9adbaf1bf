"""OpenTelemetry spans, where they are asked for."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from fastrec.errors import BackendUnavailable


def tracer(wanted: bool) -> Callable[..., AbstractContextManager[Any]]:
    """``span(name, **attributes)`` as a context manager; attributes must not name users or items."""
    if not wanted:
        nothing = contextlib.nullcontext()
        return lambda name, **attributes: nothing
    try:
        from opentelemetry import trace  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise BackendUnavailable(
            "serve", "opentelemetry", "opentelemetry-api is not installed", "pip install opentelemetry-sdk"
        ) from error
    made = trace.get_tracer("fastrec.serve")

    def span(name: str, **attributes: Any) -> AbstractContextManager[Any]:
        found: AbstractContextManager[Any] = made.start_as_current_span(name, attributes=attributes)
        return found

    return span

"""OpenTelemetry spans, where they are asked for: one a request, below that of the caller, and one for the model.

Only the API is used. Who exports the spans is said by the program around: ``opentelemetry-instrument fastrec serve``
or a ``TracerProvider`` that an app sets before it mounts this one.
"""

import contextlib
from contextlib import AbstractContextManager
from typing import Any

from fastrec.errors import BackendUnavailable


class Tracing:
    """No spans."""

    def span(self, name: str, **attributes: Any) -> AbstractContextManager[Any]:
        """A span for the time of a with block; attributes must not name users or items."""
        return contextlib.nullcontext()

    def begin(self, given: dict[bytes, bytes], method: str) -> Any:
        """The span of a request with these headers; spans of this task are below it until ``end``."""
        return None

    def end(self, begun: Any, method: str, route: str, status: int, request_id: bytes) -> None:
        """End what ``begin`` gave."""


class _Spans(Tracing):
    def __init__(self) -> None:
        try:
            from opentelemetry import context, propagate, trace
        except ImportError as error:
            raise BackendUnavailable(
                "serve", "opentelemetry", "opentelemetry-api is not installed", "pip install fastrec-engine[tracing]"
            ) from error
        self._context, self._trace, self._propagate = context, trace, propagate
        self._tracer = trace.get_tracer("fastrec.serve")

    def span(self, name: str, **attributes: Any) -> AbstractContextManager[Any]:
        found: AbstractContextManager[Any] = self._tracer.start_as_current_span(name, attributes=attributes)
        return found

    def begin(self, given: dict[bytes, bytes], method: str) -> Any:
        told = {n.decode(): given[n].decode("latin-1") for n in (b"traceparent", b"tracestate") if n in given}
        span = self._tracer.start_span(method, context=self._propagate.extract(told), kind=self._trace.SpanKind.SERVER)
        return span, self._context.attach(self._trace.set_span_in_context(span))

    def end(self, begun: Any, method: str, route: str, status: int, request_id: bytes) -> None:
        span, token = begun
        self._context.detach(token)
        span.update_name(f"{method} {route}")
        span.set_attributes(
            {
                "http.request.method": method,
                "http.route": route,
                "http.response.status_code": status,
                "fastrec.request_id": request_id.decode(),
            }
        )
        if status >= 500:
            span.set_status(self._trace.StatusCode.ERROR)
        span.end()


def tracer(wanted: bool) -> Tracing:
    """BackendUnavailable where spans are wanted and OpenTelemetry is not there."""
    return _Spans() if wanted else Tracing()

"""OpenTelemetry spans, read back from an exporter in memory."""

import subprocess
import sys

import pytest

from fastrec.serve import ServeSettings, app


@pytest.fixture(scope="module")
def exporter():
    """Everything that is traced from here on; the provider of a process can be set once."""
    sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="opentelemetry-sdk is absent: extra 'tracing'")
    from opentelemetry import trace
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    memory = InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    trace.set_tracer_provider(provider)
    return memory


def own(exporter):
    """Our spans; FastAPI has some too."""
    return [s for s in exporter.get_finished_spans() if s.instrumentation_scope.name == "fastrec.serve"]


def test_a_request_is_a_trace_without_user_data(exporter, rec, asgi):
    made = app(rec, ServeSettings(tracing=True, target=30.0))
    exporter.clear()
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = asgi(made, "POST", "/recommend", json={"users": ["u1", "u2"], "k": 3}, headers={"traceparent": parent})
    assert answer.status_code == 200
    spans = {span.name: span for span in own(exporter)}
    assert set(spans) == {"POST /recommend", "fastrec.answer"}
    request, inner = spans["POST /recommend"], spans["fastrec.answer"]
    assert format(request.context.trace_id, "032x") == "0af7651916cd43dd8448eb211c80319c", "that of the caller"
    assert format(request.parent.span_id, "016x") == "b7ad6b7169203331"
    assert inner.context.trace_id == request.context.trace_id
    assert dict(request.attributes) == {
        "http.request.method": "POST",
        "http.route": "/recommend",
        "http.response.status_code": 200,
        "fastrec.request_id": answer.headers["x-request-id"],
    }
    assert dict(inner.attributes) == {"method": "recommend", "users": 2}
    assert inner.end_time > inner.start_time


def test_writes_and_failures(exporter, rec, asgi):
    made = app(rec, ServeSettings(tracing=True, target=30.0))
    exporter.clear()
    assert asgi(made, "POST", "/events", json={"user_id": "ann-77", "item_id": "i1"}).status_code == 202
    assert asgi(made, "POST", "/recommend", json={"users": ["ann-77"], "k": 0}).status_code == 400
    names = [span.name for span in own(exporter)]
    assert names == ["fastrec.write", "POST /events", "POST /recommend"]
    statuses = [span.attributes.get("http.response.status_code") for span in own(exporter)]
    assert statuses == [None, 202, 400]
    assert "ann-77" not in "".join(span.to_json() for span in exporter.get_finished_spans())


def test_off_by_default(exporter, made, asgi):
    exporter.clear()
    asgi(made, "POST", "/recommend", json={"users": ["u1"]})
    assert own(exporter) == []


def test_without_the_package_it_says_so():
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from fastrec.errors import BackendUnavailable\n"
        "from fastrec.serve.tracing import tracer\n"
        "tracer(False)\n"
        "try: tracer(True)\n"
        "except BackendUnavailable as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True)
    assert "pip install" in done.stdout

"""Prometheus metrics of one app; with PROMETHEUS_MULTIPROC_DIR set, of all workers together."""

import os
import time
from collections import deque
from typing import Any

import prometheus_client as prometheus
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.multiprocess import MultiProcessCollector

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_KEPT_SECONDS = 300


class Metrics:
    """What is counted. No label holds anything that a client may choose."""

    def __init__(self) -> None:
        r = self.registry = CollectorRegistry()
        self.requests = Counter(
            "fastrec_requests", "requests by route and status", ("route", "method", "status"), registry=r
        )
        self.seconds = Histogram(
            "fastrec_request_seconds", "from first byte to last", ("route",), buckets=_SECONDS, registry=r
        )
        stage = Histogram(
            "fastrec_stage_seconds", "time of each stage of a request", ("stage",), buckets=_SECONDS, registry=r
        )
        self.stage_queue, self.stage_model = stage.labels("queue"), stage.labels("model")
        self.stage_answer, self.stage_write = stage.labels("answer"), stage.labels("write")
        self.batch = Histogram("fastrec_batch_users", "users of one model call", buckets=_SIZES, registry=r)
        self.calls = Histogram("fastrec_batch_calls", "recommend calls of one batch", buckets=_SIZES, registry=r)
        self.queue = Gauge("fastrec_queue_length", "waiting requests", registry=r, multiprocess_mode="livesum")
        self.rejected = Counter("fastrec_rejected", "requests refused, by reason", ("reason",), registry=r)
        self.cache = Counter(
            "fastrec_cache", "views of the inspector found ready, or made", ("cache", "outcome"), registry=r
        )
        self.model = Gauge(
            "fastrec_model_info",
            "1 for the model that is served",
            ("version",),
            registry=r,
            multiprocess_mode="livemax",
        )
        self.loaded = Gauge(
            "fastrec_model_loaded_timestamp_seconds", "when it was loaded", registry=r, multiprocess_mode="livemax"
        )
        self.age = Gauge("fastrec_model_age_seconds", "since it was loaded", registry=r, multiprocess_mode="livemax")
        self.reloads = Counter("fastrec_reloads", "exchanges of the model", ("outcome",), registry=r)
        self.restarts = Counter(
            "fastrec_model_restarts", "model processes that took the place of a dead one", registry=r
        )
        self._loaded_at = time.time()
        #: second -> [milliseconds of each request], for the plots of the inspector
        self.recent: deque[tuple[int, list[float], list[int]]] = deque(maxlen=_KEPT_SECONDS)
        self._children: dict[Any, Any] = {}

    def model_is(self, version: str, loaded_at: float) -> None:
        self.model.clear()
        self.model.labels(version).set(1)
        self.loaded.set(loaded_at)
        self._loaded_at = loaded_at

    def finished(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request."""
        key = (route, method, status)
        if key not in self._children:  # looking labels up costs as much as counting
            self._children[key] = self.requests.labels(route, method, str(status)), self.seconds.labels(route)
        counter, histogram = self._children[key]
        counter.inc()
        histogram.observe(seconds)
        now = int(time.time())
        if not self.recent or self.recent[-1][0] != now:
            self.recent.append((now, [], [0]))
        _, times, failed = self.recent[-1]
        if len(times) < 5000:
            times.append(1000 * seconds)
        failed[0] += status >= 500

    def refused(self, route: str, seconds: float) -> None:
        """Count one request that was refused at the door."""
        self.finished(route, "POST", 503, seconds)

    def text(self) -> tuple[bytes, str]:
        """(exposition, content type)."""
        registry = self.registry
        self.age.set(time.time() - self._loaded_at)
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return prometheus.generate_latest(registry), prometheus.CONTENT_TYPE_LATEST

    def latency(self) -> list[dict[str, float]]:
        """One row a second of the last minutes: requests, failures, and milliseconds at two quantiles."""
        rows = []
        for second, times, failed in list(self.recent):
            ordered = sorted(times)
            n = len(ordered)
            p50, p99 = (ordered[min(n - 1, int(q * n))] if n else 0.0 for q in (0.5, 0.99))
            rows.append({"second": second, "requests": n, "failed": failed[0], "p50": p50, "p99": p99})
        return rows

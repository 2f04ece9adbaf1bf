"""What the routes of one app share: the way to the model, the queue before it, and what is counted."""

import asyncio
import logging
import time
import weakref
from collections.abc import Callable
from typing import Any

from fastapi.responses import Response

from fastrec.errors import ConfigError
from fastrec.serve import calls, schemas, tracing
from fastrec.serve.batcher import Batcher, Place
from fastrec.serve.engine import Done, Engine
from fastrec.serve.guard import State
from fastrec.serve.metrics import Metrics
from fastrec.serve.model import Facts
from fastrec.serve.problems import Problem, busy
from fastrec.serve.settings import ServeSettings

log = logging.getLogger("fastrec.serve")
#: Views of the inspector that wait at the same time.
_MOST_VIEWS = 64


class Core:
    """One app. Queues are made at first use, in the process that uses them: it may have been forked."""

    def __init__(self, engine: Engine, settings: ServeSettings) -> None:
        self.engine, self.settings = engine, settings
        self.metrics = Metrics()
        self.state = State()
        self.metrics.model_is(self.facts.version, self.facts.loaded_at)
        engine.on_return = self._returned
        if not self.facts.durable:
            log.warning("[serve] no event store: events, items and erasures are lost when this process ends")
        self.on_reload: Callable[[str], None] = lambda path: None
        self.trace = tracing.tracer(settings.tracing)
        self._writing = self._viewing = 0
        # A test client may bring a loop of its own for every request.
        self._batchers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Batcher] = weakref.WeakKeyDictionary()

    @property
    def facts(self) -> Facts:
        """What is known of the model that is served."""
        return self.engine.facts

    @property
    def batcher(self) -> Batcher:
        loop = asyncio.get_running_loop()
        found = self._batchers.get(loop)
        if found is None:
            found = self._batchers[loop] = Batcher(self._submit, self.settings, self.metrics)
        return found

    def _submit(self, batch: list[calls.Call], done: Done) -> None:
        def told(found: Any) -> None:
            if isinstance(found, calls.Answered):
                self.metrics.calls.observe(found.groups)
                self.metrics.stage_answer.observe(found.seconds)
                found = found.results
            done(found)

        self.engine.submit(batch, told)

    def _returned(self, facts: Facts) -> None:
        self.metrics.restarts.inc()
        self.metrics.model_is(facts.version, facts.loaded_at)

    def check_door(self) -> None:
        """Problem 503 where there is no model just now, or its queue is full."""
        try:
            self.engine.check()
        except Problem:
            self.metrics.rejected.labels("no_model").inc()
            raise
        self.batcher.check_door()

    def enter(self) -> Place:
        """Room for a request on its way to the queue; Problem 503 where there is none."""
        self.check_door()
        return Place(self.batcher)

    def needs(self, change: str) -> None:
        """Problem 501 where this version of the recommender has no such change."""
        if change not in self.facts.writes:
            raise Problem(501, "not-implemented", f"[serve] this version of the recommender has no {change}")

    async def answer(self, call: calls.Call) -> Response:
        """The answer of the model to a call that waits in the queue."""
        self.check_sizes(call)
        with self.trace.span("fastrec.answer", method=call.method, users=len(call.subjects)):
            (content, kind), queued, took = await self.batcher.ask(max(1, len(call.subjects)), call)
        timing = f"queue;dur={1000 * queued:.2f}, model;dur={1000 * took:.2f}"
        return Response(content, headers={"Server-Timing": timing}, media_type=kind)

    async def write(self, change: str, given: list[Any]) -> dict[str, int]:
        """Counts of a change of the model; Problem 503 where too many wait already."""
        self.needs(change)
        if self._writing >= 8 * self.settings.writes:
            self.metrics.rejected.labels("writes").inc()
            raise busy("[serve] too many changes wait already; ask again")
        self._writing += 1
        began = time.perf_counter()
        try:
            with self.trace.span("fastrec.write"):
                counts: dict[str, int] = await self.engine.do("write", change, given)
                return counts
        finally:
            self._writing -= 1
            self.metrics.stage_write.observe(time.perf_counter() - began)

    async def view(self, name: str, *args: Any) -> Any:
        """A view of the inspector; Problem 503 where too many wait already."""
        if self._viewing >= _MOST_VIEWS:
            self.metrics.rejected.labels("views").inc()
            raise busy("[serve] too many views wait already; ask again")
        self._viewing += 1
        try:
            fresh, found = await self.engine.do("view", name, *args)
        finally:
            self._viewing -= 1
        self.metrics.cache.labels("inspector", "hit" if fresh else "miss").inc()
        return found

    async def reload(self, path: str) -> Facts:
        """Exchange the model, here and in the other workers."""
        facts = await self.follow(path)
        self.on_reload(path)
        return facts

    async def follow(self, path: str) -> Facts:
        """Exchange the model, as another worker has."""
        old = self.facts.version
        try:
            facts: Facts = await self.engine.do("reload", path)
        except BaseException:
            self.metrics.reloads.labels("failed").inc()
            raise
        self.metrics.model_is(facts.version, facts.loaded_at)
        self.metrics.reloads.labels("done").inc()
        log.info("model %s serves in place of %s", facts.version, old)
        return facts

    def check_sizes(self, call: calls.Call) -> None:
        """ConfigError where a request is larger than the settings allow."""
        s, users = self.settings, len(call.subjects)
        subject = {"recommend_for_history": "history", "recommend_for_text": "text", "similar_items": "items"}
        for field, got, most in (
            ("k", call.k, schemas.MOST_IDS if call.method == "rank" else s.max_k),
            (subject.get(call.method, "users"), users, s.max_users),
            ("k", call.k * max(1, users), max(s.max_places, schemas.MOST_IDS)),
        ):
            if got > most:
                raise ConfigError(f"[serve] {field}={got}, this server allows {most:,} in one request")

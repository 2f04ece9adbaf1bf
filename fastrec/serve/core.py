"""What the routes of one app share: the model, the queue before it, and the threads."""

import asyncio
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fastapi.responses import Response

from fastrec import inside
from fastrec.errors import ConfigError
from fastrec.serve import calls, schemas, tracing
from fastrec.serve.batcher import Batcher, Place
from fastrec.serve.guard import State
from fastrec.serve.metrics import Metrics
from fastrec.serve.model import Holder, Model
from fastrec.serve.problems import Problem, busy
from fastrec.serve.settings import ServeSettings

_T = TypeVar("_T")
log = logging.getLogger("fastrec.serve")


class Core:
    """One app. Threads and queues are made at first use, in the process that uses them: it may have been forked."""

    def __init__(self, model: Model, settings: ServeSettings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.state = State()
        self.holder = Holder(model, self.metrics, settings.store)
        if not self.durable:
            log.warning("[serve] no event store: events, items and erasures are lost when this process ends")
        self.on_reload: Callable[[str], None] = lambda path: None
        self.trace = tracing.tracer(settings.tracing)
        self._work = calls.Worker(self.holder, self.metrics)
        self._lock = threading.Lock()
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._pid = os.getpid()
        self._writing = 0
        # A test client may bring a loop of its own for every request.
        self._batchers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Batcher] = weakref.WeakKeyDictionary()

    @property
    def durable(self) -> bool:
        """Whether what POST /events takes outlives the process."""
        return inside.is_durable(self.holder.current.recommender)

    def _pool(self, name: str, threads: int) -> ThreadPoolExecutor:
        if self._pid != os.getpid():  # threads do not survive a fork, and the lock may have been held in it
            self._pid, self._lock, self._pools = os.getpid(), threading.Lock(), {}
        with self._lock:
            if name not in self._pools:
                self._pools[name] = ThreadPoolExecutor(threads, thread_name_prefix=f"fastrec-{name}")
            return self._pools[name]

    @property
    def writers(self) -> ThreadPoolExecutor:
        return self._pool("write", self.settings.writes)

    @property
    def readers(self) -> ThreadPoolExecutor:
        """For the views of the inspector, which must not wait behind writes."""
        return self._pool("inspect", 1)

    @property
    def batcher(self) -> Batcher:
        loop = asyncio.get_running_loop()
        found = self._batchers.get(loop)
        if found is None:
            found = Batcher(self._work, self.settings, self.metrics, lambda: self._pool("model", 1))
            self._batchers[loop] = found
        return found

    def check_door(self) -> None:
        """Problem 503 where the queue of the model is full."""
        self.batcher.check_door()

    def enter(self) -> Place:
        """Room for a request on its way to the queue; Problem 503 where there is none."""
        self.batcher.check_door()
        return Place(self.batcher)

    def method(self, name: str) -> Any:
        """A method of the recommender; Problem 501 where this version has none."""
        found = getattr(self.holder.current.recommender, name, None)
        if found is None:
            raise Problem(501, "not-implemented", f"[serve] this version of the recommender has no {name}")
        # Looked up again when it runs: the model may have been exchanged by then.
        return lambda *args: getattr(self.holder.current.recommender, name)(*args)

    async def answer(self, call: calls.Call) -> Response:
        """The answer of the model to a call that waits in the queue."""
        self.check_sizes(call)
        with self.trace.span("fastrec.answer", method=call.method, users=len(call.subjects)):
            (content, kind), queued, took = await self.batcher.ask(call.key, max(1, len(call.subjects)), call)
        timing = f"queue;dur={1000 * queued:.2f}, model;dur={1000 * took:.2f}"
        return Response(content, headers={"Server-Timing": timing}, media_type=kind)

    async def write(self, change: Callable[[], _T]) -> _T:
        """Run a change of the model in a thread; Problem 503 where too many wait already."""
        if self._writing >= 8 * self.settings.writes:
            self.metrics.rejected.labels("writes").inc()
            raise busy("[serve] too many changes wait already; ask again")
        self._writing += 1
        began = time.perf_counter()
        try:
            with self.trace.span("fastrec.write"):
                return await asyncio.get_running_loop().run_in_executor(self.writers, change)
        finally:
            self._writing -= 1
            self.metrics.stage_write.observe(time.perf_counter() - began)

    def reload(self, path: str) -> Model:
        """Exchange the model, here and in the other workers. Blocks."""
        model = self.holder.reload(path)
        self.on_reload(path)
        return model

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

    def close(self) -> None:
        """End the threads when what they do is done."""
        for pool in self._pools.values():
            pool.shutdown(wait=True)
        self._pools.clear()

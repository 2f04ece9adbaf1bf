"""Micro-batching: what arrives while the model is at work goes to it together, as one call.

One call runs at a time, for a call uses all threads of the engine. While it runs, requests gather; when it
ends, as many of them as the target of the latency allows make the next one. Where several gather, the next
call waits a part of the time that it will take, so that those who come just now can join; where one request
comes at a time it waits for nobody. How long a call of b users takes is learned from the calls before:
seconds = fixed + b * each. The same estimate closes the door: a request whose answer would come later than
the target is refused at once instead of served late. (The idea of an estimate is that of Clipper, Crankshaw
et al. 2017, and of BentoML's dispatcher.)

Where more are refused than are taken, whom to take is a choice: those who come late in a call wait least for the next
one. So the limit of the wait falls until the slowest answers are as fast as without the crowd, but never so far that
the next call would find nobody.
"""

import asyncio
import collections
import contextvars
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastrec.serve.metrics import Metrics
from fastrec.serve.problems import Problem, busy
from fastrec.serve.settings import ServeSettings

#: Share of the target that one call may take: a request may arrive just after the one before it has begun, and
#: HTTP needs its time too, more of it while many are refused.
_SHARE = 0.28
#: Share of the target that the way through queue and model may take.
_MODEL = 0.6
#: Share of the target within which 49 of 50 answers shall leave the model while others are refused.
_GOAL = 0.5
#: Answers after which the limit of the wait is looked at.
_WINDOW = 50
#: Share of a call, at its end, in which the door is open in any case.
_OPEN = 0.35
#: Share of the limit of the wait that a crowd begins with.
_CROWD = 0.7
#: Share of the places of a call below which it could have had more.
_FULL = 0.85
_FORGET = 0.95


@dataclass(eq=False, slots=True)
class Ask:
    """A request on its way to the model. users: how many it is about."""

    users: int
    payload: Any
    arrived: float
    deadline: float
    future: "asyncio.Future[Any]"
    began: float = 0.0
    ended: float = 0.0


class Cost:
    """Seconds of a call of b users, as fixed + b * each, from the calls so far; the old ones fade."""

    def __init__(self) -> None:
        self._n = self._b = self._t = self._bb = self._bt = 0.0
        self.fixed = self.each = 0.0

    def learn(self, users: int, seconds: float) -> None:
        if self._n > 3:  # one call that was held up must not close the door; if it stays so, a few will tell
            seconds = min(seconds, 2 * self.of(users) + 1e-4)
        sums = (1.0, users, seconds, users * users, users * seconds)
        old = (self._n, self._b, self._t, self._bb, self._bt)
        self._n, self._b, self._t, self._bb, self._bt = (
            _FORGET * kept + new for kept, new in zip(old, sums, strict=True)
        )
        b, t = self._b / self._n, self._t / self._n
        spread = self._bb / self._n - b * b
        slope = (self._bt / self._n - b * t) / spread if spread > 1e-6 * max(b * b, 1) else 0.0
        # Calls of one size tell nothing of the slope: half of the time is taken for it, then. With a quarter the
        # calls, and the slowest answers in a crowd, grew too long.
        self.each = min(max(slope, 0.0), t / b) if spread > 0.01 * b * b else t / b / 2
        self.fixed = max(t - self.each * b, 0.0)

    def of(self, users: int) -> float:
        return self.fixed + self.each * users

    def most(self, seconds: float) -> int:
        """Users that a call of so many seconds can answer; at least 1."""
        return max(1, int((seconds - self.fixed) / self.each)) if self.each > 0 else 2**30


#: How a batch comes to the model.
Submit = Callable[[list[Any], Callable[[Any], None]], None]
#: The place of the request that the running task answers; it is given up when the request enters the queue.
PLACE: "contextvars.ContextVar[Place | None]" = contextvars.ContextVar("fastrec-place", default=None)


class Place:
    """Room for one request that was let in and is not in the queue yet: its body must still be read."""

    def __init__(self, batcher: "Batcher") -> None:
        self._batcher: Batcher | None = batcher
        batcher.coming += 1

    def leave(self) -> bool:
        """Give the room back; whether it was still held."""
        if self._batcher is None:
            return False
        self._batcher.coming -= 1
        self._batcher = None
        return True


class Batcher:
    """The queue before the model. All methods belong to one event loop.

    submit: begins the call for the payloads of a batch; in the end, and not before it has returned, the loop calls what
        it was given with one result or exception for each of them, or with one exception for all
    """

    def __init__(self, submit: Submit, settings: ServeSettings, metrics: Metrics) -> None:
        self._submit, self._settings, self._metrics = submit, settings, metrics
        self._loop = asyncio.get_running_loop()
        self._waiting: collections.deque[Ask] = collections.deque()
        self._users = 0
        self._running_since: float | None = None
        self._running_users = 0
        self._timer: asyncio.TimerHandle | None = None
        self._overdue: asyncio.TimerHandle | None = None
        self._took: list[float] = []
        self._refused = 0
        self.cost, self.tight = Cost(), 1.0
        #: Requests that were let in and are on their way to the queue.
        self.coming = 0

    def expected_wait(self, users: int = 1) -> float:
        """Seconds until a request that comes now would have its answer."""
        size = self._size()
        ahead = self._users + self.coming + users
        full, rest = divmod(ahead, size)
        wait = full * self.cost.of(size) + (self.cost.of(rest) if rest else 0.0)
        if self._running_since is not None:
            wait += max(0.0, self.cost.of(self._running_users) - (time.perf_counter() - self._running_since))
        return wait

    def check_door(self, users: int = 1) -> None:
        """Problem 503 where a request that comes now would be answered too late and is not part of the next call."""
        wait = 0.0
        if self._stuck:
            wait = self._settings.timeout
        elif len(self._waiting) < self._settings.max_queue:
            size, ahead = self._size(), self._users + self.coming
            if (ahead == 0 or ahead + users <= size) and (self.tight == 1.0 or self._running_since is None):
                return
            wait = self.expected_wait(users)
            if wait <= max(_MODEL * self._settings.target * self.tight, (1 + _OPEN) * self.cost.of(size)):
                return
        self._refused += 1
        self._metrics.rejected.labels("queue_full").inc()
        raise busy(f"[serve] {len(self._waiting)} requests wait already; ask again", wait)

    @property
    def _stuck(self) -> bool:
        """Whether the running call takes longer than anybody would wait."""
        since = self._running_since
        return since is not None and time.perf_counter() - since > self._settings.timeout

    def _steer(self) -> None:
        """Bring the limit of the wait to where the answers are fast enough."""
        slow = sorted(self._took)[-len(self._took) // 50]
        if self._refused <= len(self._took):  # no crowd: each place that stays empty is a request refused for nothing
            self.tight = 1.0
        elif self.tight == 1.0:
            self.tight = _CROWD
        elif slow > _GOAL * self._settings.target:
            self.tight = max(0.1, 0.85 * self.tight)
        else:
            self.tight = min(0.999, 1.05 * self.tight)
        self._took.clear()
        self._refused = 0

    async def ask(self, users: int, payload: Any) -> tuple[Any, float, float]:
        """(result for this payload, seconds in the queue, seconds of the call).

        Problem 503 where the queue is full or the deadline passes.
        """
        place = PLACE.get()
        if place is None or not place.leave() or users > 1:
            self.check_door(users)
        now = time.perf_counter()
        ask = Ask(users, payload, now, now + self._settings.timeout, self._loop.create_future())
        self._waiting.append(ask)
        self._users += users
        self._metrics.queue.set(len(self._waiting))
        self._next(first=True)
        result = await ask.future
        return result, ask.began - ask.arrived, ask.ended - ask.began

    @property
    def idle(self) -> bool:
        return not self._waiting and self._running_since is None

    def _size(self) -> int:
        if not self._settings.batching:
            return 1
        # Where the fixed part alone takes the time, small calls would not make it shorter.
        seconds = max(_SHARE * self._settings.target, 2 * self.cost.fixed)
        return min(self._settings.max_batch, self.cost.most(seconds))

    def _next(self, first: bool = False) -> None:
        """Begin the next call now or in a moment; nothing while one runs."""
        if self._running_since is not None or not self._waiting:
            return
        if self._users >= self._size() or not self._settings.batching:
            self._begin()
        elif self._timer is None:
            wait = 0.0 if first else min(self._settings.window, self.cost.of(self._users) / 8)
            if wait > 0 and len(self._waiting) > 1:
                self._timer = self._loop.call_later(wait, self._begin)
            else:
                self._begin()

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now, size = time.perf_counter(), self._size()
        batch: list[Ask] = []
        users = 0
        while self._waiting and (not batch or users + self._waiting[0].users <= size):
            ask = self._waiting.popleft()
            self._users -= ask.users
            if ask.future.done():  # its client has gone
                continue
            if now > ask.deadline:
                self._late(ask)
                continue
            self._metrics.stage_queue.observe(now - ask.arrived)
            ask.began = now
            batch.append(ask)
            users += ask.users
        self._metrics.queue.set(len(self._waiting))
        if not batch:
            return self._next()
        if users < _FULL * size:  # the door was closed to some who would have had a place
            self.tight = min(1.0, 1.2 * self.tight)
        self._metrics.batch.observe(users)
        self._running_since, self._running_users = now, users
        self._overdue = self._loop.call_later(self._settings.timeout, self._give_up)
        try:
            self._submit([ask.payload for ask in batch], lambda results: self._end(batch, users, now, results))
        except RuntimeError as error:  # the threads were ended
            self._end(batch, users, now, error)

    def _give_up(self) -> None:
        """The running call does not end: whose deadline has passed is told so, and not only when it ends."""
        now = time.perf_counter()
        while self._waiting and (self._waiting[0].deadline <= now or self._waiting[0].future.done()):
            ask = self._waiting.popleft()
            self._users -= ask.users
            if not ask.future.done():
                self._late(ask)
        self._metrics.queue.set(len(self._waiting))
        self._overdue = self._loop.call_later(max(0.01, self._settings.timeout / 20), self._give_up)

    def _late(self, ask: Ask) -> None:
        self._metrics.rejected.labels("deadline").inc()
        ask.future.set_exception(busy("[serve] the deadline passed before the model was free; ask again"))

    def _end(self, batch: list[Ask], users: int, began: float, results: Any) -> None:
        ended = time.perf_counter()
        seconds = ended - began
        self._metrics.stage_model.observe(seconds)
        self._running_since = None
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
        if isinstance(results, BaseException):
            results = [results] * len(batch)
        else:
            self.cost.learn(users, seconds)
        if len(self._took) >= _WINDOW:
            self._steer()
        self._next()  # the model first, then those who wait for their answers
        for ask, result in zip(batch, results, strict=True):
            if ask.future.done():
                continue
            ask.ended = ended
            self._took.append(ended - ask.arrived)
            if isinstance(result, Exception):
                ask.future.set_exception(result)
            elif isinstance(result, BaseException):
                ask.future.set_exception(Problem(500, "failure", "[serve] the model call was ended"))
            else:
                ask.future.set_result(result)

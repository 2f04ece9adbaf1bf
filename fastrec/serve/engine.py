"""The one way from the routes to the model, wherever it is: ``Here`` in this process, ``beside.Beside`` in another."""

import abc
import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

from fastrec.serve.calls import Call
from fastrec.serve.host import POOLS, Host, Pools
from fastrec.serve.model import Facts, Model

Done = Callable[[Any], None]


class Engine(abc.ABC):
    """A model that answers. ``submit`` and ``do`` belong to an event loop."""

    #: Told the facts of a model that came without being asked for.
    on_return: Callable[[Facts], None] | None = None

    @property
    @abc.abstractmethod
    def facts(self) -> Facts:
        """What is known of the model that is served."""

    @abc.abstractmethod
    def check(self) -> None:
        """Problem 503 where no model is there just now."""

    @abc.abstractmethod
    def submit(self, batch: Sequence[Call], done: Done) -> None:
        """Begin a batch; one at a time. The loop calls done later, with an ``Answered`` or an exception."""

    @abc.abstractmethod
    async def do(self, what: str, *args: Any) -> Any:
        """What a method of ``Host`` gives or raises, of those in ``POOLS``."""

    @abc.abstractmethod
    async def begin(self) -> None:
        """Before the first request, in the loop; needed where the model is in another process."""

    @abc.abstractmethod
    async def close(self) -> None:
        """After the last answer, in the loop."""

    @abc.abstractmethod
    def end(self) -> None:
        """Give everything back; blocks until what runs is done."""


class Here(Engine):
    """A model in this process: threads do the work."""

    def __init__(self, model: Model, store: str | None, writes: int) -> None:
        self._host, self._pools = Host(model, store), Pools(writes)

    @property
    def facts(self) -> Facts:
        return self._host.current.facts

    def check(self) -> None:
        pass

    def submit(self, batch: Sequence[Call], done: Done) -> None:
        in_thread(self._pools.get("model"), self._host.answer, batch, done)

    async def do(self, what: str, *args: Any) -> Any:
        pool = self._pools.get(POOLS[what])
        return await asyncio.get_running_loop().run_in_executor(pool, getattr(self._host, what), *args)

    async def begin(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def end(self) -> None:
        self._pools.end()


def in_thread(pool: Executor, work: Callable[[Any], Any], given: Any, done: Done) -> None:
    """Run work(given) in a thread; the running loop calls done with what it gave or raised."""
    loop = asyncio.get_running_loop()

    def told(future: Any) -> None:
        error = future.exception()
        loop.call_soon_threadsafe(done, future.result() if error is None else error)

    pool.submit(work, given).add_done_callback(told)

"""The model in a process of its own: the front has its interpreter to itself, and outlives the model.

The model process is started afresh (not forked: the front has threads), and started again when it dies. What it was
asked then is answered with 503; so is all that comes until the model is there again. Who dies again and again is waited
for longer and longer.
"""

import asyncio
import contextlib
import functools
import itertools
import logging
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from fastrec.errors import ArtifactError
from fastrec.serve import process
from fastrec.serve.calls import Call
from fastrec.serve.engine import Done, Engine
from fastrec.serve.model import Facts
from fastrec.serve.problems import Problem, busy
from fastrec.serve.settings import KEY_NAMES, ServeSettings

log = logging.getLogger("fastrec.serve")
#: A process that lived for so many seconds is started again at once; the others after a pause that doubles.
_STEADY = 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0


class Lane(asyncio.Protocol):
    """One socket to the model process, as messages."""

    transport: asyncio.Transport

    def __init__(self, got: Callable[[Any], None], lost: Callable[[], None]) -> None:
        self._got, self._lost = got, lost
        self._buffer = bytearray()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        buffer, head = self._buffer, process.HEAD.size
        buffer += data
        while len(buffer) >= head and len(buffer) >= (end := head + process.HEAD.unpack_from(buffer)[0]):
            message = pickle.loads(bytes(buffer[head:end]))
            del buffer[:end]
            self._got(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost()


class Life:
    """One model process, from its start to its end."""

    def __init__(self, path: str, settings: ServeSettings) -> None:
        self.path, self._settings = path, settings
        self._sockets: list[socket.socket] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._lanes: list[Lane] = []
        self._lost: Callable[[], None] = lambda: None
        #: Whether its end has begun.
        self.over = False
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._done: Done | None = None
        self._began = time.monotonic()
        #: Seconds that loading took.
        self.loading = 1.0

    @property
    def pid(self) -> int:
        return 0 if self._process is None else self._process.pid

    @property
    def age(self) -> float:
        return time.monotonic() - self._began

    def start(self) -> Facts:
        """Start the process and wait for its model; raises what loading has raised. Blocks."""
        pairs = [socket.socketpair() for _ in range(2)]
        self._sockets = [ours for ours, _ in pairs]
        theirs = [other for _, other in pairs]
        fds = [other.fileno() for other in theirs]
        # As this process imports, so shall that one; the script that this one runs is not run again.
        code = f"import sys; sys.path[:] = {sys.path!r}; from fastrec.serve.process import main; main(*{fds})"
        try:
            # A group of its own: Ctrl-C is for the front, which ends the other in its time.
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                pass_fds=fds,
                process_group=0,
                env={name: value for name, value in os.environ.items() if name not in KEY_NAMES},
            )
            for other in theirs:
                other.close()
            if self.over:  # the front ended meanwhile
                raise EOFError
            wanted = (self.path, self._settings.store, self._settings.writes, process.log_levels())
            self._sockets[0].sendall(process.frame(wanted))
            with self._sockets[0].makefile("rb") as file:
                found = process.read(file)
            if isinstance(found, Exception):
                raise found
        except (EOFError, ConnectionError) as error:
            # It closes its sockets in its last moments: its own exit code tells more than that of a kill.
            ended = self.wait(1.0)
            self.leave()
            raise ArtifactError(f"[serve] the model process ended with {ended} while it loaded {self.path}") from error
        except BaseException:
            self.kill()
            self.wait()
            raise
        self.loading = self.age
        facts: Facts = found
        return facts

    async def attach(self, lost: Callable[[], None]) -> None:
        """From here on the running loop holds the sockets; it calls lost when the process has gone."""
        self._lost = lost
        loop = asyncio.get_running_loop()
        for sock, got in zip(self._sockets, (self._answered, self._told), strict=True):
            sock.setblocking(False)
            _, lane = await loop.create_unix_connection(functools.partial(Lane, got, self._gone), sock=sock)
            self._lanes.append(lane)

    def submit(self, batch: Sequence[Call], done: Done) -> None:
        """See ``Engine.submit``."""
        assert self._done is None, "one batch at a time"
        data = process.frame(batch)  # who cannot be written leaves nothing behind
        self._done = done
        self._lanes[0].transport.write(data)

    async def do(self, what: str, args: tuple[Any, ...]) -> Any:
        """See ``Engine.do``."""
        number, future = next(self._numbers), asyncio.get_running_loop().create_future()
        data = process.frame((number, what, args))
        self._waiting[number] = future
        self._lanes[1].transport.write(data)
        return await future

    def _answered(self, found: Any) -> None:
        done, self._done = self._done, None
        assert done is not None
        done(found)

    def _told(self, message: tuple[int, Any]) -> None:
        number, found = message
        future = self._waiting.pop(number)
        if future.done():  # nobody waits for it any more
            return
        if isinstance(found, Exception):
            future.set_exception(found)
        else:
            future.set_result(found)

    def _gone(self) -> None:
        """Everybody who waits is told so."""
        if self.over:
            return
        self.kill()
        self._lost()
        detail = "[serve] the model process ended during this request; ask again"
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Problem(503, "interrupted", detail, headers={"Retry-After": self.retry_after}))
        self._waiting.clear()
        if self._done is not None:
            self._answered(busy(detail, self.loading))

    @property
    def retry_after(self) -> str:
        """Seconds, as the header has them."""
        return str(max(1, round(self.loading)))

    def leave(self) -> None:
        """Ask the process to end, when what it does is done."""
        self.over = True
        for lane in self._lanes:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and the sockets with it
                lane.transport.close()
        for sock in self._sockets if not self._lanes else ():
            sock.close()

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        self.leave()

    def wait(self, seconds: float | None = None) -> int:
        """Exit code of the process; one that takes longer than so many seconds is killed. Blocks."""
        if self._process is None:
            return 0
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


class Beside(Engine):
    """A model of a folder in a process of its own. Belongs to one event loop."""

    def __init__(self, path: str, settings: ServeSettings) -> None:
        """Loads it; blocks, and raises what loading raises."""
        self._settings = settings
        self._life: Life | None = None
        self._next = Life(path, settings)
        self._facts = self._next.start()
        self._path, self._pause, self._ending = path, 0.0, False
        self._loading = self._next.loading
        self._coming: asyncio.Task[None] | None = None

    @property
    def facts(self) -> Facts:
        return self._facts

    def check(self) -> None:
        if self._life is None:
            raise self._absent()

    def _absent(self) -> Problem:
        return busy("[serve] the model is being loaded; ask again", self._pause + self._loading)

    def submit(self, batch: Sequence[Call], done: Done) -> None:
        if self._life is None:
            asyncio.get_running_loop().call_soon(done, self._absent())
        else:
            self._life.submit(batch, done)

    async def do(self, what: str, *args: Any) -> Any:
        self.check()
        assert self._life is not None
        found = await self._life.do(what, args)
        if what == "reload":
            self._facts, self._path = found, args[0]
        return found

    async def begin(self) -> None:
        life = self._next
        await life.attach(lambda: self._lost(life))
        if not life.over:
            self._life = life

    def _lost(self, life: Life) -> None:
        self._life = None
        if not self._ending:
            self._coming = asyncio.get_running_loop().create_task(self._again(life))

    async def _again(self, dead: Life) -> None:
        """A new process with the newest model, however long it takes."""
        loop, lived = asyncio.get_running_loop(), dead.age
        code = await loop.run_in_executor(None, dead.wait)
        self._pause = 0.0 if lived >= _STEADY else self._longer()
        told = f"the model process {dead.pid} ended with {code} after {lived:.1f} s"
        while not self._ending:
            log.error("%s; another starts in %.1f s", told, self._pause)
            await asyncio.sleep(self._pause)
            self._next = Life(self._path, self._settings)
            try:
                self._facts = await loop.run_in_executor(None, self._next.start)
                await self.begin()
            except Exception as error:
                told, self._pause = f"{self._path} could not be loaded again: {error}", self._longer()
                continue
            self._loading = self._next.loading
            if self._life is None:  # gone already, and the next one is on its way
                return
            log.warning("model %s is served again, by process %d", self._facts.version, self._next.pid)
            if self.on_return is not None:
                self.on_return(self._facts)
            return

    def _longer(self) -> float:
        return min(_LONGEST_PAUSE, max(_FIRST_PAUSE, 2 * self._pause))

    async def close(self) -> None:
        self._ending = True
        if self._coming is not None:
            self._coming.cancel()
        if self._life is None:
            self._next.kill()
        else:
            self._life.leave()
        # The process may still be at a change whose client has gone.
        await asyncio.get_running_loop().run_in_executor(None, self._next.wait, process.GRACE)

    def end(self) -> None:
        self._ending = True
        self._next.kill()
        self._next.wait()

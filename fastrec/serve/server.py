"""uvicorn, with what it lacks for the open: a deadline for whole requests, a limit of connections, a gentle end."""

import asyncio
import functools
import gc
import ipaddress
import logging
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fastrec import inside
from fastrec.errors import ConfigError
from fastrec.serve import model as models
from fastrec.serve.application import make
from fastrec.serve.door import Door
from fastrec.serve.settings import ServeSettings

log = logging.getLogger("fastrec.serve")
#: Seconds in which a server that takes no more connections still answers on those that it has.
DRAIN = 0.5


class Connection(HttpToolsProtocol):
    """A connection must have its whole request in time, and there may only be so many.

    uvicorn's own timeout runs between requests alone: who connects and says nothing, or a byte now and then, would
    stay for ever.
    """

    receive_timeout = 15.0
    most = 10_000
    door: Door | None = None
    _open = 0
    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    #: Whether the parser has a part of a request.
    _begun = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        Connection._open += 1
        super().connection_made(transport)
        if Connection._open > Connection.most:
            transport.abort()
            return
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        Connection._open -= 1
        self._disarm()
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        cycle = self.cycle
        if self.door is not None and not self._begun and (cycle is None or cycle.response_complete):
            answer = self.door.refuse(data)
            if answer is not None:
                self.transport.write(answer)
                self._disarm()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._begun = True
        super().on_message_begin()
        if self._deadline is None:
            self._arm()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._begun = False
        self._disarm()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self.receive_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(self.receive_timeout, self._too_slow)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.abort()


class Server(uvicorn.Server):
    """The end: no new connection, "Connection: close" on every answer for a moment, then only what still runs.

    uvicorn closes at once, and with it the connections that the kernel took and nobody has looked at yet, and those
    kept alive on which a request is just under way.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        for listening in sockets or []:
            for connection in _waiting_connections(listening):
                await loop.connect_accepted_socket(
                    lambda: Connection(config=self.config, server_state=self.server_state, app_state={}), connection
                )
        for server in self.servers:
            server.close()
        for listening in sockets or []:
            listening.close()
        core = _core(self.config.loaded_app)
        if core is not None:
            core.state.draining = True
        ends = loop.time() + DRAIN
        while self.server_state.connections and loop.time() < ends and not self.force_exit:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)


def _waiting_connections(listening: socket.socket) -> Iterator[socket.socket]:
    """Connections that the kernel has made and nobody has taken yet."""
    while True:
        try:
            connection, _ = listening.accept()
        except (BlockingIOError, InterruptedError, OSError):
            return
        connection.setblocking(False)
        yield connection


def _core(app: Any) -> Any:
    """The core of our app, below whatever uvicorn has put around it."""
    while app is not None:
        state = getattr(app, "state", None)
        if state is not None and hasattr(state, "core"):
            return state.core
        app = getattr(app, "app", None)
    return None


def serve(
    model: str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    settings: ServeSettings | None = None,
    most_connections: int | None = None,
) -> None:
    """Serve a saved model until SIGTERM or SIGINT.

    workers: processes, each with the mapped arrays of the model in common; a reload reaches all of them
    most_connections: default what the limit of open files allows
    Raises ConfigError for a host beyond loopback without keys, ArtifactError for a damaged model.
    """
    settings = ServeSettings.from_env() if settings is None else settings
    _check_host(host, settings)
    if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= 1024:
        raise ConfigError(f"[serve] workers={workers!r}, expected 1 to 1024")
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise ConfigError(f"[serve] port={port!r}, expected 0 to 65535")
    path = str(Path(model).resolve())
    files = _raise_file_limit()
    most = max(64, files - 256) if most_connections is None else most_connections
    listening = _listen(host, port)
    shared = tempfile.mkdtemp(prefix="fastrec-serve-") if workers > 1 else None
    try:
        worker = functools.partial(_work, path, settings, listening, shared, most)
        if shared is None:
            worker(ready=True)
        else:
            models.artifact_version(path)  # a wrong folder is told once, not by every worker
            os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", shared)
            _announce(listening, models.artifact_version(path))
            _supervise(functools.partial(worker, parent=os.getpid()), workers)
    finally:
        listening.close()
        if shared is not None:
            shutil.rmtree(shared, ignore_errors=True)


def _work(
    path: str,
    settings: ServeSettings,
    listening: socket.socket,
    shared: str | None,
    most: int,
    ready: bool = False,
    parent: int = 0,
) -> None:
    """One worker: load, listen, serve."""
    app = make(models.load(path, settings.store), settings)
    Connection.most = most
    Connection.door = Door(app.state.core)
    Connection.receive_timeout = settings.body_timeout + 5
    config = uvicorn.Config(
        app,
        http=Connection,
        loop="uvloop" if _has_uvloop() else "asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        backlog=4096,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=30,
    )
    # The thread of the model runs Python between its native parts; the loop should not wait 5 ms for it.
    sys.setswitchinterval(0.0005)
    # What the model is made of stays: the collector need not walk it again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    config.load()
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    server = Server(config)
    core = app.state.core
    if shared is not None:
        _follow(core, Path(shared) / "model", settings, parent)
    if ready:
        _announce(listening, core.holder.current.version)
    # uvicorn raises the signal that ended it once more, for whoever had it before.
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, lambda *_: None)
    server.run(sockets=[listening])
    core.close()


def _announce(listening: socket.socket, version: str) -> None:
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"fastrec: model {version} on http://{shown}:{port}", file=sys.stderr, flush=True)


def _follow(core: Any, note: Path, settings: ServeSettings, parent: int) -> None:
    """Keep a worker at the model, and at the events, of the others: the note names the folder of the last reload."""

    def read() -> str:
        return note.read_text() if note.exists() else ""

    def tell(path: str) -> None:
        beside = note.with_suffix(f".{os.getpid()}")
        # This worker has it already; the others see a text that they do not know.
        known[0] = f"{time.time_ns()}\n{path}"
        beside.write_text(known[0])
        beside.replace(note)

    def follow() -> None:
        told = read()
        if told != known[0]:
            known[0] = told
            core.holder.reload(told.partition("\n")[2])
        elif settings.store is not None:
            inside.catch_up(core.holder.current.recommender)

    def watch() -> None:
        while True:
            time.sleep(0.2)
            if os.getppid() != parent:  # killed: nobody would end this worker any more
                os.kill(os.getpid(), signal.SIGTERM)
                return
            try:
                follow()
            except Exception as error:
                log.warning("a worker could not follow the others: %s", error)

    known = [""]
    follow()  # a worker that was started again after a reload
    core.on_reload = tell
    threading.Thread(target=watch, name="fastrec-follow", daemon=True).start()


def _supervise(worker: Any, workers: int) -> None:
    """Start the workers, start dead ones again, hand signals on, wait for all."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    running: list[Any] = []
    ending = threading.Event()

    def start() -> Any:
        process = context.Process(target=worker)
        process.start()
        return process

    def end(sig: int, frame: FrameType | None) -> None:
        ending.set()

    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, end)
    running = [start() for _ in range(workers)]
    young = 0
    while not ending.wait(0.2):
        for i, process in enumerate(running):
            if not process.is_alive():
                log.warning("worker %d ended with %s; starting another", process.pid, process.exitcode)
                young += 1
                if young > 5 * workers:
                    log.error("workers keep ending; giving up")
                    ending.set()
                    break
                running[i] = start()
    for process in running:
        process.terminate()
    for process in running:
        process.join()
    if young > 5 * workers:
        raise ConfigError("[serve] the workers keep ending; see the log above")


def _check_host(host: str, settings: ServeSettings) -> None:
    """ConfigError where others than this machine could reach a server without keys."""
    if settings.keys or settings.anonymous:
        return
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigError(f"[serve] host={host!r} reaches beyond this machine; set FASTREC_API_KEY first")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(4096)
    except OSError as error:
        listening.close()
        raise OSError(error.errno, f"[serve] cannot listen on {host}:{port}: {error.strerror or error}") from error
    listening.set_inheritable(True)
    return listening


def _raise_file_limit() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 2**16) if hard != resource.RLIM_INFINITY else 2**16
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft


def _has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return False
    return True

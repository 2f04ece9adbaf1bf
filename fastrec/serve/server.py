"""A saved model behind uvicorn, which gets a gentle end: the process with the HTTP in it, and who may reach it."""

import asyncio
import functools
import ipaddress
import logging
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import uvicorn

from fastrec.errors import ConfigError
from fastrec.serve import model as models
from fastrec.serve import process
from fastrec.serve.application import make
from fastrec.serve.beside import Beside
from fastrec.serve.connection import Connection
from fastrec.serve.core import Core
from fastrec.serve.door import Door
from fastrec.serve.engine import Engine, Here
from fastrec.serve.settings import ServeSettings
from fastrec.serve.workers import Note, supervise, watch

#: Seconds in which a server that takes no more connections still answers on those that it has.
DRAIN = 0.5


class Server(uvicorn.Server):
    """The end: no new connection, "Connection: close" on every answer for a moment, then only what still runs.

    uvicorn closes at once, and with it the connections that the kernel took and nobody has looked at yet, and those
    kept alive on which a request is just under way. The model ends after the last answer.

    watch: what the loop does beside
    """

    def __init__(self, config: uvicorn.Config, core: Core, watch: Callable[[], Awaitable[None]] | None) -> None:
        super().__init__(config)
        self._core, self._watch = core, watch
        self._watching: asyncio.Future[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self._core.engine.begin()
        if self._watch is not None:
            self._watching = asyncio.ensure_future(self._watch())
        await super().startup(sockets)

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
        self._core.state.draining = True
        ends = loop.time() + DRAIN
        while self.server_state.connections and loop.time() < ends and not self.force_exit:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)
        if self._watching is not None:
            self._watching.cancel()
        await self._core.engine.close()


def _waiting_connections(listening: socket.socket) -> Iterator[socket.socket]:
    """Connections that the kernel has made and nobody has taken yet."""
    while True:
        try:
            connection, _ = listening.accept()
        except (BlockingIOError, InterruptedError, OSError):
            return
        connection.setblocking(False)
        yield connection


def serve(
    model: str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    model_process: bool = True,
    settings: ServeSettings | None = None,
    most_connections: int | None = None,
) -> None:
    """Serve a saved model until SIGTERM or SIGINT.

    workers: processes, each with a model; its mapped arrays they have in common, and a reload reaches all of them
    model_process: the model of each is in a process of its own, so that HTTP and model do not wait for each other's
        Python, and the death of the model is a time of 503s and not that of the server; False: in the same process
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
        worker = functools.partial(_work, path, settings, listening, shared, most, model_process)
        if shared is None:
            worker(ready=True)
        else:
            models.artifact_version(path)  # a wrong folder is told once, not by every worker
            os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", shared)
            _announce(listening, models.artifact_version(path))
            supervise(functools.partial(worker, parent=os.getpid(), levels=process.log_levels()), workers)
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
    model_process: bool,
    ready: bool = False,
    parent: int = 0,
    levels: dict[str, int] | None = None,
) -> None:
    """One worker: load, listen, serve."""
    process.log_as(levels or {})
    note = None if shared is None else Note(shared)
    if note is not None and note.folder is not None:  # a worker that was started again after a reload
        path = note.folder
    engine: Engine
    if model_process:
        engine = Beside(path, settings)
    else:
        engine = Here(models.load(path, settings.store), settings.store, settings.writes)
    try:
        core, config = _configured(engine, settings, most)
        following = None
        if note is not None:
            core.on_reload = note.tell
            following = functools.partial(watch, core, note, parent)
        if ready:
            _announce(listening, core.facts.version)
        # uvicorn raises the signal that ended it once more, for whoever had it before.
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, lambda *_: None)
        Server(config, core, following).run(sockets=[listening])
    finally:
        engine.end()


def _configured(engine: Engine, settings: ServeSettings, most: int) -> tuple[Core, uvicorn.Config]:
    app = make(engine, settings)
    core: Core = app.state.core
    Connection.most = most
    Connection.door = Door(core)
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
    process.settle()
    config.load()
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    return core, config


def _announce(listening: socket.socket, version: str) -> None:
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"fastrec: model {version} on http://{shown}:{port}", file=sys.stderr, flush=True)


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

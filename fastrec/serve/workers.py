"""Several workers: they are started, watched and ended together, and follow each other's reloads and events."""

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from fastrec.errors import ConfigError
from fastrec.serve.core import Core
from fastrec.serve.problems import Problem

log = logging.getLogger("fastrec.serve")
_SECONDS = 0.2


class Note:
    """The note in which a worker tells the others the folder of its reload."""

    def __init__(self, folder: str) -> None:
        self._path = Path(folder) / "model"
        self._known = self._read()

    def _read(self) -> str:
        return self._path.read_text() if self._path.exists() else ""

    @property
    def folder(self) -> str | None:
        """The folder of the last reload that this worker knows of; None for none."""
        return self._known.partition("\n")[2] or None

    def tell(self, folder: str) -> None:
        """The others see a text that they do not know; this worker has it already."""
        self._known = f"{time.time_ns()}\n{folder}"
        beside = self._path.with_suffix(f".{os.getpid()}")
        beside.write_text(self._known)
        beside.replace(self._path)

    def news(self) -> str | None:
        """The folder that another worker has told since the last look; None for nothing new."""
        old, self._known = self._known, self._read()
        return None if old == self._known else self.folder

    def forget(self) -> None:
        """What was told is news once more."""
        self._known = ""


async def follow(core: Core, note: Note) -> None:
    """Bring a worker to the model, and to the events, of the others; later, where its own model is away."""
    with contextlib.suppress(Problem):
        core.engine.check()
        folder = note.news()
        if folder is None:
            if core.settings.store is not None:
                await core.engine.do("catch_up")
            return
        try:
            await core.follow(folder)
        except Problem:
            note.forget()


async def watch(core: Core, note: Note, parent: int) -> None:
    """Keep a worker at the model, and at the events, of the others; end it with the one who watches it."""
    while True:
        await asyncio.sleep(_SECONDS)
        if os.getppid() != parent:  # killed: nobody would end this worker any more
            os.kill(os.getpid(), signal.SIGTERM)
            return
        try:
            await follow(core, note)
        except Exception as error:
            log.warning("a worker could not follow the others: %s", error)


def supervise(worker: Any, workers: int) -> None:
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

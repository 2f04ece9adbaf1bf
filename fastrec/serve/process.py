"""The model process: what runs in it, and the frames between it and the front.

It has two sockets. On one the front sends batches, and the main thread answers each of them before it reads the next;
on the other comes all else, numbered, and is answered by threads as it is done. The end of the sockets is its end,
however the front ended; no signal is. Frames are pickled: both ends are one program of one user, over a pair of sockets
that nobody else holds.
"""

import contextlib
import gc
import logging
import os
import pickle
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

from fastrec.errors import FastRecError
from fastrec.serve import model as models
from fastrec.serve.calls import Answered, Call
from fastrec.serve.host import POOLS, Host, Pools

HEAD = struct.Struct("!Q")
#: Seconds that a call which runs when the front has gone may still take.
GRACE = 30.0


def frame(message: Any) -> bytes:
    """A message as bytes: its length, and the pickle."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return HEAD.pack(len(data)) + data


def read(file: BinaryIO) -> Any:
    """The next message of a file; EOFError at its end."""
    head = file.read(HEAD.size)
    if len(head) < HEAD.size:
        raise EOFError
    size = HEAD.unpack(head)[0]
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return pickle.loads(data)


def outcome(work: Callable[..., Any], *args: Any) -> Any:
    """What work(*args) gives, or its exception as one that can be sent."""
    try:
        return work(*args)
    except Exception as error:
        return sendable(error)


def answered(host: Host, batch: Sequence[Call]) -> Any:
    """What the host answers to a batch, with the errors in it as ones that can be sent."""
    found = outcome(host.answer, batch)
    if isinstance(found, Answered):
        sent = {id(e): sendable(e) for e in found.results if isinstance(e, Exception)}
        found.results[:] = [sent.get(id(result), result) for result in found.results]
    return found


def sendable(error: Exception) -> Exception:
    """The same error where it is one of ours or of Python and survives pickling; else one that says as much.

    The front must not import what the error of another package is made of.
    """
    sent = error
    try:
        if type(error).__module__.partition(".")[0] not in ("builtins", "fastrec"):
            raise TypeError
        pickle.loads(pickle.dumps(error))
    except Exception:
        sent = RuntimeError(f"{type(error).__name__}: {error}")
    if error.__traceback__ is not None and not isinstance(error, FastRecError):  # a bug: the log of the front has it
        sent.add_note("".join(traceback.format_tb(error.__traceback__)).rstrip())
    return sent


def log_levels() -> dict[str, int]:
    """The levels of the loggers of this process by name; nothing where nobody has set up logging."""
    root = logging.getLogger()
    if not root.handlers:
        return {}
    named = {n: found for n, found in root.manager.loggerDict.items() if isinstance(found, logging.Logger)}
    return {"": root.level, **{name: found.level for name, found in named.items() if found.level}}


def log_as(levels: dict[str, int]) -> None:
    """Log to stderr as the process does that gave ``log_levels``."""
    if levels:
        logging.basicConfig(format="%(message)s", stream=sys.stderr)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def settle() -> None:
    """What is there by now stays: the collector need not walk it again and again. Threads take turns soon."""
    sys.setswitchinterval(0.0005)
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


class _Others:
    """The second socket: what is asked beside batches, in threads."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._lock = sock, threading.Lock()
        self._host: Host | None = None
        self._pools = Pools(1)
        self.ended = threading.Event()
        threading.Thread(target=self._serve, name="fastrec-others", daemon=True).start()

    def serve(self, host: Host, pools: Pools) -> None:
        """Nothing is asked before the front knows of the model."""
        self._host, self._pools = host, pools

    def _serve(self) -> None:
        with contextlib.suppress(EOFError, OSError), self._sock.makefile("rb") as file:
            while True:
                number, what, args = read(file)
                self._pools.get(POOLS[what]).submit(self._run, number, getattr(self._host, what), args)
        if self._host is None:
            os._exit(0)  # nobody waits for what is being loaded
        self.ended.set()
        time.sleep(GRACE)
        os._exit(1)

    def _run(self, number: int, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
        data = frame((number, outcome(work, *args)))
        with self._lock, contextlib.suppress(OSError):
            self._sock.sendall(data)


def main(batches_fd: int, others_fd: int) -> None:
    """Load what the first frame says, tell the facts or the error, then answer until the sockets end."""
    for sig in (signal.SIGTERM, signal.SIGINT):  # they go to whole groups; the front still has answers to give
        signal.signal(sig, signal.SIG_IGN)
    batches, others = socket.socket(fileno=batches_fd), _Others(socket.socket(fileno=others_fd))
    with contextlib.suppress(EOFError, OSError), batches.makefile("rb") as file:
        path, store, writes, levels = read(file)
        log_as(levels)
        model = outcome(models.load, path, store)
        if isinstance(model, Exception):
            batches.sendall(frame(model))
            return
        host, pools = Host(model, store), Pools(writes)
        others.serve(host, pools)
        settle()
        batches.sendall(frame(model.facts))
        while True:
            batches.sendall(frame(answered(host, read(file))))
    if others.ended.wait(GRACE):
        pools.end()

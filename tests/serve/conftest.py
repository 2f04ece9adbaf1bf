"""A model on disk, and real servers for it."""

import asyncio
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest
from helpers import hash_encoder

from fastrec import Recommender
from fastrec.serve import ServeSettings, app


@pytest.fixture(scope="session")
def saved(events, items, tmp_path_factory):
    """Two saved models of the same data whose answers differ: (folder, its model), twice."""
    found = []
    for name, models in (("a", ["item_item", "popularity"]), ("b", ["als"])):
        folder = tmp_path_factory.mktemp("models") / name
        rec = Recommender(encoder=None, models=models, weights="equal").fit(events, items)
        rec.save(folder)
        found.append((folder, rec))
    return found


class Server:
    """``fastrec serve`` as a process; ``url`` is where it listens."""

    def __init__(self, folder, *arguments, env=None):
        # A file: a pipe that nobody reads would hold the server up.
        self.stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fastrec", "serve", str(folder), "--port", "0", *arguments],
            stderr=self.stderr,
            env={**{n: v for n, v in os.environ.items() if not n.startswith("FASTREC_A")}, **(env or {})},
        )
        deadline = time.monotonic() + 120
        while not (found := re.search(r"on (http://\S+)\n", self.log())):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(self.log())
            time.sleep(0.02)
        self.url = found[1]

    @property
    def address(self):
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host, int(port)

    def log(self):
        """Everything that was logged."""
        with open(f"/proc/self/fd/{self.stderr.fileno()}") as file:
            return file.read()

    def children(self, named="spawn_main", of=None):
        """Process ids of the workers, or of what else has this in its command line and was started by this process."""
        found = []
        parent = self.process.pid if of is None else of
        # Not by the list of children in /proc, which is short at times while processes come and go.
        for folder in glob.glob("/proc/[0-9]*"):
            try:
                with open(f"{folder}/stat") as stat, open(f"{folder}/cmdline") as command:
                    its = int(stat.read().rpartition(")")[2].split()[1])
                    if its == parent and named in command.read():
                        found.append(int(folder.rpartition("/")[2]))
            except (FileNotFoundError, ProcessLookupError):
                continue
        return sorted(found)

    def model_process(self, of=None):
        """Process id of the model of this server, or of this worker; None where there is none just now."""
        return next(iter(self.children("serve.process", of)), None)

    def memory(self):
        """Resident bytes, with those of the model."""
        pages = 0
        for pid in self._pids():
            with open(f"/proc/{pid}/statm") as file:
                pages += int(file.read().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def files(self):
        """Open files, with those of the model."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self._pids())

    def _pids(self):
        return [pid for pid in (self.process.pid, self.model_process()) if pid is not None]

    def end(self, sig=signal.SIGTERM):
        """Exit code after a signal."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            return self.process.wait(30)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.stderr.close()


@pytest.fixture
def serve():
    """Starts servers that end with the test."""
    running = []

    def start(folder, *arguments, env=None):
        running.append(Server(folder, *arguments, env=env))
        return running[-1]

    yield start
    for server in running:
        if not server.stderr.closed:
            server.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def server(saved, tmp_path_factory):
    """One server of a copy of model a for the tests of a file."""
    folder = shutil.copytree(saved[0][0], tmp_path_factory.mktemp("served") / "a")
    running = Server(folder, "--target-ms", "5000")
    yield running
    running.end(signal.SIGKILL)


@pytest.fixture(scope="session")
def asgi():
    """ask(app, verb, path, client="127.0.0.1", **httpx arguments) without a network."""
    httpx = pytest.importorskip("httpx")

    def ask(made, verb, path, client="127.0.0.1", **arguments):
        async def one():
            transport = httpx.ASGITransport(made, client=(client, 1234))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                return await http.request(verb, path, **arguments)

        return asyncio.run(one())

    return ask


@pytest.fixture(scope="session")
def rec(events, items):
    """The fitted model with every source, for this folder alone: some of its tests write."""
    return Recommender(encoder=hash_encoder).fit(events, items)


@pytest.fixture(scope="session")
def made(rec):
    """The app of the fitted model with every source."""
    return app(rec, ServeSettings())

"""Servers that tests start for themselves."""

import shutil
import signal
import subprocess
import time

import pytest

redis_server = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="redis-server is absent: apt-get install redis-server"
)


class RedisServer:
    """A redis-server of our own in a folder, on a socket of its own."""

    def __init__(self, folder, fsync="always"):
        self.redis = pytest.importorskip("redis", reason="redis-py is absent: extra 'redis'")
        self.folder, self.fsync, self.socket = folder, fsync, folder / "s"
        self.start()

    def start(self):
        command = ["redis-server", "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder)]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", self.fsync]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                with self.redis.Redis(unix_socket_path=str(self.socket)) as client:
                    client.ping()
                return
            except self.redis.exceptions.RedisError:
                time.sleep(0.05)
        raise AssertionError("redis-server does not answer")

    @property
    def url(self):
        return f"unix://{self.socket}?prefix=t"

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

"""Settings that come from the environment, and checks that every public function shares."""

import math
import os
from functools import cache
from pathlib import Path

from fastrec.errors import ConfigError


def threads(asked: int | None = None) -> int:
    """Threads for native work: the argument, else FASTREC_THREADS, else what this process may use.

    The scheduler's affinity and the cgroup's CPU quota both count: a container with 2 of 64 cores
    gets 2. Raises ConfigError for a number below 1.
    """
    if asked is None and os.environ.get("FASTREC_THREADS"):
        text = os.environ["FASTREC_THREADS"]
        if not text.isdigit():
            raise ConfigError(f"[config] FASTREC_THREADS={text!r}, expected a whole number of at least 1")
        asked = int(text)
    if asked is not None:
        if isinstance(asked, bool) or not isinstance(asked, int) or asked < 1:
            raise ConfigError(f"[config] threads={asked!r}, expected a whole number of at least 1")
        return asked
    return max(1, min(len(os.sched_getaffinity(0)), _cgroup_cpus()))


@cache
def _cgroup_cpus() -> int:
    """CPUs that the cgroup v2 quota allows, rounded up; a large number where there is no quota."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return 1 << 20


def free_memory() -> int:
    """Bytes that this process may still take: what the system has free, and the cgroup's limit leaves."""
    free = 1 << 62
    try:
        text = Path("/proc/meminfo").read_text()
        free = next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("MemAvailable:"))
        most, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        stat = dict(line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines())
        free = min(free, most - used + int(stat["inactive_file"]))  # files that were read give way at once
    except (OSError, ValueError, KeyError, StopIteration):  # no Linux, no cgroup v2, or "max": what is known counts
        pass
    return max(free, 0)


def cache_dir(asked: str | os.PathLike[str] | None = None) -> Path:
    """Folder for embeddings and data sets: the argument, else FASTREC_CACHE, else ~/.cache/fastrec."""
    if asked is not None:
        return Path(asked)
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("FASTREC_CACHE") or Path(home) / "fastrec")


def check_k(where: str, k: object, largest: int | None = None) -> int:
    """k as int; ConfigError unless it is a whole number of at least 1 (and at most ``largest``)."""
    import numpy as np

    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ConfigError(f"[{where}] k={k!r}, expected a whole number of at least 1")
    if largest is not None and k > largest:
        raise ConfigError(f"[{where}] k={k}, expected at most {largest}")
    return int(k)

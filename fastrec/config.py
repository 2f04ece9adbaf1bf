"""Settings that come from the environment, and checks that every public function shares."""

import math
import os
from functools import cache
from pathlib import Path

from fastrec.errors import ConfigError


def threads(asked: int | None = None) -> int:
    """Threads for native work: the argument, else FASTREC_THREADS, else what this process may use.

    The scheduler's affinity and the cgroup's CPU quota both count: a container with 2 of 64 cores gets 2, and a process
    that numactl or a cpuset keeps on one NUMA node gets the cores of that node. Raises ConfigError for less than 1.
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
    return max(1, min(len(os.sched_getaffinity(0)), cgroup_cpus()))


@cache
def cgroup_cpus(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """CPUs that the quotas of the cgroup and of all above it allow, rounded up; a large number where there are none.

    root: where the cgroups are mounted, of version 2 or 1
    own: the file with a line "id:controllers:path" for each hierarchy that this process is in
    """
    least = 1 << 20
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:  # no Linux
        return least
    for _, controllers, path in (line for line in lines if len(line) == 3):
        old = "cpu" in controllers.split(",")
        if controllers and not old:
            continue
        top = root / controllers if old else root
        # Inside a container the path may be that of the host: what is not mounted here is skipped.
        for folder in (top / path.strip("/"), *(top / path.strip("/")).parents):
            quota = _quota(folder, old)
            least = least if quota is None else min(least, quota)
            if folder == top:
                break
    return least


def _quota(folder: Path, old: bool) -> int | None:
    """CPUs of one cgroup; None for no limit ("max", or -1 in version 1)."""
    try:
        if old:
            words = [(folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")]
        else:
            words = (folder / "cpu.max").read_text().split()
        quota, period = (int(word) for word in words)
    except (OSError, ValueError):
        return None
    return max(1, math.ceil(quota / period)) if quota > 0 and period > 0 else None


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


def check_k(where: str, k: object, largest: int | None = None, name: str = "k") -> int:
    """k as int; ConfigError unless it is a whole number of at least 1 (and at most ``largest``)."""
    import numpy as np

    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ConfigError(f"[{where}] {name}={k!r}, expected a whole number of at least 1")
    if largest is not None and k > largest:
        raise ConfigError(f"[{where}] {name}={k}, expected at most {largest}")
    return int(k)

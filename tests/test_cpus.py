"""How many threads a process gets: affinity, and quotas of cgroups of both versions, from files made up here."""

import os

import pytest

from fastrec import config


@pytest.fixture
def cpus(tmp_path):
    """A function: lines of /proc/self/cgroup, and files under the place where cgroups are mounted -> CPUs."""

    def count(own, **files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return config.cgroup_cpus.__wrapped__(tmp_path / "cgroup", tmp_path / "own")

    return count


NONE = 1 << 20


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("1000 100000\n", 1),
        ("max 100000\n", NONE),
        ("", NONE),
        ("0 0", NONE),
    ],
)
def test_the_quota_of_version_2(cpus, text, expected):
    assert cpus("0::/\n", **{"cpu.max": text}) == expected


def test_the_least_of_the_cgroup_and_those_above(cpus):
    files = {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000", "cpu.max": "800000 100000"}
    assert cpus("0::/a/b\n", **files) == 3
    assert cpus("0::/a/b\n", **{"a/b/cpu.max": "100000 100000"}) == 1
    assert cpus("0::/somewhere/of/the/host\n") == 8


def test_the_quota_of_version_1(cpus):
    files = {"cpu,cpuacct/job/cpu.cfs_quota_us": "400000\n", "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n"}
    own = "5:memory:/job\n4:cpu,cpuacct:/job\n0::/\n"
    assert cpus(own, **files) == 4
    assert cpus(own, **{"cpu,cpuacct/job/cpu.cfs_quota_us": "-1\n"}) == NONE


def test_no_cgroups_at_all(cpus, tmp_path):
    assert cpus("no line of this kind\n") == NONE
    assert config.cgroup_cpus.__wrapped__(tmp_path, tmp_path / "missing") == NONE


def test_the_affinity_counts_too(monkeypatch):
    monkeypatch.delenv("FASTREC_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 4, 5})
    monkeypatch.setattr(config, "cgroup_cpus", lambda: 8)
    assert config.threads() == 3
    monkeypatch.setattr(config, "cgroup_cpus", lambda: 2)
    assert config.threads() == 2
    assert config.threads(7) == 7

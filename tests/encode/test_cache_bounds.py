"""The size of the cache: bounded, and no matter for opening it."""

import sqlite3
import time

import numpy as np
import pytest

from fastrec.encode.cache import VectorCache, text_key

D = 64


def vectors(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32)


def keys(first, last):
    return [text_key(f"text {i}") for i in range(first, last)]


def test_what_was_not_used_for_longest_goes_first(tmp_path, monkeypatch):
    hour = [1000]
    monkeypatch.setattr("fastrec.encode.cache._hour", lambda: hour[0])
    limit = 600_000
    cache = VectorCache(tmp_path, "f", D, limit)
    cache.put(keys(0, 500), vectors(500))
    hour[0] += 1
    assert len(cache.get(keys(0, 100))) == 100  # used again
    for at in range(500, 3000, 100):
        hour[0] += 1
        cache.get(keys(0, 100))
        cache.put(keys(at, at + 100), vectors(100, at))
    assert len(cache.get(keys(0, 100))) == 100
    assert cache.get(keys(100, 500)) == {}
    assert len(cache.get(keys(2900, 3000))) == 100
    cache.close()
    assert cache.path.stat().st_size < 1.5 * limit


def test_a_limit_below_one_batch_keeps_nothing_but_works(tmp_path):
    cache = VectorCache(tmp_path, "f", D, 1)
    cache.put(keys(0, 300), vectors(300))
    assert cache.enabled
    assert len(cache.get(keys(0, 300))) == 0


@pytest.mark.parametrize("n", [1_000_000])
def test_a_million_vectors_open_at_once(tmp_path, n):
    cache = VectorCache(tmp_path, "f", 4)
    cache.put(keys(0, 3), vectors(3)[:, :4])
    cache.close()
    with sqlite3.connect(cache.path) as connection:
        connection.execute("PRAGMA synchronous = OFF").fetchall()
        connection.execute(
            "INSERT INTO vectors WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < ?) "
            "SELECT CAST(printf('%016x', i) AS BLOB), zeroblob(20), 0 FROM c",
            (n,),
        )
    connection.close()
    begun = time.perf_counter()
    again = VectorCache(tmp_path, "f", 4)
    assert len(again.get(keys(0, 3))) == 3
    assert time.perf_counter() - begun < 0.1
    again.close()

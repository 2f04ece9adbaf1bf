"""An encoder without a language model, and what else tests share that is no fixture."""

import hashlib
import time

import numpy as np
import polars as pl

from fastrec.types import Interactions


def hash_encoder(texts):
    """A vector per text that depends on its words alone: texts that share words are alike."""
    out = np.zeros((len(texts), 24), np.float32)
    for i, text in enumerate(texts):
        for word in text.lower().replace(",", " ").replace(".", " ").split():
            seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "little")
            out[i] += np.random.default_rng(seed).normal(size=24).astype(np.float32)
    return out


def until(true, seconds):
    """Wait for a condition that must come true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def history_of(events, user):
    """Item ids of a user in the order of the input."""
    return events.filter(pl.col("user_id") == user)["item_id"].to_list()


def interactions(histories, n_items, times=None, weights=None):
    """Interactions of lists of item rows."""
    indptr = np.cumsum([0] + [len(h) for h in histories]).astype(np.int64)
    flat = np.array([i for h in histories for i in h], np.int32)
    times = np.arange(len(flat), dtype=np.float64) if times is None else np.asarray(times, np.float64)
    weights = np.ones(len(flat), np.float32) if weights is None else np.asarray(weights, np.float32)
    return Interactions(indptr, flat, times, weights, n_items)


def dense(csr):
    out = np.zeros((csr.n_rows, csr.n_cols), np.float32)
    for r in range(csr.n_rows):
        span = slice(csr.indptr[r], csr.indptr[r + 1])
        out[r, csr.indices[span]] = csr.values[span]
    return out


def random_interactions(seed, n_users=40, n_items=23):
    rng = np.random.default_rng(seed)
    histories = [rng.permutation(n_items)[: rng.integers(0, 12)] for _ in range(n_users)]
    n = sum(map(len, histories))
    return interactions(histories, n_items, weights=rng.choice([0.0, 0.5, 1.0, 3.0], n))


def pairwise_loss(data, users, items, regularization=0.0):
    """The objective in full: every event against every item that the user has not had."""
    total = 0.0
    for u in range(data.n_users):
        mine = data.items[data.indptr[u] : data.indptr[u + 1]]
        scores = items.astype(np.float64) @ users[u]
        others = np.delete(np.arange(data.n_items), mine)
        apart = scores[mine][:, None] - scores[others]
        total += np.log1p(np.exp(-apart)).mean(axis=1).sum()
        squares = (users[u] ** 2).sum() + (items[mine] ** 2).sum(axis=1) + (items[others] ** 2).sum(axis=1).mean()
        total += regularization / 2 * squares.sum()
    return total / len(data.items)


def groups(n_users=60, n_items=48, length=10):
    """Users of three kinds who choose among the items of their kind."""
    rng = np.random.default_rng(2)
    return interactions([rng.permutation(n_items // 3)[:length] * 3 + u % 3 for u in range(n_users)], n_items)


def everything(rec, k=50):
    """All that a model answers, as comparable values."""
    users = sorted(rec.user_ids)
    found = rec.recommend([*users, "nobody"], k)
    similar = rec.similar_items(sorted(rec.item_ids), 5)
    return [a.tolist() for a in (found.items, found.scores, similar.items, similar.scores)], users

"""Privacy: names that lead back to nobody without a key, statistics about no few, and a measure of what a model leaks.

    new_key, read_key     the key of 32 bytes behind pseudonyms and encryption (FASTREC_KEY, or a file)
    Pseudonyms            ids -> keyed BLAKE2b, before the data comes near a model
    item_statistics       counts per item, none of which stands for fewer than k users
    membership_auc        how well an attacker tells who was in the training data: 0.5 is a coin

Erasing is ``Recommender.erase_users``; encryption at rest happens wherever FASTREC_KEY is set; training with a bound on
what it tells about one user is ``fastrec.models.PrivateAls``.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl

from fastrec.data import read
from fastrec.errors import ConfigError, DataError
from fastrec.profiles import profiles
from fastrec.recommender import Recommender
from fastrec.store import derive, read_key
from fastrec.types import F64, DenseSource, Interactions

__all__ = ["item_statistics", "membership_auc", "new_key", "Pseudonyms", "read_key"]


def new_key() -> bytes:
    """32 random bytes; write them to a file that only the service may read."""
    return os.urandom(32)


class Pseudonyms:
    """Names in place of ids: the same id gives the same name, and without the key no name leads back to an id.

    key: 32 bytes, the path of a file with them, or None for FASTREC_KEY. Raises ConfigError where there is none.

    A plain hash would not do: ids can be guessed, and a guess be hashed. With a lost key the names stay what they are,
    and lead nowhere.
    """

    def __init__(self, key: bytes | str | os.PathLike[str] | None = None) -> None:
        found = read_key(key)
        if found is None:
            raise ConfigError("[privacy] no key: give 32 bytes, the path of a file, or set FASTREC_KEY")
        self._key = derive(found, b"fastrec-name")

    def name(self, one: str | int) -> str:
        """32 hexadecimal digits; of 7 and "7" they differ."""
        if isinstance(one, bool) or not isinstance(one, (str, int, np.integer)):
            raise DataError(f"[privacy] an id is {type(one).__name__}, expected str or int")
        plain = f"s:{one}" if isinstance(one, str) else f"i:{int(one)}"
        return hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16, key=self._key).hexdigest()

    def names(self, ids: Iterable[str | int]) -> list[str]:
        """One name for each id."""
        return [self.name(one) for one in ids]

    def table(self, given: Any, columns: Sequence[str] = ("user_id",)) -> pl.DataFrame:
        """A table as ``fit`` takes it with these columns of ids replaced; nulls stay. May raise DataError."""
        frame = read(given, where="privacy")
        for column in columns:
            if column not in frame.columns:
                raise DataError(f"[privacy] no column {column!r}, found {frame.columns}", column=column)
            ids = frame[column].to_list()
            names = [None if one is None else self.name(one) for one in ids]
            frame = frame.with_columns(pl.Series(column, names, dtype=pl.String))
        return frame


def item_statistics(rec: Recommender, k: int = 10) -> pl.DataFrame:
    """How many users chose each item and how strongly: item_id, users, mean_weight; null where fewer than k did.

    k: the smallest group that may be told of, at least 2. Nobody can be picked out of a row; who compares tables of
    two days may still learn of a change, which noise alone would hide.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 2:
        raise ConfigError(f"[privacy] k={k!r}, expected a whole number >= 2")
    state = rec._fitted("item_statistics")
    histories = state.interactions
    users = np.bincount(histories.items, minlength=len(state.items))
    total = np.bincount(histories.items, histories.weights, len(state.items))
    told = users >= k
    return pl.DataFrame(
        {
            "item_id": state.items.ids(np.arange(len(state.items))).tolist(),
            "users": [int(n) if tell else None for n, tell in zip(users, told, strict=True)],
            "mean_weight": [
                float(t / n) if tell else None for t, n, tell in zip(total, np.maximum(users, 1), told, strict=True)
            ],
        },
        schema_overrides={"users": pl.Int64, "mean_weight": pl.Float64},
    )


def membership_auc(source: DenseSource, members: Interactions, others: Interactions) -> float:
    """The area under the ROC curve of an attack on the item vectors of one source: who was in the training data?

    members: histories that the source was fitted on; others: like them, but unknown to it

    For each of a user's entries the attacker makes a query of the user's other entries and looks where the entry ranks:
    a model that learned a user's events by heart ranks them too well. 0.5: the attacker learns nothing, 1: everything.
    Source of the idea: Shokri et al. 2017, with the leave-one-out rank in place of the loss.
    """
    inside, outside = _ranks(source, members), _ranks(source, others)
    if not len(inside) or not len(outside):
        raise DataError("[privacy] membership_auc needs members and others with at least two entries each")
    better = (inside[:, None] > outside[None, :]).mean() + 0.5 * (inside[:, None] == outside[None, :]).mean()
    return float(better)


def _ranks(source: DenseSource, histories: Interactions) -> F64:
    """Mean share of the catalogue that stands below a left-out entry, for every user with two entries or more."""
    out = []
    for u in range(histories.n_users):
        one = histories.take([u])
        n = len(one.items)
        if n < 2:
            continue
        kept = [np.delete(np.arange(n), j) for j in range(n)]
        at = np.concatenate(kept)
        indptr = (np.arange(n + 1) * (n - 1)).astype(np.int64)
        without = one.arranged(indptr, at)
        scores = profiles(source, without) @ source.vectors.T
        # The others of his own entries compete with nobody.
        for j, others in enumerate(kept):
            scores[j, one.items[others]] = np.nan
        mine = scores[np.arange(n), one.items][:, None]
        below = (scores < mine).sum(axis=1) + 0.5 * ((scores == mine).sum(axis=1) - 1)
        out.append(float((below / max(histories.n_items - n, 1)).mean()))
    return np.array(out)

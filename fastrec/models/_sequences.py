"""Histories as batches of packed sequences, and the negatives of a step."""

import itertools
from dataclasses import dataclass

import numpy as np

from fastrec.sequence import gap_buckets, strength_buckets
from fastrec.types import F32, F64, I64, Interactions


@dataclass(frozen=True, eq=False)
class Batch:
    """S sequences behind one another, the longest first.

    rows, targets: int64 [T], each item and the one that followed it
    places: int64 [T], place of the token in its sequence
    gaps, strengths, kinds: int64 [T], buckets
    lengths: int64 [S], descending
    """

    rows: I64
    targets: I64
    places: I64
    gaps: I64
    strengths: I64
    kinds: I64
    lengths: I64

    def shards(self, tokens: int) -> list["Batch"]:
        """Neighbouring sequences as batches of about ``tokens`` tokens of their own."""
        ends = np.cumsum(self.lengths)
        count = max(1, round(int(ends[-1]) / tokens))
        cuts = np.unique(np.searchsorted(ends, np.arange(1, count) * (ends[-1] / count)) + 1)
        bounds = [0, *[int(c) for c in cuts if c < len(ends)], len(ends)]
        out = []
        for first, last in itertools.pairwise(bounds):
            span = slice(int(ends[first - 1]) if first else 0, int(ends[last - 1]))
            arrays = (self.rows, self.targets, self.places, self.gaps, self.strengths, self.kinds)
            rows, targets, places, gaps, strengths, kinds = (a[span] for a in arrays)
            out.append(Batch(rows, targets, places, gaps, strengths, kinds, self.lengths[first:last]))
        return out


class Sequences:
    """The histories of ``interactions`` without entries of no weight, as windows of at most ``length`` tokens."""

    def __init__(self, interactions: Interactions, length: int) -> None:
        likes = interactions.select(interactions.weights > 0)
        self.length, self.indptr = length, likes.indptr
        self.items = likes.items.astype(np.int64)
        self.gaps = gap_buckets(likes.times, likes.indptr)
        self.strengths = strength_buckets(likes.weights)
        self.kinds = np.zeros(len(self.items), np.int64) if likes.kinds is None else likes.kinds.astype(np.int64)
        self.tokens = int(np.maximum(np.diff(self.indptr) - 1, 0).sum())

    def epoch(self, random: np.random.Generator, tokens: int) -> list[tuple[I64, I64]]:
        """(first entry, length) of the windows of every batch of about ``tokens`` tokens; every transition is in one.

        Long histories are cut at places that change from epoch to epoch.
        """
        counts = np.diff(self.indptr) - 1
        users = np.flatnonzero(counts > 0)
        counts, begin = counts[users], self.indptr[users]
        # The first window is shorter by a random number where there is more than one.
        shift = np.where(counts > self.length, random.integers(0, self.length, len(users)), 0)
        pieces = -(-(counts + shift) // self.length)
        owner = np.repeat(np.arange(len(users)), pieces)
        number = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        first = np.maximum(number * self.length - shift[owner], 0)
        last = np.minimum((number + 1) * self.length - shift[owner], counts[owner])
        starts, lengths = begin[owner] + first, last - first
        order = random.permutation(len(starts))
        starts, lengths = starts[order], lengths[order]
        total = int(lengths.sum())
        batches = max(1, round(total / tokens))
        ends = np.searchsorted(np.cumsum(lengths), np.arange(1, batches) * (total / batches))
        parts = np.split(np.arange(len(starts)), ends)
        return [(starts[p], lengths[p]) for p in parts if len(p)]

    def batch(self, starts: I64, lengths: I64) -> Batch:
        """The tokens of these windows."""
        order = np.argsort(-lengths, kind="stable")
        starts, lengths = starts[order], lengths[order]
        places = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        at = np.repeat(starts, lengths) + places
        extra = self.gaps[at], self.strengths[at], self.kinds[at]
        return Batch(self.items[at], self.items[at + 1], places, *extra, lengths)


class Negatives:
    """Items drawn with the probability count^power, and the logarithm of the expected number of draws of each."""

    def __init__(self, items: I64, n_items: int, power: float, count: int) -> None:
        counts = np.bincount(items, minlength=n_items).astype(np.float64)
        shares: F64 = np.where(counts > 0, np.maximum(counts, 1) ** power, 0.0)
        shares /= shares.sum()
        self.count, self._sums = count, np.cumsum(shares)
        with np.errstate(divide="ignore"):
            self.log_expected: F32 = np.log(shares * count).astype(np.float32)

    def draw(self, random: np.random.Generator, sets: int) -> I64:
        """int64 [sets, count], with repetitions."""
        # One draw in every 1 / count of the probability: as good as independent ones, and less noise.
        places = (np.arange(self.count) + random.random((sets, self.count))) / self.count
        found = np.searchsorted(self._sums, places * self._sums[-1], side="right")
        rows: I64 = np.minimum(found, len(self._sums) - 1).astype(np.int64)
        return rows

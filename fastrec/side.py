"""What is known of the items beside events and vectors: how they read, and what they have in common."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastrec.types import F32, I32, I64, Bool


def unit(vectors: F32) -> F32:
    """Rows divided by their L2 norm, float32 [n, D]; a zero row stays zero."""
    length = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    out: F32 = (vectors / np.maximum(length, 1e-12)).astype(np.float32)
    return out


@dataclass(frozen=True, eq=False)
class Texts:
    """How the items read, and what reads other texts as theirs were read.

    items: gives the N texts, "" for an item without one
    encode: texts -> float32 [n, E], L2-normalised; zero for ""
    alone: whether the vectors of Embeddings are those of these texts and of nothing else
    """

    items: Callable[[], Sequence[str]]
    encode: Callable[[Sequence[str]], F32]
    alone: bool


@dataclass(frozen=True, eq=False)
class Links:
    """An undirected graph of the N items and of what they have in common: labels, entities of a table of triples.

    heads, tails: int32 [L], the two nodes of every edge; nodes 0 .. N - 1 are the item rows, the others entities
    n_items: N
    n_nodes: N and the entities
    names: of the entities, or none; relations: int32 [L] into kinds, the name of each edge, or None
    """

    heads: I32
    tails: I32
    n_items: int
    n_nodes: int
    names: tuple[str, ...] = ()
    relations: I32 | None = None
    kinds: tuple[str, ...] = ()
    _near: list[tuple[I64, I64]] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        for name in ("heads", "tails"):
            array = getattr(self, name)
            if array.dtype != np.int32 or array.shape != self.heads.shape:
                raise AssertionError(f"Links.{name} is {array.dtype} {array.shape}, expected int32 {self.heads.shape}")
        top = max(int(self.heads.max(initial=-1)), int(self.tails.max(initial=-1)))
        if top >= self.n_nodes or self.n_items > self.n_nodes:
            raise AssertionError(f"Links has node {top} and {self.n_items} items among {self.n_nodes} nodes")

    def near(self, node: int) -> I64:
        """Edges of a node, in their order; edge L + e is the edge e from its tail."""
        if not self._near:
            ends = np.concatenate([self.heads, self.tails])
            order = np.argsort(ends, kind="stable").astype(np.int64)
            starts = np.searchsorted(ends[order], np.arange(self.n_nodes + 1)).astype(np.int64)
            self._near.append((starts, order))
        starts, order = self._near[0]
        return order[starts[node] : starts[node + 1]]

    def _others(self, edges: I64) -> I32:
        """The far ends of edges as ``near`` gives them."""
        n = len(self.heads)
        back = edges >= n
        return np.where(back, self.heads[edges % n], self.tails[edges % n])

    def path(self, first: int, last: int) -> list[Any] | None:
        """How two items hang together: [relation] of an edge between them, else [relation, node, relation] by way of
        the node that fewest others share; None where there is no such way, or where nothing has a name."""
        if self.relations is None:
            return None
        here, there = self.near(first), self.near(last)
        ends, far = self._others(here), self._others(there)
        n = len(self.heads)
        direct = here[ends == last]
        if len(direct):
            return [self.kinds[self.relations[direct[0] % n]]]
        common = np.intersect1d(ends, far)
        common = common[(common != first) & (common != last)]
        if not len(common):
            return None
        starts = self._near[0][0]
        node = int(common[np.argmin(starts[common + 1] - starts[common])])
        steps = (here[ends == node][0], there[far == node][0])
        one, two = (self.kinds[self.relations[edge % n]] for edge in steps)
        return [one, node, two]


@dataclass(frozen=True, eq=False)
class Media:
    """Vectors of the images or sounds of N items, less their mean over the items that have one.

    vectors: float32 [N, D], zero for an item without one: it counts as the mean, and adds nothing to a score
    known: bool [N], true where the item has one
    mean: float32 [D]
    """

    vectors: F32
    known: Bool
    mean: F32

    @classmethod
    def of(cls, vectors: F32, mean: F32 | None = None) -> "Media":
        """From vectors of length 1, zero for an item without one; ``mean``: that of the fitted items."""
        known = np.any(vectors != 0, axis=1)
        if mean is None:
            mean = np.zeros(vectors.shape[1], np.float32)
            if known.any():
                mean = vectors[known].mean(axis=0, dtype=np.float64).astype(np.float32)
        return cls(np.where(known[:, None], vectors - mean, np.float32(0)), known, mean)

    def centred(self) -> "Media":
        """The same less the mean of these items."""
        if not self.known.any():
            return self
        shift = self.vectors[self.known].mean(axis=0, dtype=np.float64).astype(np.float32)
        return Media(np.where(self.known[:, None], self.vectors - shift, np.float32(0)), self.known, self.mean + shift)

    def followed(self, other: "Media") -> "Media":
        """The items of both, one behind the other."""
        return Media(
            np.concatenate([self.vectors, other.vectors]), np.concatenate([self.known, other.known]), self.mean
        )

    def take(self, rows: npt.ArrayLike) -> "Media":
        """These items in this order, and -1 for one without."""
        rows = np.asarray(rows, np.int64)
        there = rows >= 0
        known = there & self.known[rows]
        return Media(np.where(known[:, None], self.vectors[rows], np.float32(0)), known, self.mean)

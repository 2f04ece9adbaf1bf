"""What is known of the items beside events and vectors: how they read, and what they have in common."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fastrec.types import F32, I32


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
    """

    heads: I32
    tails: I32
    n_items: int
    n_nodes: int

    def __post_init__(self) -> None:
        for name in ("heads", "tails"):
            array = getattr(self, name)
            if array.dtype != np.int32 or array.shape != self.heads.shape:
                raise AssertionError(f"Links.{name} is {array.dtype} {array.shape}, expected int32 {self.heads.shape}")
        top = max(int(self.heads.max(initial=-1)), int(self.tails.max(initial=-1)))
        if top >= self.n_nodes or self.n_items > self.n_nodes:
            raise AssertionError(f"Links has node {top} and {self.n_items} items among {self.n_nodes} nodes")

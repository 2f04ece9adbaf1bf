"""Item-item collaborative filtering: items are alike when the same users chose them.

Sources: cosine with shrinkage as in Sarwar et al. 2001 and Cremonesi et al. 2010; BM25 weighting as in
Robertson et al. 1995 and TF-IDF as in Salton and Buckley 1988, with items as documents and users as their
words, as ``implicit`` has them.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from fastrec import ops
from fastrec.errors import ConfigError
from fastrec.models import _arrays
from fastrec.models._decay import check_decay, decay_variants, resolve_decay
from fastrec.models._neighbors import neighbors, spans
from fastrec.models._settings import check_device, check_number, check_whole
from fastrec.types import Csr, Embeddings, Interactions, SparseSource

#: Entries of the co-occurrence matrix that one block of the path on a GPU may hold, about 200 MB.
_BLOCK_ENTRIES = 16_000_000


@dataclass(frozen=True)
class ItemItem:
    """Settings of the item-item source."""

    similarity: str = "cosine"
    """"cosine"; "tfidf": the cosine of TF-IDF-weighted columns; "bm25": the product of BM25-weighted columns."""

    neighbors: int = 200
    """Most similar items that are kept for each item."""

    shrinkage: float = 10.0
    """Added to the denominator of a cosine: pairs with little support move towards zero."""

    decay: float | str | None = "auto"
    """A history entry of rank r (newest 0) weighs exp(-r / decay); None for no decay; "auto": by goal."""

    device: str = "cpu"
    """"cpu", or "cuda": the products on a GPU with CuPy."""

    name: ClassVar[str] = "item_item"

    def __post_init__(self) -> None:
        if self.similarity not in _WEIGHTS:
            expected = ", ".join(map(repr, _WEIGHTS))
            raise ConfigError(f"[item_item] similarity={self.similarity!r}, expected one of {expected}")
        check_whole(self.name, "neighbors", self.neighbors)
        check_number(self.name, "shrinkage", self.shrinkage, zero=True)
        check_decay(self.name, self.decay)
        check_device(self.name, self.device)

    variants = decay_variants

    def fit(self, interactions: Interactions, embeddings: Embeddings | None, goal: str) -> SparseSource:
        likes = interactions.select(interactions.weights > 0)
        liked = sp.csr_matrix((likes.weights, likes.items, likes.indptr), shape=(likes.n_users, likes.n_items))
        weighted = _WEIGHTS[self.similarity](liked).astype(np.float32, copy=False)
        decay = resolve_decay(self.decay, goal, next_item=3.0, period=None)
        return SparseSource(self.name, self._neighbors(weighted), decay)

    def _neighbors(self, weighted: "sp.csr_matrix") -> Csr:
        """The best ``neighbors`` of each item; an item is not its own neighbour."""
        n = weighted.shape[1]
        norms, shrinkage = np.ones(n, np.float32), 0.0
        if self.similarity != "bm25":
            squares = np.bincount(weighted.indices, np.square(weighted.data, dtype=np.float64), minlength=n)
            norms, shrinkage = np.sqrt(squares).astype(np.float32), self.shrinkage
        if self.device == "cpu":
            return ops.cooccurrence_topk(weighted, self.neighbors, norms=norms, shrinkage=shrinkage)
        xp = _arrays.cupy(self.name)

        def likenesses(first: int, last: int) -> "sp.csr_matrix":
            block = sp.csr_matrix(_arrays.likenesses(xp, weighted, first, last))
            owner = np.repeat(norms[first:last], np.diff(block.indptr))
            block.data = block.data / (owner * norms[block.indices] + np.float32(shrinkage))
            return block

        # No row has more entries than there are items, nor than its users have events.
        met = weighted.T.astype(np.bool_) @ np.diff(weighted.indptr).astype(np.float64)
        return neighbors(likenesses, spans(np.minimum(met, n), _BLOCK_ENTRIES), self.neighbors)


def bm25(liked: "sp.csr_matrix", k1: float = 100.0, b: float = 0.8) -> "sp.csr_matrix":
    """BM25 weights of a [U, N] matrix: idf of the user times the saturated, length-normalised weight."""
    n_users, n_items = liked.shape
    per_user = np.diff(liked.indptr)
    idf = np.log(n_items / (1.0 + per_user))
    per_item = np.asarray(liked.sum(axis=0)).ravel()
    length = (1.0 - b) + b * per_item / max(per_item.mean(), 1e-12)
    out = liked.astype(np.float64)  # this sorts the columns, so those of ``liked`` are others
    users = np.repeat(np.arange(n_users), per_user)
    out.data = out.data * (k1 + 1.0) / (k1 * length[out.indices] + out.data) * np.maximum(idf[users], 0.0)
    return out


def tfidf(liked: "sp.csr_matrix") -> "sp.csr_matrix":
    """TF-IDF weights of a [U, N] matrix: idf of the user times the root of the weight."""
    per_user = np.diff(liked.indptr)
    out = liked.astype(np.float64)
    idf = np.maximum(np.log(liked.shape[1] / (1.0 + per_user)), 0.0)
    out.data = np.sqrt(out.data) * np.repeat(idf, per_user)
    return out


#: What the entries weigh before the product; with "bm25" the product is the likeness, with the others its cosine.
_WEIGHTS = {"cosine": lambda liked: liked, "tfidf": tfidf, "bm25": bm25}

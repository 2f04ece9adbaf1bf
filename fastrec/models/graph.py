"""LightGCN: factors that are averaged along the graph of users and items.

    A = D^-1/2 [0 X; X' 0] D^-1/2,   E = (E0 + A E0 + ... + A^L E0) / (L + 1)

E0 is learned so that what a user chose stands above a drawn item (the loss of ``bpr``). Source: He et al. 2020.
E is linear in E0 and A symmetric, so that the gradient goes back by the same products: no automatic
differentiation is needed. Each step looks at all events, with a new draw for each; Adam (Kingma and Ba 2015).
A user is the decayed mean of the items of the history, which is the last product written out for one user. What items
have in common (labels, entities of triples) stands in the graph as more users who chose them: no loss is asked of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from fastrec.errors import ConfigError
from fastrec.models._decay import check_decay, decay_variants, resolve_decay
from fastrec.models._settings import check_number, check_whole
from fastrec.side import Links
from fastrec.types import F32, I32, I64, Csr, DenseSource, Embeddings, Interactions


@dataclass(frozen=True)
class Graph:
    """Settings of LightGCN."""

    factors: int = 64
    """Dimensions of the factors."""

    layers: int = 2
    """Steps along the graph."""

    epochs: int = 100
    """Steps of the descent, each over all events."""

    learning_rate: float = 0.1
    """Of Adam."""

    regularization: float = 1e-4
    """Weight of the squared lengths of E0 for the triple of an event."""

    decay: float | str | None = "auto"
    """A history entry of rank r (newest 0) weighs exp(-r / decay); None for no decay; "auto": learned."""

    links: bool = True
    """Whether what items have in common takes part, where something is known of it."""

    seed: int | None = None
    """Of the first factors and of the draws; None: that of the Recommender."""

    name: ClassVar[str] = "graph"

    def __post_init__(self) -> None:
        for field in ("factors", "layers", "epochs"):
            check_whole(self.name, field, getattr(self, field))
        check_number(self.name, "learning_rate", self.learning_rate)
        check_number(self.name, "regularization", self.regularization, zero=True)
        if not isinstance(self.links, bool):
            raise ConfigError(f"[graph] links={self.links!r}, expected True or False")
        check_decay(self.name, self.decay)

    variants = decay_variants

    def fit(self, interactions: Interactions, embeddings: Embeddings | None, goal: str) -> DenseSource | None:
        """The averaged item factors; None where nothing can be compared."""
        likes = interactions.select(interactions.weights > 0)
        if interactions.n_items < 2 or not len(likes.items):
            return None
        links = embeddings.links if embeddings is not None and self.links else None
        common = sp.csr_matrix((0, likes.n_items), dtype=np.float32) if links is None else entities(links)
        _, items = self.train(likes, interactions, common)
        lonely = np.bincount(likes.items, minlength=len(items)) + common.getnnz(axis=0) == 0
        items[lonely] = 0  # nothing is known of them
        return DenseSource(self.name, items, resolve_decay(self.decay, goal, next_item=3.0, period=None))

    def train(self, likes: Interactions, seen: Interactions, common: "sp.csr_matrix | None" = None) -> tuple[F32, F32]:
        """(users [U, D], items [N, D]) of E; what a user has in ``seen`` is drawn for him by bad luck only, twice.

        common: [entities, N], which of them an item has
        """
        rng = np.random.default_rng(self.seed or 0)
        n_users, n_items, n = likes.n_users, likes.n_items, len(likes.items)
        average = propagation(likes, self.layers, common)
        n_rows = n_users + (0 if common is None else common.shape[0])
        x, y = (rng.normal(0, 0.1, (rows, self.factors)).astype(np.float32) for rows in (n_users, n_items))
        x = np.concatenate([x, rng.normal(0, 0.1, (n_rows - n_users, self.factors)).astype(np.float32)])
        had, owner = seen.seen(), likes.users
        moments = [np.zeros_like(a) for a in (x, y, x, y)]
        for step in range(1, self.epochs + 1):
            users, items = average(x, y)
            others = _draw(rng, had, owner)
            apart = np.einsum("nd,nd->n", users[owner], items[likes.items] - items[others])
            slope = (1 / (1 + np.exp(apart)) / n).astype(np.float32)
            # Two entries an event: down for what was chosen, up for what was drawn.
            columns = np.stack([likes.items, others], axis=1).ravel()
            ends = np.concatenate([2 * likes.indptr, np.full(n_rows - n_users, 2 * n)])  # entities have chosen nothing
            push = sp.csr_matrix((np.stack([-slope, slope], axis=1).ravel(), columns, ends), (n_rows, n_items))
            gradients = average(push @ items, push.T @ users)
            mass = np.bincount(owner, minlength=n_rows), np.bincount(columns, minlength=n_items)
            for at, (factors, gradient) in enumerate(zip((x, y), gradients, strict=True)):
                gradient = gradient + self.regularization / n * mass[at][:, None].astype(np.float32) * factors
                first, second = moments[at], moments[2 + at]
                first += 0.1 * (gradient - first)
                second += 0.001 * (gradient**2 - second)
                rate = self.learning_rate * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
                factors -= (rate * first / (np.sqrt(second) + 1e-12)).astype(np.float32)
        users, items = average(x, y)
        return users[:n_users], items


def entities(links: Links) -> "sp.csr_matrix":
    """Which items each entity has, float32 [entities, N]; an item that another is linked to is an entity of both."""
    heads, tails, n = links.heads.astype(np.int64), links.tails.astype(np.int64), links.n_items
    item, other = np.concatenate([heads, tails]), np.concatenate([tails, heads])
    near = (item < n) & (item != other)
    item, other = item[near], other[near]
    selves = np.unique(other[other < n])
    item, other = np.concatenate([item, selves]), np.concatenate([other, selves])
    found = sp.coo_matrix((np.ones(len(item), np.float32), (other, item)), (links.n_nodes, n)).tocsr()
    found.data[:] = 1
    return found[np.diff(found.indptr) > 1]  # one that a single item has connects nothing


def propagation(
    likes: Interactions, layers: int, common: "sp.csr_matrix | None" = None
) -> Callable[[F32, F32], tuple[F32, F32]]:
    """The map E0 -> E on (users and the entities of ``common``, items); it is its own transpose."""
    x = sp.csr_matrix(
        (np.ones(len(likes.items), np.float32), likes.items, likes.indptr), (likes.n_users, likes.n_items)
    )
    if common is not None:
        x = sp.vstack([x, common]).tocsr()
    by_user = np.maximum(np.diff(x.indptr), 1) ** -0.5
    by_item = np.maximum(x.getnnz(axis=0), 1) ** -0.5
    forth = (sp.diags(by_user) @ x @ sp.diags(by_item)).tocsr().astype(np.float32)
    back = forth.T.tocsr()

    def average(users: F32, items: F32) -> tuple[F32, F32]:
        sum_users, sum_items = users.copy(), items.copy()
        for _ in range(layers):
            users, items = forth @ items, back @ users
            sum_users += users
            sum_items += items
        return sum_users / np.float32(layers + 1), sum_items / np.float32(layers + 1)

    return average


def _draw(rng: np.random.Generator, had: Csr, owner: I64) -> I32:
    """An item for every event; one that the user has had is drawn again, once."""
    n = had.n_cols
    keys = np.repeat(np.arange(had.n_rows), np.diff(had.indptr)) * n + had.indices
    drawn = rng.integers(0, n, len(owner)).astype(np.int32)
    asked = owner * n + drawn
    at = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    bad = keys[at] == asked
    drawn[bad] = rng.integers(0, n, int(bad.sum()))
    return drawn

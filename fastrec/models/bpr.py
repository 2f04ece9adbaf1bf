"""Matrix factorisation by Bayesian personalised ranking: what a user chose stands above what he did not.

    minimise  mean over events (u, i) and items j that u has not had of  -ln sigmoid(<x_u, y_i - y_j>)
              + regularization / 2 (|x_u|^2 + |y_i|^2 + |y_j|^2)

by stochastic gradient descent. Source: Rendle et al. 2009. In parallel without races as in Gemulla et al. 2011:
users and items are dealt into blocks, and threads work at the same time only on pairs of blocks that share
neither; j is drawn from the block of i, and the blocks are dealt anew in every epoch. So the result depends on
the seed alone, not on the number of threads.

A history is folded in by the same loss to second order around 0, which is a ridge regression:

    (sum_i e_i z_i z_i' + mass C + ridge I) q = 2 sum_i e_i z_i,   z_i = y_i - mean(y), C = Cov(y)

To second order the mass would be sum_i e_i; a fixed one makes it the FoldInSource of ``als``.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np

from fastrec import config
from fastrec.models._decay import check_decay, decay_variants, resolve_decay
from fastrec.models._settings import check_number, check_whole
from fastrec.types import F32, I64, Embeddings, FoldInSource, Interactions

#: Blocks of users and of items: more than threads of most machines, with few items fewer.
_BLOCKS = 16
#: Items of a block at the least: negatives come from it.
_FEWEST = 16
#: The mass of the covariance and the ridge of the fold-in; best on MovieLens, and of no weight on Amazon data.
_MASS, _RIDGE = 30.0, 30.0
#: Draws for an item that the user has not had, before the event is passed over.
_TRIES = 10


@dataclass(frozen=True)
class Bpr:
    """Settings of the pairwise matrix factorisation."""

    factors: int = 64
    """Dimensions of the factors."""

    learning_rate: float = 0.05
    """Length of a step at the start; it falls to a tenth of that, linearly."""

    regularization: float = 0.01
    """Weight of the squared lengths of the factors of each triple."""

    epochs: int = 60
    """Times that every event is seen."""

    decay: float | str | None = "auto"
    """A history entry of rank r (newest 0) weighs exp(-r / decay) when a user is folded in; None for no decay;
    "auto": learned. The item factors do not depend on it."""

    seed: int | None = None
    """Of the first factors and of the draws; None: that of the Recommender."""

    name: ClassVar[str] = "bpr"

    def __post_init__(self) -> None:
        for field in ("factors", "epochs"):
            check_whole(self.name, field, getattr(self, field))
        check_number(self.name, "learning_rate", self.learning_rate)
        check_number(self.name, "regularization", self.regularization, zero=True)
        check_decay(self.name, self.decay)

    variants = decay_variants

    def fit(self, interactions: Interactions, embeddings: Embeddings | None, goal: str) -> FoldInSource | None:
        """The centred item factors, and what folding a history in needs; None where nothing can be compared."""
        likes = interactions.select(interactions.weights > 0)
        chosen = np.unique(likes.items)
        if interactions.n_items < 2 or not len(chosen):
            return None
        _, items = self.train(likes, interactions)
        known = items[chosen].astype(np.float64)
        centred = known - known.mean(axis=0)
        # An item without events stands where nothing is known of it: in the middle.
        vectors = np.zeros_like(items)
        vectors[chosen] = centred.astype(np.float32)
        gram = _MASS * (centred.T @ centred) / len(known) + _RIDGE * np.eye(self.factors)
        decay = resolve_decay(self.decay, goal, next_item=3.0, period=None)
        return FoldInSource(self.name, vectors, decay, gram, 1.0)

    def train(self, likes: Interactions, seen: Interactions) -> tuple[F32, F32]:
        """(user factors [U, D], item factors [N, D]); what a user has in ``seen`` is no negative for him."""
        rng = np.random.default_rng(self.seed or 0)
        n_users, n_items = likes.n_users, likes.n_items
        users, items = (rng.normal(0, 0.1, (n, self.factors)).astype(np.float32) for n in (n_users, n_items))
        had, event_users, run = seen.seen(), likes.users, _kernel()
        blocks = max(1, min(_BLOCKS, n_users, n_items // _FEWEST))
        with ThreadPoolExecutor(config.threads()) as pool:
            for epoch in range(self.epochs):
                rate = np.float32(self.learning_rate * (1 - 0.9 * epoch / max(self.epochs - 1, 1)))
                user_block, dealt = rng.permutation(n_users) % blocks, rng.permutation(n_items)
                item_block = np.empty(n_items, np.int64)
                item_block[dealt] = np.arange(n_items) % blocks  # block b: dealt[b::blocks]
                order = rng.permutation(len(likes.items))
                cell = user_block[event_users[order]] * blocks + item_block[likes.items[order]]
                by_cell = np.argsort(cell, kind="stable")
                parts = np.split(order[by_cell], np.searchsorted(cell[by_cell], np.arange(1, blocks * blocks)))
                seeds = rng.integers(1, 2**63 - 1, blocks * blocks)

                def task(
                    at: int, parts: list[I64] = parts, dealt: I64 = dealt, seeds: I64 = seeds, rate: Any = rate
                ) -> None:
                    events, others = parts[at], dealt[at % blocks :: blocks]
                    triples = event_users[events], likes.items[events], others, had.indptr, had.indices
                    run(users, items, *triples, rate, np.float32(self.regularization), seeds[at])

                for shift in range(blocks):
                    list(pool.map(task, [b * blocks + (b + shift) % blocks for b in range(blocks)]))
        return users, items


@cache
def _kernel() -> Any:
    """The compiled descent over one pair of blocks; numba is imported with the first call, not with the package."""
    import numba

    @numba.njit(nogil=True, fastmath=True, cache=True, error_model="numpy")
    def run(  # type: ignore[no-untyped-def]  # pragma: no cover
        users, items, event_users, event_items, members, had_indptr, had_items, rate, regularization, seed
    ):
        state = np.uint64(seed)
        for e in range(len(event_users)):
            u, i = event_users[e], event_items[e]
            j = np.int64(-1)
            begin, end = had_indptr[u], had_indptr[u + 1]
            for _ in range(_TRIES):
                # xorshift64* (Vigna 2016)
                state ^= state >> np.uint64(12)
                state ^= state << np.uint64(25)
                state ^= state >> np.uint64(27)
                draw = (state * np.uint64(2685821657736338717)) >> np.uint64(33)
                other = members[np.int64(draw) % len(members)]
                low, high = begin, end
                while low < high:
                    middle = (low + high) // 2
                    if had_items[middle] < other:
                        low = middle + 1
                    else:
                        high = middle
                if low == end or had_items[low] != other:
                    j = other
                    break
            if j < 0:
                continue
            x, yi, yj = users[u], items[i], items[j]
            score = np.float32(0)
            for f in range(len(x)):
                score += x[f] * (yi[f] - yj[f])
            slope = np.float32(1) / (np.float32(1) + np.exp(score))
            for f in range(len(x)):
                a, b, c = x[f], yi[f], yj[f]
                x[f] += rate * (slope * (b - c) - regularization * a)
                yi[f] += rate * (slope * a - regularization * b)
                yj[f] -= rate * (slope * a + regularization * c)

    return run

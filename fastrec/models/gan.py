"""Gan: a generator of what a user chooses, taught by a discriminator that knows real choices from its own.

    x_u in {0, 1}^N what user u chose,   c_u = x_u with each entry hidden with probability ``hidden_share``
    G(c) = sigmoid(sharpness <z, v_i> + offset),   z = sum_{j in c} v_j, L2-normalised
    D(r, c) = a network of one hidden layer that tells whether r are the choices behind c, or G's

    D: minimise  -ln D(x, c) - ln(1 - D(G(c) * (x + m), c))
    G: minimise  -ln D(G(c) * (x + m), c) + zeros * mean_{i in m'} G(c)_i^2

m and m' are random parts of what the user did not choose. Source: CFGAN (Chae et al. 2018) with its partial masking (m)
and zero reconstruction (m'). There the condition is x itself, and copying it is a perfect generator (Perez Maurera et
al. 2022): here a part of it is hidden, so that G has to guess. What is chosen G learns from D alone: nothing else in
its loss says so. The weights of G into and out of its hidden layer are the same vectors v, which makes it a dense
source: the query of a user is the decayed mean of v over the history.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastrec import config
from fastrec.errors import ConfigError
from fastrec.models._decay import check_decay, decay_variants, resolve_decay
from fastrec.models._settings import check_number, check_whole
from fastrec.types import F32, DenseSource, Embeddings, Interactions

#: Slope of the discriminator below 0, and of the generator at the start.
_LEAK, _SHARPNESS, _OFFSET = 0.2, 8.0, -2.0
#: Arrays of users x items that live at once in a step, about, and of each weight (itself, gradient, two moments).
_BATCHES, _COPIES = 16, 4


@dataclass(frozen=True)
class Gan:
    """Settings of the adversarial source."""

    factors: int = 64
    """Dimensions of the item vectors."""

    hidden: int = 128
    """Units of the discriminator."""

    steps: int = 400
    """Steps of the descent, each of the discriminator and then of the generator."""

    users: int = 128
    """Users of a step."""

    learning_rate: float = 0.005
    """Of the generator; Adam."""

    discriminator_rate: float = 0.001
    """Of the discriminator; Adam."""

    hidden_share: float = 0.5
    """Chance of an entry of the history to be hidden from both."""

    masked_share: float = 0.3
    """Share of what the user did not choose that the discriminator looks at."""

    zeros: float = 50.0
    """Weight of the mean squared output for what the user did not choose."""

    decay: float | str | None = "auto"
    """A history entry of rank r (newest 0) weighs exp(-r / decay); None for no decay; "auto": learned. The item vectors
    do not depend on it."""

    seed: int | None = None
    """Of everything random; None: that of the Recommender."""

    name: ClassVar[str] = "gan"

    def __post_init__(self) -> None:
        for field in ("factors", "hidden", "steps", "users"):
            check_whole(self.name, field, getattr(self, field))
        for field in ("learning_rate", "discriminator_rate"):
            check_number(self.name, field, getattr(self, field))
        check_number(self.name, "zeros", self.zeros, zero=True)
        for field in ("hidden_share", "masked_share"):
            value = getattr(self, field)
            check_number(self.name, field, value)
            if value >= 1:
                raise ConfigError(f"[gan] {field}={value!r}, expected a number between 0 and 1")
        if self.seed is not None:
            check_whole(self.name, "seed", self.seed, 0)
        check_decay(self.name, self.decay)

    variants = decay_variants

    def fit(self, interactions: Interactions, embeddings: Embeddings | None, goal: str) -> DenseSource | None:
        """The item vectors of the generator; None where no user chose two items."""
        likes = interactions.select(interactions.weights > 0)
        able = np.flatnonzero(np.diff(likes.indptr) >= 2)
        if not len(able) or likes.n_items < 3:
            return None
        self._check_size(likes.n_items)
        vectors = self.train(likes.take(able))
        vectors[np.bincount(likes.items, minlength=likes.n_items) == 0] = 0  # nothing is known of them
        return DenseSource(self.name, vectors, resolve_decay(self.decay, goal, next_item=3.0, period=None))

    def train(self, likes: Interactions) -> F32:
        """The item vectors, float32 [N, D]; every user has two items or more."""
        import torch  # takes a second: not for everybody who imports fastrec

        before = torch.get_num_threads()
        torch.set_num_threads(1)  # the same sums whatever the machine has
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed((self.seed or 0) % (1 << 63))  # it takes no larger one
                return self._descend(likes)
        finally:
            torch.set_num_threads(before)

    def _descend(self, likes: Interactions) -> F32:
        import torch
        from torch.nn.functional import normalize, softplus

        n = likes.n_items
        v_ND = torch.nn.Parameter(0.1 * torch.randn(n, self.factors))
        offset = torch.nn.Parameter(torch.tensor(_OFFSET))
        discriminator = torch.nn.Sequential(
            torch.nn.Linear(2 * n, self.hidden), torch.nn.LeakyReLU(_LEAK), torch.nn.Linear(self.hidden, 1)
        )
        g_steps = torch.optim.Adam([v_ND, offset], lr=self.learning_rate)
        d_steps = torch.optim.Adam(discriminator.parameters(), lr=self.discriminator_rate)
        rng = np.random.default_rng(self.seed or 0)
        order = np.empty(0, np.int64)

        def generated(c_BN: torch.Tensor) -> torch.Tensor:
            z_BD = normalize(c_BN @ v_ND, dim=1)
            return torch.sigmoid(_SHARPNESS * (z_BD @ v_ND.T) + offset)

        def doubt(r_BN: torch.Tensor, c_BN: torch.Tensor) -> torch.Tensor:
            """The mean of -ln D."""
            return softplus(-discriminator(torch.cat((r_BN, c_BN), dim=1))).mean()

        for _ in range(self.steps):
            if len(order) < min(self.users, likes.n_users):
                order = np.concatenate([order, rng.permutation(likes.n_users)])
            batch, order = likes.take(order[: self.users]), order[self.users :]
            x_BN = torch.zeros(batch.n_users, n)
            x_BN[torch.from_numpy(batch.users), torch.from_numpy(batch.items.astype(np.int64))] = 1.0
            c_BN = x_BN * (torch.rand(x_BN.shape) >= self.hidden_share)
            masks = [torch.maximum(x_BN, (torch.rand(x_BN.shape) < self.masked_share).float()) for _ in range(2)]

            with torch.no_grad():
                made_BN = generated(c_BN) * masks[0]
            fooled = softplus(discriminator(torch.cat((made_BN, c_BN), dim=1))).mean()
            d_steps.zero_grad()
            (doubt(x_BN, c_BN) + fooled).backward()  # type: ignore[no-untyped-call]
            d_steps.step()

            r_BN = generated(c_BN)
            others_BN = (1 - x_BN) * (torch.rand(x_BN.shape) < 0.5)
            wasted = (r_BN.square() * others_BN).sum() / others_BN.sum().clamp(min=1)
            g_steps.zero_grad()
            (doubt(r_BN * masks[1], c_BN) + self.zeros * wasted).backward()  # type: ignore[no-untyped-call]
            g_steps.step()
        out: F32 = v_ND.detach().numpy().copy()
        return out

    def _check_size(self, n_items: int) -> None:
        weights = n_items * (self.factors + 2 * self.hidden)
        need, free = 4 * (_COPIES * weights + _BATCHES * self.users * n_items), config.free_memory()
        if need > free:
            raise ConfigError(
                f"[gan] {n_items:,} items need {need / 1e9:,.1f} GB, {free / 1e9:,.1f} GB are free; expected fewer "
                "users a step, fewer hidden units or fewer items: its networks read every item"
            )

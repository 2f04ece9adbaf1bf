"""The training of Sequential: steps, early stopping, and going on after a kill.

All random numbers of a step come from (seed, its number), so that a training that goes on from a checkpoint computes
what an uninterrupted one would have.
"""

import contextlib
import logging
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fastrec import config
from fastrec.errors import BackendUnavailable, ConfigError
from fastrec.models import _checkpoint
from fastrec.models._loss import sampled_softmax
from fastrec.models._network import Dropout, Network, parts_of
from fastrec.models._sequences import Batch, Negatives, Sequences
from fastrec.models._team import Team
from fastrec.sequence import queries
from fastrec.types import F32, I64, Embeddings, Interactions, SequenceSource

if TYPE_CHECKING:
    from fastrec.models.sequential import Sequential

log = logging.getLogger("fastrec")

#: Tokens that share a set of negatives, and tokens that one thread takes at once.
_SHARING, _SHARD = 1024, 2048
#: Users, at most, and their share, at most, whose newest events are the holdout of early stopping.
_HELD_USERS, _HELD_SHARE = 1000, 0.1
#: Fewer teach early stopping nothing: the training then takes all passes.
_FEWEST = 20
_BETAS, _WARMUP = (0.9, 0.98), 0.05
#: What Sequential.epochs=None means.
_STEPS, _EPOCHS = 1500, (4, 40)


def train(
    settings: "Sequential", interactions: Interactions, embeddings: Embeddings | None, goal: str
) -> SequenceSource | None:
    """The trained source; None where no history has two entries of weight."""
    if embeddings is not None and not embeddings.known.any():
        embeddings = None
    path = _checkpoint.path(settings, interactions, embeddings, goal)
    seed = settings.seed or 0
    held: Interactions | None = None
    if settings.stop is None:
        interactions, held = _holdout(interactions, goal, seed)
    sequences = Sequences(interactions, settings.length)
    if not sequences.tokens:
        return None
    with _threads() as pool:
        run = _Run(settings, sequences, interactions, embeddings, held, seed, pool)
        if path is not None:
            run.restore(_checkpoint.read(path))
        last = run.epochs if settings.stop is None else min(settings.stop, run.epochs)
        while run.epoch < last and not run.exhausted:
            run.one_epoch()
            if path is not None and run.team.rank == 0:
                _checkpoint.write(path, *run.state())
        return run.finished()


@contextlib.contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Workers whose operators of torch run on one thread each, as those of the caller do meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(config.threads(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


def _holdout(interactions: Interactions, goal: str, seed: int) -> tuple[Interactions, Interactions | None]:
    """(what is trained on, what early stopping is measured with, over the same users), None for too few users."""
    likes = interactions.select(interactions.weights > 0)
    last = np.zeros(len(likes.items), np.bool_)
    if goal == "next":
        many = np.diff(likes.indptr) >= 3
        last[likes.indptr[1:][many] - 1] = True
    elif len(likes.items):
        last = likes.times > np.quantile(likes.times, 0.9)
    able = np.flatnonzero(np.bincount(likes.users[last], minlength=likes.n_users) > 0)
    able = able[np.bincount(likes.users[~last], minlength=likes.n_users)[able] > 0]
    wanted = min(_HELD_USERS, int(_HELD_SHARE * len(able)))
    if wanted < _FEWEST:
        return interactions, None
    chosen = np.zeros(likes.n_users, np.bool_)
    chosen[np.random.default_rng(seed).permutation(able)[:wanted]] = True
    last &= chosen[likes.users]
    return likes.select(~last), likes.select(last)


class _Run:
    """One training: the network, the optimiser and what early stopping knows."""

    def __init__(
        self,
        settings: "Sequential",
        sequences: Sequences,
        interactions: Interactions,
        embeddings: Embeddings | None,
        held: Interactions | None,
        seed: int,
        pool: ThreadPoolExecutor,
    ) -> None:
        s = self.settings = settings
        self.pool, self.team = pool, Team.here()
        self.sequences, self.seed, self.held, self.past = sequences, seed, held, interactions
        self.device = _device(s.device)
        self.team.check(sequences.items, sequences.indptr, self.device)
        if self.team.size > 1:
            log.info("[fit] sequential: %d processes share its steps", self.team.size)
        seen = torch.from_numpy(np.bincount(sequences.items, minlength=interactions.n_items) > 0).to(self.device)
        texts = None if embeddings is None else torch.tensor(embeddings.vectors, device=self.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed % (1 << 63))  # it takes no larger one
            self.network = Network(
                s.backbone, s.width, s.layers, s.heads, s.length, s.time_gaps, s.strengths, s.kinds, texts, seen
            ).to(self.device)
        self.negatives = Negatives(sequences.items, interactions.n_items, s.negative_power, s.negatives)
        self.log_expected = self.negatives.log_expected
        self.local = np.zeros(interactions.n_items, np.int64)  # row of an item among those of a step
        self.parameters = dict(self.network.named_parameters())
        matrices = [p for p in self.parameters.values() if p.ndim > 1]
        vectors = [p for p in self.parameters.values() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": s.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=s.learning_rate, betas=_BETAS, fused=True,
        )  # fmt: skip
        self.epochs = s.epochs or min(max(round(_STEPS * s.batch_tokens / sequences.tokens), _EPOCHS[0]), _EPOCHS[1])
        self.epoch = self.best_epoch = 0
        self.best_value = -math.inf
        self.best: dict[str, torch.Tensor] | None = None

    @property
    def exhausted(self) -> bool:
        """Whether the holdout has seen nothing better for a while."""
        return self.held is not None and self.epoch - self.best_epoch >= self.settings.patience

    def one_epoch(self) -> None:
        """All steps of a pass, and the look at the holdout behind it."""
        s = self.settings
        plan = self.sequences.epoch(np.random.default_rng((self.seed, self.epoch)), s.batch_tokens)
        total = 0.0
        for number, (starts, lengths) in enumerate(plan):
            done = self.epoch + number / len(plan)
            for group in self.optimizer.param_groups:
                group["lr"] = s.learning_rate * _schedule(done / self.epochs)
            loss = self._step(self.sequences.batch(starts, lengths), (self.seed, self.epoch, number))
            if not math.isfinite(loss):
                raise ConfigError(
                    f"[sequential] the loss of epoch {self.epoch + 1}, step {number + 1} is {loss} with "
                    f"learning_rate={s.learning_rate}, temperature={s.temperature}; expected a finite one: "
                    "lower the learning rate or raise the temperature"
                )
            total += loss
        self.epoch += 1
        self.team.same([p.detach() for p in self.parameters.values()])
        note = ""
        if self.held is not None:
            measured = torch.tensor([self._measure()], dtype=torch.float64, device=self.device)
            self.team.same([measured])
            value = float(measured)
            note = f", NDCG@10 {value:.4f} on the holdout"
            if value > self.best_value:
                self.best_value, self.best_epoch = value, self.epoch
                self.best = {name: p.detach().clone() for name, p in self.parameters.items()}
        log.info("[fit] sequential: epoch %d of %d, loss %.3f%s", self.epoch, self.epochs, total / len(plan), note)

    def _step(self, batch: Batch, seed: tuple[int, ...]) -> float:
        """One step of the optimiser; returns the mean loss.

        The batch goes through in shards, one thread each: the sums within a shard and the order in which shards are
        added up do not depend on the number of threads, and no thread waits for others within an operator.
        """
        network, random = self.network, np.random.default_rng((*seed, 0))
        shards = batch.shards(_SHARD if self.device == "cpu" else len(batch.rows))
        drawn = [self.negatives.draw(random, max(1, round(len(s.rows) / _SHARING))) for s in shards]
        # Only the vectors of items that this step meets are computed: with texts that is most of the work.
        met = np.unique(np.concatenate([batch.rows, batch.targets, *(d.ravel() for d in drawn)]))
        self.local[met] = np.arange(len(met))
        with self._precision():
            items = network.items(torch.from_numpy(met).to(self.device))
        expected = self.log_expected[met]
        table = items.detach().float().requires_grad_()
        inner = [p for name, p in self.parameters.items() if name not in ("delta", "project")]

        def one(number: int, shard: Batch) -> tuple[float, tuple[torch.Tensor, ...]]:
            loss = self._loss(shard, table, self.local[drawn[number]], expected, (*seed, number)) / len(batch.rows)
            return float(loss.detach()), torch.autograd.grad(loss, [table, *inner])

        mine = self.team.mine(len(shards))
        results = list(self.pool.map(one, mine, [shards[number] for number in mine]))
        parts = [g for _, g in results] or [tuple(torch.zeros_like(p) for p in (table, *inner))]
        own = [sum(some) if len(some) > 1 else some[0] for some in zip(*parts, strict=True)]
        gradients, loss = self.team.sums(own, sum(loss for loss, _ in results))
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(items, gradients[0].to(items.dtype))
        for p, gradient in zip(inner, gradients[1:], strict=True):
            p.grad = gradient
        torch.nn.utils.clip_grad_norm_(network.parameters(), self.settings.gradient_norm)
        self.optimizer.step()
        return loss

    def _loss(
        self, batch: Batch, items: torch.Tensor, drawn: I64, expected: F32, seed: tuple[int, ...]
    ) -> torch.Tensor:
        """The summed loss of the tokens of a shard; ``items`` and ``expected`` are those of this step."""
        s = self.settings
        arrays = (self.local[batch.rows], self.local[batch.targets], batch.places)
        extra = [torch.from_numpy(a).to(self.device) for a in (batch.gaps, batch.strengths, batch.kinds)]
        rows, targets, places, negatives, log_expected = (
            torch.from_numpy(a).to(self.device) for a in (*arrays, drawn, expected)
        )
        parts = parts_of(batch.lengths, self.device)
        with self._precision():
            states = self.network(items, rows, places, parts, *extra, Dropout(s.dropout, *seed, 1))
        return sampled_softmax(states.float(), items, targets, negatives, log_expected, s.temperature)

    def _precision(self) -> Any:
        return torch.autocast("cuda", torch.bfloat16, enabled=self.device == "cuda")

    def _measure(self) -> float:
        """NDCG@10 of the held-out events among all items that are not in the history."""
        assert self.held is not None
        users = np.flatnonzero(np.diff(self.held.indptr))
        histories, targets = self.past.take(users), self.held.take(users)
        source = self._source()
        scores: F32 = queries(source, histories) @ source.vectors.T
        mine = scores[targets.users, targets.items]
        scores[histories.users, histories.items] = -np.inf
        rank = (scores[targets.users] >= mine[:, None]).sum(axis=1) - 1
        gain = np.where(rank < 10, 1 / np.log2(np.maximum(rank, 0) + 2), 0.0)
        ideal = np.cumsum(1 / np.log2(np.arange(2, 12)))[np.minimum(np.diff(targets.indptr), 10) - 1]
        return float((np.bincount(targets.users, gain, len(users)) / ideal).mean())

    def _source(self) -> SequenceSource:
        s = self.settings
        with torch.no_grad():
            vectors = self.network.items().float().cpu().numpy()
        return SequenceSource(
            s.name, np.ascontiguousarray(vectors, np.float32), None, s.backbone, s.heads, s.layers, s.length,
            self.epoch, self.network.exported(),
        )  # fmt: skip

    def finished(self) -> SequenceSource:
        """The source with the weights that were best on the holdout, or the last ones without one."""
        if self.best is not None:
            self.epoch = self.best_epoch
            with torch.no_grad():
                for name, p in self.parameters.items():
                    p.copy_(self.best[name])
        return self._source()

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """(arrays, numbers) from which the training can go on."""
        arrays = {f"now.{name}": p.detach() for name, p in self.parameters.items()}
        for name, p in self.parameters.items():
            arrays |= {f"{part}.{name}": self.optimizer.state[p][part] for part in ("exp_avg", "exp_avg_sq", "step")}
        arrays |= {f"best.{name}": p for name, p in (self.best or {}).items()}
        numbers = {"epoch": self.epoch, "best_epoch": self.best_epoch, "best_value": self.best_value}
        return {name: a.cpu().contiguous() for name, a in arrays.items()}, numbers

    def restore(self, saved: tuple[dict[str, Any], dict[str, Any]] | None) -> None:
        """Go on from what ``state`` gave; None: from the beginning."""
        if saved is None:
            return
        arrays, numbers = saved
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(arrays[f"now.{name}"])
                self.optimizer.state[p] = {
                    "step": arrays[f"step.{name}"].to(self.device),
                    **{part: arrays[f"{part}.{name}"].to(self.device) for part in ("exp_avg", "exp_avg_sq")},
                }
        if any(name.startswith("best.") for name in arrays):
            self.best = {name: arrays[f"best.{name}"].to(self.device) for name in self.parameters}
        self.epoch, self.best_epoch = int(numbers["epoch"]), int(numbers["best_epoch"])
        self.best_value = float(numbers["best_value"])
        log.info("[fit] sequential: goes on after epoch %d", self.epoch)


def _device(asked: str) -> str:
    if asked == "cuda" and not torch.cuda.is_available():
        reason = "torch sees no CUDA device"
        raise BackendUnavailable("sequential", "cuda", reason, "device='cpu', or torch with CUDA and its driver")
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return asked


def _schedule(done: float) -> float:
    """Share of the learning rate: linear warm-up, then a cosine to zero."""
    if done < _WARMUP:
        return max(done, 1e-4) / _WARMUP
    return 0.5 * (1 + math.cos(math.pi * (done - _WARMUP) / (1 - _WARMUP)))

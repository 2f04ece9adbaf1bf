"""Processes that train one network together: each computes some shards of every step, and the gradients are added up.

Every process holds the whole data and the whole network, draws the same random numbers and takes the same steps. A step
is that of a single process, batch and all: only the sums of gradients are taken in another order. Who wants the
processes starts them and calls ``torch.distributed.init_process_group`` before ``fit``, as
``fastrec.distributed.train`` does under torchrun.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, distributed

from fastrec.errors import ConfigError
from fastrec.types import I64


@dataclass(frozen=True)
class Team:
    """This process among ``size``; alone everything here does nothing."""

    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls) -> "Team":
        """The default process group of torch, or this process alone where there is none."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    def mine(self, count: int) -> range:
        """Numbers of the shards that this process computes."""
        return range(self.rank, count, self.size)

    def sums(self, tensors: Sequence[Tensor], loss: float) -> tuple[list[Tensor], float]:
        """The sums over the processes, the same bits for each of them."""
        if self.size == 1:
            return list(tensors), loss
        flat = torch.cat([t.reshape(-1) for t in tensors])
        distributed.all_reduce(flat)
        total = torch.tensor([loss], dtype=torch.float64, device=flat.device)
        distributed.all_reduce(total)
        parts = torch.split(flat, [t.numel() for t in tensors])
        return [part.view_as(t) for part, t in zip(parts, tensors, strict=True)], float(total)

    def same(self, tensors: Sequence[Tensor]) -> None:
        """Take over what the first process has: machines of other makes may round otherwise."""
        if self.size > 1:
            for t in tensors:
                distributed.broadcast(t, 0)

    def check(self, items: I64, indptr: I64, device: str) -> None:
        """ConfigError unless all processes have the same events: they would wait for one another for ever."""
        if self.size == 1:
            return
        sums = [zlib.crc32(np.ascontiguousarray(a).view(np.uint8).data) for a in (items, indptr)]
        own = torch.tensor([len(items), len(indptr), *sums], dtype=torch.int64, device=device)
        least, most = own.clone(), own.clone()
        distributed.all_reduce(least, distributed.ReduceOp.MIN)
        distributed.all_reduce(most, distributed.ReduceOp.MAX)
        if not torch.equal(least, most):
            raise ConfigError(
                f"[sequential] the {self.size} processes have other events (this one {len(items)}); expected the same "
                "input, settings and seed in each"
            )

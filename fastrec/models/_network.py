"""The transformer of ``fastrec.sequence`` as torch modules, for training. Its parameters have the names used there.

Sequences stand behind one another: [T, D] and no padding in any layer. Only the attention wants rectangles: sequences
are sorted by length, those of nearly the same length form a group, and what a group fills up no token ever sees,
because the attention is causal.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fastrec import ops
from fastrec.kinds import COUNT
from fastrec.ops import _triton
from fastrec.sequence import EPS, GAPS, STRENGTHS, feed_forward
from fastrec.types import I64

#: Share of a group that may be filling.
_FILLING = 0.15


@dataclass(frozen=True, eq=False)
class Group:
    """S sequences in tokens first .. last - 1; places: int64, where each token stands in [S * longest], None: as is."""

    first: int
    last: int
    S: int
    longest: int
    places: Tensor | None


@dataclass(frozen=True, eq=False)
class Packed:
    """Sequences for an attention that needs no rectangles. cu: int64 [S + 1], on the host"""

    cu: I64


def parts_of(lengths: I64, device: str) -> "list[Group] | Packed":
    """What ``attention`` takes: rectangles, or where Triton runs the sequences as they are."""
    if device == "cpu" or _triton.missing() is not None:
        return groups(lengths, device)
    return Packed(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def groups(lengths: I64, device: str = "cpu") -> list[Group]:
    """Groups of neighbours in ``lengths`` (descending) for the attention."""
    found, start, first = [], 0, 0
    while start < len(lengths):
        longest = int(lengths[start])
        totals = np.cumsum(lengths[start:])
        # All that fill the rectangle well enough, seen from the first; at least one does.
        good = totals >= (1 - _FILLING) * longest * np.arange(1, len(totals) + 1)
        S = int(np.flatnonzero(good)[-1]) + 1
        mine = lengths[start : start + S]
        tokens = int(totals[S - 1])
        places = None
        if tokens < S * longest:
            begin = np.cumsum(mine) - mine
            index = np.arange(tokens) + np.repeat(np.arange(S) * longest - begin, mine)
            places = torch.from_numpy(index).to(device)
        found.append(Group(first, first + tokens, S, longest, places))
        start, first = start + S, first + tokens
    return found


def attention(q: Tensor, kv: Tensor, heads: int, parts: list[Group] | Packed) -> Tensor:
    """Causal attention within every sequence, [T, D]."""
    D = q.shape[1]
    if isinstance(parts, Packed):
        one, key, value = (x.view(len(x), heads, D // heads) for x in (q, *kv.chunk(2, dim=1)))
        out: Tensor = ops.attention_varlen(one, key, value, parts.cu, causal=True)
        return out.reshape(len(q), D)
    if not parts:
        return torch.empty_like(q)
    attended_by_group = []
    sizes = [g.last - g.first for g in parts]
    # split, not slices: the gradients of slices are full of zeros and have to be added up.
    for g, query, pair in zip(parts, torch.split(q, sizes), torch.split(kv, sizes), strict=True):
        arrays = [query, *pair.chunk(2, dim=1)]
        if g.places is not None:
            arrays = [a.new_zeros(g.S * g.longest, D).index_copy(0, g.places, a) for a in arrays]
        one, key, value = (a.reshape(g.S, g.longest, heads, D // heads).transpose(1, 2) for a in arrays)
        attended = functional.scaled_dot_product_attention(one, key, value, is_causal=True)
        attended = attended.transpose(1, 2).reshape(-1, D)
        attended_by_group.append(attended if g.places is None else attended.index_select(0, g.places))
    return torch.cat(attended_by_group) if len(attended_by_group) != 1 else attended_by_group[0]


def _swiglu(ab: Tensor, parts: list[Group] | Packed) -> Tensor:
    """silu(a) * b for a beside b."""
    if isinstance(parts, Packed):
        out: Tensor = ops.swiglu(ab)
        return out
    a, b = ab.chunk(2, dim=1)
    return functional.silu(a) * b


class Dropout:
    """Dropout whose numbers depend on ``seed`` alone: a training that goes on after a kill draws the same ones.

    One object for each forward pass: several run at once.
    """

    def __init__(self, rate: float, *seed: int) -> None:
        self.closed = round(256 * rate)
        self._random = np.random.Generator(np.random.SFC64(seed))

    def __call__(self, x: Tensor) -> Tensor:
        if self.closed == 0:
            return x
        # Random bytes cost a tenth of random floats; the rate is a multiple of 1/256 then.
        words = self._random.integers(0, 2**64, -(-x.numel() // 8), np.uint64, endpoint=False)
        drawn = torch.from_numpy(words.view(np.uint8)[: x.numel()]).to(x.device)
        mask = (drawn >= self.closed).to(x.dtype).mul_(256 / (256 - self.closed))
        return x * mask.view(x.shape)


class Block(nn.Module):
    """One layer of "ligr" or "sasrec"."""

    def __init__(self, backbone: str, width: int, heads: int) -> None:
        super().__init__()
        self.backbone, self.heads = backbone, heads
        hidden = feed_forward(backbone, width)
        self.norm1, self.norm2 = nn.LayerNorm(width, EPS), nn.LayerNorm(width, EPS)
        self.q, self.kv, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.up = nn.Linear(width, 2 * hidden if backbone == "ligr" else hidden)
        self.down = nn.Linear(hidden, width)
        if backbone == "ligr":
            self.gate1, self.gate2 = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, parts: list[Group] | Packed, drop: Dropout) -> Tensor:
        normed = self.norm1(x)
        if self.backbone == "sasrec":
            y = normed + drop(self.out(attention(self.q(normed), self.kv(x), self.heads, parts)))
            z = self.norm2(y)
            out: Tensor = z + drop(self.down(drop(functional.relu(self.up(z)))))
            return out
        attended = self.out(attention(self.q(normed), self.kv(normed), self.heads, parts))
        y = x + torch.sigmoid(self.gate1(x)) * drop(attended)
        out = y + torch.sigmoid(self.gate2(y)) * drop(self.down(_swiglu(self.up(self.norm2(y)), parts)))
        return out


class Gpt2Block(nn.Module):
    """A layer of transformers' GPT2Model with our attention."""

    def __init__(self, layer: Any, heads: int) -> None:
        super().__init__()
        self.layer, self.heads = layer, heads

    def forward(self, x: Tensor, parts: list[Group] | Packed, drop: Dropout) -> Tensor:
        own = self.layer
        q, kv = own.attn.c_attn(own.ln_1(x)).split([x.shape[1], 2 * x.shape[1]], dim=1)
        y = x + drop(own.attn.c_proj(attention(q, kv, self.heads, parts)))
        out: Tensor = y + drop(own.mlp(own.ln_2(y)))
        return out


#: Names of GPT-2's layers here.
_GPT2 = {"norm1": "ln_1", "out": "attn.c_proj", "norm2": "ln_2", "up": "mlp.c_fc", "down": "mlp.c_proj"}


class Network(nn.Module):
    """Item vectors and transformer.

    texts: float32 [N, E] or None; seen: bool [N], items with an event: the others have no delta of their own
    """

    def __init__(
        self,
        backbone: str,
        width: int,
        layers: int,
        heads: int,
        length: int,
        gaps: bool,
        strengths: bool,
        kinds: bool,
        texts: Tensor | None,
        seen: Tensor,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.delta = nn.Parameter(torch.randn(len(seen), width) * (1.0 if texts is None else 0.1) * width**-0.5)
        self.texts, self.seen = texts, seen[:, None]
        self.project = None if texts is None else nn.Parameter(torch.randn(texts.shape[1], width) * width**-0.5)
        self.gain = nn.Parameter(torch.full((width,), width**0.5))
        self.positions = nn.Parameter(torch.randn(length, width) * 0.1)
        self.gaps = nn.Parameter(torch.zeros(GAPS, width)) if gaps else None
        self.strengths = nn.Parameter(torch.zeros(STRENGTHS, width)) if strengths else None
        self.kinds = nn.Parameter(torch.zeros(COUNT, width)) if kinds else None
        if backbone == "gpt2":
            blocks: list[nn.Module] = [Gpt2Block(layer, heads) for layer in _gpt2(width, layers, heads)]
        else:
            blocks = [Block(backbone, width, heads) for _ in range(layers)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, EPS)

    def items(self, rows: Tensor | None = None) -> Tensor:
        """The L2-normalised vectors of these items or of all, [N, D]; zero without events and without text."""
        delta: Tensor = self.delta
        seen, texts = self.seen, self.texts
        if rows is not None:
            delta, seen = delta.index_select(0, rows), seen.index_select(0, rows)
            texts = None if texts is None else texts.index_select(0, rows)
        vectors = delta * seen
        if texts is not None and self.project is not None:
            vectors = vectors + texts @ self.project
        return functional.normalize(vectors, dim=1, eps=1e-6)

    def forward(
        self,
        items: Tensor,
        rows: Tensor,
        places: Tensor,
        parts: list[Group] | Packed,
        gaps: Tensor,
        strengths: Tensor,
        kinds: Tensor,
        drop: Dropout,
    ) -> Tensor:
        """The normalised state behind every token, [T, D]; items: [N, D] as ``items()`` gives them."""
        x = functional.embedding(rows, items) * self.gain + functional.embedding(places, self.positions)
        for table, buckets in ((self.gaps, gaps), (self.strengths, strengths), (self.kinds, kinds)):
            if table is not None:
                x = x + functional.embedding(buckets, table)
        x = drop(x)
        for block in self.blocks:
            x = block(x, parts, drop)
        return functional.normalize(self.norm(x), dim=1)

    def exported(self) -> dict[str, Any]:
        """The parameters but those of the item vectors, as ``fastrec.sequence`` names them: numpy arrays, copies."""
        state = {k: v.detach().float().cpu() for k, v in self.state_dict().items() if k not in ("delta", "project")}
        if self.backbone == "gpt2":
            state = _renamed(state)
        return {name: np.array(value.numpy(), np.float32, order="C") for name, value in state.items()}


def _gpt2(width: int, layers: int, heads: int) -> Any:
    import transformers

    config = transformers.GPT2Config(
        vocab_size=1, n_positions=1, n_embd=width, n_layer=layers, n_head=heads, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return transformers.GPT2Model(config).h


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """GPT-2 keeps [inputs, outputs] and one matrix for q, k and v."""
    out = {name: value for name, value in state.items() if ".layer." not in name}
    for number in {name.split(".")[1] for name in state if ".layer." in name}:
        ours, theirs = f"blocks.{number}.", f"blocks.{number}.layer."
        for name, other in _GPT2.items():
            for part in ("weight", "bias"):
                value = state[f"{theirs}{other}.{part}"]
                out[f"{ours}{name}.{part}"] = value.T if value.ndim == 2 else value
        width = len(state["gain"])
        for part in ("weight", "bias"):
            qkv = state[f"{theirs}attn.c_attn.{part}"]
            qkv = qkv.T if qkv.ndim == 2 else qkv
            out[f"{ours}q.{part}"], out[f"{ours}kv.{part}"] = qkv[:width], qkv[width:]
    return out

"""The BERT family over packed tokens in plain torch, for installations without the native module.

    T tokens, D width, H heads

The linear layers see [T, D]; attention is ``ops.attention_varlen``, which falls back to torch as well.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastrec import ops
from fastrec.encode.families import Dense, Norm, Weights
from fastrec.types import PackedTokens


class PackedBert:
    """An encoder out of ``families.read``; shares its arrays. Safe to share between threads."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def forward(self, tokens: PackedTokens) -> Tensor:
        """Hidden states of the last layer, float32 [T, D]."""
        w = self._weights
        cu = tokens.cu_seqlens.astype(np.int64)
        places = np.arange(len(tokens.ids)) - np.repeat(cu[:-1], np.diff(cu))
        x_TD = torch.from_numpy(w.words[tokens.ids] + w.positions[places])
        x_TD = self._norm(w.norm, x_TD)
        kind = "tanh" if w.activation == "tanh" else "none"
        for layer in w.layers:
            qkv = _linear(layer.qkv, x_TD).view(len(x_TD), 3, w.heads, -1)
            attended = ops.attention_varlen(qkv[:, 0], qkv[:, 1], qkv[:, 2], cu, relative=w.relative)
            x_TD = self._norm(layer.norm1, x_TD + _linear(layer.out, attended.flatten(1)))
            inner = F.gelu(_linear(layer.up, x_TD), approximate=kind)
            x_TD = self._norm(layer.norm2, x_TD + _linear(layer.down, inner))
        return x_TD

    def _norm(self, norm: Norm, x_TD: Tensor) -> Tensor:
        rows = (torch.from_numpy(norm.weight), torch.from_numpy(norm.shift))
        return F.layer_norm(x_TD, (x_TD.shape[1],), *rows, self._weights.eps)


def _linear(dense: Dense, x: Tensor) -> Tensor:
    return F.linear(x, torch.from_numpy(dense.weight), torch.from_numpy(dense.bias))

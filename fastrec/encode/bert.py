"""The BERT family over packed tokens in torch: on CUDA, and for installations without the native module.

    T tokens, D width, H heads

The linear layers see [T, D]; attention, norms and activations are operators, which run in Triton on CUDA.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastrec import ops
from fastrec.encode.families import Dense, Norm, Weights
from fastrec.types import PackedTokens


class PackedBert:
    """An encoder out of ``families.read``; shares its arrays on the CPU. Safe to share between threads.

    device, dtype: where the weights go, and what the layers compute in; norms keep float32 weights
    """

    def __init__(self, weights: Weights, device: Any = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self._weights, self._device, self._dtype = weights, torch.device(device), dtype
        self._words, self._positions = self._put(weights.words), self._put(weights.positions)
        self._relative = None if weights.relative is None else self._put(weights.relative)
        self._norms = {id(n): (self._put(n.weight), self._put(n.shift)) for n in self._all(Norm)}
        self._denses = {id(d): (self._put(d.weight).to(dtype), self._put(d.bias)) for d in self._all(Dense)}

    def _put(self, array: Any) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _all(self, kind: type) -> list[Any]:
        w = self._weights
        parts = [w.norm, *(part for layer in w.layers for part in vars(layer).values())]
        return [part for part in parts if isinstance(part, kind)]

    def forward(self, tokens: PackedTokens) -> Tensor:
        """Hidden states of the last layer [T, D], on the device."""
        w = self._weights
        cu = tokens.cu_seqlens.astype(np.int64)
        places = np.arange(len(tokens.ids)) - np.repeat(cu[:-1], np.diff(cu))
        x_TD = self._words[self._put(tokens.ids.astype(np.int64))] + self._positions[self._put(places)]
        x_TD = self._norm(w.norm, x_TD.to(self._dtype))
        kind = "tanh" if w.activation == "tanh" else "erf"
        for layer in w.layers:
            qkv = self._linear(layer.qkv, x_TD).view(len(x_TD), 3, w.heads, -1)
            attended = ops.attention_varlen(qkv[:, 0], qkv[:, 1], qkv[:, 2], cu, relative=self._relative)
            x_TD = self._norm(layer.norm1, *self._product(layer.out, attended.flatten(1)), x_TD)
            inner = ops.bias_gelu(*self._product(layer.up, x_TD), kind=kind)
            x_TD = self._norm(layer.norm2, *self._product(layer.down, inner), x_TD)
        return x_TD

    def _norm(self, norm: Norm, x: Tensor, bias: Tensor | None = None, residual: Tensor | None = None) -> Tensor:
        out: Tensor = ops.add_layer_norm(
            x, *self._norms[id(norm)], bias=bias, residual=residual, eps=float(self._weights.eps)
        )
        return out

    def _linear(self, dense: Dense, x: Tensor) -> Tensor:
        weight, bias = self._denses[id(dense)]
        return F.linear(x, weight, bias.to(x.dtype))

    def _product(self, dense: Dense, x: Tensor) -> tuple[Tensor, Tensor]:
        """(product without the bias, bias): the operator that follows adds it."""
        weight, bias = self._denses[id(dense)]
        return F.linear(x, weight), bias

"""The BERT family in C++: groups of whole sequences go through all layers on one thread (csrc/encode_cpu.cpp)."""

import numpy as np

from fastrec import _native, config
from fastrec.encode.families import Dense, Weights
from fastrec.errors import ArtifactError
from fastrec.ops import _arrays
from fastrec.ops.packed_linear import KINDS, PackedLinear, pack_linear
from fastrec.types import F32, PackedTokens

_GELU = {"erf": 1, "tanh": 2}
_POOLINGS = {"mean": 0, "cls": 1, "lasttoken": 2}


class NativeEncoder:
    """Packed tokens in, pooled vectors out. Safe to share between threads.

    weights: kept for the embeddings and the norms; the linear layers are laid out anew
    precision: "fp32", "bf16x3", "int16", "bf16" or "int8", of the linear layers; everything else is float32
    pooling: "mean", "cls" or "lasttoken"

    Raises ArtifactError where weights are not finite.
    """

    def __init__(self, weights: Weights, precision: str, pooling: str, normalize: bool) -> None:
        self.precision, self._how = precision, (pooling, normalize)
        self._weights = weights  # their arrays must live as long as the addresses
        self._packed: list[PackedLinear] = []
        relative = weights.relative
        layers = [
            (
                *(self._linear(dense, precision) for dense in (layer.qkv, layer.out, layer.up, layer.down)),
                *(_native.ptr(a, np.float32) for n in (layer.norm1, layer.norm2) for a in (n.weight, n.shift)),
            )
            for layer in weights.layers
        ]
        self.dimension = weights.words.shape[1]
        self._model = _native.module("encode").EncoderModel(
            kind=KINDS[precision][0],
            D=self.dimension,
            heads=weights.heads,
            inner=len(weights.layers[0].up.bias) if weights.layers else 0,
            eps=weights.eps,
            activation=_GELU[weights.activation],
            pooling=_POOLINGS[pooling],
            normalize=normalize,
            words=_native.ptr(weights.words, np.float32),
            positions=_native.ptr(weights.positions, np.float32),
            weight=_native.ptr(weights.norm.weight, np.float32),
            shift=_native.ptr(weights.norm.shift, np.float32),
            relative=_native.ptr(relative, np.float32),
            reach=0 if relative is None else relative.shape[1] // 2 + 1,
            layers=layers,
        )

    def again(self, precision: str) -> "NativeEncoder":
        """The same model in another precision."""
        return NativeEncoder(self._weights, precision, *self._how)

    def _linear(self, dense: Dense, precision: str) -> tuple[int, ...]:
        if not np.isfinite(dense.weight).all():
            raise ArtifactError("[encode] the vectors are not finite: the weights of the model are damaged")
        self._packed.append(pack_linear(dense.weight, dense.bias, precision=precision))
        return self._packed[-1].address()

    def forward(self, tokens: PackedTokens) -> F32:
        """float32 [S, D]. The ids and lengths must be within the tables of the model."""
        cu = tokens.cu_seqlens.astype(np.int64)
        out = _arrays.empty((len(cu) - 1, self.dimension), np.float32)
        if not len(out):
            return out
        longest = int(np.diff(cu).max())
        if tokens.ids.min() < 0 or tokens.ids.max() >= len(self._weights.words) or np.diff(cu).min() < 1:
            raise ArtifactError("[encode] the tokenizer gives ids that the model does not have")
        if longest > len(self._weights.positions):
            raise ArtifactError(f"[encode] a text of {longest} tokens, the model has {len(self._weights.positions)}")
        self._model.encode(
            ids=_native.ptr(np.ascontiguousarray(tokens.ids), np.int32),
            cu=_native.ptr(cu, np.int64),
            S=len(out),
            out=_native.ptr(out, np.float32),
            threads=config.threads(),
            simd=_arrays.simd("encode"),
        )
        return out

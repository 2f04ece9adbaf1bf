"""Weights of the encoders of the BERT family, whatever transformers calls them.

    V words, P positions, D width, H heads

A model of the family adds word and position, normalises, and runs layers of attention and feed-forward with the
layer norm behind each residual. BERT, RoBERTa, XLM-R, CamemBERT, DistilBERT and MPNet differ by names, by their
first position and by MPNet's relative positions.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrec.types import F32

_ROBERTA = ("roberta", "xlm-roberta", "camembert")
_ACTIVATIONS = {"gelu": "erf", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}


@dataclass(frozen=True, eq=False)
class Dense:
    """weight [N, K], bias [N]."""

    weight: F32
    bias: F32


@dataclass(frozen=True, eq=False)
class Norm:
    """weight, shift [D]."""

    weight: F32
    shift: F32


@dataclass(frozen=True, eq=False)
class Layer:
    """qkv: [3 D, D] in the order q, k, v; norm1 stands behind ``out``, norm2 behind ``down``."""

    qkv: Dense
    out: Dense
    norm1: Norm
    up: Dense
    down: Dense
    norm2: Norm


@dataclass(frozen=True, eq=False)
class Weights:
    """Everything between the ids and the hidden states of the last layer.

    words: [V, D]
    positions: [P, D], the first position of a text first, with the vector of token type 0 in them
    relative: None, or [H, 2 R - 1]: added to the attention of query i and key j at [R - 1 + j - i]
    activation: "erf" or "tanh", of GELU
    """

    heads: int
    eps: float
    activation: str
    words: F32
    positions: F32
    norm: Norm
    layers: tuple[Layer, ...]
    relative: F32 | None = None


def reason_against(model: Any) -> str | None:
    """Why this model is none of the family; None where it is."""
    config = model.config
    if config.model_type not in ("bert", "distilbert", "mpnet", *_ROBERTA):
        return f"model type {config.model_type}"
    activation = getattr(config, "hidden_act", None) or getattr(config, "activation", None)
    if activation not in _ACTIVATIONS:
        return f"activation {activation}"
    if getattr(config, "position_embedding_type", None) not in (None, "absolute"):
        return f"position embedding {config.position_embedding_type}"
    return "a decoder" if getattr(config, "is_decoder", False) else None


def read(model: Any) -> Weights:
    """The weights of a transformers model that ``reason_against`` has nothing against, without a copy of the words."""
    if model.config.model_type == "distilbert":
        return _distilbert(model)
    return _mpnet(model) if model.config.model_type == "mpnet" else _bert(model)


def _bert(model: Any) -> Weights:
    config, e = model.config, model.embeddings
    first = config.pad_token_id + 1 if config.model_type in _ROBERTA else 0
    layers = []
    for layer in model.encoder.layer:
        own, output = layer.attention.self, layer.attention.output
        layers.append(
            Layer(
                qkv=_stacked(own.query, own.key, own.value),
                out=_dense(output.dense),
                norm1=_norm(output.LayerNorm),
                up=_dense(layer.intermediate.dense),
                down=_dense(layer.output.dense),
                norm2=_norm(layer.output.LayerNorm),
            )
        )
    types = _array(e.token_type_embeddings.weight)[0]  # every token has type 0
    return Weights(
        heads=config.num_attention_heads,
        eps=config.layer_norm_eps,
        activation=_ACTIVATIONS[config.hidden_act],
        words=_array(e.word_embeddings.weight),
        positions=_array(e.position_embeddings.weight)[first:] + types,
        norm=_norm(e.LayerNorm),
        layers=tuple(layers),
    )


def _distilbert(model: Any) -> Weights:
    config, e = model.config, model.embeddings
    return Weights(
        heads=config.n_heads,
        eps=e.LayerNorm.eps,
        activation=_ACTIVATIONS[config.activation],
        words=_array(e.word_embeddings.weight),
        positions=_array(e.position_embeddings.weight),
        norm=_norm(e.LayerNorm),
        layers=tuple(
            Layer(
                qkv=_stacked(layer.attention.q_lin, layer.attention.k_lin, layer.attention.v_lin),
                out=_dense(layer.attention.out_lin),
                norm1=_norm(layer.sa_layer_norm),
                up=_dense(layer.ffn.lin1),
                down=_dense(layer.ffn.lin2),
                norm2=_norm(layer.output_layer_norm),
            )
            for layer in model.transformer.layer
        ),
    )


def _mpnet(model: Any) -> Weights:
    import torch

    config, e, encoder = model.config, model.embeddings, model.encoder
    positions = _array(e.position_embeddings.weight)[e.padding_idx + 1 :]
    # The bucket of a distance is one row of the table of biases; all distances that can occur are looked up here.
    reach = len(positions)
    distances = torch.arange(-reach + 1, reach)
    buckets = encoder.relative_position_bucket(distances, num_buckets=config.relative_attention_num_buckets)
    table = _array(encoder.relative_attention_bias.weight)
    layers = []
    for layer in encoder.layer:
        own = layer.attention.attn
        layers.append(
            Layer(
                qkv=_stacked(own.q, own.k, own.v),
                out=_dense(own.o),
                norm1=_norm(layer.attention.LayerNorm),
                up=_dense(layer.intermediate.dense),
                down=_dense(layer.output.dense),
                norm2=_norm(layer.output.LayerNorm),
            )
        )
    return Weights(
        heads=config.num_attention_heads,
        eps=config.layer_norm_eps,
        activation=_ACTIVATIONS[config.hidden_act],
        words=_array(e.word_embeddings.weight),
        positions=positions,
        norm=_norm(e.LayerNorm),
        layers=tuple(layers),
        relative=np.ascontiguousarray(table[buckets.numpy()].T),
    )


def _array(tensor: Any) -> F32:
    out: F32 = np.ascontiguousarray(tensor.detach().cpu().numpy(), np.float32)
    return out


def _dense(module: Any) -> Dense:
    return Dense(_array(module.weight), _array(module.bias))


def _stacked(*modules: Any) -> Dense:
    return Dense(*(np.concatenate([_array(getattr(m, name)) for m in modules]) for name in ("weight", "bias")))


def _norm(module: Any) -> Norm:
    return Norm(_array(module.weight), _array(module.bias))

"""Decoders over packed tokens in torch, CPU or CUDA: GPT-2, and Llama, Qwen and Mistral with rotary positions and GQA.

    T tokens, D width, H heads, d dimensions of a head

The modules of transformers compute everything but the attention, which is ``ops.attention_varlen``: no padding token
is ever computed, and no key or value is repeated for the heads that share it.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastrec import ops
from fastrec.types import PackedTokens

TYPES = ("gpt2", "llama", "mistral", "qwen2", "qwen3")


class PackedDecoder:
    """The decoder of a transformers model of TYPES; shares its weights. Safe to share between threads."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._gpt2 = model.config.model_type == "gpt2"

    @staticmethod
    def reason_against(model: Any) -> str | None:
        """Why this model cannot run packed; None where it can."""
        config = model.config
        if config.model_type not in TYPES:
            return f"model type {config.model_type}"
        if config.model_type == "gpt2":
            odd = config.add_cross_attention or config.scale_attn_by_inverse_layer_idx or not config.scale_attn_weights
            return "attention other than GPT-2's own" if odd else None
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        window = getattr(config, "sliding_window", None) if config.model_type == "mistral" else None
        return "sliding windows of attention" if kinds != {"full_attention"} or window else None

    def forward(self, tokens: PackedTokens) -> Tensor:
        """Hidden states behind the last norm, float32 [T, D]."""
        cu = tokens.cu_seqlens.astype(np.int64)
        device = next(self._model.parameters()).device
        places_T = torch.from_numpy(np.arange(len(tokens.ids)) - np.repeat(cu[:-1], np.diff(cu))).to(device)
        ids_T = torch.from_numpy(tokens.ids.astype(np.int64)).to(device)
        return self._forward_gpt2(ids_T, places_T, cu) if self._gpt2 else self._forward_llama(ids_T, places_T, cu)

    def _forward_gpt2(self, ids_T: Tensor, places_T: Tensor, cu: Any) -> Tensor:
        model = self._model
        x_TD = model.wte(ids_T) + model.wpe(places_T)
        heads = model.config.n_head
        for layer in model.h:
            qkv = layer.attn.c_attn(layer.ln_1(x_TD)).view(len(x_TD), 3, heads, -1)
            attended = ops.attention_varlen(qkv[:, 0], qkv[:, 1], qkv[:, 2], cu, causal=True)
            x_TD = x_TD + layer.attn.c_proj(attended.flatten(1))
            x_TD = x_TD + layer.mlp(layer.ln_2(x_TD))
        out: Tensor = model.ln_f(x_TD)
        return out

    def _forward_llama(self, ids_T: Tensor, places_T: Tensor, cu: Any) -> Tensor:
        model = self._model
        x_TD = model.embed_tokens(ids_T)
        cos_Td, sin_Td = (a[0].unsqueeze(1) for a in model.rotary_emb(x_TD[None], places_T[None]))
        for layer in model.layers:
            own = layer.self_attn
            normed = layer.input_layernorm(x_TD)
            q, k, v = (part(normed).view(len(x_TD), -1, own.head_dim) for part in (own.q_proj, own.k_proj, own.v_proj))
            if hasattr(own, "q_norm"):
                q, k = own.q_norm(q), own.k_norm(k)
            q, k = (x * cos_Td + _turned(x) * sin_Td for x in (q, k))
            attended = ops.attention_varlen(q, k, v, cu, causal=True, scale=own.scaling)
            x_TD = x_TD + own.o_proj(attended.flatten(1))
            x_TD = x_TD + layer.mlp(layer.post_attention_layernorm(x_TD))
        out: Tensor = model.norm(x_TD)
        return out


def _turned(x: Tensor) -> Tensor:
    """The halves of the last axis as (-second, first)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)

"""The operators of FastRec, callable by themselves; ``CATALOGUE`` is what ``fastrec doctor`` prints."""

from fastrec.ops._cells import Cells
from fastrec.ops._op import REGISTRY as CATALOGUE
from fastrec.ops._screen import Screen
from fastrec.ops.add_layer_norm import add_layer_norm
from fastrec.ops.attention_varlen import attention_varlen
from fastrec.ops.bias_gelu import bias_gelu
from fastrec.ops.cooccurrence_topk import cooccurrence_topk
from fastrec.ops.fuse_features import fuse_features
from fastrec.ops.mmr import mmr
from fastrec.ops.pack_items import PackedItems, pack_items
from fastrec.ops.packed_linear import PackedLinear, pack_linear, packed_linear
from fastrec.ops.pool_normalize import pool_normalize
from fastrec.ops.sampled_softmax import sampled_softmax
from fastrec.ops.score_pairs import score_pairs
from fastrec.ops.score_std import score_std
from fastrec.ops.score_topk import score_topk
from fastrec.ops.segment_mean import segment_mean
from fastrec.ops.sparse_score_std import sparse_score_std
from fastrec.ops.swiglu import swiglu

__all__ = [
    "add_layer_norm",
    "attention_varlen",
    "bias_gelu",
    "CATALOGUE",
    "Cells",
    "cooccurrence_topk",
    "fuse_features",
    "mmr",
    "pack_items",
    "pack_linear",
    "packed_linear",
    "PackedItems",
    "PackedLinear",
    "pool_normalize",
    "sampled_softmax",
    "score_pairs",
    "score_std",
    "score_topk",
    "Screen",
    "segment_mean",
    "sparse_score_std",
    "swiglu",
]

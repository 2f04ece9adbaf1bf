"""The operators of FastRec, callable by themselves; ``CATALOGUE`` is what ``fastrec doctor`` prints."""

from fastrec.ops._op import REGISTRY as CATALOGUE
from fastrec.ops.pack_items import PackedItems, pack_items
from fastrec.ops.score_pairs import score_pairs
from fastrec.ops.score_std import score_std
from fastrec.ops.score_topk import score_topk
from fastrec.ops.segment_mean import segment_mean
from fastrec.ops.sparse_score_std import sparse_score_std

__all__ = [
    "CATALOGUE",
    "pack_items",
    "PackedItems",
    "score_pairs",
    "score_std",
    "score_topk",
    "segment_mean",
    "sparse_score_std",
]

"""Texts to vectors: one text per item, tokens without padding, a transformer, a cache on disk."""

from fastrec.encode.adapters import as_encoder
from fastrec.encode.encoder import Encoder
from fastrec.encode.items import embed_items, texts_of
from fastrec.encode.text import item_texts
from fastrec.encode.tuning import Tuning

__all__ = ["as_encoder", "embed_items", "Encoder", "item_texts", "texts_of", "Tuning"]

"""Texts to vectors: one text per item, tokens without padding, a transformer, a cache on disk."""

from fastrec.encode.adapters import as_encoder
from fastrec.encode.encoder import Encoder
from fastrec.encode.items import embed_items, texts_of
from fastrec.encode.media import KINDS, MediaEncoder, as_media, embed_media, embed_new_media, without_media
from fastrec.encode.text import item_texts
from fastrec.encode.tuning import Tuning

__all__ = [
    "as_encoder",
    "as_media",
    "embed_items",
    "embed_media",
    "embed_new_media",
    "Encoder",
    "item_texts",
    "KINDS",
    "MediaEncoder",
    "texts_of",
    "Tuning",
    "without_media",
]
